"""What the same labels can do without fusing: a network from the data straight to the image, and one denoiser, from
nothing or from a prior, to be plugged in."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.fitting.descent import descend
from fusionlib.fitting.trajectory import Data
from fusionlib.pnp import Physics
from fusionlib.priors import Body, Denoiser
from fusionlib.priors.datasets import augmented

RHO = (0.3, 3.0, 30.0)  # penalties of the images it starts from
POINT = 30.0  # flux of the point that shows the beam, in units of an image
LEVELS = (0.01, 0.5)  # noise a denoiser is trained on
SCALE = 0.1  # root mean square of a typical sky


class EndToEnd(nn.Module):
    """A U-Net from the data's own images, regularised three ways, to the sky: (B, 3, H, W) to (B, 1, H, W).

    It adds to the middle one. 0.7 million parameters. With a `beam` it is also shown what the array makes of a point,
    (B, 6, H, W).
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96), beam: bool = False) -> None:
        super().__init__()
        self.body, self.beam = Body(24 if beam else 12, widths=widths), beam

    def forward(self, starts: Tensor) -> Tensor:
        inside = self.body(F.pixel_unshuffle(starts, 2), torch.zeros(len(starts), 1, 1, 1).to(starts))
        return starts[:, 1:2] + 0.3 * inside


def starts(physics: Physics, y: Any, beam: bool = False) -> Tensor:
    """What the data alone say, (B, 3, H, W); with a `beam` also what the same array says of a point, (B, 6, H, W)."""
    images = torch.cat([physics.prox(physics.start(y), y, rho) for rho in RHO], 1)
    if not beam:
        return images
    point, middle = torch.zeros_like(images[:1, :1]), slice(images.shape[2] // 2 - 1, images.shape[2] // 2 + 1)
    point[:, :, middle, middle] = POINT / 4
    return torch.cat([images, starts(physics, physics(point)).expand_as(images)], 1)  # type: ignore[operator]


def fit_end_to_end(
    data: Sequence[tuple[Any, Tensor, Any, *tuple[Any, ...]]],
    *,
    steps: int,
    rate: float = 1e-3,
    decay: float = 1e-2,
    batch: int = 16,
    seed: int = 0,
    **shape: Any,
) -> EndToEnd:
    """Train on labelled images varied as in `fit_denoiser`, each time observed anew by the array.

    `data` start with interferometer, truth, y; AdamW, cosine rate (twice this rate, and it may never leave where it
    starts), deterministic from the seed. `shape` as for `EndToEnd`.
    """
    device, rng = data[0][1].device, torch.Generator().manual_seed(seed)
    clean = [_unit_peak(truth) for _, truth, *_ in data]
    shares = torch.tensor([float(len(truth)) for truth in clean])
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = EndToEnd(**shape).to(device)

    def loss(step: int) -> Tensor:
        k = int(torch.multinomial(shares, 1, generator=rng))
        truth, physics = augmented(clean[k], batch, rng, turns=True, shift=0.05).to(device), data[k][0]
        with torch.no_grad():
            start = starts(physics, physics.observe(truth, 1_000_000 * (seed + 1) + step), net.beam)
        return (net(start) - truth).square().mean()

    descend([(list(net.parameters()), rate)], loss, steps, decay=decay, beta2=0.99, warm=50)
    return net.eval()


def out_of_fold(data: Data, folds: Sequence[Tensor], networks: Sequence[nn.Module]) -> list[Tensor]:
    """What networks from the data to the image make of labelled images that they were not fitted to, (n, 1, H, W) for
    each entry of the data: network k of those whose fold, (n,) for each entry, is k."""
    images = [torch.empty_like(truth) for _, truth, *_ in data]
    with torch.no_grad():
        for (physics, _, y, *_), fold, image in zip(data, folds, images, strict=True):
            for k, net in enumerate(networks):
                if bool((fold == k).any()):
                    image[fold == k] = net(starts(physics, y[fold == k]))
    return images


def _unit_peak(truth: Tensor) -> Tensor:
    return (truth / truth.amax((2, 3), keepdim=True)).cpu()


def from_nothing(seed: int = 0) -> nn.Module:
    """A denoiser as those of the bank are, not yet trained."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Denoiser(SCALE, Body(4))


def fit_denoiser(
    net: nn.Module, truth: Tensor, *, steps: int, rate: float = 1e-3, batch: int = 16, seed: int = 0
) -> nn.Module:
    """Train `net(x, sigma)` in place on labelled images (n, 1, H, W) and white noise, and return it.

    Noise log-uniform in `LEVELS`; images turned by any angle, mirrored, shifted a little, brightness drawn anew. The
    loss is weighted as in EDM. Adam, cosine rate, deterministic from the seed.
    """
    net.requires_grad_(True).train()
    rng, clean = torch.Generator().manual_seed(seed), _unit_peak(truth)
    low, high = (math.log(level) for level in LEVELS)

    def loss(step: int) -> Tensor:
        x = augmented(clean, batch, rng, turns=True, shift=0.05)
        sigma = torch.exp(low + (high - low) * torch.rand(batch, generator=rng))
        noise = torch.randn(x.shape, generator=rng)
        x, sigma, noise = (t.to(truth) for t in (x, sigma, noise))
        weight = (sigma**2 + SCALE**2) / (sigma * SCALE) ** 2
        image = net(x + sigma[:, None, None, None] * noise, sigma)
        return (weight * (image - x).square().mean((1, 2, 3))).mean()

    descend([(list(net.parameters()), rate)], loss, steps, beta2=0.99, warm=50)
    return net.eval().requires_grad_(False)
