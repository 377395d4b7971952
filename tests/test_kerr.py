import math

import numpy as np
import pytest
import torch

from fusionlib import black_holes
from fusionlib.sky import kerr

F64 = torch.float64


def rays(npix: int = 96, half: float = 12.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.linspace(-half, half, npix, dtype=F64) + 0.013
    return g.repeat(npix), g.repeat_interleave(npix)


def test_isco_of_known_spins():
    spins = torch.tensor([0.0, 1.0, -1.0], dtype=F64)
    assert torch.allclose(kerr.isco(spins), torch.tensor([6.0, 1.0, 9.0], dtype=F64))


@pytest.mark.parametrize("degrees", [5, 17, 45, 60, 80, 100, 163])
def test_critical_curve_of_schwarzschild_is_sqrt27(degrees):
    """Rays at angle phi are captured up to b = sqrt(27) M, within half a 64-px pixel of 2.5 uas at 3.8 uas per M."""
    b = torch.linspace(4.0, 7.0, 301, dtype=F64)
    half_pixel = 0.5 * 2.5 / 3.8
    for phi in np.linspace(0.1, 6.2, 8):
        alpha, beta = b * math.cos(phi), b * math.sin(phi)
        _, captured = kerr.trace(
            alpha, beta, torch.zeros(1, dtype=F64), torch.tensor([math.radians(degrees)], dtype=F64), (48, 24, 24)
        )
        edge = float(b[captured].max())
        assert abs(edge - math.sqrt(27)) < half_pixel, (degrees, phi, edge)


def test_view_from_below_mirrors_the_view_from_above():
    alpha, beta = rays(32)
    a, i = torch.tensor([0.7], dtype=F64), torch.tensor([0.8], dtype=F64)
    above, _ = kerr.trace(alpha, beta, a, i)
    below, _ = kerr.trace(alpha, -beta, a, torch.pi - i)
    for x, y in zip(above, below, strict=True):
        assert torch.equal(x.hit, y.hit)
        assert torch.allclose(x.r[x.hit], y.r[y.hit], rtol=1e-9)


def test_retrograde_disc_is_the_mirror_image_of_a_hole_turning_the_other_way():
    """Reversing the spin and looking in a mirror (alpha to -alpha) changes no radius, and azimuth only by its sign."""
    alpha, beta = rays(32)
    a, i = torch.tensor([0.9], dtype=F64), torch.tensor([0.6], dtype=F64)
    there, back = kerr.trace(alpha, beta, a, i)[0], kerr.trace(-alpha, beta, -a, i)[0]
    for x, y in zip(there, back, strict=True):
        assert torch.equal(x.hit, y.hit) and torch.allclose(x.r[x.hit], y.r[y.hit], rtol=1e-9)
        turn = (x.phi + y.phi)[x.hit]
        assert (turn.cos() > 1 - 1e-9).all()


def test_redshift_of_a_face_on_schwarzschild_disc_is_the_textbook_one():
    """Seen along the axis, a circular orbit at r has g = sqrt(1 - 3 / r)."""
    alpha = torch.linspace(8.0, 20.0, 40, dtype=F64)
    one = torch.ones(1, dtype=F64)
    a, i = 0 * one, 1e-6 * one
    crossing = kerr.trace(alpha, torch.full_like(alpha, 0.1), a, i, (64,))[0][0]
    g = kerr.redshift(crossing, alpha, a, i, one, one, one)
    assert torch.allclose(g, (1 - 3 / crossing.r).sqrt(), rtol=1e-5)


def test_light_from_the_horizon_itself_is_none_and_not_nan():
    """A ray of this image crosses the disc within 1e-7 of the horizon, where float32 loses its redshift."""
    sky = black_holes(1, 404, start=7326)
    assert torch.isfinite(sky.fine).all() and sky.fine.amax() > 0


def test_radiating_side_approaches():
    """The disc turns towards +phi, so at moderate inclination the left side (alpha < 0) is blueshifted."""
    one = torch.ones(1, dtype=F64)
    alpha = torch.tensor([-9.0, 9.0], dtype=F64)
    crossing = kerr.trace(alpha, 0 * alpha, 0.5 * one, 1.0 * one)[0][0]
    left, right = kerr.redshift(crossing, alpha, 0.5 * one, 1.0 * one, one, one, one)
    assert left > 1 > right


@pytest.mark.parametrize(("a", "degrees"), [(0.9, 17), (0.3, 45), (0.98, 60), (0.01, 30), (0.5, 80)])
@pytest.mark.filterwarnings("ignore")
def test_radii_and_redshifts_agree_with_aart(a, degrees):
    """Against AART's elliptic integrals, where both say a ray hits; r at the steps the sky uses."""
    raytracing = pytest.importorskip("aart.raytracing_f")
    from aart.intensity_f import gDisk, gGas

    alpha, beta = rays()
    grid = torch.stack([alpha, beta], 1).numpy()
    spin, i = torch.tensor([a], dtype=F64), torch.tensor([math.radians(degrees)], dtype=F64)
    lam = -grid[:, 0] * math.sin(i)
    eta = (grid[:, 0] ** 2 - a**2) * math.cos(i) ** 2 + grid[:, 1] ** 2
    kind = torch.full((1,), 0.9, dtype=F64), torch.full((1,), 0.8, dtype=F64), torch.full((1,), 0.7, dtype=F64)
    for steps, r_limit in (((48, 24), 1e-4), ((16, 10), 1.5e-3)):
        crossings, _ = kerr.trace(alpha, beta, spin, i, steps)
        for n, crossing in enumerate(crossings):
            r, sign, _, phi = raytracing.calculate_observables(
                grid, np.ones(len(grid), bool), float(i), a, n, distance=1e6
            )
            both = crossing.hit.numpy() & np.isfinite(r) & (r < 50) & (r > 1.02 * (1 + math.sqrt(1 - a**2)))
            assert both.sum() > 500
            assert np.abs(crossing.r.numpy() / r - 1)[both].max() < r_limit
            assert (np.sign(crossing.radial.numpy()) == sign)[both].all()
            turn = (crossing.phi.numpy() - phi - math.pi / 2 + math.pi)[both] % (2 * math.pi) - math.pi
            assert np.quantile(np.abs(turn), 0.95) < 5e-3
            inside = r < float(kerr.isco(spin))
            g = np.full(len(grid), np.nan)
            for where, function in ((both & ~inside, gDisk), (both & inside, gGas)):
                g[where] = function(r[where], a, sign[where], lam[where], eta[where], 0.7, 0.8, 0.9).real
            ours = kerr.redshift(crossing, alpha, spin, i, *kind).numpy()
            assert np.quantile(np.abs(ours / g - 1)[both], 0.99) < (4e-4 if steps[0] == 48 else 5e-3)
