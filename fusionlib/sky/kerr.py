"""Light around a spinning black hole: null geodesics, their equatorial crossings, and the redshift of a thin disc.

Units G = c = M = 1. A camera at infinity looks along inclination `i` from the spin axis; Bardeen's screen coordinates
`alpha` (right) and `beta` (up, along the projected spin) label the rays. Spin `a` in (-1, 1); the disc always turns
towards +phi, so a < 0 is retrograde. Sources: P1 = arXiv:2211.07469, P2 = arXiv:1910.12873.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

R_MAX = 60.0  # crossings beyond this radius are empty sky
NEAR = 1e-5  # nearer to the horizon than this part of it a ray is captured: no light comes from there


class Crossing(NamedTuple):
    """One passage of the rays through the disc: each field has the shape of `alpha`."""

    r: Tensor  # radius [M]
    phi: Tensor  # azimuth in the disc, at fixed observer azimuth 0 [rad]
    radial: Tensor  # signed sqrt(R(r)): > 0 where the photon leaves outwards
    hit: Tensor  # bool: the ray reaches the plane between horizon and R_MAX


def horizon(a: Tensor) -> Tensor:
    """Outer horizon radius [M]."""
    return 1 + (1 - a**2).sqrt()


def isco(a: Tensor) -> Tensor:
    """Radius of the innermost stable circular orbit of a disc turning towards +phi [M] (P1 B16)."""
    cbrt = lambda x: x.pow(1 / 3)  # noqa: E731
    z1 = 1 + cbrt(1 - a**2) * (cbrt(1 + a) + cbrt(1 - a))
    z2 = (3 * a**2 + z1**2).sqrt()
    return 3 + z2 - torch.sign(a) * ((3 - z1) * (3 + z1 + 2 * z2)).clamp(min=0).sqrt()


def _ellip_k(m: Tensor) -> Tensor:
    """Complete elliptic integral K(m), m <= 0, by the arithmetic-geometric mean."""
    x, y = torch.ones_like(m), (1 - m).sqrt()
    for _ in range(6):
        x, y = (x + y) / 2, (x * y).sqrt()
    return torch.pi / (2 * x)


def _ellip_f(sin_phi: Tensor, m: Tensor) -> Tensor:
    """Incomplete elliptic integral F(phi | m), m <= 0, |phi| <= pi/2, by Carlson's R_F."""
    x, y, z = 1 - sin_phi**2, 1 - m * sin_phi**2, torch.ones_like(m)
    for _ in range(7):
        s = (x * y).sqrt() + (y * z).sqrt() + (z * x).sqrt()
        x, y, z = (x + s) / 4, (y + s) / 4, (z + s) / 4
    mean = (x + y + z) / 3
    dx, dy = 1 - x / mean, 1 - y / mean
    e2 = dx * dy - (dx + dy) ** 2
    e3 = -dx * dy * (dx + dy)
    return sin_phi * (1 - e2 / 10 + e3 / 14 + e2**2 / 24) / mean.sqrt()


def trace(
    alpha: Tensor, beta: Tensor, a: Tensor, i: Tensor, steps: tuple[int, ...] = (16, 10)
) -> tuple[list[Crossing], Tensor]:
    """Follow rays back from the camera to their equatorial crossings n = 0, 1, ... (one per entry of `steps`).

    `alpha`, `beta` [M], spin `a` and inclination `i` [rad] broadcast together.
    Mino time to each crossing in closed form (P2 eqs. 10-22, regular at a = 0); then the regularised equations of
    motion u'' = f(u), u = 1/r, and n'' = g(n), n on the unit sphere, by a fourth-order Nyström scheme that lands on
    the plane. `steps[n]` steps lead from crossing n - 1 to n.

    Returns the crossings and `captured` (bool): rays that fell through the horizon before the last crossing.
    """
    sin_i, cos_i = i.sin(), i.cos()
    lam = -alpha * sin_i
    eta = (alpha**2 - a**2) * cos_i**2 + beta**2
    reaches = eta > 0  # vortical rays never meet the plane
    eta_ = eta.clamp(min=torch.finfo(alpha.dtype).tiny ** 0.5)
    l2 = eta_ + lam**2
    w = ((l2 - a**2) + ((l2 - a**2) ** 2 + 4 * a**2 * eta_).sqrt()) / 2
    m = -(a**2) * eta_ / w**2
    half_period = 2 * _ellip_k(m)
    phase = _ellip_f((cos_i * (w / eta_).sqrt()).clamp(-1, 1), m)
    upwards = torch.where(beta >= 0, 1.0, -1.0).to(alpha)
    first = half_period * (upwards * cos_i >= 0) - upwards * phase

    state, accelerate = _motion(alpha, beta, lam, eta, a, i)
    drag = torch.zeros_like(alpha)  # frame dragging part of phi
    u_horizon = (1 - NEAR) / horizon(a)
    alive = reaches.to(alpha)

    def dragging(u: Tensor) -> Tensor:
        return u * (2 - a * lam * u) / (1 - 2 * u + a**2 * u**2).clamp(min=1e-3)

    crossings = []
    tau = torch.zeros_like(alpha)
    for order, count in enumerate(steps):
        tau_next = (first + order * half_period) / w.sqrt()
        for _ in range(count):
            h = alive * (tau_next - tau) / count
            (u, du, *_), (u_new, du_new, *_) = state, (state := _nystrom(state, h, accelerate))
            u_mid = (u + u_new) / 2 + h / 8 * (du - du_new)
            drag = drag - a * h / 6 * (dragging(u) + 4 * dragging(u_mid) + dragging(u_new))
            alive = alive * ((u_new < u_horizon) & (u_new > 0))
        tau = tau_next
        u, du, n, _ = state
        hit = (alive > 0) & (u > 1 / R_MAX)
        safe = torch.where(hit, u, 1.0)
        crossings.append(Crossing(1 / safe, torch.atan2(n[1], n[0]) + drag, du / safe**2, hit))
    return crossings, reaches & (state.u >= u_horizon)


class Point(NamedTuple):
    """Where some of the rays are: each field (rays,)."""

    ray: Tensor  # indices of the rays
    r: Tensor  # radius [M]
    z: Tensor  # cosine of the angle from the spin axis
    phi: Tensor  # azimuth [rad], frame dragging left out
    tau: Tensor  # Mino time that this point stands for


def path(alpha: Tensor, beta: Tensor, a: Tensor, i: Tensor, steps: int = 48) -> Iterator[Point]:
    """Points along rays (R,) back from the camera, for integrals over Mino time: sum of f(point) * tau.

    Of the equations that `trace` solves, `steps` equal steps to half a turn about the hole, and on for one turn and a
    half: beyond, the photon rings n >= 2 are too faint to matter. A ray that escapes or is captured yields no more.
    """
    alpha, beta, a, i = torch.broadcast_tensors(alpha, beta, a, i)
    lam, eta = -alpha * i.sin(), (alpha**2 - a**2) * i.cos() ** 2 + beta**2
    ray = torch.arange(len(alpha), device=alpha.device)
    h = torch.pi / (lam**2 + eta).clamp(min=9.0).sqrt() / steps  # inside b = 3 M everything is captured
    u_horizon = 1 / horizon(a)
    state, accelerate = _motion(alpha, beta, lam, eta, a, i)
    for step in range(3 * steps):
        state = _nystrom(state, h, accelerate)
        alive = (state.u < u_horizon[ray]) & (state.u > 0)
        if step % 8 == 7:  # drop the rays that are done
            if not bool(alive.any()):
                return
            ray, h = ray[alive], h[alive]
            state = _State(state.u[alive], state.du[alive], state.n[:, alive], state.dn[:, alive])
            _, accelerate = _motion(alpha[ray], beta[ray], lam[ray], eta[ray], a[ray], i[ray])
            alive = alive[alive]
        u, z = torch.where(alive, state.u, 1e-3), state.n[2]
        yield Point(ray, 1 / u, z, torch.atan2(state.n[1], state.n[0]), h * alive)


class _State(NamedTuple):
    """u = 1 / r and n on the unit sphere with their derivatives by Mino time."""

    u: Tensor
    du: Tensor
    n: Tensor
    dn: Tensor


Acceleration = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _motion(alpha: Tensor, beta: Tensor, lam: Tensor, eta: Tensor, a: Tensor, i: Tensor) -> tuple[_State, Acceleration]:
    """Rays at infinity, and their accelerations u'' and n'', polynomials in u and n."""
    c1, c2, c3 = a**2 - lam**2 - eta, 3 * ((lam - a) ** 2 + eta), -2 * a**2 * eta
    l2 = eta + lam**2
    zero = torch.zeros_like(alpha)
    n = torch.stack([i.sin().expand_as(alpha), zero, i.cos().expand_as(alpha)])
    dn = torch.stack([-beta * i.cos(), alpha, beta * i.sin()])

    def accelerate(u: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        z = n[2]
        acc = n * -(l2 + 2 * a**2 * z**2)
        acc[2] += a**2 * z
        return u * (c1 + u * (c2 + u * c3)), acc

    return _State(zero, torch.ones_like(alpha), n, dn), accelerate


def _nystrom(s: _State, h: Tensor, accelerate: Acceleration) -> _State:
    """One fourth-order step of Mino time h."""
    u, du, n, dn = s
    f1, g1 = accelerate(u, n)
    f2, g2 = accelerate(u + h / 2 * (du + h / 4 * f1), n + h / 2 * (dn + h / 4 * g1))
    f3, g3 = accelerate(u + h * (du + h / 2 * f2), n + h * (dn + h / 2 * g2))
    return _State(
        u + h * (du + h / 6 * (f1 + 2 * f2)),
        du + h / 6 * (f1 + 4 * f2 + f3),
        n + h * (dn + h / 6 * (g1 + 2 * g2)),
        dn + h / 6 * (g1 + 4 * g2 + g3),
    )


def redshift(
    crossing: Crossing, alpha: Tensor, a: Tensor, i: Tensor, xi: Tensor, beta_r: Tensor, beta_phi: Tensor
) -> Tensor:
    """Observed over emitted frequency g for the disc of P1 (B13, B32-B52), shape of `crossing.r`.

    Outside the ISCO the gas turns with `xi` times the Keplerian angular momentum; inside it falls with the constants
    of motion it had there (Cunningham 1975); `beta_r`, `beta_phi` (1: as stated, 0: radial free fall) blend the two.
    """
    r, lam = crossing.r, -alpha * i.sin()
    rc = torch.maximum(r, isco(a))
    delta = r**2 - 2 * r + a**2
    big = (r**2 + a**2) ** 2 - a**2 * delta
    root = rc.sqrt()
    ell = xi * (rc**2 + a**2 - 2 * a * root) / (root * (rc - 2) + a)

    def potential(r: Tensor, delta: Tensor, big: Tensor) -> Tensor:
        return big / r**2 - 4 * a * ell / r - (1 - 2 / r) * ell**2

    delta_c = rc**2 - 2 * rc + a**2
    energy2 = delta_c / potential(rc, delta_c, (rc**2 + a**2) ** 2 - a**2 * delta_c)
    omega = (a + (1 - 2 / r) * (ell - a)) / (big / r**2 - 2 * a * ell / r)
    ur = -(potential(r, delta, big) * energy2 - delta).clamp(min=0).sqrt() / r * (r < isco(a))
    ur = ur + (1 - beta_r) * (-(2 * r * (r**2 + a**2)).sqrt() / r**2 - ur)
    omega = omega + (1 - beta_phi) * (2 * a * r / big - omega)
    ut = ((1 + ur**2 * r**2 / delta) / (1 - (r**2 + a**2) * omega**2 - 2 / r * (1 - a * omega) ** 2)).sqrt()
    return 1 / (ut * (1 - lam * omega) - ur * crossing.radial / delta)
