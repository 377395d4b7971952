"""Fitting along the trajectory that the method itself takes.

Iteration k of the loop is fitted on the images that iterations 0 .. k - 1, already fitted, lead to: the only images it
will ever see. Prior outputs are computed once per iteration and image, and dropped after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fusionlib import pnp
from fusionlib.fusion import spread
from fusionlib.gates import DataStep
from fusionlib.pnp import Physics
from fusionlib.priors import PriorBank

Data = Sequence[tuple[Physics, Tensor, Any, *tuple[Any, ...]]]  # instrument, truth (B, 1, H, W), data; more
Policy = Literal["own", "average", "white"]


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
    bank: PriorBank | Sequence[PriorBank],
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    fit: Fit,
    *,
    policy: Policy = "own",
    batch: int = 32,
    start: Sequence[Tensor] | None = None,
) -> None:
    """Run `pnp.hqs` on labelled images, with `fit` at every iteration saying how the outputs are fused from then on.

    `policy` says which images it is fitted on: those that its `own` iterations lead to, those of the `average` of the
    priors, or the truth in `white` noise. Only the first are what it will see. Instead of one bank there may be one for
    each entry of the data, called with all of its images at once: for priors that are made for some data alone.
    `start`: images to begin with instead of the instrument's own, (B, 1, H, W) for each entry of the data.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"policy must be one of {get_args(Policy)}, got {policy!r}")
    rng, together = torch.Generator().manual_seed(0), _Together(data)
    banks = [bank] * len(data) if isinstance(bank, PriorBank) else bank
    batch = batch if isinstance(bank, PriorBank) else max(len(truth) for _, truth, *_ in data)

    def denoise(x: Tensor, sigma: float, step: DataStep) -> Tensor:
        stages = []
        for mine, own, (physics, truth, y, *_) in zip(banks, together.split(x), data, strict=True):
            if policy == "white":
                own = truth + sigma * torch.randn(truth.shape, generator=rng).to(truth)
            outputs = torch.cat([mine(part, sigma) for part in own.split(batch)], 1)
            stages.append(Stage(truth, own, outputs, pnp.data_step(physics, y, lam / sigma**2), sigma))
        fuse = fit(stages)
        return torch.cat([stage.outputs.mean(0) if policy == "average" else fuse(stage) for stage in stages])

    first = together.start() if start is None else torch.cat(list(start))
    with torch.inference_mode():
        pnp.last_image(pnp.half_quadratic(together, lam), None, denoise, sigmas, first)


class _Together:
    """Several instruments as one: images (B, 1, H, W) are those of the first, then of the second, and so on."""

    def __init__(self, data: Data):
        self.data = data

    def split(self, z: Tensor) -> Sequence[Tensor]:
        return z.split([len(truth) for _, truth, *_ in self.data])

    def start(self) -> Tensor:
        return torch.cat([physics.start(own) for physics, _, own, *_ in self.data])

    def prox(self, z: Tensor, y: Any, rho: float) -> Tensor:
        parts = zip(self.split(z), self.data, strict=True)
        return torch.cat([physics.prox(part, own, rho) for part, (physics, _, own, *_) in parts])


def fused(w: Tensor, outputs: Tensor, sharp: bool = False) -> Tensor:
    """The image (B, 1, H, W) that weights (N, B, h, w) make of outputs (N, B, 1, H, W)."""
    return (spread(w, *outputs.shape[3:], sharp=sharp) * outputs).sum(0)
