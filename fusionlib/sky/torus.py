"""A thick torus of hot gas around a Kerr black hole: the sky of a related but different simulator.

Optically thin emission is summed along the same rays on which `sky` finds the thin disc (eht-imaging's RIAF models are
of this kind). Density and four-velocity are ad hoc, checked against nothing but their limits: near the domain of the
test sky, not of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.sky import kerr
from fusionlib.sky.simulator import (
    NPIX,
    OVERSAMPLE,
    RANGES,
    Ranges,
    Sky,
    pixels,
    refined,
    sample,
    screen,
    simulate,
    turbulence,
)

TORUS: Ranges = {name: RANGES[name] for name in ("spin", "inclination", "theta_g", "position_angle")} | {
    "inner": (2.0, 6.0, "emission is cut off inside this radius, M"),
    "slope": (3.5, 6.0, "emission falls as r to minus this"),
    "thickness": (0.1, 0.5, "standard deviation of cos(polar angle)"),
    "rotation": (0.2, 1.0, "angular velocity over Keplerian, as seen by zero-angular-momentum observers"),
    "turbulence": (0.0, 0.8, "standard deviation of log emissivity"),
    "correlation": (0.5, 3.0, "turbulence: correlation length along the arms, radians"),
    "elongation": (2.0, 6.0, "turbulence: length over width of a structure"),
    "pitch": (10.0, 40.0, "turbulence: pitch angle of the trailing spiral, degrees"),
}
MAX_SPEED = 0.9  # of the gas against zero-angular-momentum observers; Kepler's is faster than light near the hole


def redshift(r: Tensor, z: Tensor, lam: Tensor, a: Tensor, rotation: Tensor) -> Tensor:
    """Observed over emitted frequency g of gas circling at radius r and cosine z, for light of angular momentum lam.

    Its speed against zero-angular-momentum observers is `rotation` times that of a circular orbit at the same distance
    from the axis, at most MAX_SPEED, so it is timelike everywhere outside the horizon.
    """
    sin2 = (1 - z**2).clamp(min=1e-6)
    delta, rho2 = (r**2 - 2 * r + a**2).clamp(min=1e-6), r**2 + a**2 * z**2
    big = (r**2 + a**2) ** 2 - a**2 * delta * sin2
    dragged, lapse, around = 2 * r * a / big, (rho2 * delta / big).sqrt(), (big * sin2 / rho2).sqrt()
    kepler = 1 / ((r * sin2.sqrt()).clamp(min=1.0) ** 1.5 + a)
    speed = (rotation * around * (kepler - dragged) / lapse).clamp(-MAX_SPEED, MAX_SPEED)
    omega = dragged + speed * lapse / around
    return lapse * (1 - speed**2).sqrt() / (1 - lam * omega)


def _shine(p: dict[str, Tensor], field: Tensor, which: Tensor, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """Intensity (R,) along rays at screen positions x, y [microarcseconds] of the images `which`."""
    q = {k: v[which] for k, v in p.items()}
    alpha, beta = screen(q, x, y)
    a, i = q["spin"], q["inclination"].deg2rad()
    total, lam = torch.zeros_like(alpha), -alpha * i.sin()
    for ray, r, z, phi, tau in kerr.path(alpha, beta, a, i, steps):
        at = {k: q[k][ray] for k in ("spin", "inner", "slope", "thickness", "rotation", "turbulence")}
        shape = -at["slope"] * r.log() - (at["inner"] / r) ** 2 - (z / at["thickness"]) ** 2 / 2
        rough = at["turbulence"] * (sample(field, which[ray], r, phi) - at["turbulence"] / 2)
        g = redshift(r, z, lam[ray], at["spin"], at["rotation"])
        total[ray] += g**2 * (shape + rough).exp() * (r**2 + (at["spin"] * z) ** 2) * tau
    return total


def render(p: dict[str, Tensor], seed: Tensor, npix: int = NPIX * OVERSAMPLE, steps: int = 32) -> Tensor:
    """Intensity (B, 1, npix, npix), arbitrary units, of tori with parameters `p` (tensors (B,), keys of TORUS, x, y).

    I = int g^2 j (r^2 + a^2 z^2) dtau over Mino time, j = r^-slope exp(-(inner / r)^2 - z^2 / (2 thickness^2)) times
    log-normal turbulence in (ln r, phi); one ray per pixel, 3 x 3 where neighbours differ much: on the photon ring.
    `seed` (B,) draws the turbulence.
    """
    field = turbulence(seed, p["correlation"], p["elongation"], p["pitch"].deg2rad())
    image = _shine(p, field, *pixels(len(seed), npix, field), steps)
    first = image.view(-1, 1, npix, npix)
    contrast = F.max_pool2d(first, 3, 1, 1) + F.max_pool2d(-first, 3, 1, 1)
    near = contrast > 0.1 * first.amax((1, 2, 3), keepdim=True)
    return refined(image, near, lambda k, x, y: _shine(p, field, k, x, y, steps))


def tori(n: int, seed: int = 0, *, start: int = 0, device: str | torch.device = "cpu", **fixed: float) -> Sky:
    """`n` thick tori: images `start` .. `start + n - 1` of the stream `seed`; arguments as `sky.black_holes`."""
    return simulate(render, TORUS, n, seed, start=start, device=device, progress=False, **fixed)
