"""The methods that learn by gradient descent: gates, adapters, low-rank adaptation, and networks from the labels."""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import sky
from fusionlib.fitting import (
    MSE,
    USUAL,
    EndToEnd,
    MetaConfig,
    Objective,
    Policy,
    Schedule,
    fit_denoiser,
    fit_end_to_end,
    fit_gate,
    fit_meta,
    from_nothing,
    lora,
    starts,
)
from fusionlib.fusion import FusedPrior
from fusionlib.gates import (
    Cosine,
    Encoder,
    Joint,
    Learned,
    Linear,
    MultiGate,
    PerNoiseLevel,
    Residual,
    Router,
    Voter,
    affine,
    cosine_router,
    expert_choice,
    top_k,
    top_p,
)
from fusionlib.interferometer import COVERAGE, MIN_BASELINE, Interferometer
from fusionlib.paper.methods.closed_form import best_single
from fusionlib.paper.methods.method import (
    NO_IMAGES,
    Array,
    Data,
    Fitted,
    Images,
    Labelled,
    Method,
    Settings,
    all_joined,
    cell,
    frozen,
    joined,
    patches,
    plugged,
    sigmas_of,
)
from fusionlib.pnp import Reconstruction
from fusionlib.priors import PriorBank, zoo
from fusionlib.sky import FAMILIES, geometric

WINDOW = 60.0  # the source is compact: width of the window of the data step [microarcseconds]
NOISE = (1.0, 2.0)  # thermal noise of the conditions of meta-learning, in units of the array's own
PLAIN = ("identity", "tv", "ffdnet", "sr", "srmd", "dncnn")  # priors that know no objects

Part = tuple[Learned, nn.Module | None]
Build = Callable[[tuple[str, ...], int | None, int], Part]  # priors, cell, number of the shared prior


def strategy_a(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Cosine routing on the image, dense softmax."""
    return cosine_router(len(priors), cell), None


def strategy_b(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Output adapters, a shared prior with a null slot, cosine routing."""
    return cosine_router(len(priors), cell, shared=shared), Residual(len(priors))


def strategy_b_joint(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """The same with adapters that read all outputs, the image itself among them where the bank has the identity."""
    return cosine_router(len(priors), cell, shared=shared), Joint(len(priors))


def strategy_c(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Peer voting on the outputs; the diversity term is in its objective."""
    return Voter(Encoder(Voter.maps, cell=cell)), None


def strategy_mgpf(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """A gate for the priors that know no objects, one for those that do, one over the two."""
    plain = [k for k, name in enumerate(priors) if name in PLAIN]
    others = [k for k in range(len(priors)) if k not in plain]
    return MultiGate([group for group in (plain, others) if group], cell=cell), None


def free(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Ours: linear routing with what the data say in view, affine weights (they sum to one, of any sign)."""
    encoder = Encoder(Router.maps, cell=cell)
    return Router(encoder, Linear(encoder.channels, len(priors)), affine), None


def learned(
    build: Build,
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    *,
    kind: str = "fused",
    objective: Objective = MSE,
    schedule: Schedule = USUAL,
    policy: Policy = "own",
    select: Callable[[Tensor], Tensor] | None = None,
    course: MetaConfig | None = None,
    separate: bool = False,
    without: str = "",
    families: tuple[str, ...] = tuple(FAMILIES),
) -> Method:
    """A gate, and adapters, per iteration, stored in half precision; `select` replaces the gate's own when used, and
    what it gives no weight is not called.

    With a `course` they are meta-learned over other conditions, of `families`, and then adapted to the labelled images,
    otherwise fitted to these (`learn.fit_gate`). The prior `without` joins after the fit: for gates that take any
    number.
    """
    bank, size = frozen(priors, device), cell(argument)

    def fit(s: Settings, data: Data) -> Fitted:
        there = tuple(name for name in priors if name != without)
        plain, sigmas = frozen(there, device), sigmas_of(s, steps)
        shared = best_single(s, data, plain.names, steps, device)
        make, some = partial(build, there, size, shared), all_joined(plain, data)
        if course:
            assert isinstance(some, PriorBank)
            parts = fit_meta(some, data, conditions(device, families), sigmas, s["lam"], make, course=course)
        else:
            how = {"objective": objective, "schedule": schedule, "policy": policy, "separate": separate}
            parts = fit_gate(some, data, sigmas, s["lam"], make, **how)  # type: ignore[arg-type]
        states = [both(part).state_dict() for part in parts]
        return {name: torch.stack([state[name] for state in states]).half() for name in states[0]} | {
            "shared": torch.tensor(shared)
        }

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        parts, sigmas = [build(priors, size, int(fitted["shared"])) for _ in range(steps)], sigmas_of(s, steps)
        for k, part in enumerate(parts):
            both(part).load_state_dict({name: v[k].float() for name, v in fitted.items() if name != "shared"})
            if select is not None:
                part[0].select, part[0].skips = select, True  # type: ignore[assignment]
        adapted = [a for _, a in parts if a is not None]
        staged = PerNoiseLevel(sigmas, adapted) if adapted else None
        gates = PerNoiseLevel(sigmas, [g for g, _ in parts])
        return FusedPrior(joined(bank, images), gates, staged).to(device)

    return plugged(prior, steps, kind, len(bank), fit)


def both(part: Part) -> nn.Module:
    """Gate and adapters as one module, for their names."""
    return nn.ModuleDict({k: m for k, m in zip(("gate", "adapters"), part, strict=True) if m is not None})


def top(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Strategy A's gate, learned densely (one selected prior gives no gradient), used with its k largest weights."""
    return learned(strategy_a, "image", priors, steps, device, kind="baseline", select=partial(top_k, k=int(argument)))


def nucleus(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Strategy A's gate, learned densely, used with the largest weights that together reach p, as in `image/0.9`."""
    size, _, p = argument.partition("/")
    return learned(strategy_a, size, priors, steps, device, select=partial(top_p, p=float(p)))


def expert(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Cosine routing by patch where each prior chooses its own, as in `8/16`: side in pixels, number of patches."""
    size, l = patches(argument)

    def build(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
        encoder = Encoder(Router.maps, cell=cell)
        choose = partial(expert_choice, l=l, shared=shared)
        return Router(encoder, Cosine(encoder.channels, len(priors)), choose, skips=True, sharp=True), None

    return learned(build, str(size), priors, steps, device)


@cache
def conditions(device: torch.device, families: tuple[str, ...], n: int = 10) -> Data:
    """What is meta-learned on beside the labelled images: geometric families, each at full and a third of the coverage,
    at the array's noise and at twice that, `n` images of each. No black holes, no labels of theirs."""
    data: list[Labelled] = []
    for k, family in enumerate(families):
        images = geometric(family, n, sky.SEEDS["train"])
        for coverage in (1.0, 0.3):
            table = Interferometer.eht2017(coverage, k % len(COVERAGE[coverage])).table
            noise = NOISE[(k + (coverage < 1)) % 2]
            table = table.assign(sigma=table.sigma * noise)
            array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW).to(device)
            y = array.observe(images.fine.to(device), 7000 + len(data))
            data.append(Labelled.numbered(array, images.image.to(device), y))
    return data


def low_rank(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """Plain routing, and low-rank changes inside the priors' own convolutions."""
    bank = zoo.bank(priors).to(device)

    def fit(s: Settings, data: Data) -> Fitted:
        states = lora.fit_lora(bank, data, sigmas_of(s, steps), s["lam"])
        return {f"{k}.{name}": v.half() for k, state in enumerate(states) for name, v in state.items()}

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        sigmas = sigmas_of(s, steps)
        states: list[Fitted] = [{} for _ in sigmas]
        for name, v in fitted.items():
            k, _, own = name.partition(".")
            states[int(k)][own] = v.float().to(device)
        return lora.per_noise_level(lora.make(bank).to(device), sigmas, states).to(device)

    return plugged(prior, steps, "baseline", len(bank), fit)


# --- one network, or none ---


def denoiser(tuned: bool, argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A denoiser trained on the labelled images: from nothing, or the best network of the bank `tuned` further."""
    networks = [name for name in priors if any(True for _ in zoo.load(name).parameters())] if tuned else []
    if tuned and not networks:
        raise ValueError(f"finetuned: none of the priors {priors} is a network")
    trained: dict[tuple, Fitted] = {}  # white noise knows no settings of the loop, so that these cost no training

    def make(best: int) -> nn.Module:
        return (zoo.load(networks[best]) if tuned else from_nothing()).to(device)

    def fit(s: Settings, data: Data) -> Fitted:
        best = best_single(s, data, networks, steps, device) if tuned else 0
        truth = torch.cat([d.truth for d in data])
        key = (best, s["steps"], len(truth), float(truth.double().sum()))
        if key not in trained:
            net = fit_denoiser(make(best), truth, steps=int(s["steps"]), rate=3e-4 if tuned else 2e-3)
            trained[key] = {name: value.half() for name, value in net.state_dict().items()}
        return trained[key] | {"best": torch.tensor(best)}

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        net = make(int(fitted["best"]))
        net.load_state_dict({name: v.float() for name, v in fitted.items() if name != "best"})
        return net

    return plugged(prior, steps, "supervised", 1, fit)


SHAPES: dict[str, dict[str, Any]] = {"": {}, "beam": {"beam": True}, "wide": {"widths": (48, 96, 144)}}


def network(fitted: Fitted, device: torch.device, shape: str = "") -> EndToEnd:
    """A trained network from the data to the image, of a shape of SHAPES."""
    net = EndToEnd(**SHAPES[shape]).to(device)
    net.load_state_dict({name: value.float() for name, value in fitted.items()})
    return net


def unet(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """A network from the data to the image; `argument`: the fold of the labels that it does not see, or its shape."""
    shape = "" if argument.isdigit() else argument
    if shape not in SHAPES:
        raise ValueError(f"unet: a fold or one of {sorted(SHAPES)} is needed, got {argument!r}")

    def fit(s: Settings, data: Data) -> Fitted:
        if argument.isdigit():
            data = [d.part(d.fold != int(argument)) for d in data]
        net = fit_end_to_end([d for d in data if len(d.truth)], steps=int(s["steps"]), **SHAPES[shape])
        return {name: value.half() for name, value in net.state_dict().items()}

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        net, began = network(fitted, device, shape), time.perf_counter()
        with torch.inference_mode():
            image = net(starts(array, y, net.beam))
        return Reconstruction(image, {"chi2": array.chi2(image, y)[None]}, time.perf_counter() - began)

    return Method(run, "supervised", 0, fit)
