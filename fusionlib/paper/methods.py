"""The methods of the paper by name: how each is fitted on labelled images, and how it reconstructs.

`single:<prior>`, `average`, `static_simplex`, `static_affine`, `single_identity`, `noise_levels` and `oracle:<cell>`
run in the same Plug-and-Play loop, with a bank of priors; `rml` is the field's own method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import files, metrics, zoo
from fusionlib.closures import Uncalibrated
from fusionlib.fusion import FusedPrior
from fusionlib.gates import average
from fusionlib.interferometer import S_REF, Interferometer
from fusionlib.metrics import blur
from fusionlib.oracles import NoiseLevels, Oracle, Scheduled, fit_static
from fusionlib.pnp import Reconstruction, hqs, schedule
from fusionlib.priors import PriorBank
from fusionlib.rml import rml

Array = Interferometer | Uncalibrated
Settings = dict[str, float]
Fitted = dict[str, Tensor]
Data = Sequence[tuple[Array, Tensor, Any]]  # instrument, truth, data
RML_PRIOR = (0.6, 60.0)  # its prior image: flux [Jy], width [microarcseconds]
LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of one prior, in units of the loop's noise level
HQS_SETTINGS, RML_SETTINGS = ("sigma_max", "sigma_min", "lam"), ("entropy", "tv", "tsv", "l1")


@dataclass(frozen=True)
class Method:
    """`run(settings, fitted, array, y, truth, start)` reconstructs; `fit(settings, data)`, if any, learns from labels.

    Only oracles look at `truth`. `calls`: of priors, per image and iteration. `kind` as in the tables.
    """

    run: Callable[[Settings, Fitted, Array, Any, Tensor | None, Tensor | None], Reconstruction]
    kind: str
    calls: int
    fit: Callable[[Settings, Data], Fitted] | None = None


def settings_of(name: str) -> tuple[str, ...]:
    """Names of the settings of a method. Raises ValueError for a method there is not."""
    kind = name.partition(":")[0]
    if kind not in MAKERS:
        raise ValueError(f"unknown method {name!r}; known are {sorted(MAKERS)}")
    return RML_SETTINGS if kind == "rml" else HQS_SETTINGS


def make(name: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The method `name` with its priors loaded."""
    settings_of(name)
    kind, _, argument = name.partition(":")
    return MAKERS[kind](argument, priors, steps, device)


def code(name: str) -> str:
    """Hash of what makes a method: its maker here, and the modules it uses."""
    kind = name.partition(":")[0]
    return files.digest([_MAKER_CODE[kind], *(_CODE[module] for module in USES.get(kind, ("pnp", "gates", "oracles")))])


def _sigmas(s: Settings, steps: int) -> list[float]:
    return schedule(s["sigma_max"], s["sigma_min"], steps)


def _plug(prior: nn.Module, steps: int) -> Callable[..., Reconstruction]:
    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any = None, start: Any = None) -> Reconstruction:
        return hqs(y, array, prior, sigmas=_sigmas(s, steps), lam=s["lam"], start=start)

    return run


def _single(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return Method(_plug(zoo.load(argument).to(device), steps), "single", 1)


def _average(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    prior = FusedPrior(zoo.bank(priors), average(len(priors))).to(device)
    return Method(_plug(prior, steps), "baseline", len(priors))


def _rml(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        flux, width = RML_PRIOR
        prior = torch.zeros(1, 1, array.npix, array.npix)
        middle = slice(array.npix // 2 - 1, array.npix // 2 + 1)
        prior[:, :, middle, middle] = flux / S_REF / 4
        return rml(y, array, s, prior=blur(prior, width), start=start, steps=steps)

    return Method(run, "baseline", 0)


def _scheduled(bank: PriorBank, steps: int, simplex: bool, kind: str) -> Method:
    """Static weights per iteration, fitted along the trajectory."""

    def fit(s: Settings, data: Data) -> Fitted:
        return {"w": fit_static(bank, data, _sigmas(s, steps), s["lam"], simplex=simplex)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        prior = FusedPrior(bank, Scheduled(_sigmas(s, steps), fitted["w"]).to(y.device))
        return hqs(y, array, prior, sigmas=_sigmas(s, steps), lam=s["lam"], start=start)

    return Method(run, kind, len(bank), fit)


def _static_simplex(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _scheduled(zoo.bank(priors).to(device), steps, True, "baseline")


def _static_affine(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _scheduled(zoo.bank(priors).to(device), steps, False, "baseline")


def _of_the_best(priors: tuple[str, ...], steps: int, bank_of: Callable[[str], PriorBank]) -> Method:
    """Static affine weights over a bank made of the single prior that is best on the labelled images."""
    names = [name for name in priors if name != "identity"]

    def fit(s: Settings, data: Data) -> Fitted:
        scores = []
        for name in names:
            run = _plug(zoo.load(name).to(data[0][1].device), steps)
            found = [metrics.psnr(run(s, {}, array, y).image, x) for array, x, y in data]
            scores.append(float(torch.cat(found).mean()))
        best = max(range(len(names)), key=lambda k: scores[k])
        affine = _scheduled(bank_of(names[best]).to(data[0][1].device), steps, False, "control")
        assert affine.fit is not None
        return affine.fit(s, data) | {"best": torch.tensor(best)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        bank = bank_of(names[int(fitted["best"])]).to(y.device)
        return _scheduled(bank, steps, False, "control").run(s, fitted, array, y, truth, start)

    return Method(run, "control", len(bank_of(names[0])), fit)


def _single_identity(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _of_the_best(priors, steps, lambda name: zoo.bank([name, "identity"]))


def _noise_levels(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    def bank_of(name: str) -> PriorBank:
        levels = {f"{name} x {f}": NoiseLevels(zoo.load(name), f) for f in LEVELS}
        return PriorBank(levels | {"identity": zoo.load("identity")})

    return _of_the_best(priors, steps, bank_of)


def _oracle(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """`argument`: `image`, `affine` (weights per image), `pixel`, or the side of a patch in pixels."""
    bank = zoo.bank(priors).to(device)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        cell = {"image": array.npix, "affine": array.npix, "pixel": 1}.get(argument) or int(argument)
        prior = Oracle(bank, truth, cell, affine=argument == "affine")
        return hqs(y, array, prior, sigmas=_sigmas(s, steps), lam=s["lam"], start=start)

    return Method(run, "oracle", len(priors))


MAKERS: dict[str, Callable[[str, tuple[str, ...], int, torch.device], Method]] = {
    "single": _single,
    "average": _average,
    "rml": _rml,
    "static_simplex": _static_simplex,
    "static_affine": _static_affine,
    "single_identity": _single_identity,
    "noise_levels": _noise_levels,
    "oracle": _oracle,
}
USES = {"single": ("pnp",), "average": ("pnp", "gates"), "rml": ("rml",)}
# now, so that it is the code in memory that names results
_CODE = {name: files.code_hash(name) for name in ("pnp", "gates", "oracles", "rml")}
_SHARED = {"_sigmas", "_plug", "_scheduled", "_of_the_best"}
_MAKER_CODE = {
    kind: files.digest([files.function_hash("paper.methods", name) for name in sorted({maker.__name__, *_SHARED})])
    if kind != "rml"
    else files.function_hash("paper.methods", "_rml")
    for kind, maker in MAKERS.items()
}
