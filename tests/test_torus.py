import math

import torch

from fusionlib.sky import kerr, torus

F64 = torch.float64


def test_light_bends_by_four_over_b():
    """Weak field: the angle swept, b times Mino time from infinity to infinity, is pi + 4 / b + 15 pi / (4 b^2)."""
    b = torch.tensor([40.0, 100.0], dtype=F64)
    zero = torch.zeros(1, dtype=F64)
    swept = torch.zeros(2, dtype=F64)
    for point in kerr.path(b, 0 * b, zero, zero + 0.7, 4000):
        swept[point.ray] += point.tau * b[point.ray]
    expected = math.pi + 4 / b + 15 * math.pi / (4 * b**2)
    assert (swept - expected).abs().max() < 2 * math.pi / 4000


def test_path_meets_the_plane_where_trace_does():
    alpha, beta = torch.tensor([6.0, -7.0, 3.0], dtype=F64), torch.tensor([4.0, 1.0, -8.0], dtype=F64)
    a, i = torch.tensor([0.8], dtype=F64), torch.tensor([0.9], dtype=F64)
    crossing = kerr.trace(alpha, beta, a, i, (48,))[0][0]
    found = torch.full((3,), torch.nan, dtype=F64)
    last: dict[int, tuple[float, float]] = {}
    for point in kerr.path(alpha, beta, a, i, 1500):
        for ray, r, z in zip(point.ray.tolist(), point.r.tolist(), point.z.tolist(), strict=True):
            r0, z0 = last.get(ray, (r, z))
            if z0 * z < 0 and found[ray].isnan():
                found[ray] = r0 + (r - r0) * z0 / (z0 - z)
            last[ray] = (r, z)
    assert torch.allclose(found, crossing.r, rtol=1e-3)


def test_gas_at_rest_is_redshifted_by_gravity_alone():
    r = torch.tensor([3.0, 6.0, 50.0], dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    g = torus.redshift(r, zero, zero + 2.0, zero, zero)
    assert torch.allclose(g, (1 - 2 / r).sqrt())


def test_gas_is_never_faster_than_light():
    r, z, a = (t.flatten() for t in torch.meshgrid(
        torch.linspace(1.1, 30, 60, dtype=F64), torch.linspace(-0.99, 0.99, 9, dtype=F64),
        torch.linspace(-0.97, 0.97, 7, dtype=F64), indexing="ij"))  # fmt: skip
    outside = r > kerr.horizon(a) + 1e-3
    g = torus.redshift(r[outside], z[outside], torch.zeros(()).to(r), a[outside], torch.ones(()).to(r))
    assert torch.isfinite(g).all() and (g > 0).all() and (g < 1).all()


def test_images_are_reproducible_in_range_and_have_a_shadow():
    s = torus.tori(3, 5, x=0.0, y=0.0, inclination=20.0, spin=0.0, theta_g=3.8)
    assert torch.equal(
        torus.tori(1, 5, start=2, x=0.0, y=0.0, inclination=20.0, spin=0.0, theta_g=3.8).fine, s.fine[2:]
    )
    assert torch.allclose(s.image.amax((1, 2, 3)), s.parameters["brightness"]) and (s.fine >= 0).all()
    ring = s.fine[:, 0, 64, 64 + round(math.sqrt(27) * 3.8 / 1.25) - 3 : 64 + round(math.sqrt(27) * 3.8 / 1.25) + 4]
    assert (ring.amax(1) > 3 * s.fine[:, 0, 62:66, 62:66].mean((1, 2))).all()


def test_a_torus_without_turbulence_looks_the_same_from_below():
    fixed = {"x": 0.0, "y": 0.0, "position_angle": 0.0, "turbulence": 0.0, "rotation": 0.6}
    above, below = (torus.tori(1, 2, inclination=i, **fixed).image for i in (35.0, 145.0))
    assert torch.allclose(above, below.flip(2), atol=1e-3)


def test_finer_steps_change_little():
    s = torus.tori(1, 8)
    fine = torus.render(s.parameters, torch.tensor([4]), steps=128)
    usual = torus.render(s.parameters, torch.tensor([4]))
    assert (usual - fine).square().mean().sqrt() < 2e-3 * fine.max()
