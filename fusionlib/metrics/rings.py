"""Measuring rings: diameter, width, orientation, profile, and whether there is one at all.

After EHTC 2019 Paper IV, sec. 9.

All per image of a batch, in microarcseconds and degrees east of north; a feature that cannot be measured is NaN.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.metrics.scores import blur
from fusionlib.sky import FOV

RADII = torch.arange(1.0, 50.0, 0.5)  # microarcseconds
LEAST_RADIUS = 8.0  # of a ridge
ANGLES = 180  # directions of a profile
LEAST_DEPTH = 0.3  # a ring's centre is darker than its ridge by this fraction at least,
LEAST_ARC = 0.7  # and the ridge stands out from the centre in this share of all directions


class Ring(NamedTuple):
    """Features (B,) of images; `profile` (B, ANGLES) is the ridge brightness by position angle."""

    x: Tensor  # centre, right of the phase centre
    y: Tensor  # centre, up
    diameter: Tensor  # of the ridge, mean over directions
    diameter_spread: Tensor  # standard deviation over directions
    width: Tensor  # mean full width at half maximum of the radial profiles
    position_angle: Tensor  # of the brightest side: phase of the first azimuthal mode
    asymmetry: Tensor  # amplitude of the first azimuthal mode over the mean, 0 .. 1
    depth: Tensor  # 1 - central over mean ridge brightness
    is_ring: Tensor  # bool: LEAST_DEPTH and LEAST_ARC are both reached
    profile: Tensor


def light_outside(image: Tensor, ring: Ring, fov: float = FOV) -> Tensor:
    """Share (B,) of the light of images (B, 1, H, H) that is farther from the centre of their ring than its ridge and
    one width. Much of it means that the ring is not all there is, or comes twice: a ghost may fit the data as well."""
    n = image.shape[-1]
    t = (torch.arange(n).to(image) - (n - 1) / 2) * (fov / n)
    away = torch.hypot(t[None, None, :] - ring.x[:, None, None], -t[None, :, None] - ring.y[:, None, None])
    light, far = image[:, 0].clamp(min=0), away > (ring.diameter / 2 + ring.width)[:, None, None]
    return (light * far).sum((1, 2)) / light.sum((1, 2)).clamp(min=1e-12)


def measure(image: Tensor, fov: float = FOV, smooth: float = 5.0) -> Ring:
    """Features of images (B, 1, H, H), after a blur of `smooth` microarcseconds that steadies the ridge.

    The centre is where the ridge radii scatter least (Paper IV, sec. 9.1), searched near the centre of brightness, at
    last on a 1 microarcsecond grid. Raises ValueError for another shape or images that are not finite.
    """
    if image.ndim != 4 or image.shape[1] != 1 or image.shape[2] != image.shape[3] or not torch.isfinite(image).all():
        raise ValueError(f"measure: finite images (B, 1, H, H) are needed, got shape {tuple(image.shape)}")
    steady = blur(image, smooth, fov).clamp(min=0)
    x, y = _centroid(steady, fov)
    for step, reach in ((4.0, 16.0), (1.0, 4.0)):
        offsets = torch.arange(-reach, reach + step / 2, step, device=image.device)
        dx, dy = offsets.repeat(len(offsets)), offsets.repeat_interleave(len(offsets))
        scatter = torch.stack([_scatter(steady, x + a, y + b, fov) for a, b in zip(dx, dy, strict=True)])  # (grid, B)
        best = scatter.argmin(0)
        x, y = x + dx[best], y + dy[best]

    polar = _polar(steady, x, y, fov)
    ridge, at, inner = _ridge(polar)
    radii = RADII.to(image)
    radius = radii[at]
    centre = polar[:, :, radii <= 5].mean((1, 2))
    mean_ridge = ridge.mean(1).clamp(min=1e-12)
    depth = 1 - centre / mean_ridge
    stands_out = (ridge > (1 + LEAST_DEPTH / 2) * centre[:, None]) & (ridge > 0.1 * ridge.amax(1, keepdim=True)) & inner
    angles = torch.arange(ANGLES, device=image.device) * (2 * torch.pi / ANGLES)
    mode = torch.complex((ridge * angles.cos()).mean(1), (ridge * angles.sin()).mean(1)) / mean_ridge
    return Ring(
        x,
        y,
        2 * radius.mean(1),
        2 * radius.std(1),
        _widths(polar, ridge, at, radii).nanmean(1),
        mode.angle().rad2deg() % 360,
        2 * mode.abs(),
        depth,
        (depth >= LEAST_DEPTH) & (stands_out.float().mean(1) >= LEAST_ARC),
        ridge,
    )


def _centroid(image: Tensor, fov: float) -> tuple[Tensor, Tensor]:
    """Centre of the brighter half of the pixels' light (B,), right and up."""
    bright = (image - 0.2 * image.amax((1, 2, 3), keepdim=True)).clamp(min=0)
    n = image.shape[-1]
    t = (torch.arange(n, device=image.device, dtype=image.dtype) - (n - 1) / 2) * (fov / n)
    total = bright.sum((1, 2, 3)).clamp(min=1e-12)
    return (bright * t).sum((1, 2, 3)) / total, -(bright * t[:, None]).sum((1, 2, 3)) / total


def _polar(image: Tensor, x: Tensor, y: Tensor, fov: float) -> Tensor:
    """Brightness (B, ANGLES, radii) around centres x, y (B,); angles run from north over east to south."""
    angle = torch.arange(ANGLES, device=image.device, dtype=image.dtype) * (2 * torch.pi / ANGLES)
    radius = RADII.to(image)
    right = x[:, None, None] - radius * angle.sin()[:, None]
    up = y[:, None, None] + radius * angle.cos()[:, None]
    grid = torch.stack([right, -up], -1) * (2 / fov)
    return F.grid_sample(image, grid, align_corners=False)[:, 0]


def _scatter(image: Tensor, x: Tensor, y: Tensor, fov: float) -> Tensor:
    """Relative scatter of the ridge radius (B,) seen from a centre, weighted by ridge brightness."""
    ridge, at, inner = _ridge(_polar(image, x, y, fov))
    radius, weight = RADII.to(image)[at], ridge / ridge.sum(1, keepdim=True).clamp(min=1e-12)
    mean = (weight * radius).sum(1)
    deviation = torch.where(inner, radius / mean[:, None] - 1, 1.0)  # no ridge that way: as bad as none at all
    return (weight * deviation**2).sum(1).sqrt()


def _ridge(polar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness and radius index (B, ANGLES) of the maximum from LEAST_RADIUS on; whether it is inside the range."""
    first = int((RADII < LEAST_RADIUS).sum())
    ridge, at = polar[:, :, first:].max(2)
    return ridge, at + first, (at > 0) & (at < polar.shape[2] - first - 1)


def _widths(polar: Tensor, ridge: Tensor, at: Tensor, radii: Tensor) -> Tensor:
    """Full widths at half maximum (B, ANGLES) of radial profiles; NaN where a side never falls to half."""
    below = polar < ridge[:, :, None] / 2
    index = torch.arange(len(radii), device=polar.device)
    outside = torch.where(below & (index > at[:, :, None]), index, len(radii)).amin(2)
    inside = torch.where(below & (index < at[:, :, None]), index, -1).amax(2)
    width = (outside - inside - 1).to(polar) * (radii[1] - radii[0])
    return torch.where((outside < len(radii)) & (inside >= 0), width, torch.nan)
