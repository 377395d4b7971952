"""The methods that learn from labelled images: gates along the trajectory, controls, and a network without priors."""

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import adapters, files, lora, metrics, sky, zoo
from fusionlib.adapters import Residual
from fusionlib.baselines import COVERAGE
from fusionlib.closed_form import ClosedForm
from fusionlib.csnet import CsNet, fit_csnet
from fusionlib.families import FAMILIES, geometric
from fusionlib.fusion import FusedPrior
from fusionlib.gates import Staged, Static
from fusionlib.interferometer import MIN_BASELINE, Interferometer
from fusionlib.learn import MSE, fit_closed_form, fit_gate, fit_static
from fusionlib.losses import Objective
from fusionlib.meta import fit_meta
from fusionlib.oracles import NoiseLevels
from fusionlib.paper.method import Array, Data, Fitted, Method, Settings, cell, plug, sigmas_of
from fusionlib.pnp import Reconstruction, hqs
from fusionlib.priors import PriorBank
from fusionlib.routing import Encoder, Learned, Linear, MultiGate, Router, Voter, affine, cosine_router, top_k
from fusionlib.supervised import EndToEnd, fit_denoiser, fit_end_to_end, from_nothing, starts
from fusionlib.unroll import fit_unrolled

LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of one prior, in units of the loop's noise level
WINDOW = 60.0  # the source is compact: width of the window of the data step [microarcseconds]
STEPS = {False: 600, True: 200}  # of training a denoiser from nothing, and from a prior
NOISE = (1.0, 2.0)  # thermal noise of the conditions of meta-learning, in units of the array's own
PLAIN = ("identity", "tv", "ffdnet", "sr", "srmd", "dncnn")  # priors that know no objects
NOT_TRAINED = ("best", "shared", "typical", "ridge")  # found by a fit, but no parameters
Maker = Callable[[str, tuple[str, ...], int, torch.device], Method]


def best_single(s: Settings, data: Data, names: Sequence[str], steps: int, device: torch.device) -> int:
    """Number of the prior that is best alone on the labelled images."""
    scores = []
    for name in names:
        run = plug(zoo.load(name).to(device), steps)
        found = [metrics.psnr(run(s, {}, array, y).image, x) for array, x, y in data]
        scores.append(float(torch.cat(found).mean()))
    return max(range(len(names)), key=lambda k: scores[k])


# --- gates that are solved for ---

Solve = Callable[[PriorBank, Data, list[float], float], Fitted]  # bank, data, sigmas, lam
Gate = Callable[[list[float], Fitted], nn.Module]


def _static(simplex: bool) -> tuple[Solve, Gate]:
    """Static weights per iteration."""
    return (
        lambda bank, data, sigmas, lam: {"w": fit_static(bank, data, sigmas, lam, simplex=simplex)},
        lambda sigmas, fitted: Staged(sigmas, [Static(w) for w in fitted["w"]]),
    )


def _closed_form() -> tuple[Solve, Gate]:
    """Weights linear in local features."""
    return fit_closed_form, lambda sigmas, found: ClosedForm(torch.tensor(sigmas), found["theta"], found["typical"])


def _unrolled() -> tuple[Solve, Gate]:
    """The same, moved by gradients through the last iterations of the loop."""
    solve, gate = _closed_form()

    def end_to_end(bank: PriorBank, data: Data, sigmas: list[float], lam: float) -> Fitted:
        found = solve(bank, data, sigmas, lam)
        prior = FusedPrior(bank, gate(sigmas, found)).to(data[0][1].device)
        return found | {"theta": fit_unrolled(prior, ["gate.theta"], data, sigmas, lam)["gate.theta"].cpu()}

    return end_to_end, gate


def _csnet() -> tuple[Solve, Gate]:
    return (
        lambda bank, data, sigmas, lam: {"theta": fit_csnet(bank, data, sigmas, lam)},
        lambda sigmas, fitted: CsNet(torch.tensor(sigmas), fitted["theta"]),
    )


def _solved(
    how: tuple[Solve, Gate], kind: str, argument: str, priors: tuple[str, ...], steps: int, device: torch.device
) -> Method:
    """A gate over the bank, found along the trajectory."""
    return _over(zoo.bank(priors).to(device), how, kind, steps, device)


def _over(bank: PriorBank, how: tuple[Solve, Gate], kind: str, steps: int, device: torch.device) -> Method:
    solve, gate = how

    def fit(s: Settings, data: Data) -> Fitted:
        return solve(bank, data, sigmas_of(s, steps), s["lam"])

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Tensor | None) -> Reconstruction:
        sigmas = sigmas_of(s, steps)
        prior = FusedPrior(bank, gate(sigmas, fitted)).to(device)
        return hqs(y, array, prior, sigmas=sigmas, lam=s["lam"], start=start)

    return Method(run, kind, len(bank), fit)


def _with_identity(name: str) -> PriorBank:
    return zoo.bank([name, "identity"])


def _at_levels(name: str) -> PriorBank:
    levels = {f"{name} x {f}": NoiseLevels(zoo.load(name), f) for f in LEVELS}
    return PriorBank(levels | {"identity": zoo.load("identity")})


def _control(
    how: tuple[Solve, Gate],
    bank_of: Callable[[str], PriorBank],
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
) -> Method:
    """The same over a bank made of the single prior that is best on the labelled images."""
    names = [name for name in priors if name != "identity"]

    def inner(best: int) -> Method:
        return _over(bank_of(names[best]).to(device), how, "control", steps, device)

    def fit(s: Settings, data: Data) -> Fitted:
        best = best_single(s, data, names, steps, device)
        learn = inner(best).fit
        assert learn is not None
        return learn(s, data) | {"best": torch.tensor(best)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        return inner(int(fitted["best"])).run(s, fitted, array, y, truth, start)

    return Method(run, "control", len(bank_of(names[0])), fit)


# --- gates that learn by gradient descent ---

Part = tuple[Learned, nn.Module | None]
Build = Callable[[tuple[str, ...], int | None, int], Part]  # priors, cell, number of the shared prior


def _strategy_a(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Cosine routing on the image, dense softmax."""
    return cosine_router(len(priors), cell), None


def _strategy_b(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Output adapters, a shared prior with a null slot, cosine routing."""
    return cosine_router(len(priors), cell, shared=shared), Residual(len(priors))


def _strategy_c(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Peer voting on the outputs; the diversity term is in its objective."""
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


PARTS: dict[str, Build] = {
    "a": _strategy_a,
    "b": _strategy_b,
    "c": _strategy_c,
    "mgpf": _strategy_mgpf,
    "gradient": _free,
}


def _learned(
    build: Build,
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    *,
    kind: str = "fused",
    objective: Objective = MSE,
    select: Callable[[Tensor], Tensor] | None = None,
    meta: bool = False,
) -> Method:
    """A gate, and adapters, per iteration, stored in half precision; `select` replaces the gate's own when used.

    With `meta` they are meta-learned over other conditions and then adapted to the labelled images.
    """
    bank, size = zoo.bank(priors).to(device), cell(argument)

    def fit(s: Settings, data: Data) -> Fitted:
        shared, sigmas = best_single(s, data, priors, steps, device), sigmas_of(s, steps)
        make = partial(build, priors, size, shared)
        if meta:
            found = fit_meta(bank, data, conditions(device), sigmas, s["lam"], make)
        else:
            found = fit_gate(bank, data, sigmas, s["lam"], make, objective=objective)
        state = {
            f"{k}.{name}": v.half() for k, part in enumerate(found) for name, v in _both(part).state_dict().items()
        }
        return state | {"shared": torch.tensor(shared)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        parts, sigmas = [build(priors, size, int(fitted["shared"])) for _ in range(steps)], sigmas_of(s, steps)
        for k, part in enumerate(parts):
            own = {n.removeprefix(f"{k}."): v.float() for n, v in fitted.items() if n.startswith(f"{k}.")}
            _both(part).load_state_dict(own)
            if select is not None:
                part[0].select = select  # type: ignore[assignment]
        adapted = [a for _, a in parts if a is not None]
        staged = adapters.Staged(sigmas, adapted) if adapted else None
        prior = FusedPrior(bank, Staged(sigmas, [g for g, _ in parts]), staged).to(device)
        return hqs(y, array, prior, sigmas=sigmas, lam=s["lam"], start=start)

    return Method(run, kind, len(bank), fit)


def _both(part: Part) -> nn.Module:
    """Gate and adapters as one module, for their names."""
    return nn.ModuleDict({k: m for k, m in zip(("gate", "adapters"), part, strict=True) if m is not None})


def _top(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Strategy A's gate, learned densely (one selected prior gives no gradient), used with its k largest weights."""
    return _learned(
        _strategy_a, "image", priors, steps, device, kind="baseline", select=partial(top_k, k=int(argument))
    )


@cache
def conditions(device: torch.device, n: int = 10) -> Data:
    """What is meta-learned on beside the labelled images: each geometric family at full and a third of the coverage, at
    the array's noise and at twice that; 10 conditions of `n` images. No black holes, no labels of theirs."""
    found: list[tuple[Array, Tensor, Any]] = []
    for k, family in enumerate(FAMILIES):
        images = geometric(family, n, sky.SEEDS["train"])
        for coverage in (1.0, 0.3):
            table = Interferometer.eht2017(coverage, k % len(COVERAGE[coverage])).table
            noise = NOISE[(k + (coverage < 1)) % 2]
            table = table.assign(sigma=table.sigma * noise)
            array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW).to(device)
            found.append((array, images.image.to(device), array.observe(images.fine.to(device), 7000 + len(found))))
    return found


def _lora(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Plain routing, and low-rank changes inside the priors' own convolutions."""
    bank = zoo.bank(priors).to(device)

    def fit(s: Settings, data: Data) -> Fitted:
        states = lora.fit_lora(bank, data, sigmas_of(s, steps), s["lam"])
        return {f"{k}.{name}": v.half() for k, state in enumerate(states) for name, v in state.items()}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        sigmas = sigmas_of(s, steps)
        states: list[Fitted] = [{} for _ in sigmas]
        for name, v in fitted.items():
            k, _, own = name.partition(".")
            states[int(k)][own] = v.float()
        prior = lora.Staged(lora.make(bank).to(device), sigmas, states).requires_grad_(False)
        return hqs(y, array, prior, sigmas=sigmas, lam=s["lam"], start=start)

    return Method(run, "baseline", len(bank), fit)


# --- one network, or none ---


def _denoiser(tuned: bool, argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A denoiser trained on the labelled images: from nothing, or the best network of the bank `tuned` further."""
    networks = [name for name in priors if any(True for _ in zoo.load(name).parameters())] if tuned else []
    if tuned and not networks:
        raise ValueError(f"finetuned: none of the priors {priors} is a network")
    trained: dict[tuple, Fitted] = {}  # white noise knows nothing of the loop's settings

    def make(best: int) -> nn.Module:
        return (zoo.load(networks[best]) if tuned else from_nothing()).to(device)

    def fit(s: Settings, data: Data) -> Fitted:
        best = best_single(s, data, networks, steps, device) if tuned else 0
        truth = torch.cat([x for _, x, _ in data])
        key = (best, len(truth), float(truth.double().sum()))
        if key not in trained:
            net = fit_denoiser(make(best), truth, steps=STEPS[tuned], rate=3e-4 if tuned else 2e-3)
            trained[key] = {name: value.half() for name, value in net.state_dict().items()}
        return trained[key] | {"best": torch.tensor(best)}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, truth: Any, start: Any) -> Reconstruction:
        net = make(int(fitted["best"]))
        net.load_state_dict({name: v.float() for name, v in fitted.items() if name != "best"})
        return plug(net, steps)(s, fitted, array, y, truth, start)

    return Method(run, "supervised", 1, fit)


def _unet(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A network from the data to the image."""

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


MAKERS: dict[str, Maker] = {
    "static_simplex": partial(_solved, _static(True), "baseline"),
    "static_affine": partial(_solved, _static(False), "baseline"),
    "closed_form": partial(_solved, _closed_form(), "fused"),
    "unrolled": partial(_solved, _unrolled(), "fused"),
    "csnet": partial(_solved, _csnet(), "baseline"),
    "single_identity": partial(_control, _static(False), _with_identity),
    "noise_levels": partial(_control, _static(False), _at_levels),
    "closed_single": partial(_control, _closed_form(), _with_identity),
    "closed_levels": partial(_control, _closed_form(), _at_levels),
    **{kind: partial(_learned, build) for kind, build in PARTS.items()},
    "c": partial(_learned, _strategy_c, objective=Objective(diversity=1e-4)),
    "top": _top,
    "a_meta": partial(_learned, _strategy_a, meta=True),
    "b_meta": partial(_learned, _strategy_b, meta=True),
    "lora": _lora,
    "denoiser": partial(_denoiser, False),
    "finetuned": partial(_denoiser, True),
    "unet": _unet,
}
_SOLVED = ("_solved", "_over")
_CONTROLS = (*_SOLVED, "_control", "_with_identity", "_at_levels", "best_single")
_LEARNED = ("_learned", "_both", "best_single")
_META = (*_LEARNED, "conditions")
# the functions here that make a method, and the modules of the library it uses
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "static_simplex": ("_static", *_SOLVED),
    "static_affine": ("_static", *_SOLVED),
    "closed_form": ("_closed_form", *_SOLVED),
    "unrolled": ("_unrolled", "_closed_form", *_SOLVED),
    "csnet": ("_csnet", *_SOLVED),
    "single_identity": ("_static", *_CONTROLS),
    "noise_levels": ("_static", *_CONTROLS),
    "closed_single": ("_closed_form", *_CONTROLS),
    "closed_levels": ("_closed_form", *_CONTROLS),
    **{kind: (build.__name__, *_LEARNED) for kind, build in PARTS.items()},
    "top": ("_top", "_strategy_a", *_LEARNED),
    "a_meta": ("_strategy_a", *_META),
    "b_meta": ("_strategy_b", *_META),
    "lora": ("_lora",),
    "denoiser": ("_denoiser",),
    "finetuned": ("_denoiser", "best_single"),
    "unet": ("_unet",),
}
USES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("static_simplex", "static_affine", "closed_form"), ("learn",)),
    **dict.fromkeys(("single_identity", "noise_levels", "closed_single", "closed_levels"), ("learn", "oracles")),
    **dict.fromkeys((*PARTS, "top"), ("learn", "routing", "adapters")),
    **dict.fromkeys(("a_meta", "b_meta"), ("meta", "adapters", "families", "interferometer")),
    "unrolled": ("unroll",),
    "csnet": ("csnet",),
    "lora": ("lora",),
    **dict.fromkeys(("unet", "denoiser", "finetuned"), ("supervised",)),
}

OWN: dict[str, tuple[Any, ...]] = {  # and constants
    "denoiser": (STEPS,),
    "finetuned": (STEPS,),
    "a_meta": (NOISE, WINDOW),
    "b_meta": (NOISE, WINDOW),
}


def code(kind: str) -> str:
    """Hash of the functions here that make a method."""
    given = getattr(MAKERS[kind], "keywords", {})
    return files.digest(
        [[_HASHES[name] for name in _FUNCTIONS[kind]], repr((LEVELS, PLAIN, given, *OWN.get(kind, ())))]
    )


_HASHES = {name: files.function_hash("paper.fitted", name) for names in _FUNCTIONS.values() for name in names}
