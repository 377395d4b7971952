"""Gates that are solved for, iteration by iteration, without gradient descent."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fusionlib.fitting.trajectory import Data, Policy, Stage, along_trajectory, fused
from fusionlib.fusion import spread
from fusionlib.gates import affine_weights, simplex_weights
from fusionlib.gates import closed_form as cf
from fusionlib.priors import PriorBank

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def fit_static(
    bank: PriorBank | Sequence[PriorBank], data: Data, sigmas: Sequence[float], lam: float, *, simplex: bool
) -> Tensor:
    """Weights (K, N), one for each prior and iteration of `pnp.hqs`: on the simplex, or affine."""
    weights = []

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        w = _static(stages, simplex_weights if simplex else affine_weights)
        weights.append(w.cpu())
        return lambda s: fused(w.view(-1, 1, 1, 1), s.outputs)

    along_trajectory(bank, data, sigmas, lam, fit)
    return torch.stack(weights)


def _static(stages: list[Stage], solve: Callable[[Tensor], Tensor]) -> Tensor:
    errors = torch.cat([(s.outputs - s.truth).flatten(1) for s in stages], 1)
    return solve((errors @ errors.T).cpu()).to(errors)


def fit_closed_form(
    bank: PriorBank | Sequence[PriorBank],
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    *,
    features: Sequence[cf.Features] = cf.ALL,
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
    cell: cf.Cell = 1,
    price: float = 0.0,
    cost: Sequence[float] = (),
    policy: Policy = "own",
    start: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """What makes a `ClosedForm` gate for `pnp.hqs`: `theta` (K, N, F), `static_weights` (K, N), `whitening` (K, F, F)
    and `ridge` (K,).

    `cell` pixels share a weight (`closed_form.Cell`). The ridge of each iteration is the one of `ridges` that
    predicts held-out labels best, in `folds` parts. With a `price`, in dB of that prediction's error per unit of the
    priors' `cost` (N,), an iteration goes without the priors that are not worth theirs:
    `kept` (K, N) tells. `policy`, `start`, and one bank for each entry of the data, as in `along_trajectory`.
    """
    fitted: dict[str, list[Tensor]] = {name: [] for name in ("theta", "static_weights", "whitening", "ridge", "kept")}
    n = len(bank if isinstance(bank, PriorBank) else bank[0])
    if price and len(cost) != n:
        raise ValueError(f"fit_closed_form: cost needs {n} numbers, one per prior, got {len(cost)}")

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        count = min(folds, sum(len(s.truth) for s in stages))
        kept = torch.ones(n, dtype=torch.bool)
        if price and count > 1:  # of one image there is nothing to predict
            kept = _worth_calling(stages, features, ridges, count, cell, price, cost)
            there = kept.nonzero()[:, 0].to(stages[0].x.device)
            stages = [replace(s, outputs=s.outputs[there]) for s in stages]
        some = solve_stage(stages, features, ridges, count, cell)
        theta, static = some.theta.new_zeros(n, some.theta.shape[1]), some.static_weights.new_zeros(n)
        theta[kept], static[kept] = some.theta, some.static_weights
        values = (theta, static, some.whitening, some.ridge, kept)
        result = dict(zip(fitted, values, strict=True))
        for name, value in result.items():
            fitted[name].append(value.cpu())
        level, (theta, static, e, _, kept) = torch.tensor([stages[0].sigma]), (v[None] for v in result.values())
        gate = cf.ClosedForm(level, theta, static, e, features, cell, kept).to(theta.device)
        return lambda s: fused(gate(s.x, s.sigma, s.outputs, s.data_step), s.outputs)

    along_trajectory(bank, data, sigmas, lam, fit, policy=policy, start=start)
    if not price:
        del fitted["kept"]
    return {name: torch.stack(values) for name, values in fitted.items()}


class Solved(NamedTuple):
    """One iteration's `theta` (N, F), `static_weights` (N,), `whitening` (F, F), and ridge, a number."""

    theta: Tensor
    static_weights: Tensor
    whitening: Tensor
    ridge: Tensor


def solve_stage(
    stages: list[Stage], features: Sequence[cf.Features], ridges: Sequence[float], folds: int, cell: cf.Cell
) -> Solved:
    """One iteration's gate, of the priors whose outputs there are."""
    normal, n = cf.NormalEquations(folds), len(stages[0].outputs)
    static = _static(stages, affine_weights)
    phis, e = bounded(stages, features, cell)
    for position, (phi, (apart, target)) in enumerate(zip(phis, _errors(stages), strict=True)):
        columns = (apart[:-1, None] * phi[None]).flatten(0, 1)  # the last prior is what the others leave
        normal.add(position % folds, columns, target - static @ apart)
    theta, ridge = e.new_zeros(n, len(e)), ridges[0]
    if n > 1:
        solved, ridge, _ = normal.solve(ridges)
        theta[:-1] = solved.view(n - 1, -1).to(theta)
    return Solved(theta, static, e, torch.tensor(ridge))


def bounded(
    stages: list[Stage], features: Sequence[cf.Features], cell: cf.Cell, sharp: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Features (F, H W) of each image on the image grid, of bounded leverage, and their whitening (F, F)."""
    seen = []
    for s in stages:
        sigma = torch.full((len(s.x),), s.sigma, device=s.x.device)
        seen += list(cf.maps(features, s.x, s.outputs, sigma, s.data_step, cell))
    e, size = cf.whitening([phi.flatten(1) for phi in seen]), stages[0].x.shape[2:]
    spreads = (spread(cf.clip_leverage(phi[None], e[None]), *size, sharp=sharp) for phi in seen)
    return [phi[0, :, 0].expand(-1, *size).flatten(1) for phi in spreads], e


def _errors(stages: list[Stage]) -> Iterator[tuple[Tensor, Tensor]]:
    """Per image: outputs less their mean (N, P), truth less that mean (P,)."""
    for s in stages:
        mean = s.outputs.mean(0)
        for b in range(len(s.x)):
            yield (s.outputs[:, b] - mean[b]).flatten(1), (s.truth[b] - mean[b]).flatten()


def _worth_calling(
    stages: list[Stage],
    features: Sequence[cf.Features],
    ridges: Sequence[float],
    count: int,
    cell: cf.Cell,
    price: float,
    cost: Sequence[float],
) -> Tensor:
    """Which priors an iteration keeps, bool (N,): again and again the one whose error saves least for its cost goes.

    The cheapest always stays: weights are counted from it. The features stay those of all priors here.
    """
    n, base = len(cost), min(range(len(cost)), key=lambda i: cost[i])
    normal, (phis, _) = cf.NormalEquations(count), bounded(stages, features, cell)
    for position, (phi, (apart, target)) in enumerate(zip(phis, _errors(stages), strict=True)):
        others = torch.cat([apart[:base], apart[base + 1 :]]) - apart[base]
        normal.add(position % count, (others[:, None] * phi[None]).flatten(0, 1), target - apart[base])
    width = normal.gram[0].shape[0] // max(n - 1, 1) if n > 1 else 0  # type: ignore[union-attr]
    place = {i: k for k, i in enumerate(i for i in range(n) if i != base)}

    def error(those: list[int]) -> float:
        columns = [torch.arange(place[i] * width, (place[i] + 1) * width) for i in those]
        return normal.solve(ridges, torch.cat(columns))[2] if columns else sum(normal.square)

    kept = list(place)
    now = error(kept)
    while kept:
        without = {i: error([j for j in kept if j != i]) for i in kept}
        rise = {i: 10 * math.log10(without[i] / now) - price * cost[i] for i in kept}
        least = min(kept, key=lambda i: rise[i])
        if rise[least] >= 0:
            break
        kept.remove(least)
        now = without[least]
    return torch.tensor([i == base or i in kept for i in range(n)])
