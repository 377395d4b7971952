"""Meta-learning of gates: episodes over conditions, and MAML with its relatives, exact through torch.func.

A task is what a gate sees of some labelled images under one condition (noise level, coverage, family of images, subset
of priors). Two random halves of one set of images are the same task twice, from which nothing can be learned about
adapting: conditions must differ.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from fusionlib.fusion import spread
from fusionlib.routing import Learned

Parameters = dict[str, Tensor]


class Task(NamedTuple):
    """Images of one condition: what the gate looks at (B, ...), outputs (N, B, 1, H, W), truth (B, 1, H, W), and which
    priors are there, bool (N,)."""

    maps: Tensor
    outputs: Tensor
    truth: Tensor
    keep: Tensor

    def of(self, index: Tensor) -> "Task":
        """The images `index`."""
        return Task(self.maps[index], self.outputs[:, index], self.truth[index], self.keep)


Loss = Callable[[Tensor, Task], Tensor]  # of fused images (B, 1, H, W)


def mse(fused: Tensor, task: Task) -> Tensor:
    return (fused - task.truth).square().mean()


class _Weigh(nn.Module):
    """A gate as a function of its maps, so that its parameters can be handed to it."""

    def __init__(self, gate: Learned):
        super().__init__()
        self.gate = gate

    def forward(self, maps: Tensor) -> Tensor:
        return self.gate.weigh(maps)


def parameters_of(gate: Learned) -> Parameters:
    return {name: p.detach().clone() for name, p in gate.named_parameters()}


def fuse(gate: Learned, parameters: Parameters, task: Task) -> Tensor:
    """Fused images (B, 1, H, W); priors that are not there have weight 0 and the others share it.

    On the simplex this is the softmax among those that are there.
    """
    w = functional_call(_Weigh(gate), {f"gate.{k}": v for k, v in parameters.items()}, (task.maps,))
    w = w * task.keep.view(-1, 1, 1, 1).to(w)
    w = w / w.sum(0, keepdim=True)
    return (spread(w, *task.truth.shape[2:]) * task.outputs).sum(0)


def adapt(
    gate: Learned,
    parameters: Parameters,
    support: Task,
    rate: float | Mapping[str, Tensor],
    steps: int = 1,
    *,
    loss: Loss = mse,
    inner: Sequence[str] = ("",),
    first_order: bool = False,
) -> Parameters:
    """`steps` of gradient descent on the support images, theta' = theta - rate grad L(theta), differentiable.

    `rate` is one number, or a learned step size per parameter (Meta-SGD, Li et al. 2017). Only parameters whose name
    starts with one of `inner` move (the head alone: ANIL, Raghu et al. 2020). With `first_order` the derivative of the
    gradient is dropped (FOMAML). `loss` may need no label: a misfit to visibilities held out, say.
    """
    theta = dict(parameters)
    moving = [name for name in theta if name.startswith(tuple(inner))]
    for _ in range(steps):

        def of(part: Parameters, theta: Parameters = theta) -> Tensor:
            return loss(fuse(gate, theta | part, support), support)

        slope = grad(of)({name: theta[name] for name in moving})
        if first_order:
            slope = {name: g.detach() for name, g in slope.items()}
        step = {name: rate if isinstance(rate, float) else rate[name] for name in moving}
        theta = theta | {name: theta[name] - step[name] * slope[name] for name in moving}
    return theta


def maml_gradient(
    gate: Learned,
    parameters: Parameters,
    episodes: Sequence[tuple[Task, Task]],
    rate: float | Mapping[str, Tensor],
    steps: int = 1,
    *,
    loss: Loss = mse,
    inner_loss: Loss = mse,
    inner: Sequence[str] = ("",),
    first_order: bool = False,
) -> Parameters:
    """Gradient of the mean query loss after adapting to the support, by the parameters (MAML, Finn et al. 2017).

    Exact second order unless `first_order`. With learned rates their gradient is there too, as `rate.<name>`.
    """

    def after(both: Parameters) -> Tensor:
        theta = {k: v for k, v in both.items() if not k.startswith("rate.")}
        rates = {k.removeprefix("rate."): v for k, v in both.items() if k.startswith("rate.")}
        losses = []
        for support, query in episodes:
            options = {"loss": inner_loss, "inner": inner, "first_order": first_order}
            adapted = adapt(gate, theta, support, rates or rate, steps, **options)  # type: ignore[arg-type]
            losses.append(loss(fuse(gate, adapted, query), query))
        return torch.stack(losses).mean()

    learned = {} if isinstance(rate, float) else {f"rate.{k}": v for k, v in rate.items()}
    return grad(after)(parameters | learned)


def reptile_update(
    gate: Learned, parameters: Parameters, tasks: Sequence[Task], rate: float, steps: int, epsilon: float
) -> Parameters:
    """theta + epsilon mean over tasks of (theta after `steps` of descent - theta) (Nichol et al. 2018).

    With one step this is gradient descent with rate epsilon x rate.
    """
    ends = [adapt(gate, parameters, task, rate, steps, first_order=True) for task in tasks]
    return {
        name: p + epsilon * torch.stack([end[name].detach() - p for end in ends]).mean(0)
        for name, p in parameters.items()
    }


def episode(pool: Task, rng: torch.Generator, k: int = 5, priors: int | None = None) -> tuple[Task, Task]:
    """Support and query of `k` different images each, of one condition; with `priors` only so many of them, at random.

    Raises ValueError for a pool of fewer than 2 k images.
    """
    if len(pool.truth) < 2 * k:
        raise ValueError(f"episode: {2 * k} images are needed for support and query, the pool has {len(pool.truth)}")
    order = torch.randperm(len(pool.truth), generator=rng)
    if priors is not None:
        there = pool.keep.nonzero().flatten()
        chosen = there[torch.randperm(len(there), generator=rng)[:priors]]
        pool = pool._replace(keep=torch.zeros_like(pool.keep).index_fill(0, chosen, True))
    return pool.of(order[:k]), pool.of(order[k : 2 * k])


def _together(a: Task, b: Task) -> Task:
    return Task(
        torch.cat([a.maps, b.maps]), torch.cat([a.outputs, b.outputs], 1), torch.cat([a.truth, b.truth]), a.keep
    )


def meta_fit(
    gate: Learned,
    pools: Sequence[Task],
    *,
    rule: str = "maml",
    rounds: int = 100,
    tasks: int = 4,
    k: int = 5,
    priors: int | None = None,
    rate: float = 0.05,
    steps: int = 1,
    outer: float = 1e-3,
    inner: Sequence[str] = ("",),
    seed: int = 0,
) -> Parameters:
    """Meta-trained parameters: each round `tasks` episodes of random conditions out of `pools`.

    `rule`: `maml`, `fomaml`, `metasgd` (learned step sizes), or `reptile` (support and query together; `outer` falls to
    0); `inner` = ("head",) makes the first three ANIL. Deterministic from the seed.
    """
    if rule not in ("maml", "fomaml", "metasgd", "reptile"):
        raise ValueError(f"meta_fit: rule must be maml, fomaml, metasgd or reptile, got {rule!r}")
    rng = torch.Generator().manual_seed(seed)
    theta = parameters_of(gate)
    rates = {name: torch.tensor(rate) for name in theta if name.startswith(tuple(inner))} if rule == "metasgd" else {}
    variables = {k: v.requires_grad_() for k, v in (theta | {f"rate.{k}": v for k, v in rates.items()}).items()}
    optimiser = torch.optim.Adam(list(variables.values()), lr=outer)
    for turn in range(rounds):
        chosen = torch.randint(len(pools), (tasks,), generator=rng)
        drawn = [episode(pools[int(i)], rng, k, priors) for i in chosen]
        now = {name: v.detach() for name, v in variables.items() if not name.startswith("rate.")}
        if rule == "reptile":
            whole = [_together(*pair) for pair in drawn]
            ends = reptile_update(gate, now, whole, rate, steps, 1 - turn / rounds)
            for name, v in ends.items():
                variables[name].data.copy_(v)
            continue
        steps_now = {k: variables[f"rate.{k}"].detach() for k in rates} or rate
        found = maml_gradient(gate, now, drawn, steps_now, steps, inner=inner, first_order=rule == "fomaml")
        for name, v in variables.items():
            v.grad = found[name]
        nn.utils.clip_grad_norm_(list(variables.values()), 10.0)
        optimiser.step()
    return {name: v.detach() for name, v in variables.items()}
