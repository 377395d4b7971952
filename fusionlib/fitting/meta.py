"""Meta-learning of gates: episodes over conditions, and MAML with its relatives, exact through torch.func.

A task is what a gate sees of some labelled images under one condition (noise level, coverage, family of images, subset
of priors). Two random halves of one set of images are the same task twice, from which nothing can be learned about
adapting: conditions must differ.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from fusionlib.fitting.trajectory import Data, Stage, along_trajectory
from fusionlib.fusion import spread
from fusionlib.gates import Learned
from fusionlib.priors import PriorBank

Parameters = dict[str, Tensor]


class Task(NamedTuple):
    """Images of one condition: what the gate looks at (B, ...), outputs (N, B, 1, H, W), truth (B, 1, H, W), which
    priors are there, bool (N,), and the noise level."""

    maps: Tensor
    outputs: Tensor
    truth: Tensor
    keep: Tensor
    sigma: float = 1.0

    def of(self, index: Tensor) -> "Task":
        """The images `index`."""
        return self._replace(maps=self.maps[index], outputs=self.outputs[:, index], truth=self.truth[index])


class Pair(nn.Module):
    """A gate and adapters, meta-learned as one: parameters `gate...` and `adapters...`."""

    def __init__(self, gate: Learned, adapters: nn.Module):
        super().__init__()
        self.gate, self.adapters = gate, adapters


Loss = Callable[[Tensor, Task], Tensor]  # of fused images (B, 1, H, W)


def mse(fused: Tensor, task: Task) -> Tensor:
    return (fused - task.truth).square().mean()


def log_mse(fused: Tensor, task: Task) -> Tensor:
    """Mean over images of log mean squared error: a step then moves as far at every noise level."""
    return (fused - task.truth).square().mean((1, 2, 3)).log().mean()


class _Fuse(nn.Module):
    """A gate, or a pair, as a function of a task, so that its parameters can be handed to it."""

    def __init__(self, module: Learned | Pair):
        super().__init__()
        self.module = module

    def forward(self, task: Task) -> Tensor:
        gate, outputs = self.module, task.outputs
        if isinstance(gate, Pair):
            gate, outputs = gate.gate, gate.adapters(outputs, task.sigma)  # type: ignore[operator]
        w = gate.weigh(task.maps) * task.keep.view(-1, 1, 1, 1).to(outputs)
        w = w / w.sum(0, keepdim=True)
        return (spread(w, *task.truth.shape[2:]) * outputs).sum(0)


def parameters_of(gate: nn.Module) -> Parameters:
    return {name: p.detach().clone() for name, p in gate.named_parameters()}


def fuse(gate: Learned | Pair, parameters: Parameters, task: Task) -> Tensor:
    """Fused images (B, 1, H, W); priors that are not there have weight 0 and the others share it.

    On the simplex this is the softmax among those that are there.
    """
    return functional_call(_Fuse(gate), {f"module.{k}": v for k, v in parameters.items()}, (task,))


def adapt(
    gate: Learned | Pair,
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
    gate: Learned | Pair,
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
    gate: Learned | Pair, parameters: Parameters, tasks: Sequence[Task], rate: float, steps: int, epsilon: float
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
    maps, outputs, truth = (
        torch.cat([a.maps, b.maps]),
        torch.cat([a.outputs, b.outputs], 1),
        torch.cat([a.truth, b.truth]),
    )
    return a._replace(maps=maps, outputs=outputs, truth=truth)


def meta_fit(
    gate: Learned | Pair,
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
    loss: Loss = mse,
    seed: int = 0,
) -> Parameters:
    """Meta-trained parameters: each round `tasks` episodes of random conditions out of `pools`.

    `rule`: `maml`, `fomaml`, `metasgd` (learned step sizes), or `reptile` (support and query together; `outer` falls to
    0); `inner` = ("head",) makes the first three ANIL. `metasgd` also returns its step sizes, as `rate.<name>`.
    Deterministic from the seed.
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
        options = {"loss": loss, "inner_loss": loss, "inner": inner, "first_order": rule == "fomaml"}
        gradient = maml_gradient(gate, now, drawn, steps_now, steps, **options)  # type: ignore[arg-type]
        for name, v in variables.items():
            v.grad = gradient[name]
        nn.utils.clip_grad_norm_(list(variables.values()), 10.0)
        optimiser.step()
    return {name: v.detach() for name, v in variables.items()}


@dataclass(frozen=True)
class MetaConfig:
    """How meta-learning along a trajectory goes: `rounds` at each iteration of the loop, `first` times as many at the
    first; `tasks` episodes a round with support and query of at most `k` images; `steps` of descent with `rate` inside,
    on the parameters whose names start with one of `inner` (the router's head), `shots` of them on the labelled images
    in the end. With `unseen` the labelled images are adapted to, but are no condition of the training. The loss is
    `log_mse`."""

    rule: str = "maml"
    rounds: int = 20
    first: int = 4
    tasks: int = 4
    k: int = 5
    rate: float = 1.0
    steps: int = 1
    shots: int = 5
    outer: float = 3e-3
    inner: tuple[str, ...] = ("head", "gate.head")
    priors: int | None = None
    unseen: bool = False
    seed: int = 0


USUAL = MetaConfig()


def fit_meta(
    bank: PriorBank,
    data: Data,
    others: Data,
    sigmas: Sequence[float],
    lam: float,
    make: Callable[[], tuple[Learned, nn.Module | None]],
    *,
    course: MetaConfig = USUAL,
) -> list[tuple[Learned, nn.Module | None]]:
    """A gate, and adapters if `make` gives some, for each iteration of `pnp.hqs`: meta-learned, then adapted to `data`.

    Conditions are the labelled images `data`, together, and each of `others` (images of other families, coverages,
    noise). At every iteration the shared parameters are meta-trained on the iterates that iterations before lead to,
    and adapted by `course.shots` steps to each condition, which goes on with what was adapted to it. Deterministic from
    the seed.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(course.seed)
        gate, adapters = make()
    module: Learned | Pair = (gate if adapters is None else Pair(gate, adapters)).to(data[0][1].device)
    fitted: list[tuple[Learned, nn.Module | None]] = []
    both = [*data, *others]

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            tasks = [_task(gate, s) for s in stages]
            target = tasks[0]
            for more in tasks[1 : len(data)]:
                target = _together(target, more)
            pools = [target, *tasks[len(data) :]]
            large = [p for p in pools[course.unseen :] if len(p.truth) > 1]  # of one there is no support and query
            theta = meta_fit(
                module,
                large,
                rule=course.rule,
                rounds=course.rounds * (1 if fitted else course.first),
                tasks=course.tasks,
                k=min(course.k, *(len(p.truth) // 2 for p in large)),
                priors=course.priors,
                rate=course.rate,
                steps=course.steps,
                outer=course.outer,
                inner=course.inner,
                loss=log_mse,
                seed=course.seed * 1000 + len(fitted),
            )
            rates = {k.removeprefix("rate."): theta.pop(k) for k in list(theta) if k.startswith("rate.")}
            module.load_state_dict(theta)
            options = {"loss": log_mse, "inner": course.inner, "first_order": True}
            own = [adapt(module, theta, p, rates or course.rate, course.shots, **options) for p in pools]  # type: ignore[arg-type]
            own = [{name: v.detach() for name, v in one.items()} for one in own]
        mine = copy.deepcopy(module)
        mine.load_state_dict(own[0], strict=False)
        fitted.append((mine.gate, mine.adapters) if isinstance(mine, Pair) else (mine, None))
        which = {id(s): max(0, k - len(data) + 1) for k, s in enumerate(stages)}
        with torch.no_grad():
            images = {id(s): fuse(module, own[which[id(s)]], t) for s, t in zip(stages, tasks, strict=True)}
        return lambda s: images[id(s)]

    along_trajectory(bank, both, sigmas, lam, fit)
    return fitted


def _task(gate: Learned, s: Stage) -> Task:
    """One iteration of one condition as a task with all priors."""
    maps = gate.look(s.x, s.sigma, s.outputs, s.data_step).clone()
    keep = torch.ones(len(s.outputs), dtype=torch.bool, device=s.x.device)
    return Task(maps, s.outputs.clone(), s.truth.clone(), keep, s.sigma)
