"""The methods of the paper by name: how each is fitted on labelled images, and how it reconstructs.

All but `rml`, the field's own method, and `unet` run in the same Plug-and-Play loop, with a bank of priors. After a
colon stands a prior (`single:ffdnet`), a number (`top:2`), or a resolution (`a:image`, `oracle:8`). Here those that
learn nothing from labels but their settings; `fitted` has the others.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fusionlib import files, zoo
from fusionlib.fusion import FusedPrior
from fusionlib.gates import Consensus, average
from fusionlib.heldout import PerImage, held_out_weights
from fusionlib.interferometer import S_REF, Interferometer
from fusionlib.mace import mace
from fusionlib.metrics import blur
from fusionlib.networks import WEIGHTS, trained
from fusionlib.oracles import Oracle
from fusionlib.paper import fitted, learned, varied
from fusionlib.paper.method import Array, Fitted, Method, Settings, always, cell, sigmas_of
from fusionlib.pnp import Reconstruction, hqs
from fusionlib.rml import rml
from fusionlib.sky import NPIX

RML_PRIOR = (0.6, learned.WINDOW)  # its prior image: flux [Jy], width [microarcseconds]
FOLDS = 4  # of scans, for weights by held-out visibilities
HQS_SETTINGS, RML_SETTINGS = ("sigma_max", "sigma_min", "lam"), ("entropy", "tv", "tsv", "l1")
SETTINGS = {
    "rml": RML_SETTINGS,
    "unet": ("steps",),
    **dict.fromkeys(("denoiser", "finetuned"), (*HQS_SETTINGS, "steps")),
}


def settings_of(name: str) -> tuple[str, ...]:
    """Names of the settings of a method. Raises ValueError for a method there is not."""
    kind = name.partition(":")[0]
    if kind not in MAKERS:
        raise ValueError(f"unknown method {name!r}; known are {sorted(MAKERS)}")
    return SETTINGS.get(kind, HQS_SETTINGS)


def make(name: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The method `name` with its priors loaded."""
    settings_of(name)
    kind, _, argument = name.partition(":")
    return MAKERS[kind](argument, priors, steps, device)


def code(name: str) -> str:
    """Hash of what makes a method: the functions of `paper` that make it, and the modules it uses."""
    kind = name.partition(":")[0]
    weights = [files.sha256(WEIGHTS / "sky.safetensors")] if kind == "ceiling" else []
    return files.digest([_MAKER_CODE[kind], *(_CODE[module] for module in USES[kind]), *weights])


def resolution(name: str) -> str:
    """What shares a weight in a method: `image`, `pixel`, or a number of pixels."""
    kind, _, argument = name.partition(":")
    if kind in ("consensus", "a_meta", "b_meta", "b_separate", *learned.PARTS):
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


MAKERS: dict[str, Callable[[str, tuple[str, ...], int, torch.device], Method]] = {
    "single": _single,
    "average": _average,
    "rml": _rml,
    "consensus": _consensus,
    "mace": _mace,
    "heldout": _heldout,
    "oracle": _oracle,
    "ceiling": _ceiling,
    **fitted.MAKERS,
}
USES: dict[str, tuple[str, ...]] = {
    "single": ("pnp",),
    "average": ("pnp", "gates"),
    "rml": ("rml",),
    "consensus": ("pnp", "gates"),
    "mace": ("mace",),
    "heldout": ("pnp", "heldout"),
    "oracle": ("pnp", "oracles"),
    "ceiling": ("pnp", "networks"),
    **fitted.USES,
}
# now, so that it is the code in memory that names results
_CODE = {name: files.code_hash(name) for modules in USES.values() for name in modules}
_SHARED = [files.code_alone("paper.method"), repr((RML_PRIOR, FOLDS))]
_MAKER_CODE = {
    kind: [*_SHARED, fitted.code(kind) if kind in fitted.MAKERS else files.function_hash("paper.methods", f"_{kind}")]
    for kind in MAKERS
}
