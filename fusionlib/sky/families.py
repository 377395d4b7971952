"""Geometric skies, of the kinds EHTC 2019 Paper IV trains and tests its imaging on.

Rings, crescents, discs, double sources and elliptical Gaussians with stated ranges, off-centre, of unknown brightness
like the simulated black holes. They ask whether a method sees a ring where there is none.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fusionlib.sky.simulator import BRIGHTNESS, FOV, MAX_OFFSET, NPIX, OVERSAMPLE, Ranges, Sky, scaled

ANGLE = (0.0, 360.0, "position angle, degrees east of north")


def _gauss(d2: Tensor, fwhm: float) -> Tensor:
    return torch.exp(-4 * math.log(2) * d2 / fwhm**2)


def _edge(distance: Tensor, width: float) -> Tensor:
    """1 inside (distance < 0), 0 outside, between them an error function: a blurred straight edge."""
    return torch.special.ndtr(-distance * math.sqrt(8 * math.log(2)) / width)


def ring(x: Tensor, y: Tensor, p: dict[str, float]) -> Tensor:
    """A circle blurred across, brighter on one side."""
    r = torch.hypot(x, y)
    towards = torch.atan2(-x, y) - math.radians(p["position_angle"])
    return _gauss((r - p["diameter"] / 2) ** 2, p["width"]) * (1 + p["contrast"] * towards.cos())


def crescent(x: Tensor, y: Tensor, p: dict[str, float]) -> Tensor:
    """A disc less a smaller disc that nearly touches it from within (Kamruddin & Dexter 2013)."""
    outer = p["diameter"] / 2
    inner, angle = outer * p["hollow"], math.radians(p["position_angle"])
    shift = p["asymmetry"] * (outer - inner)  # away from the thick side
    dx, dy = x - shift * math.sin(angle), y + shift * math.cos(angle)
    thick = _edge(torch.hypot(x, y) - outer, p["edge"])
    return (thick - _edge(torch.hypot(dx, dy) - inner, p["edge"])).clamp(min=0)


def disc(x: Tensor, y: Tensor, p: dict[str, float]) -> Tensor:
    """A uniform disc with a blurred edge."""
    return _edge(torch.hypot(x, y) - p["diameter"] / 2, p["edge"])


def double(x: Tensor, y: Tensor, p: dict[str, float]) -> Tensor:
    """Two round Gaussians, the second fainter, on either side of the centre."""
    angle = math.radians(p["position_angle"])
    dx, dy = -math.sin(angle) * p["separation"] / 2, math.cos(angle) * p["separation"] / 2
    first, second = (x - dx) ** 2 + (y - dy) ** 2, (x + dx) ** 2 + (y + dy) ** 2
    return _gauss(first, p["fwhm"]) + p["ratio"] * _gauss(second, p["fwhm"])


def gaussian(x: Tensor, y: Tensor, p: dict[str, float]) -> Tensor:
    """An elliptical Gaussian."""
    angle = math.radians(p["position_angle"])
    along, across = -x * math.sin(angle) + y * math.cos(angle), x * math.cos(angle) + y * math.sin(angle)
    return _gauss(along**2 + (across / p["axis_ratio"]) ** 2, p["fwhm"])


# shape: (function of sky position right, up [microarcseconds], what is drawn uniformly: low, high, meaning)
FAMILIES: dict[str, tuple[Callable[[Tensor, Tensor, dict[str, float]], Tensor], Ranges]] = {
    "ring": (
        ring,
        {
            "diameter": (30.0, 60.0, "microarcseconds"),
            "width": (5.0, 20.0, "full width at half maximum, microarcseconds"),
            "contrast": (0.0, 0.6, "amplitude of the first azimuthal mode"),
            "position_angle": ANGLE,
        },
    ),
    "crescent": (
        crescent,
        {
            "diameter": (35.0, 65.0, "of the outer disc, microarcseconds"),
            "hollow": (0.45, 0.75, "inner over outer diameter"),
            "asymmetry": (0.3, 1.0, "offset of the inner disc over the room it has"),
            "edge": (4.0, 10.0, "full width of the edges, microarcseconds"),
            "position_angle": ANGLE,
        },
    ),
    "disc": (
        disc,
        {"diameter": (40.0, 80.0, "microarcseconds"), "edge": (4.0, 15.0, "full width of the edge, microarcseconds")},
    ),
    "double": (
        double,
        {
            "separation": (25.0, 60.0, "microarcseconds"),
            "fwhm": (10.0, 25.0, "of either source, microarcseconds"),
            "ratio": (0.3, 1.0, "fainter over brighter"),
            "position_angle": ANGLE,
        },
    ),
    "gaussian": (
        gaussian,
        {
            "fwhm": (30.0, 70.0, "along the major axis, microarcseconds"),
            "axis_ratio": (0.5, 1.0, "minor over major axis"),
            "position_angle": ANGLE,
        },
    ),
}


def geometric(family: str, n: int, seed: int = 0, *, start: int = 0, **fixed: float) -> Sky:
    """`n` images of a family, images `start` .. `start + n - 1` of the stream (family, `seed`).

    Image k depends on (family, seed, k) alone. `fixed` pins parameters of the family, `x`, `y` [microarcseconds] or
    `brightness`. Rendered at 128 px, averaged to 64. Raises ValueError for an unknown family or parameter.
    """
    if family not in FAMILIES:
        raise ValueError(f"geometric: unknown family {family!r}; known are {sorted(FAMILIES)}")
    shape, ranges = FAMILIES[family]
    if unknown := set(fixed) - {*ranges, "x", "y", "brightness"}:
        raise ValueError(f"geometric: {family} has no parameter {sorted(unknown)}; it has {sorted(ranges)}")
    npix = NPIX * OVERSAMPLE
    t = (torch.arange(npix, dtype=torch.float32) - (npix - 1) / 2) * (FOV / npix)
    draws, images = [], []
    for k in range(start, start + n):
        rng = np.random.default_rng([seed, k, *family.encode()])
        p = {name: float(rng.uniform(low, high)) for name, (low, high, _) in ranges.items()}
        radius, angle = MAX_OFFSET * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        p |= {"x": float(radius * np.cos(angle)), "y": float(radius * np.sin(angle))}
        p |= {"brightness": float(np.exp(rng.uniform(*np.log(BRIGHTNESS))))} | fixed
        draws.append(p)
        images.append(shape(t[None] - p["x"], -t[:, None] - p["y"], p)[None, None])
    parameters = {name: torch.tensor([d[name] for d in draws]) for name in draws[0]}
    return Sky(*scaled(torch.cat(images), parameters["brightness"]), parameters)
