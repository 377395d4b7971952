"""A last pass end to end: what was fitted iteration by iteration is moved by gradients through the whole loop."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from fusionlib import pnp
from fusionlib.fitting.descent import descend
from fusionlib.fitting.trajectory import Data
from fusionlib.fusion import FusedPrior
from fusionlib.gates import DataStep


class _Fuse(nn.Module):
    """The images of a fused prior inside a loop, as a module, so that its tensors can be handed to it."""

    def __init__(self, prior: FusedPrior):
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: float, step: DataStep) -> Tensor:
        return self.prior.fuse(x, sigma, step).image


def fit_unrolled(
    prior: FusedPrior,
    names: Sequence[str],
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    *,
    last: int = 4,
    steps: int = 40,
    batch: int = 8,
    rate: float = 0.03,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The tensors `names` of a fused prior (parameters or buffers) after `steps` of Adam on the final image's PSNR.

    Gradients go through the `last` iterations of `pnp.hqs`, recomputed where needed (checkpoints); earlier ones stay as
    they are. Steps are relative to the size of each tensor, taken over its inner dimensions. The prior is left as it
    was. Raises ValueError for names it does not have. Deterministic from the seed.
    """
    if not 1 <= last <= len(sigmas):
        raise ValueError(f"fit_unrolled: last must be in 1 .. {len(sigmas)}, the number of iterations, got {last}")
    state = prior.state_dict()
    if unknown := set(names) - set(state):
        raise ValueError(f"fit_unrolled: the prior has no tensors {sorted(unknown)}; it has {sorted(state)}")
    module, first = _Fuse(prior), len(sigmas) - last
    start = {name: state[name].detach().clone() for name in names}
    inner = {name: tuple(range(1, v.ndim - 1)) or tuple(range(v.ndim)) for name, v in start.items()}
    size = {name: v.square().mean(inner[name], keepdim=True).sqrt().clamp(min=1e-3) for name, v in start.items()}
    moved = {name: torch.zeros_like(v).requires_grad_() for name, v in start.items()}
    with torch.no_grad():
        begun = [
            pnp.last_image(pnp.half_quadratic(physics, lam), y, module, sigmas[:first], physics.start(y))
            for physics, _, y, *_ in data
        ]
    rng = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        which = int(torch.randint(len(data), (), generator=rng))
        physics, truth, y, *_ = data[which]
        chosen = torch.randperm(len(truth), generator=rng)[:batch].to(truth.device)
        tensors = {f"prior.{name}": start[name] + size[name] * moved[name] for name in names}

        def denoise(x: Tensor, sigma: float, fit: DataStep) -> Tensor:
            return checkpoint(functional_call, module, tensors, (x, sigma, fit), use_reentrant=False)

        step_of = pnp.half_quadratic(physics, lam)
        z = pnp.last_image(step_of, y[chosen], denoise, sigmas[first:], begun[which][chosen])
        return (z - truth[chosen]).square().mean((1, 2, 3)).log().mean()

    descend([(list(moved.values()), rate)], loss, steps, clip=math.inf)
    return {name: (start[name] + size[name] * moved[name]).detach() for name in names}
