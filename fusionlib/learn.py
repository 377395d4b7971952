"""Fitting gates to labelled images along the trajectory that the method itself takes.

Iteration k of the loop is fitted on the images that iterations 0 .. k - 1, already fitted, lead to: the only images it
will ever see. Prior outputs are computed once per iteration and image, and dropped after it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fusionlib import closed_form as cf
from fusionlib.datasets import turned
from fusionlib.fusion import spread
from fusionlib.gates import DataStep
from fusionlib.losses import Objective
from fusionlib.oracles import affine_weights, simplex_weights
from fusionlib.pnp import Physics
from fusionlib.priors import PriorBank
from fusionlib.routing import Learned

Data = Sequence[tuple[Physics, Tensor, Any]]  # instrument, truth (B, 1, H, W), data
Policy = Literal["own", "average", "white"]
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass
class Stage:
    """One iteration of the loop for some labelled images: what the priors got and gave, and the data step then."""

    truth: Tensor
    x: Tensor
    outputs: Tensor
    data_step: DataStep
    sigma: float


Fit = Callable[[list[Stage]], Callable[[Stage], Tensor]]  # learns from the stages, then fuses each: image (B, 1, H, W)


def along_trajectory(
    bank: PriorBank,
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    fit: Fit,
    *,
    policy: Policy = "own",
    batch: int = 32,
) -> None:
    """Run `pnp.hqs` on labelled images, with `fit` at every iteration saying how the outputs are fused from then on.

    `policy` says which images it is fitted on: those that its `own` iterations lead to, those of the `average` of the
    priors, or the truth in `white` noise. Only the first are what it will see.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"policy must be one of {get_args(Policy)}, got {policy!r}")
    images, rng = [physics.start(y) for physics, _, y in data], torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for sigma in sigmas:
            stages = []
            for z, (physics, truth, y) in zip(images, data, strict=True):
                step = data_step(physics, y, lam / sigma**2)
                white = policy == "white"
                x = truth + sigma * torch.randn(truth.shape, generator=rng).to(truth) if white else step(z)
                outputs = torch.cat([bank(part, sigma) for part in x.split(batch)], 1)
                stages.append(Stage(truth, x, outputs, step, sigma))
            fuse = fit(stages)
            images = [stage.outputs.mean(0) if policy == "average" else fuse(stage) for stage in stages]


def data_step(physics: Physics, y: Any, rho: float) -> DataStep:
    """What a loop knows of the data at penalty `rho`."""
    return lambda v: physics.prox(v, y, rho)


def fit_static(bank: PriorBank, data: Data, sigmas: Sequence[float], lam: float, *, simplex: bool) -> Tensor:
    """Weights (K, N), one for each prior and iteration of `pnp.hqs`: on the simplex, or free of sign."""
    found = []

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        errors = torch.cat([(s.outputs - s.truth).flatten(1) for s in stages], 1)
        gram = (errors @ errors.T).cpu()
        w = simplex_weights(gram) if simplex else affine_weights(gram)
        found.append(w)
        return lambda s: _fused(w.to(s.outputs).view(-1, 1, 1, 1), s.outputs)

    along_trajectory(bank, data, sigmas, lam, fit)
    return torch.stack(found)


def fit_closed_form(
    bank: PriorBank,
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
) -> dict[str, Tensor]:
    """`theta` (K, N, F), `typical` (K, 2, F) and `ridge` (K,) of a `ClosedForm` gate for `pnp.hqs`.

    `cell` pixels share a weight (`closed_form.Cell`). The ridge of each iteration is the one of `ridges` that
    predicts held-out labels best, in `folds` parts. With a `price`, in dB of that prediction's error per unit of the
    priors' `cost` (N,), an iteration goes without the priors that are not worth theirs:
    `kept` (K, N) tells. `policy` as in `along_trajectory`.
    """
    found: dict[str, list[Tensor]] = {"theta": [], "typical": [], "ridge": [], "kept": []}
    if price and len(cost) != len(bank):
        raise ValueError(f"fit_closed_form: cost needs {len(bank)} numbers, one per prior, got {len(cost)}")

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        count = min(folds, sum(len(s.truth) for s in stages))
        kept = torch.ones(len(bank), dtype=torch.bool)
        if price and count > 1:  # of one image there is nothing to predict
            kept = _worth_calling(stages, features, ridges, count, cell, price, cost)
            there = kept.nonzero()[:, 0].to(stages[0].x.device)
            stages = [replace(s, outputs=s.outputs[there]) for s in stages]
        some, typical, ridge = solve_stage(stages, features, ridges, count, cell)
        theta = some.new_zeros(len(bank), some.shape[1])
        theta[kept] = some
        for name, value in (("theta", theta), ("typical", typical), ("ridge", torch.tensor(ridge)), ("kept", kept)):
            found[name].append(value.cpu())
        level = torch.tensor([stages[0].sigma])
        gate = cf.ClosedForm(level, theta[None], typical[None], features, cell, kept[None]).to(stages[0].x.device)
        return lambda s: _fused(gate(s.x, s.sigma, s.outputs, s.data_step), s.outputs)

    along_trajectory(bank, data, sigmas, lam, fit, policy=policy)
    if not price:
        del found["kept"]
    return {name: torch.stack(values) for name, values in found.items()}


def solve_stage(
    stages: list[Stage], features: Sequence[cf.Features], ridges: Sequence[float], folds: int, cell: cf.Cell
) -> tuple[Tensor, Tensor, float]:
    """One iteration's `theta` (N, F), `typical` (2, F) and ridge, of the priors whose outputs there are."""
    normal, seen, n = cf.Normal(folds), [], len(stages[0].outputs)
    for position, (phi, apart, target) in enumerate(_columns(stages, features, cell)):
        columns = (apart[:-1, None] * phi[None]).flatten(0, 1)  # the last prior is what the others leave
        normal.add(position % folds, columns, target)
        seen.append(phi.mean(1))
    typical = cf.typical_of(torch.stack(seen))
    theta, ridge = typical.new_zeros(n, typical.shape[1]), ridges[0]
    if n > 1:
        solved, ridge, _ = normal.solve(ridges)
        theta[:-1] = solved.view(n - 1, -1).to(theta)
    return theta, typical, ridge


def _columns(
    stages: list[Stage], features: Sequence[cf.Features], cell: cf.Cell
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Per image: features (F, P), outputs less their mean (N, P), truth less that mean (P,)."""
    for s in stages:
        sigma = torch.full((len(s.x),), s.sigma, device=s.x.device)
        phi = cf.maps(features, s.x, s.outputs, sigma, s.data_step, cell)
        phi = spread(phi, *s.x.shape[2:])[:, :, 0].expand(-1, -1, *s.x.shape[2:])
        mean = s.outputs.mean(0)
        for b in range(len(s.x)):
            yield phi[b].flatten(1), (s.outputs[:, b] - mean[b]).flatten(1), (s.truth[b] - mean[b]).flatten()


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
    normal = cf.Normal(count)
    for position, (phi, apart, target) in enumerate(_columns(stages, features, cell)):
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


@dataclass(frozen=True)
class Schedule:
    """How a gradient fit goes: AdamW steps at each iteration of the loop (the first gets `first` times as many).

    With `subsets` it sees, half of the time, one of so many random subsets of the priors, at least two of them: for
    gates that take any number of priors.
    """

    steps: int = 40
    first: int = 4
    rate: float = 3e-3
    decay: float = 1e-4
    batch: int = 16
    subsets: int = 0
    seed: int = 0


MSE, USUAL = Objective(), Schedule()


def fit_gate(
    bank: PriorBank,
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    make: Callable[[], tuple[Learned, nn.Module | None]],
    *,
    objective: Objective = MSE,
    schedule: Schedule = USUAL,
    separate: bool = False,
    policy: Policy = "own",
) -> list[tuple[Learned, nn.Module | None]]:
    """A gate, and adapters if `make` gives some, for each iteration of `pnp.hqs`, fitted by gradient descent.

    Both together, or with `separate` first the gate on the bare outputs, then, the gate frozen, the adapters, each for
    half of the steps. Each iteration starts from the one before it. Images are mirrored and turned by right angles at
    random, the maps that the gate looks at with them. `policy` as in `along_trajectory`. Deterministic from the seed of
    the `schedule`.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)
        start = make()
    fitted: list[tuple[Learned, nn.Module | None]] = []
    device = data[0][1].device

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            gate, adapters = copy.deepcopy(fitted[-1] if fitted else start)
            gate.to(device)
            if adapters is not None:
                adapters.to(device)
            rng = torch.Generator().manual_seed(schedule.seed * 1000 + len(fitted))
            steps = schedule.steps * (1 if fitted else schedule.first)
            if separate and adapters is not None:
                _descend(gate, None, stages, steps // 2, objective, schedule, rng)
                gate.requires_grad_(False)
                _descend(gate, adapters, stages, steps // 2, objective, schedule, rng)
                gate.requires_grad_(True)
            else:
                _descend(gate, adapters, stages, steps, objective, schedule, rng)
        fitted.append((gate, adapters))

        def fuse(s: Stage) -> Tensor:
            w = gate.weigh(gate.look(s.x, s.sigma, s.outputs, s.data_step))
            return _fused(w, adapters(s.outputs, s.sigma) if adapters is not None else s.outputs, gate.sharp)

        return fuse

    along_trajectory(bank, data, sigmas, lam, fit, policy=policy)
    return fitted


def _fused(w: Tensor, outputs: Tensor, sharp: bool = False) -> Tensor:
    return (spread(w, *outputs.shape[3:], sharp=sharp) * outputs).sum(0)


def _descend(
    gate: Learned,
    adapters: nn.Module | None,
    stages: list[Stage],
    steps: int,
    objective: Objective,
    schedule: Schedule,
    rng: torch.Generator,
) -> None:
    """Fit one iteration's gate and adapters in place."""
    sigma = stages[0].sigma
    outputs = torch.cat([s.outputs for s in stages], 1).clone()
    views = []
    for there in _subsets(len(outputs), schedule.subsets, rng):
        seen = torch.cat([gate.look(s.x, s.sigma, s.outputs[there], s.data_step) for s in stages]).clone()
        views.append((seen, there))
    truth = torch.cat([s.truth for s in stages]).clone()
    parameters = [p for module in (gate, adapters) if module is not None for p in module.parameters()]
    parameters = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.decay)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = schedule.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(truth), (min(schedule.batch, len(truth)),), generator=rng)
        k = int(torch.randint(8, (), generator=rng))
        maps, there = views[step // 2 % len(views[1:]) + 1 if schedule.subsets and step % 2 else 0]
        seen, o, x = (turned(t, k) for t in (maps[chosen], outputs[there][:, chosen], truth[chosen]))
        w = gate.weigh(seen)
        o = adapters(o, sigma) if adapters is not None else o
        loss = objective(_fused(w, o, gate.sharp), x, w, o)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def _subsets(n: int, count: int, rng: torch.Generator) -> list[Tensor]:
    """All of n priors, and `count` random subsets of at least two."""
    sizes = [int(torch.randint(2, n, (), generator=rng)) if n > 2 else n for _ in range(count)]
    return [torch.arange(n), *(torch.randperm(n, generator=rng)[:size].sort().values for size in sizes)]
