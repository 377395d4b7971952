"""Fitting gates to labelled images along the trajectory that the method itself takes.

Iteration k of the loop is fitted on the images that iterations 0 .. k - 1, already fitted, lead to: the only images it
will ever see. Prior outputs are computed once per iteration and image, and dropped after it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import closed_form as cf
from fusionlib.fusion import spread
from fusionlib.gates import DataStep, Learned
from fusionlib.pnp import Physics
from fusionlib.priors import PriorBank

Data = Sequence[tuple[Physics, Tensor, Any]]  # instrument, truth (B, 1, H, W), data
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
    bank: PriorBank, data: Data, sigmas: Sequence[float], lam: float, fit: Fit, batch: int = 32
) -> None:
    """Run `pnp.hqs` on labelled images, with `fit` at every iteration saying how the outputs are fused from then on."""
    images = [physics.start(y) for physics, _, y in data]
    with torch.inference_mode():
        for sigma in sigmas:
            stages = []
            for z, (physics, truth, y) in zip(images, data, strict=True):
                step = _data_step(physics, y, lam / sigma**2)
                x = step(z)
                outputs = torch.cat([bank(part, sigma) for part in x.split(batch)], 1)
                stages.append(Stage(truth, x, outputs, step, sigma))
            fuse = fit(stages)
            images = [fuse(stage) for stage in stages]


def _data_step(physics: Physics, y: Any, rho: float) -> DataStep:
    return lambda v: physics.prox(v, y, rho)


def fit_closed_form(
    bank: PriorBank,
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    *,
    features: Sequence[cf.Features] = cf.ALL,
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> dict[str, Tensor]:
    """`theta` (K, N, F), `typical` (K, 2, F) and `ridge` (K,) of a `ClosedForm` gate for `pnp.hqs`.

    The ridge of each iteration is the one of `ridges` that predicts held-out labels best, in `folds` parts.
    """
    found: dict[str, list[Tensor]] = {"theta": [], "typical": [], "ridge": []}

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        count = min(folds, sum(len(s.truth) for s in stages))
        normal, seen = cf.Normal(count), []
        for position, (phi, apart, target) in enumerate(_columns(stages, features)):
            columns = (apart[:-1, None] * phi[None]).flatten(0, 1)  # the last prior is what the others leave
            normal.add(position % count, columns, target)
            seen.append(phi.mean(1))
        solved, ridge = normal.solve(ridges)
        theta = solved.view(len(bank) - 1, -1).to(stages[0].x)
        theta = torch.cat([theta, torch.zeros_like(theta[:1])])
        means = torch.stack(seen)
        most = (means - means.mean(0)).abs().amax(0).clamp(min=1e-3)
        found["theta"].append(theta.cpu())
        found["typical"].append(torch.stack([means.mean(0), most]).cpu())
        found["ridge"].append(torch.tensor(ridge))
        level = torch.tensor([stages[0].sigma])
        gate = cf.ClosedForm(level, theta[None], found["typical"][-1][None], features).to(theta.device)
        return lambda s: (gate(s.x, s.sigma, s.outputs, s.data_step)[:, :, None] * s.outputs).sum(0)

    along_trajectory(bank, data, sigmas, lam, fit)
    return {name: torch.stack(values) for name, values in found.items()}


def _columns(stages: list[Stage], features: Sequence[cf.Features]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Per image: features (F, P), outputs less their mean (N, P), truth less that mean (P,)."""
    for s in stages:
        sigma = torch.full((len(s.x),), s.sigma, device=s.x.device)
        phi = cf.maps(features, s.x, s.outputs, sigma, s.data_step)
        mean = s.outputs.mean(0)
        for b in range(len(s.x)):
            yield phi[b].flatten(1), (s.outputs[:, b] - mean[b]).flatten(1), (s.truth[b] - mean[b]).flatten()


@dataclass(frozen=True)
class Objective:
    """Loss of a gradient fit: `main` mse, l1 or focal, plus weighted terms on the weights.

    `entropy` is the seed's form, weight times sum w log w (positive spreads the weights of each image), `batch_entropy`
    the same of the mean weights; `diversity` w' S w, `literal` its form without diagonal; `importance`, `load`.
    All but `diversity` need weights on the simplex; with others they raise ValueError.
    """

    main: str = "mse"
    entropy: float = 0.0
    batch_entropy: float = 0.0
    diversity: float = 0.0
    literal: float = 0.0
    importance: float = 0.0
    load: float = 0.0

    def __call__(self, fused: Tensor, truth: Tensor, w: Tensor, outputs: Tensor) -> Tensor:
        error = fused - truth
        mains = {"mse": lambda: error.square().mean(), "l1": lambda: error.abs().mean(), "focal": lambda: focal(error)}
        if self.main not in mains:
            raise ValueError(f"Objective: main must be one of {sorted(mains)}, got {self.main!r}")
        terms = {"entropy": entropy, "batch_entropy": batch_entropy, "importance": importance, "load": load}
        used = {name: getattr(self, name) for name in terms if getattr(self, name)}
        if used and bool((w < -1e-6).any()):
            raise ValueError(f"Objective: {sorted(used)} need weights on the simplex, these have negative ones")
        signs = {"entropy": -1.0, "batch_entropy": -1.0}
        total = mains[self.main]() + sum(v * signs.get(name, 1.0) * terms[name](w) for name, v in used.items())
        total = total + (self.diversity * diversity(w, outputs) if self.diversity else 0.0)
        return total + (self.literal * diversity_literal(w, outputs) if self.literal else 0.0)


@dataclass(frozen=True)
class Schedule:
    """How a gradient fit goes: AdamW steps at each iteration of the loop (the first gets `first` times as many)."""

    steps: int = 40
    first: int = 4
    rate: float = 3e-3
    decay: float = 1e-4
    batch: int = 16
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
) -> list[tuple[Learned, nn.Module | None]]:
    """A gate, and adapters if `make` gives some, for each iteration of `pnp.hqs`, fitted by gradient descent.

    Each starts from the one before it. Images are mirrored and turned by right angles at random, the maps that the gate
    looks at with them. Deterministic from the seed of the `schedule`.
    """
    torch.manual_seed(schedule.seed)
    part = make()
    fitted: list[tuple[Learned, nn.Module | None]] = []
    device = data[0][1].device

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            gate, adapters = copy.deepcopy(fitted[-1] if fitted else part)
            gate.to(device)
            if adapters is not None:
                adapters.to(device)
            maps = torch.cat([gate.look(s.x, s.sigma, s.outputs, s.data_step) for s in stages]).clone()
            outputs = torch.cat([s.outputs for s in stages], 1).clone()
            truth = torch.cat([s.truth for s in stages]).clone()
            many = schedule.steps * (1 if fitted else schedule.first)
            _descend(gate, adapters, maps, outputs, truth, many, len(fitted), objective, schedule)
        fitted.append((gate, adapters))

        def fuse(s: Stage) -> Tensor:
            w = gate.weigh(gate.look(s.x, s.sigma, s.outputs, s.data_step))
            adapted = adapters(s.outputs, s.sigma) if adapters is not None else s.outputs
            return (spread(w, *s.x.shape[2:]) * adapted).sum(0)

        return fuse

    along_trajectory(bank, data, sigmas, lam, fit)
    return fitted


def _descend(
    gate: Learned,
    adapters: nn.Module | None,
    maps: Tensor,
    outputs: Tensor,
    truth: Tensor,
    steps: int,
    stage: int,
    objective: Objective,
    schedule: Schedule,
) -> None:
    parameters = [p for module in (gate, adapters) if module is not None for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.decay)
    rng = torch.Generator().manual_seed(schedule.seed * 1000 + stage)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = schedule.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(truth), (min(schedule.batch, len(truth)),), generator=rng)
        turn, mirror = int(torch.randint(4, (), generator=rng)), bool(torch.randint(2, (), generator=rng))
        seen, o, x = (_turned(t, turn, mirror) for t in (maps[chosen], outputs[:, chosen], truth[chosen]))
        w = gate.weigh(seen)
        adapted = adapters(o, 0.0) if adapters is not None else o
        loss = objective((spread(w, *x.shape[2:]) * adapted).sum(0), x, w, adapted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def _turned(t: Tensor, turn: int, mirror: bool) -> Tensor:
    t = torch.rot90(t, turn, (-2, -1))
    return t.flip(-1) if mirror else t


# --- losses of gradient fits ---


def focal(error: Tensor, gamma: float = 1.0) -> Tensor:
    """Squared error with pixels weighed by their own error: normalised weights |e / max e|^gamma without gradient.

    error (B, 1, H, W); gamma = 0 is the mean squared error.
    """
    size = error.detach().abs()
    weight = (size / size.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)) ** gamma
    return ((weight * error.square()).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-12)).mean()


def entropy(w: Tensor) -> Tensor:
    """Mean entropy of weights (N, B, h, w) on the simplex: H per image and place, then averaged."""
    return -(w * w.clamp(min=1e-12).log()).sum(0).mean()


def batch_entropy(w: Tensor) -> Tensor:
    """Entropy of the weights' mean over images and places: large when all priors are used by somebody."""
    mean = w.mean((1, 2, 3))
    return -(mean * mean.clamp(min=1e-12).log()).sum()


def similarity(outputs: Tensor, centred: bool = True) -> Tensor:
    """Cosines (B, N, N) of the outputs (N, B, 1, H, W), less their mean over the priors if `centred`."""
    o = outputs.flatten(2).transpose(0, 1)
    o = o - o.mean(1, keepdim=True) if centred else o
    o = o / o.norm(dim=2, keepdim=True).clamp(min=1e-12)
    return o @ o.mT


def diversity_literal(w: Tensor, outputs: Tensor) -> Tensor:
    """sum over i != j of w_i w_j sim_ij, as the seed has it: 0 for any one-hot w, so that it rewards collapse."""
    s = similarity(outputs, centred=False)
    s = s - torch.diag_embed(s.diagonal(dim1=1, dim2=2))
    return _quadratic(w, s)


def diversity(w: Tensor, outputs: Tensor) -> Tensor:
    """w' S w with its diagonal, S of the centred outputs: the fused error's own form, least where errors cancel."""
    return _quadratic(w, similarity(outputs))


def _quadratic(w: Tensor, s: Tensor) -> Tensor:
    flat = w.flatten(2)
    return torch.einsum("ibp,bij,jbp->bp", flat, s, flat).mean()


def importance(w: Tensor) -> Tensor:
    """Squared coefficient of variation of the priors' total weights (Shazeer et al. 2017)."""
    total = w.sum((1, 2, 3))
    return total.var(correction=0) / total.mean().square().clamp(min=1e-12)


def load(w: Tensor) -> Tensor:
    """N sum_i f_i p_i, f_i the share of places where prior i weighs most, p_i its mean weight (Switch, 2021); >= 1."""
    share = torch.nn.functional.one_hot(w.argmax(0).flatten(), len(w)).to(w).mean(0)
    return len(w) * (share * w.mean((1, 2, 3))).sum()


def collapse(w: Tensor) -> dict[str, float]:
    """How concentrated weights on the simplex are: both entropies over log N, and the mean greatest weight."""
    top = torch.log(torch.tensor(float(len(w))))
    return {
        "entropy": float(entropy(w) / top),
        "batch_entropy": float(batch_entropy(w) / top),
        "greatest": float(w.amax(0).mean()),
    }
