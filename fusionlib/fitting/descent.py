"""Gradient descent as all fits here do it."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def descend(
    groups: Sequence[tuple[Sequence[Tensor], float]],
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    decay: float = 0.0,
    beta2: float = 0.999,
    warm: int = 1,
    clip: float = 1.0,
) -> None:
    """`steps` of AdamW on `loss(step)`, for groups of tensors with a rate each, in place.

    Rates rise over `warm` steps and fall as a cosine; gradients are clipped to a norm of `clip` over all tensors. With
    `decay` = 0 this is Adam.
    """
    tensors = [p for group, _ in groups for p in group]
    optimiser = torch.optim.AdamW(
        [{"params": list(group), "lr": rate} for group, rate in groups], betas=(0.9, beta2), weight_decay=decay
    )
    for step in range(steps):
        scale = min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for part, (_, rate) in zip(optimiser.param_groups, groups, strict=True):
            part["lr"] = rate * scale
        optimiser.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(tensors, clip)
        optimiser.step()
