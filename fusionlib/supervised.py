"""What the same labels can do without any prior: a network from the data straight to the image."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.datasets import turned
from fusionlib.networks import Body
from fusionlib.pnp import Physics

RHO = (0.3, 3.0, 30.0)  # penalties of the images it starts from


class EndToEnd(nn.Module):
    """A U-Net from the data's own images, regularised three ways, to the sky: (B, 3, H, W) to (B, 1, H, W).

    It adds to the middle one. 0.7 million parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = Body(12, widths=(32, 64, 96))

    def forward(self, starts: Tensor) -> Tensor:
        inside = self.body(F.pixel_unshuffle(starts, 2), torch.zeros(len(starts), 1, 1, 1).to(starts))
        return starts[:, 1:2] + 0.3 * inside


def starts(physics: Physics, y: Any) -> Tensor:
    """What the data alone say, (B, 3, H, W)."""
    return torch.cat([physics.prox(physics.start(y), y, rho) for rho in RHO], 1)


def fit_end_to_end(
    data: Sequence[tuple[Any, Tensor, Any]], *, steps: int, rate: float = 2e-3, decay: float = 1e-2, seed: int = 0
) -> EndToEnd:
    """Train on labelled images, and on their mirror images and quarter turns, observed anew by the same array.

    `data` are (interferometer, truth, y); AdamW, cosine rate, batches of 16, deterministic from the seed.
    """
    inputs, truths = [], []
    with torch.no_grad():
        for physics, truth, y in data:
            inputs.append(starts(physics, y))
            truths.append(truth)
            for k in range(1, 8):
                image = turned(truth, k)
                inputs.append(starts(physics, physics.observe(image, seed * 100 + k)))
                truths.append(image)
    start, truth = torch.cat(inputs), torch.cat(truths)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = EndToEnd().to(truth.device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay, betas=(0.9, 0.99))
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        warm, cool = min(1.0, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate * warm * cool
        chosen = torch.randint(len(truth), (16,), generator=rng).to(truth.device)
        with torch.autocast(truth.device.type, torch.bfloat16):
            image = net(start[chosen])
        loss = (image.float() - truth[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    return net.eval()
