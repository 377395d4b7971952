"""The methods whose gates are solved for, without gradient descent, and the controls beside them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fusionlib import metrics
from fusionlib.fitting import (
    CsNet,
    ExpertChoice,
    Policy,
    fit_closed_form,
    fit_csnet,
    fit_expert_choice,
    fit_static,
    fit_unrolled,
)
from fusionlib.fusion import FusedPrior
from fusionlib.gates import ALL, Cell, ClosedForm, Features, NoiseLevels, PerNoiseLevel, Static
from fusionlib.paper.methods.method import (
    NO_IMAGES,
    Data,
    Fitted,
    Images,
    Method,
    Settings,
    all_joined,
    always,
    cell,
    frozen,
    joined,
    patches,
    plugged,
    sigmas_of,
)
from fusionlib.priors import PriorBank, zoo

LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of one prior, in units of the loop's noise level


def best_single(s: Settings, data: Data, names: Sequence[str], steps: int, device: torch.device) -> int:
    """Number of the prior that is best alone on the labelled images."""
    scores = []
    for name in names:
        alone = always(zoo.load(name).to(device), steps, "single", 1)
        psnr = [metrics.psnr(alone.run(s, {}, array, y).image, x) for array, x, y, *_ in data]
        scores.append(float(torch.cat(psnr).mean()))
    return max(range(len(names)), key=lambda k: scores[k])


Banks = PriorBank | list[PriorBank]  # one, or one for each entry of the data
Solve = Callable[[Banks, Data, list[float], float], Fitted]  # bank, data, sigmas, lam
Gate = Callable[[list[float], Fitted], nn.Module]


def static(simplex: bool) -> tuple[Solve, Gate]:
    """Static weights per iteration."""
    return (
        lambda bank, data, sigmas, lam: {"w": fit_static(bank, data, sigmas, lam, simplex=simplex)},
        lambda sigmas, fitted: PerNoiseLevel(sigmas, [Static(w) for w in fitted["w"]]),
    )


def closed(
    cell: Cell = 1, price: float = 0.0, without: str = "", policy: Policy = "own", more: Sequence[Features] = ()
) -> tuple[Solve, Gate]:
    """Weights linear in local features, all but those of the name `without`, and `more`; with a `price` per hundredth
    of the bank's operations, of some priors alone."""
    features = [*(f for f in ALL if f.__name__ != without), *more]

    def solve(bank: Banks, data: Data, sigmas: list[float], lam: float) -> Fitted:
        how: dict[str, Any] = {"cell": cell, "price": price, "policy": policy}
        if price and isinstance(bank, PriorBank):
            how |= {"cost": shares(bank)}
        return fit_closed_form(bank, data, sigmas, lam, features=features, **how)

    def gate(sigmas: list[float], fitted: Fitted) -> nn.Module:
        levels, e = torch.tensor(sigmas), fitted["whitening"]
        return ClosedForm(levels, fitted["theta"], fitted["static_weights"], e, features, cell, fitted.get("kept"))

    return solve, gate


def unrolled() -> tuple[Solve, Gate]:
    """The same, moved by gradients through the last iterations of the loop."""
    solve, gate = closed()

    def end_to_end(bank: Banks, data: Data, sigmas: list[float], lam: float) -> Fitted:
        assert isinstance(bank, PriorBank)
        fitted = solve(bank, data, sigmas, lam)
        prior = FusedPrior(bank, gate(sigmas, fitted)).to(data[0][1].device)
        return fitted | {"theta": fit_unrolled(prior, ["gate.theta"], data, sigmas, lam)["gate.theta"].cpu()}

    return end_to_end, gate


def shares(bank: PriorBank) -> list[float]:
    """What each prior costs, in hundredths of the operations of all (`zoo.flops`)."""
    each = [zoo.flops(p) for p in bank.priors]
    return [100 * f / max(sum(each), 1) for f in each]


def csnet() -> tuple[Solve, Gate]:
    return (
        lambda bank, data, sigmas, lam: {"theta": fit_csnet(bank, data, sigmas, lam)},
        lambda sigmas, fitted: CsNet(torch.tensor(sigmas), fitted["theta"]),
    )


def solved(
    how: tuple[Solve, Gate], kind: str, argument: str, priors: tuple[str, ...], steps: int, device: torch.device
) -> Method:
    """A gate over the bank, found along the trajectory."""
    return over(frozen(priors, device), how, kind, steps, device)


def closed_form(
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    *,
    without: str = "",
    policy: Policy = "own",
    more: Sequence[Features] = (),
) -> Method:
    """`argument`: the resolution (by default pixel), or `coarse`: image, 16, 4 and 1 pixel together."""
    size = (None, 16, 4, 1) if argument == "coarse" else cell(argument or "pixel")
    return solved(closed(size, without=without, policy=policy, more=more), "fused", argument, priors, steps, device)


def cost_pruned(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """`argument`: dB of the stage's error that a hundredth of the bank's operations has to save."""
    return solved(closed(price=float(argument)), "fused", argument, priors, steps, device)


def closed_expert(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """`argument`: side of a patch in pixels, and how many of them each prior chooses, as in `8/16`."""
    bank, (size, l) = zoo.bank(priors).to(device), patches(argument)

    def fit(s: Settings, data: Data) -> Fitted:
        shared, sigmas = best_single(s, data, priors, steps, device), sigmas_of(s, steps)
        choice = fit_expert_choice(bank, data, sigmas, s["lam"], cell=size, l=l, shared=shared)
        return choice | {"shared": torch.tensor(shared)}

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        levels, e = torch.tensor(sigmas_of(s, steps)), fitted["whitening"]
        router = ClosedForm(levels, fitted["router"], fitted["static_weights"], e, cell=size)
        return FusedPrior(bank, ExpertChoice(router, fitted["theta"], l, int(fitted["shared"]))).to(device)

    return plugged(prior, steps, "fused", len(bank), fit)


def over(bank: PriorBank, how: tuple[Solve, Gate], kind: str, steps: int, device: torch.device) -> Method:
    solve, gate = how

    def fit(s: Settings, data: Data) -> Fitted:
        return solve(all_joined(bank, data), data, sigmas_of(s, steps), s["lam"])

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        return FusedPrior(joined(bank, images), gate(sigmas_of(s, steps), fitted)).to(device)

    return plugged(prior, steps, kind, len(bank), fit)


def with_identity(name: str) -> PriorBank:
    return zoo.bank([name, "identity"])


def at_levels(name: str) -> PriorBank:
    levels = {f"{name} x {f}": NoiseLevels(zoo.load(name), f) for f in LEVELS}
    return PriorBank(levels | {"identity": zoo.load("identity")})


def control(
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
        return over(bank_of(names[best]).to(device), how, "control", steps, device)

    def fit(s: Settings, data: Data) -> Fitted:
        best = best_single(s, data, names, steps, device)
        learn = inner(best).fit
        assert learn is not None
        return learn(s, data) | {"best": torch.tensor(best)}

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        make_prior = inner(int(fitted["best"])).prior
        assert make_prior is not None
        return make_prior(s, fitted)

    return plugged(prior, steps, "control", len(bank_of(names[0])), fit)


def union(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The closed form over the bank and, beside it, its prior that is best on the labels at the other LEVELS."""

    def bank_of(best: str) -> PriorBank:
        levels = {f"{best} x {f}": NoiseLevels(zoo.load(best), f) for f in LEVELS if f != 1}
        return PriorBank({name: zoo.load(name) for name in priors} | levels)

    return replace(control(closed(), bank_of, argument, priors, steps, device), kind="fused")
