"""The methods of the paper by name: how each is fitted on labelled images, and how it reconstructs.

All but `rml`, the field's own method, and `unet` run in the same Plug-and-Play loop, with a bank of priors. After a
colon stands a prior (`single:ffdnet`), a number (`top:2`), or a resolution (`a:image`, `oracle:8`). Those that learn
nothing from labels but their settings are made here.
"""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib.fitting import MetaConfig, PerImage, held_out_weights
from fusionlib.fusion import FusedPrior
from fusionlib.gates import RESIDUALS, Consensus, Oracle, average
from fusionlib.interferometer import S_REF, Interferometer
from fusionlib.metrics import blur
from fusionlib.paper.methods import closed_form, gradient, rivals, variants
from fusionlib.paper.methods.method import (
    HQS_SETTINGS,
    NO_IMAGES,
    Array,
    Entry,
    Fitted,
    Images,
    Method,
    OracleMethod,
    Settings,
    always,
    cell,
    frozen,
    is_network,
    joined,
    plugged,
    sigmas_of,
)
from fusionlib.pnp import Reconstruction, hqs, mace
from fusionlib.priors import trained, zoo
from fusionlib.rml import rml
from fusionlib.sky import NPIX

RML_PRIOR = (0.6, gradient.WINDOW)  # its prior image: flux [Jy], width [microarcseconds]
FOLDS = 4  # of scans, for weights by held-out visibilities


def entry(name: str) -> Entry:
    """The line of METHODS for a method. Raises ValueError for one there is not."""
    kind = name.partition(":")[0]
    if kind not in METHODS:
        raise ValueError(f"unknown method {name!r}; known are {sorted(METHODS)}")
    return METHODS[kind]


def make(name: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method | OracleMethod:
    """The method `name` with its priors loaded."""
    return entry(name).make(name.partition(":")[2], priors, steps, device)


def identity(name: str) -> list[Any]:
    """What names a method in a record: its kind and version, and the hash of a network of its own."""
    kind = name.partition(":")[0]
    own = PRIORS_OF_THEIR_OWN.get(kind)
    return [kind, entry(name).version, *([zoo.weights_hash(own)] if own else [])]


def resolution(name: str) -> str:
    """What shares a weight in a method: `image`, `pixel`, or a number of pixels."""
    told = entry(name).resolution
    return told if told != "argument" else name.partition(":")[2].partition("/")[0] or "pixel"


def label(name: str) -> str:
    """A method in words."""
    kind, _, argument = name.partition(":")
    if kind in ("single", "best_single"):
        return zoo.label(argument) if argument else "best single prior"
    if name == "oracle:affine":
        return "oracle, weights per image"
    return _filled(entry(name).label, kind, argument)


def _filled(words: str, kind: str, argument: str) -> str:
    """A label with what stands after the colon."""
    first, _, second = (argument or "pixel").partition("/")
    if kind != "top":
        first = {"coarse": "coarse to fine"}.get(first, f"{first} px" if first.isdigit() else first)
    return words.format(first, second)


def short(name: str) -> str:
    """The name of a prior or method where there is little room."""
    kind, _, argument = name.partition(":")
    if is_network(name):
        return entry(name).short
    if kind not in METHODS or kind == "single":
        return zoo.short(name.removeprefix("single:"))
    words = entry(name).short
    return _filled(words, kind, argument) if words and (not argument or "{" in words) else label(name)


def color(name: str) -> str:
    """The colour of a method, the same in every figure."""
    kind, _, argument = name.partition(":")
    if kind in ("single", "best_single"):
        return zoo.color(argument) if argument else "#000000"
    return SHADES.get(name) or entry(name).color


def _single(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return always(zoo.load(argument).to(device), steps, "single", 1)


def _average(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    bank = frozen(priors, device)

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        return FusedPrior(joined(bank, images), average(len(priors))).to(device)

    return plugged(prior, steps, "baseline", len(bank))


def _consensus(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    prior = FusedPrior(zoo.bank(priors), Consensus(cell(argument) or NPIX)).to(device)
    return always(prior, steps, "baseline", len(priors))


def _mace(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    bank = zoo.bank(priors).to(device)

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        return mace(y, array, bank, sigmas=sigmas_of(s, steps), lam=s["lam"], start=start)

    return Method(run, "baseline", len(priors))


def _heldout(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Weights per image by how well each prior alone predicts scans held out: no label is used."""
    bank = zoo.bank(priors).to(device)

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        if not isinstance(array, Interferometer):
            raise ValueError("heldout: calibrated visibilities are needed")
        sigmas, began = sigmas_of(s, steps), time.perf_counter()
        w = held_out_weights(bank, array, y, sigmas=sigmas, lam=s["lam"], window=RML_PRIOR[1], folds=FOLDS)
        result = hqs(y, array, FusedPrior(bank, PerImage(w)), sigmas=sigmas, lam=s["lam"], start=start)
        return result._replace(seconds=time.perf_counter() - began)

    return Method(run, "baseline", (FOLDS + 1) * len(priors))


def _ceiling(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A denoiser trained on the sky itself, 10,000 simulated images of it: in no bank, a bound of a kind."""
    return always(trained("sky").to(device), steps, "ceiling", 1)


def _rml(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        flux, width = RML_PRIOR
        prior = torch.zeros(1, 1, array.npix, array.npix)
        middle = slice(array.npix // 2 - 1, array.npix // 2 + 1)
        prior[:, :, middle, middle] = flux / S_REF / 4
        return rml(y, array, s, prior=blur(prior, width), start=start, steps=steps)

    return Method(run, "baseline", 0)


def _oracle(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> OracleMethod:
    """`argument`: `image`, `affine` (weights per image), `pixel`, or the side of a patch in pixels."""
    bank = zoo.bank(priors).to(device)
    side = (cell(argument) if argument != "affine" else None) or NPIX

    def seeing(truth: Tensor) -> Method:
        return always(Oracle(bank, truth, side, affine=argument == "affine"), steps, "oracle", len(priors))

    return OracleMethod(seeing, "oracle", len(priors))


_SIMPLEX, _AFFINE = (partial(closed_form.solved, closed_form.static(simplex), "baseline") for simplex in (True, False))
_control = partial(partial, closed_form.control)
_learned = partial(Entry, grid="learned", resolution="argument", seconds=40.0)
_solved = partial(Entry, grid="fitted", resolution="pixel")
_TRAINED = (*HQS_SETTINGS, "steps")
METHODS: dict[str, Entry] = {
    "single": Entry(_single, "{}"),
    "average": Entry(_average, "average of the bank", "#D55E00", short="average"),
    "rml": Entry(_rml, "RML", "#8C510A", "rml", priors="none", settings=("entropy", "tv", "tsv", "l1")),
    "consensus": Entry(_consensus, "consensus vote", "#BF812D", "fitted", "argument"),
    "mace": Entry(_mace, "MACE", "#7F6000", "fitted"),
    "heldout": Entry(_heldout, "held-out visibilities", "#C7B35A", "fitted", short="held-out"),
    "oracle": Entry(_oracle, "oracle, prior per {}", grid="fitted", short="oracle, {}"),
    "ceiling": Entry(_ceiling, "ceiling: trained on the sky", "#000000", short="ceiling"),
    "static_simplex": Entry(_SIMPLEX, "static weights, simplex", "#B2912F", "fitted", short="static, simplex"),
    "static_affine": Entry(_AFFINE, "static weights, affine", "#DA5526", "fitted", short="static, affine"),
    "closed_form": _solved(
        closed_form.closed_form, "closed form, {} (ours)", "#B30059", resolution="argument", short="closed form"
    ),
    "closed_residuals": _solved(
        partial(closed_form.closed_form, more=RESIDUALS),
        "closed form, data residuals (ours)",
        "#67001F",
        resolution="argument",
        short="data residuals",
        version=2,
    ),
    "closed_expert": _solved(
        closed_form.closed_expert, "expert choice, {1} of {0}, closed form", "#980043", resolution="argument"
    ),
    "cost_pruned": _solved(closed_form.cost_pruned, "closed form, price {} (ours)", "#DD1C77"),
    "unrolled": _solved(
        partial(closed_form.solved, closed_form.unrolled(), "fused"),
        "closed form, unrolled (ours)",
        "#7A0177",
        short="unrolled",
        grid="learned",
    ),
    "csnet": Entry(
        partial(closed_form.solved, closed_form.csnet(), "baseline"),
        "CsNet, linear estimates",
        "#A6761D",
        "fitted",
        short="CsNet",
    ),
    "single_identity": Entry(
        _control(closed_form.static(False), closed_form.with_identity),
        "best prior + identity",
        "#5AB4AC",
        "fitted",
        priors="two",
    ),
    "noise_levels": Entry(
        _control(closed_form.static(False), closed_form.at_levels),
        "best prior at 6 noise levels",
        "#01665E",
        "fitted",
        priors="two",
    ),
    "closed_single": _solved(
        _control(closed_form.closed(), closed_form.with_identity),
        "closed form: best + identity",
        "#80CDC1",
        short="best + identity",
        priors="two",
    ),
    "closed_levels": _solved(
        _control(closed_form.closed(), closed_form.at_levels),
        "closed form: best, 6 levels",
        "#35978F",
        short="best, 6 levels",
        priors="two",
    ),
    "closed_union": _solved(
        closed_form.union, "closed form, bank + levels (ours)", "#49006A", short="bank + levels", priors="two"
    ),
    "started": _solved(rivals.started, "closed form, started", "#8C96C6", grid="started", version=2),
    "switched": _solved(rivals.switched, "closed form, switched", "#6E016B", short="switch", version=2),
    "stacked": _solved(rivals.stacked, "closed form, stacked", "#88419D", short="stacked", version=2),
    "a": _learned(partial(gradient.learned, gradient.strategy_a), "A, {}", "#1F78B4"),
    "b": _learned(partial(gradient.learned, gradient.strategy_b), "B, {}", "#33A02C"),
    "c": _learned(partial(gradient.learned, gradient.strategy_c, objective=variants.PEERS), "C, {}", "#FF7F00"),
    "mgpf": _learned(partial(gradient.learned, gradient.strategy_mgpf), "MGPF, {}", "#6A51A3"),
    "gradient": _learned(partial(gradient.learned, gradient.free), "gradient, {} (ours)", "#E7298A"),
    "b_separate": _learned(
        partial(gradient.learned, gradient.strategy_b, separate=True), "B, {}, gate first", "#238443"
    ),
    "expert": _learned(gradient.expert, "expert choice, {1} of {0}", "#6A51A3"),
    "top": _learned(gradient.top, "top {} of strategy A", "#666666", resolution="image"),
    "top_p": _learned(gradient.nucleus, "A, {0}, p = {1}", "#41B6C4"),
    "a_meta": _learned(
        partial(gradient.learned, gradient.strategy_a, course=MetaConfig()), "A, {}, meta-learned", "#08306B"
    ),
    "b_meta": _learned(
        partial(gradient.learned, gradient.strategy_b, course=MetaConfig()), "B, {}, meta-learned", "#00441B"
    ),
    "lora": _learned(
        gradient.low_rank, "plain routing + LoRA", "#8C6D31", short="LoRA", resolution="image", seconds=1000.0
    ),
    "denoiser": Entry(
        partial(gradient.denoiser, False),
        "denoiser from labels alone",
        "#4D4D4D",
        "denoiser",
        short="denoiser",
        priors="none",
        seconds=1200.0,
        settings=_TRAINED,
    ),
    "finetuned": Entry(
        partial(gradient.denoiser, True),
        "best prior, fine-tuned",
        "#333333",
        "finetuned",
        priors="network",
        seconds=40.0,
        settings=_TRAINED,
    ),
    "unet": Entry(
        gradient.unet,
        "end-to-end U-Net",
        "#1A1A1A",
        "unet",
        priors="none",
        seconds=1200.0,
        short="U-Net",
        settings=("steps",),
    ),
    **variants.VARIANTS,
}
SHADES = {  # of methods that stand beside others of their kind
    "a:8": "#4A98C9", "a:16": "#3A8BC2", "a:4": "#5BA3D0", "a:pixel": "#6BAED6", "b:8": "#55B54C", "c:8": "#FF9933",
    "closed_form:coarse": "#67001F", "top:2": "#969696",
}  # fmt: skip
HEADLINE = (  # rows of the main table, beside the single priors: scored on all images, with all seeds
    *("average", "rml", "static_affine", "closed_single", "closed_levels", "denoiser", "finetuned", "unet", "ceiling"),
    *("a:image", "b:image", "c:image", "a:pixel", "closed_form", "closed_union"),
)
NOT_TRAINED = ("best", "shared", "whitening", "ridge", "kept", "threshold")  # found by a fit, but no parameters
PRIORS_OF_THEIR_OWN = {"ceiling": "sky"}  # networks that are in no bank
