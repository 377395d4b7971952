"""The methods of the paper by name: how each is fitted on labelled images, and how it reconstructs.

All but `rml`, the field's own method, and `unet` run in the same Plug-and-Play loop, with a bank of priors. After a
colon stands a prior (`single:ffdnet`), a number (`top:2`), or a resolution (`a:image`, `oracle:8`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import adapters, files, metrics, zoo
from fusionlib.adapters import Residual
from fusionlib.closed_form import ClosedForm
from fusionlib.closures import Uncalibrated
from fusionlib.csnet import CsNet, fit_csnet
from fusionlib.fusion import FusedPrior
from fusionlib.gates import (
    Consensus,
    Cosine,
    Encoder,
    Learned,
    Linear,
    MultiGate,
    Router,
    Scheduled,
    Staged,
    Voter,
    affine,
    average,
    top_k,
)
from fusionlib.interferometer import S_REF, Interferometer
from fusionlib.learn import MSE, Objective, fit_closed_form, fit_gate
from fusionlib.mace import mace
from fusionlib.metrics import blur
from fusionlib.networks import WEIGHTS, trained
from fusionlib.oracles import NoiseLevels, Oracle, fit_static
from fusionlib.pnp import Reconstruction, hqs, schedule
from fusionlib.priors import PriorBank
from fusionlib.rml import rml
from fusionlib.sky import NPIX
from fusionlib.supervised import EndToEnd, fit_end_to_end, starts

Array = Interferometer | Uncalibrated
Settings = dict[str, float]
Fitted = dict[str, Tensor]
Data = Sequence[tuple[Array, Tensor, Any]]  # instrument, truth, data
RML_PRIOR = (0.6, 60.0)  # its prior image: flux [Jy], width [microarcseconds]
LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of one prior, in units of the loop's noise level
HQS_SETTINGS, RML_SETTINGS = ("sigma_max", "sigma_min", "lam"), ("entropy", "tv", "tsv", "l1")
UNET_SETTINGS = ("steps",)
NOT_TRAINED = ("best", "shared", "typical", "ridge")  # found by a fit, but no parameters
PLAIN = ("identity", "tv", "ffdnet", "sr", "srmd", "dncnn")  # priors that know no objects


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
    return {"rml": RML_SETTINGS, "unet": UNET_SETTINGS}.get(kind, HQS_SETTINGS)


def make(name: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The method `name` with its priors loaded."""
    settings_of(name)
    kind, _, argument = name.partition(":")
    return MAKERS[kind](argument, priors, steps, device)


def code(name: str) -> str:
    """Hash of what makes a method: its maker here, and the modules it uses."""
    kind = name.partition(":")[0]
    weights = [files.sha256(WEIGHTS / "sky.safetensors")] if kind == "ceiling" else []
    return files.digest([_MAKER_CODE[kind], *(_CODE[module] for module in PARTS[kind][1]), *weights])


def resolution(name: str) -> str:
    """What shares a weight in a method: `image`, `pixel`, or a number of pixels."""
    kind, _, argument = name.partition(":")
    return argument if kind in RESOLVED else "pixel" if kind.startswith("closed") else "image"


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


def _mace(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    bank = zoo.bank(priors).to(device)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        return mace(y, array, bank, sigmas=_sigmas(s, steps), lam=s["lam"], start=start)

    return Method(run, "baseline", len(priors))


def _ceiling(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A denoiser trained on the sky itself, 10,000 simulated images of it: in no bank, a bound of a kind."""
    return Method(_plug(trained("sky").to(device), steps), "ceiling", 1)


def _rml(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        flux, width = RML_PRIOR
        prior = torch.zeros(1, 1, array.npix, array.npix)
        middle = slice(array.npix // 2 - 1, array.npix // 2 + 1)
        prior[:, :, middle, middle] = flux / S_REF / 4
        return rml(y, array, s, prior=blur(prior, width), start=start, steps=steps)

    return Method(run, "baseline", 0)


def _fitted_gate(
    bank: PriorBank,
    steps: int,
    kind: str,
    fit: Callable[[list[float], float, Data], Fitted],
    gate: Callable[[list[float], Fitted], nn.Module],
    device: torch.device,
) -> Method:
    """A gate over `bank` that `fit` finds along the trajectory and `gate` makes of what was found."""

    def learn_it(s: Settings, data: Data) -> Fitted:
        return fit(_sigmas(s, steps), s["lam"], data)

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        prior = FusedPrior(bank, gate(_sigmas(s, steps), fitted)).to(device)
        return hqs(y, array, prior, sigmas=_sigmas(s, steps), lam=s["lam"], start=start)

    return Method(run, kind, len(bank), learn_it)


def _scheduled(bank: PriorBank, steps: int, simplex: bool, kind: str, device: torch.device) -> Method:
    """Static weights per iteration."""
    return _fitted_gate(
        bank,
        steps,
        kind,
        lambda sigmas, lam, data: {"w": fit_static(bank, data, sigmas, lam, simplex=simplex)},
        lambda sigmas, fitted: Scheduled(sigmas, fitted["w"]),
        device,
    )


def _static_simplex(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _scheduled(zoo.bank(priors).to(device), steps, True, "baseline", device)


def _static_affine(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _scheduled(zoo.bank(priors).to(device), steps, False, "baseline", device)


def _affine_control(bank: PriorBank, steps: int, device: torch.device) -> Method:
    return _scheduled(bank, steps, False, "control", device)


def _closed(bank: PriorBank, steps: int, kind: str, device: torch.device) -> Method:
    """Weights linear in local features, in closed form."""
    return _fitted_gate(
        bank,
        steps,
        kind,
        lambda sigmas, lam, data: fit_closed_form(bank, data, sigmas, lam),
        lambda sigmas, fitted: ClosedForm(torch.tensor(sigmas), fitted["theta"], fitted["typical"]),
        device,
    )


def _closed_form(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _closed(zoo.bank(priors).to(device), steps, "fused", device)


def _closed_control(bank: PriorBank, steps: int, device: torch.device) -> Method:
    return _closed(bank, steps, "control", device)


def _csnet(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    bank = zoo.bank(priors).to(device)
    return _fitted_gate(
        bank,
        steps,
        "baseline",
        lambda sigmas, lam, data: {"theta": fit_csnet(bank, data, sigmas, lam)},
        lambda sigmas, fitted: CsNet(torch.tensor(sigmas), fitted["theta"]),
        device,
    )


def _consensus(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    prior = FusedPrior(zoo.bank(priors), Consensus(_cell(argument) or NPIX)).to(device)
    return Method(_plug(prior, steps), "baseline", len(priors))


def best_single(s: Settings, data: Data, names: Sequence[str], steps: int, device: torch.device) -> int:
    """Number of the prior that is best alone on the labelled images."""
    scores = []
    for name in names:
        run = _plug(zoo.load(name).to(device), steps)
        found = [metrics.psnr(run(s, {}, array, y).image, x) for array, x, y in data]
        scores.append(float(torch.cat(found).mean()))
    return max(range(len(names)), key=lambda k: scores[k])


def _of_the_best(
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    bank_of: Callable[[str], PriorBank],
    weigh: Callable[[PriorBank, int, torch.device], Method],
) -> Method:
    """`weigh` over a bank made of the single prior that is best on the labelled images: a control."""
    names = [name for name in priors if name != "identity"]

    def fit(s: Settings, data: Data) -> Fitted:
        best = best_single(s, data, names, steps, device)
        inner = weigh(bank_of(names[best]).to(device), steps, device)
        assert inner.fit is not None
        return inner.fit(s, data) | {"best": torch.tensor(best)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        bank = bank_of(names[int(fitted["best"])]).to(device)
        return weigh(bank, steps, device).run(s, fitted, array, y, truth, start)

    return Method(run, "control", len(bank_of(names[0])), fit)


def _with_identity(name: str) -> PriorBank:
    return zoo.bank([name, "identity"])


def _levels_of(name: str) -> PriorBank:
    levels = {f"{name} x {f}": NoiseLevels(zoo.load(name), f) for f in LEVELS}
    return PriorBank(levels | {"identity": zoo.load("identity")})


def _single_identity(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _of_the_best(priors, steps, device, _with_identity, _affine_control)


def _noise_levels(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _of_the_best(priors, steps, device, _levels_of, _affine_control)


def _closed_single(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _of_the_best(priors, steps, device, _with_identity, _closed_control)


def _closed_levels(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _of_the_best(priors, steps, device, _levels_of, _closed_control)


# --- gates learned by gradient descent ---

Part = tuple[Learned, nn.Module | None]


def _cell(argument: str) -> int | None:
    """Pixels that share a weight, from the resolution in a method's name; None for the whole image."""
    if argument == "image":
        return None
    if argument != "pixel" and not argument.isdigit():
        raise ValueError(f"resolution must be image, pixel or a number of pixels, got {argument!r}")
    return 1 if argument == "pixel" else int(argument)


def _cosine(n: int, cell: int | None, shared: int | None = None) -> Router:
    encoder = Encoder(Router.maps, 16, cell)
    return Router(encoder, Cosine(encoder.channels, n), shared=shared)


def _strategy_a(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Cosine routing on the image, dense softmax."""
    return _cosine(len(priors), cell), None


def _strategy_b(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Output adapters, a shared prior with a null slot, cosine routing."""
    return _cosine(len(priors), cell, shared), Residual(len(priors))


def _strategy_c(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Peer voting on the outputs, with the diversity term."""
    return Voter(Encoder(Voter.maps, 16, cell)), None


def _strategy_mgpf(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """A gate for the priors that know no objects, one for those that do, one over the two."""
    plain = [k for k, name in enumerate(priors) if name in PLAIN]
    others = [k for k in range(len(priors)) if k not in plain]
    return MultiGate([group for group in (plain, others) if group], cell=cell), None


def _free(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Ours: linear routing with what the data say in view, weights free of sign that sum to one."""
    encoder = Encoder(Router.maps, 16, cell)
    return Router(encoder, Linear(encoder.channels, len(priors)), affine), None


def _learned(
    build: Callable[[tuple[str, ...], int | None, int], Part],
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    *,
    kind: str = "fused",
    objective: Objective = MSE,
    select: Callable[[Tensor], Tensor] | None = None,
) -> Method:
    """A gate, and adapters, per iteration, stored in half precision; `select` replaces the gate's own when used."""
    bank, cell = zoo.bank(priors).to(device), _cell(argument)

    def fit(s: Settings, data: Data) -> Fitted:
        shared = best_single(s, data, priors, steps, device)
        found = fit_gate(
            bank, data, _sigmas(s, steps), s["lam"], lambda: build(priors, cell, shared), objective=objective
        )
        state = {
            f"{k}.{which}.{name}": value.half()
            for k, part in enumerate(found)
            for which, module in zip(("gate", "adapters"), part, strict=True)
            if module is not None
            for name, value in module.state_dict().items()
        }
        return state | {"shared": torch.tensor(shared)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        parts = [build(priors, cell, int(fitted["shared"])) for _ in range(steps)]
        for k, part in enumerate(parts):
            for which, module in zip(("gate", "adapters"), part, strict=True):
                if module is not None:
                    prefix = f"{k}.{which}."
                    mine = {n.removeprefix(prefix): v.float() for n, v in fitted.items() if n.startswith(prefix)}
                    module.load_state_dict(mine)
            if select is not None:
                part[0].select = select  # type: ignore[assignment]
        adapted = [a for _, a in parts if a is not None]
        sigmas = _sigmas(s, steps)
        prior = FusedPrior(
            bank, Staged(sigmas, [g for g, _ in parts]), adapters.Staged(sigmas, adapted) if adapted else None
        )
        return hqs(y, array, prior.to(device), sigmas=sigmas, lam=s["lam"], start=start)

    return Method(run, kind, len(bank), fit)


def _a(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _learned(_strategy_a, argument, priors, steps, device)


def _b(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _learned(_strategy_b, argument, priors, steps, device)


def _c(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _learned(_strategy_c, argument, priors, steps, device, objective=Objective(diversity=1e-4))


def _mgpf(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _learned(_strategy_mgpf, argument, priors, steps, device)


def _gradient(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    return _learned(_free, argument, priors, steps, device)


def _top(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Strategy A's gate, learned densely (one selected prior gives no gradient), used with its k largest weights."""
    return _learned(
        _strategy_a, "image", priors, steps, device, kind="baseline", select=partial(top_k, k=int(argument))
    )


def _unet(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """No prior at all: a network from the data to the image."""

    def fit(s: Settings, data: Data) -> Fitted:
        net = fit_end_to_end(data, steps=int(s["steps"]))
        return {name: value.half() for name, value in net.state_dict().items()}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        net = EndToEnd().to(device)
        net.load_state_dict({name: value.float() for name, value in fitted.items()})
        began = time.perf_counter()
        with torch.inference_mode():
            image = net(starts(array, y))
        return Reconstruction(image, {"chi2": array.chi2(image, y)[None]}, time.perf_counter() - began)

    return Method(run, "supervised", 0, fit)


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
    "consensus": _consensus,
    "mace": _mace,
    "csnet": _csnet,
    "top": _top,
    "unet": _unet,
    "single_identity": _single_identity,
    "noise_levels": _noise_levels,
    "closed_single": _closed_single,
    "closed_levels": _closed_levels,
    "closed_form": _closed_form,
    "gradient": _gradient,
    "a": _a,
    "b": _b,
    "c": _c,
    "mgpf": _mgpf,
    "oracle": _oracle,
    "ceiling": _ceiling,
}
RESOLVED = ("consensus", "gradient", "a", "b", "c", "mgpf")  # whose argument is their resolution
# what a method uses of this module, and of the library
_LEARNED = ("_learned", "_cell", "_cosine", "best_single", "_strategy_a", "_strategy_b", "_strategy_c",
            "_strategy_mgpf", "_free")  # fmt: skip
_STATIC = (
    "_fitted_gate",
    "_scheduled",
    "_affine_control",
    "_of_the_best",
    "best_single",
    "_levels_of",
    "_with_identity",
)
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "single": ((), ("pnp",)),
    "average": ((), ("pnp", "gates")),
    "rml": ((), ("rml",)),
    "mace": ((), ("mace",)),
    "consensus": (("_cell",), ("pnp", "gates")),
    "csnet": (("_fitted_gate",), ("pnp", "csnet")),
    "unet": ((), ("supervised",)),
    "oracle": ((), ("pnp", "oracles")),
    "ceiling": ((), ("pnp", "networks")),
    **{kind: (_STATIC, ("pnp", "oracles"))
       for kind in ("static_simplex", "static_affine", "single_identity", "noise_levels")},
    **{kind: ((*_STATIC, "_closed", "_closed_control"), ("pnp", "oracles", "learn"))
       for kind in ("closed_form", "closed_single", "closed_levels")},
    **{kind: (_LEARNED, ("pnp", "learn", "adapters")) for kind in ("a", "b", "c", "mgpf", "gradient", "top")},
}  # fmt: skip
# now, so that it is the code in memory that names results
_CODE = {name: files.code_hash(name) for name in {m for _, modules in PARTS.values() for m in modules}}
_MAKER_CODE = {
    kind: files.digest(
        [files.function_hash("paper.methods", name) for name in sorted({maker.__name__, *PARTS[kind][0]})]
    )
    for kind, maker in MAKERS.items()
}
