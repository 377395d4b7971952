"""Fitting gates, and adapters, by gradient descent along the trajectory that the method itself takes."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusionlib.fitting.descent import descend
from fusionlib.fitting.losses import Objective
from fusionlib.fitting.trajectory import Data, Policy, Stage, along_trajectory, fused
from fusionlib.gates import Learned
from fusionlib.priors import PriorBank
from fusionlib.priors.datasets import turned


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
    bank: PriorBank | Sequence[PriorBank],
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
    random, the maps that the gate looks at with them. `policy`, and one bank for each entry of the data, as in
    `along_trajectory`. Deterministic from the seed of the `schedule`.
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
            return fused(w, adapters(s.outputs, s.sigma) if adapters is not None else s.outputs, gate.sharp)

        return fuse

    along_trajectory(bank, data, sigmas, lam, fit, policy=policy)
    return fitted


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

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(truth), (min(schedule.batch, len(truth)),), generator=rng)
        k = int(torch.randint(8, (), generator=rng))
        maps, there = views[step // 2 % len(views[1:]) + 1 if schedule.subsets and step % 2 else 0]
        seen, o, x = (turned(t, k) for t in (maps[chosen], outputs[there][:, chosen], truth[chosen]))
        w = gate.weigh(seen)
        o = adapters(o, sigma) if adapters is not None else o
        return objective(fused(w, o, gate.sharp), x, w, o)

    descend([(parameters, schedule.rate)], loss, steps, decay=schedule.decay)


def _subsets(n: int, count: int, rng: torch.Generator) -> list[Tensor]:
    """All of n priors, and `count` random subsets of at least two."""
    sizes = [int(torch.randint(2, n, (), generator=rng)) if n > 2 else n for _ in range(count)]
    return [torch.arange(n), *(torch.randperm(n, generator=rng)[:size].sort().values for size in sizes)]
