"""The methods whose gates are solved for, without gradient descent, and the controls beside them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import metrics
from fusionlib.fitting import (
    CsNet,
    EndToEnd,
    ExpertChoice,
    Policy,
    fit_closed_form,
    fit_csnet,
    fit_end_to_end,
    fit_expert_choice,
    fit_static,
    fit_unrolled,
    out_of_fold,
    starts,
)
from fusionlib.fusion import FusedPrior
from fusionlib.gates import ALL, Cell, ClosedForm, NoiseLevels, PerNoiseLevel, Static, doubt
from fusionlib.paper.methods.method import (
    Array,
    Data,
    Fitted,
    Method,
    Settings,
    always,
    cell,
    patches,
    plugged,
    sigmas_of,
)
from fusionlib.pnp import Reconstruction, hqs
from fusionlib.priors import Fixed, PriorBank, zoo

LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of one prior, in units of the loop's noise level


def best_single(s: Settings, data: Data, names: Sequence[str], steps: int, device: torch.device) -> int:
    """Number of the prior that is best alone on the labelled images."""
    scores = []
    for name in names:
        alone = always(zoo.load(name).to(device), steps, "single", 1)
        psnr = [metrics.psnr(alone.run(s, {}, array, y, None).image, x) for array, x, y in data]
        scores.append(float(torch.cat(psnr).mean()))
    return max(range(len(names)), key=lambda k: scores[k])


Solve = Callable[[PriorBank, Data, list[float], float], Fitted]  # bank, data, sigmas, lam
Gate = Callable[[list[float], Fitted], nn.Module]


def static(simplex: bool) -> tuple[Solve, Gate]:
    """Static weights per iteration."""
    return (
        lambda bank, data, sigmas, lam: {"w": fit_static(bank, data, sigmas, lam, simplex=simplex)},
        lambda sigmas, fitted: PerNoiseLevel(sigmas, [Static(w) for w in fitted["w"]]),
    )


def closed(cell: Cell = 1, price: float = 0.0, without: str = "", policy: Policy = "own") -> tuple[Solve, Gate]:
    """Weights linear in local features, all but those of the name `without`; with a `price` per hundredth of the bank's
    operations, of some priors alone."""
    features = [f for f in ALL if f.__name__ != without]

    def solve(bank: PriorBank, data: Data, sigmas: list[float], lam: float) -> Fitted:
        how = {"cell": cell, "price": price, "cost": shares(bank) if price else (), "policy": policy}
        return fit_closed_form(bank, data, sigmas, lam, features=features, **how)  # type: ignore[arg-type]

    def gate(sigmas: list[float], fitted: Fitted) -> nn.Module:
        levels, e = torch.tensor(sigmas), fitted["whitening"]
        return ClosedForm(levels, fitted["theta"], fitted["static_weights"], e, features, cell, fitted.get("kept"))

    return solve, gate


def unrolled() -> tuple[Solve, Gate]:
    """The same, moved by gradients through the last iterations of the loop."""
    solve, gate = closed()

    def end_to_end(bank: PriorBank, data: Data, sigmas: list[float], lam: float) -> Fitted:
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
    return over(zoo.bank(priors).to(device), how, kind, steps, device)


def closed_form(
    argument: str,
    priors: tuple[str, ...],
    steps: int,
    device: torch.device,
    *,
    without: str = "",
    policy: Policy = "own",
) -> Method:
    """`argument`: the resolution (by default pixel), or `coarse`: image, 16, 4 and 1 pixel together."""
    size = (None, 16, 4, 1) if argument == "coarse" else cell(argument or "pixel")
    return solved(closed(size, without=without, policy=policy), "fused", argument, priors, steps, device)


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

    def prior(s: Settings, fitted: Fitted) -> nn.Module:
        levels, e = torch.tensor(sigmas_of(s, steps)), fitted["whitening"]
        router = ClosedForm(levels, fitted["router"], fitted["static_weights"], e, cell=size)
        return FusedPrior(bank, ExpertChoice(router, fitted["theta"], l, int(fitted["shared"]))).to(device)

    return plugged(prior, steps, "fused", len(bank), fit)


def over(bank: PriorBank, how: tuple[Solve, Gate], kind: str, steps: int, device: torch.device) -> Method:
    solve, gate = how

    def fit(s: Settings, data: Data) -> Fitted:
        return solve(bank, data, sigmas_of(s, steps), s["lam"])

    def prior(s: Settings, fitted: Fitted) -> nn.Module:
        return FusedPrior(bank, gate(sigmas_of(s, steps), fitted)).to(device)

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

    def prior(s: Settings, fitted: Fitted) -> nn.Module:
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


FOLDS = 2  # of the labels, for networks that are experts


def network_of(s: Settings) -> Callable[[Data], EndToEnd]:
    return lambda data: fit_end_to_end(data, steps=int(s["steps"]))


def with_network(
    bank: PriorBank, net: nn.Module, array: Array, y: Any, image: Tensor | None = None
) -> tuple[PriorBank, Tensor]:
    """A bank with the image of a network as one more prior, the last; and that image."""
    if image is None:
        with torch.inference_mode():
            image = net(starts(array, y))
    members = dict(zip(bank.names, bank.priors, strict=True))
    return PriorBank({**members, "network": Fixed(image)}), image


def with_network_expert(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The closed form over the bank and, as one more prior, the image of a network trained on the same labels.

    The gate is fitted on images of networks that did not see them; the network used later has seen all labels. It sees
    what the data say against that image.
    """
    bank, features = zoo.bank(priors).to(device), (*ALL, doubt)

    def fit(s: Settings, data: Data) -> Fitted:
        train = network_of(s)
        blind = out_of_fold(data, train, FOLDS)
        banks = [with_network(bank, bank, array, y, image)[0] for (array, _, y), image in zip(data, blind, strict=True)]
        gate = fit_closed_form(banks, data, sigmas_of(s, steps), s["lam"], features=features)
        return gate | {f"net.{name}": v.half() for name, v in train(data).state_dict().items()}

    def run(s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None) -> Reconstruction:
        net = EndToEnd().to(device)
        net.load_state_dict({k.removeprefix("net."): v.float() for k, v in fitted.items() if k.startswith("net.")})
        experts, _ = with_network(bank, net, array, y)
        levels = torch.tensor(sigmas_of(s, steps))
        parts = (fitted["theta"], fitted["static_weights"], fitted["whitening"])
        prior = FusedPrior(experts, ClosedForm(levels, *parts, features)).to(device)
        return hqs(y, array, prior, sigmas=sigmas_of(s, steps), lam=s["lam"], start=start)

    return Method(run, "fused", len(bank), fit)
