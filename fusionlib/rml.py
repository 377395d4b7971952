"""Regularised maximum likelihood: the field's own way of imaging (EHTC 2019 Paper IV, sec. 5; Akiyama et al. 2017).

Minimises chi-square + sum of weighted regularisers over positive images, for the same data as Plug-and-Play: whitened
visibilities of an Interferometer, or the closure data of an Uncalibrated one.
"""

import time
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fusionlib.metrics import blur
from fusionlib.pnp import Physics, Reconstruction

EPSILON = 1e-3  # image value below which total variation is smoothed
FLOOR = 1e-5  # least image value of the start, so that every pixel can rise


def entropy(x: Tensor, prior: Tensor) -> Tensor:
    """Relative entropy (B,) of positive images to a prior image: sum x log(x / prior) - x + prior."""
    return (x * (x / prior).log() - x + prior).sum((1, 2, 3))


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences down and right (B, 1, H, W), 0 at the far edges."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    right[:, :, :, :-1] = x[:, :, :, 1:] - x[:, :, :, :-1]
    return down, right


def total_variation(x: Tensor) -> Tensor:
    """Isotropic total variation (B,), smoothed below EPSILON."""
    down, right = _differences(x)
    return ((down**2 + right**2 + EPSILON**2).sqrt() - EPSILON).sum((1, 2, 3))


def total_squared_variation(x: Tensor) -> Tensor:
    """Sum of squared differences (B,) (Kuramochi et al. 2018)."""
    down, right = _differences(x)
    return (down**2 + right**2).sum((1, 2, 3))


def l1(x: Tensor) -> Tensor:
    """Sum of absolute values (B,); of a positive image, its flux."""
    return x.abs().sum((1, 2, 3))


REGULARISERS = ("entropy", "tv", "tsv", "l1")


def rml(
    y: Any,
    physics: Physics,
    weights: dict[str, float],
    *,
    prior: Tensor,
    start: Tensor | None = None,
    steps: int = 300,
    rate: float = 0.2,
    rounds: int = 3,
    progress: bool = False,
) -> Reconstruction:
    """argmin over x > 0 of chi2(x, y) + sum_k weights[k] R_k(x) / flux(prior), by Adam on log x.

    `weights` of `entropy` (relative to `prior`, (1 or B, 1, H, H), positive), `tv`, `tsv`, `l1`: each regulariser is
    divided by the flux of `prior`, so that weights do not depend on brightness. `start` (default `prior`); in each of
    the rounds the rate falls to zero over `steps` as a cosine, and the next one starts from the image blurred by 20
    microarcseconds, which gets uncalibrated data out of wrong minima (as the EHT's eht-imaging script does). Images
    do not influence one another. The record has `chi2` and `objective` (rounds x steps, B). Raises ValueError for an
    unknown regulariser, a negative weight, or a prior that is not positive.
    """
    if unknown := set(weights) - set(REGULARISERS):
        raise ValueError(f"rml: unknown regulariser {sorted(unknown)}; known are {REGULARISERS}")
    if min(weights.values(), default=0) < 0:
        raise ValueError(f"rml: weights must not be negative, got {weights}")
    if not (torch.isfinite(prior).all() and prior.sum() > 0 and (prior >= 0).all()):
        raise ValueError("rml: prior must be finite, nowhere negative, and not empty")
    began = time.perf_counter()
    blank = physics.start(y)
    prior = prior.to(blank).expand_as(blank).clamp(min=FLOOR)
    scale = prior.sum((1, 2, 3))
    first = prior if start is None else start.to(blank).clamp(min=FLOOR)
    log_x = first.log().detach().clone().requires_grad_()
    terms = {
        "entropy": lambda x: entropy(x, prior),
        "tv": total_variation,
        "tsv": total_squared_variation,
        "l1": l1,
    }
    record: dict[str, list[Tensor]] = {"chi2": [], "objective": []}
    for step in tqdm(range(rounds * steps), "rml", leave=False, disable=not progress):
        if step % steps == 0:
            if step:
                log_x = blur(log_x.detach().exp()).clamp(min=FLOOR).log().requires_grad_()
            optimiser = torch.optim.Adam([log_x], lr=rate)
            decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        optimiser.zero_grad()
        x = log_x.exp()
        chi2 = physics.chi2(x, y)
        objective = chi2 + sum((w * terms[k](x) for k, w in weights.items()), torch.zeros_like(chi2)) / scale
        objective.sum().backward()
        optimiser.step()
        decay.step()
        record["chi2"].append(chi2.detach())
        record["objective"].append(objective.detach())
    image = log_x.detach().exp()
    if not torch.isfinite(image).all():
        raise ValueError(f"rml: the image is not finite after {rounds} rounds of {steps} steps; lower rate ({rate})")
    return Reconstruction(image, {k: torch.stack(v) for k, v in record.items()}, time.perf_counter() - began)
