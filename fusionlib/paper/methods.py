"""The methods of the paper by name: how each is fitted on labelled images, and how it reconstructs.

All but `rml`, the field's own method, and `unet` run in the same Plug-and-Play loop, with a bank of priors. After a
colon stands a prior (`single:ffdnet`), a number (`top:2`), or a resolution (`a:image`, `oracle:8`). Those that learn
nothing from labels but their settings are made here.
"""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionlib.fitting import Course, PerImage, held_out_weights
from fusionlib.fusion import FusedPrior
from fusionlib.gates import Consensus, Oracle, average
from fusionlib.interferometer import S_REF, Interferometer
from fusionlib.metrics import blur
from fusionlib.paper import learned, solved, varied
from fusionlib.paper.method import HQS_SETTINGS, Array, Entry, Fitted, Method, Settings, always, cell, sigmas_of
from fusionlib.pnp import Reconstruction, hqs, mace
from fusionlib.priors import trained, zoo
from fusionlib.rml import rml
from fusionlib.sky import NPIX

RML_PRIOR = (0.6, learned.WINDOW)  # its prior image: flux [Jy], width [microarcseconds]
FOLDS = 4  # of scans, for weights by held-out visibilities


def entry(name: str) -> Entry:
    """The line of METHODS for a method. Raises ValueError for one there is not."""
    kind = name.partition(":")[0]
    if kind not in METHODS:
        raise ValueError(f"unknown method {name!r}; known are {sorted(METHODS)}")
    return METHODS[kind]


def make(name: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The method `name` with its priors loaded."""
    return entry(name).make(name.partition(":")[2], priors, steps, device)


def identity(name: str) -> list[Any]:
    """What names a method in a record: its kind and version, and the hash of a network of its own."""
    kind = name.partition(":")[0]
    own = PRIORS_OF_THEIR_OWN.get(kind)
    return [kind, entry(name).version, *([zoo.weights_hash(own)] if own else [])]


def resolution(name: str) -> str:
    """What shares a weight in a method: `image`, `pixel`, or a number of pixels."""
    kind, _, argument = name.partition(":")
    if kind in ("consensus", "a_meta", "b_meta", "b_separate", "a", "b", "c", "mgpf", "gradient"):
        return argument
    if kind in varied.VARIANTS:
        return argument or "pixel"
    if kind in ("expert", "closed_expert", "top_p") or (kind == "closed_form" and argument):
        return argument.partition("/")[0]
    return "pixel" if kind.startswith("closed") or kind in ("unrolled", "priced") else "image"


def _single(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return always(zoo.load(argument).to(device), steps, "single", 1)


def _average(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    prior = FusedPrior(zoo.bank(priors), average(len(priors))).to(device)
    return always(prior, steps, "baseline", len(priors))


def _consensus(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    prior = FusedPrior(zoo.bank(priors), Consensus(cell(argument) or NPIX)).to(device)
    return always(prior, steps, "baseline", len(priors))


def _mace(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    bank = zoo.bank(priors).to(device)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        return mace(y, array, bank, sigmas=sigmas_of(s, steps), lam=s["lam"], start=start)

    return Method(run, "baseline", len(priors))


def _heldout(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Weights per image by how well each prior alone predicts scans held out: no label is used."""
    bank = zoo.bank(priors).to(device)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        if not isinstance(array, Interferometer):
            raise ValueError("heldout: calibrated visibilities are needed")
        sigmas, began = sigmas_of(s, steps), time.perf_counter()
        w = held_out_weights(bank, array, y, sigmas=sigmas, lam=s["lam"], window=RML_PRIOR[1], folds=FOLDS)
        found = hqs(y, array, FusedPrior(bank, PerImage(w)), sigmas=sigmas, lam=s["lam"], start=start)
        return found._replace(seconds=time.perf_counter() - began)

    return Method(run, "baseline", (FOLDS + 1) * len(priors))


def _ceiling(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A denoiser trained on the sky itself, 10,000 simulated images of it: in no bank, a bound of a kind."""
    return always(trained("sky").to(device), steps, "ceiling", 1)


def _rml(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        flux, width = RML_PRIOR
        prior = torch.zeros(1, 1, array.npix, array.npix)
        middle = slice(array.npix // 2 - 1, array.npix // 2 + 1)
        prior[:, :, middle, middle] = flux / S_REF / 4
        return rml(y, array, s, prior=blur(prior, width), start=start, steps=steps)

    return Method(run, "baseline", 0)


def _oracle(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """`argument`: `image`, `affine` (weights per image), `pixel`, or the side of a patch in pixels."""
    bank = zoo.bank(priors).to(device)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        side = (cell(argument) if argument != "affine" else None) or array.npix
        prior = Oracle(bank, truth, side, affine=argument == "affine")
        return hqs(y, array, prior, sigmas=sigmas_of(s, steps), lam=s["lam"], start=start)

    return Method(run, "oracle", len(priors))


METHODS: dict[str, Entry] = {
    "single": Entry(_single),
    "average": Entry(_average),
    "rml": Entry(_rml, settings=("entropy", "tv", "tsv", "l1")),
    "consensus": Entry(_consensus),
    "mace": Entry(_mace),
    "heldout": Entry(_heldout),
    "oracle": Entry(_oracle),
    "ceiling": Entry(_ceiling),
    "static_simplex": Entry(partial(solved.solved, solved.static(True), "baseline")),
    "static_affine": Entry(partial(solved.solved, solved.static(False), "baseline")),
    "closed_form": Entry(solved.closed_form),
    "closed_expert": Entry(solved.closed_expert),
    "priced": Entry(solved.priced),
    "unrolled": Entry(partial(solved.solved, solved.unrolled(), "fused")),
    "csnet": Entry(partial(solved.solved, solved.csnet(), "baseline")),
    "single_identity": Entry(partial(solved.control, solved.static(False), solved.with_identity)),
    "noise_levels": Entry(partial(solved.control, solved.static(False), solved.at_levels)),
    "closed_single": Entry(partial(solved.control, solved.closed(), solved.with_identity)),
    "closed_levels": Entry(partial(solved.control, solved.closed(), solved.at_levels)),
    "closed_union": Entry(solved.union),
    "a": Entry(partial(learned.learned, learned.strategy_a)),
    "b": Entry(partial(learned.learned, learned.strategy_b)),
    "c": Entry(partial(learned.learned, learned.strategy_c, objective=varied.PEERS)),
    "mgpf": Entry(partial(learned.learned, learned.strategy_mgpf)),
    "gradient": Entry(partial(learned.learned, learned.free)),
    "b_separate": Entry(partial(learned.learned, learned.strategy_b, separate=True)),
    "expert": Entry(learned.expert),
    "top": Entry(learned.top),
    "top_p": Entry(learned.nucleus),
    "a_meta": Entry(partial(learned.learned, learned.strategy_a, course=Course())),
    "b_meta": Entry(partial(learned.learned, learned.strategy_b, course=Course())),
    "lora": Entry(learned.low_rank),
    "denoiser": Entry(partial(learned.denoiser, False), settings=(*HQS_SETTINGS, "steps")),
    "finetuned": Entry(partial(learned.denoiser, True), settings=(*HQS_SETTINGS, "steps")),
    "unet": Entry(learned.unet, settings=("steps",)),
    **varied.VARIANTS,
}
NOT_TRAINED = ("best", "shared", "ellipsoid", "ridge", "kept")  # found by a fit, but no parameters
PRIORS_OF_THEIR_OWN = {"ceiling": "sky"}  # networks that are in no bank
