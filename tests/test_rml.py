import pandas as pd
import pytest
import torch

from fusionlib import Interferometer, Uncalibrated, black_holes, metrics
from fusionlib.rml import entropy, l1, rml, total_squared_variation, total_variation


@pytest.fixture(scope="module")
def toy() -> tuple[Interferometer, torch.Tensor, torch.Tensor]:
    """Sixteen pixels across, a smooth positive sky, little noise."""
    rng = torch.Generator().manual_seed(0)
    u, v = (3e9 * torch.randn(20, generator=rng, dtype=torch.float64) for _ in range(2))
    array = Interferometer.from_table(pd.DataFrame({"u": u, "v": v, "sigma": 0.05}), npix=16, dtype=torch.float64)
    t = (torch.arange(16, dtype=torch.float64) - 7.5) / 5
    x = torch.exp(-(t[:, None] ** 2) - t**2)[None, None] * 3 + 0.5
    return array, x, array.observe(x, 0)


def test_quadratic_problem_reaches_its_closed_form(toy):
    """chi2 + w TSV with a positive solution: (2/n A'A + 2 w D'D) x = 2/n A'y."""
    array, truth, y = toy
    weight, a, n = 30.0, array.matrix, y.shape[1]
    eye = torch.eye(256, dtype=a.dtype).view(256, 1, 16, 16)
    laplacian = torch.func.hessian(lambda x: total_squared_variation(x.view(1, 1, 16, 16))[0])(eye[0].flatten())
    scaled = weight / truth.sum()
    x = torch.linalg.solve(2 / n * a.T @ a + scaled * laplacian, 2 / n * a.T @ y[0]).view(1, 1, 16, 16)
    assert x.min() > 0
    found = rml(y, array, {"tsv": weight}, prior=truth, steps=4000, rate=0.05, rounds=1)
    assert (found.image - x).norm() < 1e-3 * x.norm()
    assert found.record["objective"][-1] <= found.record["objective"][0]


def test_regularisers_have_their_known_values():
    flat = torch.full((1, 1, 8, 8), 0.5)
    step = flat.clone()
    step[..., 4:] = 1.5
    assert entropy(flat, flat).item() == 0 and entropy(step, flat).item() > 0
    assert total_variation(flat).item() == 0 and total_variation(step).item() == pytest.approx(8, rel=1e-2)
    assert total_squared_variation(step).item() == pytest.approx(8)
    assert l1(step).item() == pytest.approx(64)


def test_each_regulariser_pulls_its_own_way(toy):
    array, truth, y = toy
    flat = torch.full_like(truth, float(truth.mean()))
    found = {k: rml(y, array, {k: 1000.0}, prior=flat, steps=200).image for k in ("entropy", "tv", "tsv", "l1")}
    plain = rml(y, array, {}, prior=flat, steps=200).image
    assert entropy(found["entropy"], flat) < entropy(plain, flat)
    assert total_variation(found["tv"]) < total_variation(plain)
    assert total_squared_variation(found["tsv"]) < total_squared_variation(plain)
    assert l1(found["l1"]) < l1(plain)


@pytest.mark.parametrize("calibrated", [True, False])
def test_black_holes_are_better_than_the_start(calibrated):
    sky = black_holes(2, 5)
    plain = Interferometer.eht2017()
    array = plain if calibrated else Uncalibrated(plain)
    y = array.observe(sky.fine, 0)
    t = (torch.arange(64) - 31.5) * 2.5
    prior = torch.exp(-2.77 * (t[:, None] ** 2 + t**2) / 60**2)[None, None]
    prior = prior / prior.sum() * 130
    found = rml(y, array, {"entropy": 10.0, "tv": 10.0}, prior=prior)
    assert (found.image > 0).all() and (found.record["chi2"][-1] < 0.2 * found.record["chi2"][0]).all()
    if not calibrated:  # the restarts get out of wrong minima
        once = rml(y, array, {"entropy": 10.0, "tv": 10.0}, prior=prior, steps=900, rounds=1)
        assert (found.record["chi2"][-1] < once.record["chi2"][-1]).all()
    else:
        assert (metrics.psnr(found.image, sky.image) > metrics.psnr(prior, sky.image) + 1).all()


def test_images_do_not_mix(toy):
    array, truth, y = toy
    both = rml(torch.cat([y, 2 * y]), array, {"tv": 1.0}, prior=truth, steps=20).image
    assert torch.allclose(both[:1], rml(y, array, {"tv": 1.0}, prior=truth, steps=20).image)


def test_bad_input(toy):
    array, truth, y = toy
    for weights, prior, message in (
        ({"wavelet": 1.0}, truth, "unknown regulariser"),
        ({"tv": -1.0}, truth, "not be negative"),
        ({"tv": 1.0}, -truth, "nowhere negative"),
    ):
        with pytest.raises(ValueError, match=message):
            rml(y, array, weights, prior=prior, steps=1)
