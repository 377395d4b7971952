"""Patch-level routing in mixtures of experts (pMoE): Chowdhury et al., ICML 2023, arXiv 2306.04073.

A sample is n patches of d numbers, x (n, d), its label y is +1 or -1. Each of k experts chooses the l patches with the
largest inner products with its routing vector (expert choice), and reads no others. Everything here runs many trials at
once: a first dimension R of independent models, each with data of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ARMS = ("cnn", "separate", "joint", "image")


class Mixture(NamedTuple):
    """k experts of m / k neurons: `routers` (R, k, d), `neurons` (R, k, m / k, d), output signs (k, m / k), fixed."""

    routers: Tensor
    neurons: Tensor
    signs: Tensor


@dataclass(frozen=True)
class Arm:
    """How a mixture routes and learns.

    `kind`: `separate` (routers first, by a loss linear in them, then the experts), `joint` (both by the logistic loss,
    patches weighed by the softmax of their routing values), `cnn` (one expert that reads every patch: no routing), or
    `image` (the conventional mixture: each whole sample goes to one of k experts that read every patch). `l` patches of
    n per expert, `m` neurons in all. With `coarse` the n patches are four blocks of n / 4, one after the other, and an
    expert looks for its patches in that many best blocks only (two levels of routing).
    """

    kind: str
    k: int = 1
    l: int = 0
    m: int = 40
    coarse: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ARMS:
            raise ValueError(f"Arm: kind must be one of {ARMS}, got {self.kind!r}")
        if self.k < 1 or self.m % self.k:
            raise ValueError(f"Arm: the m = {self.m} neurons must divide among k >= 1 experts, got k = {self.k}")
        if self.kind in ("separate", "joint") and self.l < 1:
            raise ValueError(f"Arm: l must be at least 1 with {self.kind} training, got {self.l}")
        if self.kind == "cnn" and self.k != 1:
            raise ValueError(f"Arm: cnn is one expert, got k = {self.k}")
        if self.kind == "separate" and self.k != 2:
            raise ValueError(f"Arm: separate training is of one router per class, k = 2, got {self.k}")
        if not 0 <= self.coarse <= 4:
            raise ValueError(f"Arm: coarse is 1 to 4 blocks, or 0 for one level of routing; got {self.coarse}")


def route(routers: Tensor, x: Tensor, l: int, coarse: int = 0) -> tuple[Tensor, Tensor]:
    """The l patches of x (R, B, n, d) that each expert chooses: routing values and numbers, (R, B, k, l) each.

    Raises ValueError unless 1 <= l <= n, and n / 4 x `coarse` where routing has two levels.
    """
    n = x.shape[2]
    if coarse and n % 4:
        raise ValueError(f"route: two levels need n divisible by 4, got {n}")
    if not 1 <= l <= (n * coarse // 4 or n):
        raise ValueError(f"route: l must be in 1 .. {n * coarse // 4 or n}, the patches there are, got {l}")
    if not coarse:
        top = torch.einsum("rkd,rbnd->rbkn", routers, x).topk(l, 3)
        return top.values, top.indices
    blocks = torch.einsum("rkd,rbqd->rbkq", routers, x.unflatten(2, (4, n // 4)).sum(3))
    best = blocks.topk(coarse, 3).indices
    among = (best[..., None] * (n // 4) + torch.arange(n // 4, device=x.device)).flatten(3)  # (R, B, k, coarse n / 4)
    values = torch.einsum("rkd,rbkjd->rbkj", routers, _gather(x, among))
    top = values.topk(l, 3)
    return top.values, among.gather(3, top.indices)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """The patches `index` (R, B, k, l) of x (R, B, n, d): (R, B, k, l, d)."""
    d = x.shape[3]
    return x.gather(2, index.flatten(2)[..., None].expand(-1, -1, -1, d)).unflatten(2, index.shape[2:])


def output(model: Mixture, x: Tensor, arm: Arm) -> Tensor:
    """f(x), (R, B), of samples x (R, B, n, d); its sign is the label.

    sum over experts s and their neurons r of a_rs / l sum over chosen patches j of ReLU(<w_rs, x_j>) G_js, with G = 1,
    or in `joint` the softmax of the routing values of the l chosen. In `image` the expert with the largest <w_s, sum_j
    x_j> alone counts, times the softmax over the experts.
    """
    if arm.kind in ("cnn", "image"):
        experts = _responses(model.neurons, x[:, :, None], model.signs).mean(3)
        if arm.kind == "cnn":
            return experts.sum(2)
        gate = torch.einsum("rkd,rbd->rbk", model.routers, x.sum(2)).softmax(2)
        best = gate.argmax(2, keepdim=True)
        return (gate * experts).gather(2, best)[:, :, 0]
    values, index = route(model.routers, x, arm.l, arm.coarse)
    chosen = _gather(x, index)
    weight = values.softmax(3) if arm.kind == "joint" else torch.ones_like(values)
    return (_responses(model.neurons, chosen, model.signs) * weight).mean(3).sum(2)


def _responses(neurons: Tensor, chosen: Tensor, signs: Tensor) -> Tensor:
    """sum_r a_rs ReLU(<w_rs, x_j>), (R, B, k, l), of patches (R, B, k or 1, l, d)."""
    r, b, _, l, d = chosen.shape
    k = neurons.shape[1]
    by_expert = chosen.expand(r, b, k, l, d).transpose(1, 2).flatten(2, 3)  # (R, k, B l, d)
    hidden = F.relu(by_expert @ neurons.transpose(2, 3))
    return (hidden * signs[:, None]).sum(3).unflatten(2, (b, l)).transpose(1, 2)


def start(arm: Arm, trials: int, d: int, seed: int) -> Mixture:
    """A model of each trial before training. Signs are +1 and -1 in turn; with one router per class, by expert."""
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape, std: std * torch.randn(trials, *shape, generator=rng)  # noqa: E731
    width = arm.m // arm.k
    turns = 1.0 - 2 * (torch.arange(arm.m) % 2).view(arm.k, width)
    signs = torch.tensor([1.0, -1.0])[:, None].expand(2, width) if arm.kind == "separate" else turns
    std = 0.01 if arm.kind == "joint" else 0.1
    return Mixture(draw(arm.k, d, std=1e-4), draw(arm.k, width, d, std=std), signs)


def fit(
    x: Tensor,
    y: Tensor,
    arm: Arm,
    *,
    rate: float,
    epochs: int = 150,
    batch: int = 20,
    seed: int = 0,
    log: list | None = None,
) -> Mixture:
    """Train on samples x (R, N, n, d) with labels y (R, N) in {-1, +1}, each trial on its own, by SGD.

    The logistic loss of f; in `separate` training the routers go first (`fit_routers`) and are frozen. Deterministic
    from the seed. The mean loss of each epoch is appended to `log`. Raises ValueError for labels that are not +-1.
    """
    if not bool((y.abs() == 1).all()) or x.shape[:2] != y.shape:
        raise ValueError(f"fit: labels (R, N) of -1 and +1 are needed for x {tuple(x.shape)}, got {tuple(y.shape)}")
    model, samples = start(arm, len(x), x.shape[3], seed), x.shape[1]
    if arm.kind == "separate":
        model = model._replace(routers=fit_routers(model.routers, x, y, rate=rate, epochs=100, batch=batch))
        _, index = route(model.routers, x, arm.l, arm.coarse)  # the routers stay as they are, and so does their choice
        chosen = _gather(x, index)
    learned = [model.neurons, *([model.routers] if arm.kind in ("joint", "image") else [])]
    learned = [p.requires_grad_() for p in learned]
    rng = torch.Generator().manual_seed(seed + 1)
    for _ in range(epochs):
        total = 0.0
        for part in torch.randperm(samples, generator=rng).split(batch):
            if arm.kind == "separate":
                f = _responses(model.neurons, chosen[:, part], model.signs).mean(3).sum(2)
            else:
                f = output(model, x[:, part], arm)
            loss = F.softplus(-y[:, part] * f).mean(1)
            slopes = torch.autograd.grad(loss.sum(), learned)
            with torch.no_grad():
                for p, slope in zip(learned, slopes, strict=True):
                    p -= rate * slope
            total += float(loss.detach().mean()) * len(part)
        if log is not None:
            log.append(total / samples)
    return Mixture(*(p.detach() for p in model))


def fit_routers(routers: Tensor, x: Tensor, y: Tensor, *, rate: float, epochs: int, batch: int) -> Tensor:
    """Two routers (R, 2, d) after SGD on - mean over samples of y <w_1 - w_2, sum_j x_j>.

    The loss is linear: its slope is the same everywhere, so that an epoch in any order, of batches of one size, moves
    the routers by as many steps along the mean slope, and that is what is computed.
    """
    slope = (y[..., None] * x.sum(2)).mean(1)
    steps = epochs * math.ceil(x.shape[1] / batch)
    return routers + rate * steps * torch.stack([slope, -slope], 1)


# --- what is measured ---


def accuracy(model: Mixture, x: Tensor, y: Tensor, arm: Arm) -> Tensor:
    """Share of labels found, (R,)."""
    with torch.no_grad():
        parts = [output(model, part, arm) for part in x.split(200, 1)]
    return (torch.cat(parts, 1).sign() == y).float().mean(1)


def router_hit(model: Mixture, x: Tensor, y: Tensor, where: Tensor, arm: Arm) -> Tensor:
    """Share of samples whose discriminative patch, number `where` (R, B), is among the l that an expert chose, (R,).

    With separate training the expert of the sample's own class, else the mean over the experts: by chance l / n. NaN
    for arms that do not choose patches.
    """
    if arm.kind not in ("separate", "joint"):
        return torch.full((len(x),), math.nan)
    _, index = route(model.routers, x, arm.l, arm.coarse)
    there = (index == where[..., None, None]).any(3)  # (R, B, k)
    if arm.kind == "separate":
        return there.gather(2, (y < 0).long()[..., None])[..., 0].float().mean(1)
    return there.float().mean((1, 2))


def flops(arm: Arm, n: int, d: int) -> int:
    """Floating-point operations of one sample through the model: two per product of routers and of neurons read."""
    reading = {"cnn": arm.m * n, "image": arm.m // arm.k * n}.get(arm.kind, arm.m * arm.l)
    routing = {"cnn": 0, "image": arm.k}.get(arm.kind, arm.k * (4 + arm.coarse * n // 4 if arm.coarse else n))
    return 2 * d * (reading + routing)


def saved_bytes(arm: Arm, x: Tensor, y: Tensor) -> int:
    """Memory that one training step keeps for its gradients, beside the data: bytes of the tensors autograd saves."""
    model, kept = start(arm, len(x), x.shape[3], 0), {}
    learned = [model.neurons, model.routers] if arm.kind in ("joint", "image") else [model.neurons]
    for p in learned:
        p.requires_grad_()

    def keep(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        F.softplus(-y * output(model, x, arm)).mean().backward()
    return sum(kept.values())


# --- data ---


class Samples(NamedTuple):
    """x (R, N, n, d), y (R, N) in {-1, +1}, and the number of the discriminative patch (R, N)."""

    x: Tensor
    y: Tensor
    where: Tensor


def theory(
    trials: int, samples: int, n: int = 16, d: int = 64, sets: int = 4, noise: float = 0.3, *, seed: int, split: int = 0
) -> Samples:
    """The data of the theory: one patch per sample is o_1 or o_2, by its label, the others come from `sets` patterns.

    o_1, o_2 and the patterns are orthonormal directions, drawn per trial from `seed`; an irrelevant patch is its
    pattern with white noise of norm `noise` added. `split` draws other samples of the same trials.
    """
    if d < 2 + sets:
        raise ValueError(f"theory: d must be at least 2 + sets = {2 + sets}, got {d}")
    rng = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(trials, d, 2 + sets, generator=rng)).Q.transpose(1, 2)
    rng = torch.Generator().manual_seed(seed * 1000 + split + 1)
    y = 1.0 - 2 * torch.randint(2, (trials, samples), generator=rng)
    which = torch.randint(2, 2 + sets, (trials, samples, n), generator=rng)
    where = torch.randint(n, (trials, samples), generator=rng)
    which.scatter_(2, where[..., None], (y < 0).long()[..., None])
    x = directions.gather(1, which.flatten(1)[..., None].expand(-1, -1, d)).unflatten(1, (samples, n))
    white = torch.randn(x.shape, generator=rng) * noise / math.sqrt(d)
    return Samples(x + white * (which >= 2)[..., None], y, where)


class Digits(NamedTuple):
    """Patches (M, d), centred and of norm 1, and their labels (M,)."""

    patches: Tensor
    labels: Tensor


def prepared(images: Tensor, labels: Tensor, share: float = 0.7, seed: int = 0) -> tuple[Digits, Digits]:
    """Digits to train and to test with, no image in both; both centred on the mean of the former."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    flat, first = images.flatten(1)[order], int(share * len(images))
    flat = F.normalize(flat - flat[:first].mean(0), dim=1)
    return Digits(flat[:first], labels[order[:first]]), Digits(flat[first:], labels[order[first:]])


def composed(digits: Sequence[Digits], samples: int, n: int = 16, *, seed: int) -> Samples:
    """Samples of n digits, a patch each, one trial for each of `digits`, of which it is composed.

    Exactly one patch is a 1 (y = +1) or a 0 (y = -1), the others are 2 to 9.
    """
    rng, composed_samples = torch.Generator().manual_seed(seed), []
    for pool in digits:
        pick = lambda those, *shape: those[torch.randint(len(those), shape, generator=rng)]  # noqa: E731
        ones, zeros, others = ((pool.labels == 1), (pool.labels == 0), (pool.labels > 1))
        y = 1.0 - 2 * torch.randint(2, (samples,), generator=rng)
        which = pick(others.nonzero()[:, 0], samples, n)
        where = torch.randint(n, (samples,), generator=rng)
        told = torch.where(y > 0, pick(ones.nonzero()[:, 0], samples), pick(zeros.nonzero()[:, 0], samples))
        which.scatter_(1, where[:, None], told[:, None])
        composed_samples.append(Samples(pool.patches[which], y, where))
    return Samples(*(torch.stack(parts) for parts in zip(*composed_samples, strict=True)))
