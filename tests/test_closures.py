import pytest
import torch

from fusionlib import Interferometer, Uncalibrated, black_holes, hqs, pgd, schedule
from fusionlib.interferometer.array import round_gaussian
from fusionlib.interferometer.closures import GAIN_ERROR, ClosureData, closure_matrices
from fusionlib.interferometer.observations import eht2017_table
from fusionlib.priors import zoo

F64 = torch.float64


@pytest.fixture(scope="module")
def array() -> Uncalibrated:
    return Uncalibrated(Interferometer.eht2017(dtype=F64))


@pytest.fixture(scope="module")
def sky() -> torch.Tensor:
    return black_holes(4, 21).image.double()


def test_minimal_sets_have_the_known_sizes():
    """134 closure phases and 113 log closure amplitudes on all baselines; a dropped baseline costs one of each."""
    psi, lam = closure_matrices(eht2017_table())
    assert psi.shape == (134, 216) and lam.shape == (113, 216)
    for matrix, entries in ((psi, 3), (lam, 4)):
        assert (matrix.abs().sum(1) == entries).all()
        assert torch.linalg.matrix_rank(matrix) == len(matrix)
    long = Interferometer.eht2017().table
    assert len(closure_matrices(long)[0]) == 134 - 27
    assert not any(m.any() for m in closure_matrices(long.assign(scan=range(len(long)))))


def test_closures_do_not_see_station_gains_and_phases(array, sky):
    """Noise-free: to float precision; amplitudes do see the gains."""
    plain = array.array
    vis = plain.visibilities(plain(sky))
    noise = plain.observe(sky, 5) - plain(sky)
    gains = {station: 0.3 for station in GAIN_ERROR}
    corrupted = plain.visibilities(plain.observe(sky, 5, gains=gains, phases=True) - noise)
    flux = torch.ones(4, dtype=F64)
    a, b = array.measure(vis, flux), array.measure(corrupted, flux)
    # measured amplitudes are debiased by the noise; compare the bare closures
    turn = torch.remainder((vis.angle() - corrupted.angle()) @ array.psi.T + torch.pi, 2 * torch.pi) - torch.pi
    assert turn.abs().max() < 1e-9
    assert ((vis.abs().log() - corrupted.abs().log()) @ array.lam.T).abs().max() < 1e-9
    assert (a.amp / b.amp - 1).abs().median() > 0.05


def test_chi_squares_of_the_truth_agree_with_their_monte_carlo_reference(array, sky):
    """At the data's own signal-to-noise: 200 fresh draws of noise on one image against 40 observations with gains.

    The reference takes the closures of noisy visibilities against the noise-free ones with sigmas from the noisy
    amplitudes, as an analysis would; low signal-to-noise biases it away from 1.
    """
    x, plain = sky[:1], array.array
    clean = plain.visibilities(plain(x))
    truth = array.measure(clean, torch.ones(1, dtype=F64))
    bare_phase, bare_amp = clean.angle() @ array.psi.T, clean.abs().log() @ array.lam.T
    reference = {"cphase": [], "logcamp": []}
    for seed in range(200):
        draw = array.measure(plain.visibilities(plain.observe(x, 1000 + seed)), torch.ones(1, dtype=F64))
        reference["cphase"].append((2 * (1 - (draw.cphase - bare_phase).cos()) / draw.sigma_cphase**2).mean())
        reference["logcamp"].append(((draw.logcamp - bare_amp) / draw.sigma_logcamp).square().mean())
    assert truth.cphase.shape == (1, 107)
    observed = [array.chi2s(x, array.observe(x, seed)) for seed in range(40)]
    for kind, values in reference.items():
        expected, found = torch.stack(values), torch.cat([o[kind] for o in observed])
        error = (expected.var() / 200 + found.var() / 40).sqrt()
        assert abs(expected.mean() - found.mean()) < 3 * error, kind
        assert 0.7 < expected.mean() < 1.3


def test_derivatives_are_exact(array, sky):
    y = array.observe(sky, 0)
    z = sky.flip(0) + 0.01
    start = z.flatten(1) @ array.rows.T
    c = 1e-6 * torch.randn(4, array.basis.shape[1], dtype=F64, generator=torch.Generator().manual_seed(0))
    r, j = array._linearise(start, y)
    moved, _ = array._linearise(start + c @ array.reduced.T, y)
    assert ((moved - r) - torch.einsum("bnr,br->bn", j, c)).norm() < 1e-3 * (moved - r).norm()


def objective(array: Uncalibrated, x: torch.Tensor, z: torch.Tensor, y: ClosureData, rho: float) -> torch.Tensor:
    found = array._residuals(x.flatten(1) @ array.rows.T, y)
    return sum(r.square().sum(1) for r in found.values()) / 2 + rho / 2 * (x - z).square().sum((1, 2, 3))


def test_systematic_noise_is_a_fraction_of_every_amplitude(array, sky):
    """In quadrature: three baselines to a closure phase, four to a log closure amplitude; the data stay as they are."""
    wary = Uncalibrated(array.array, systematic=0.03)
    a, b = array.observe(sky, 0), wary.observe(sky, 0)
    assert torch.equal(a.cphase, b.cphase) and torch.equal(a.amp, b.amp)
    assert torch.allclose(b.sigma_cphase**2 - a.sigma_cphase**2, torch.full_like(a.cphase, 3 * 0.03**2), rtol=1e-6)
    assert torch.allclose(b.sigma_logcamp**2 - a.sigma_logcamp**2, torch.full_like(a.logcamp, 4 * 0.03**2), rtol=1e-6)
    assert torch.allclose(b.sigma_amp**2 - a.sigma_amp**2, (0.03 * a.amp) ** 2)


def test_held_out_scans_are_whole_and_disjoint(array):
    table = array.array.table
    left = sorted(set(table.scan))[::5]
    fit = Interferometer.from_table(table, without=left)
    rest = Interferometer.from_table(table, without=[s for s in set(table.scan) if s not in left])
    assert set(rest.table.scan) == set(left) and len(fit.table) + len(rest.table) == len(table)
    with pytest.raises(ValueError, match=r"no scans \[99\]"):
        Interferometer.from_table(table, without=[99])


def test_a_window_measures_moves_in_its_own_metric(sky):
    """Stationary: the gradient of the data term is - rho (x - z) / w, so moves fade out with the window."""
    array = Uncalibrated(Interferometer.eht2017(dtype=F64), window=60.0)
    y, z, rho = array.observe(sky, 0), sky.flip(0) + 0.01, 100.0
    x = array.prox(z, y, rho, iterations=100, tolerance=1e-14).requires_grad_()
    w = round_gaussian(64, 160.0, 60.0).clamp(min=1e-4)
    (objective(array, x, z, y, 0.0).sum() + rho / 2 * ((x - z).square() / w).sum()).backward()
    # the image can move along sqrt(w) times the singular vectors only: project the gradient on them
    at_start = z.clone().requires_grad_()
    objective(array, at_start, z, y, 0.0).sum().backward()
    moves = [(g.flatten(1) @ array.basis).norm(dim=1) for g in (x.grad, at_start.grad)]
    assert (moves[0] < 1e-3 * moves[1]).all()
    assert (x - z)[..., :8, :8].abs().max() < 1e-2 * (x - z).abs().max()


@pytest.mark.parametrize("rho", [10.0, 1e3])
def test_prox_never_climbs_and_ends_at_a_stationary_point(array, sky, rho):
    y, z = array.observe(sky, 0), sky.flip(0) + 0.01
    values = [objective(array, z, z, y, rho)]
    for iterations in (1, 2, 5, 100):
        x = array.prox(z, y, rho, iterations=iterations, tolerance=1e-14)
        values.append(objective(array, x, z, y, rho))
    assert (torch.stack(values).diff(dim=0) <= 1e-9).all()
    x = x.requires_grad_()
    objective(array, x, z, y, rho).sum().backward()
    at_start = z.clone().requires_grad_()
    objective(array, at_start, z, y, rho).sum().backward()
    assert x.grad.flatten(1).norm(dim=1).max() < 1e-3 * at_start.grad.flatten(1).norm(dim=1).max()


def test_images_do_not_mix(array, sky):
    y, first = array.observe(sky, 0), array.observe(sky[:2], 0)
    assert all(torch.allclose(getattr(y[:2], f), getattr(first, f)) for f in y.__dataclass_fields__)
    z = array.start(y)
    assert torch.allclose(array.prox(z, y, 10.0)[1:2], array.prox(z[1:2], y[1:2], 10.0), atol=1e-8)


def test_an_image_that_is_lost_takes_no_other_with_it(array, sky):
    """A Hessian that cannot be factorised, here of an image that is not finite, is damped and not raised."""
    y, z = array.observe(sky[:2], 0), sky[:2].flip(0).clone()
    alone = array.prox(z[:1], y[:1], 10.0)
    z[1] = torch.nan
    assert torch.allclose(array.prox(z, y, 10.0)[:1], alone, atol=1e-8)


def test_descent_lowers_the_misfit_of_every_image(array, sky):
    y = array.observe(sky, 0)
    z = array.start(y)
    for _ in range(5):
        new = array.descend(z, y)
        assert (array.chi2(new, y) < array.chi2(z, y)).all()
        z = new


def test_uncalibrated_data_reconstruct_a_ring():
    """Through random phases and gains, HQS gets nearer to the truth than its start, and fits; PGD descends."""
    sky = black_holes(3, 33)
    array = Uncalibrated(Interferometer.eht2017())
    y = array.observe(sky.fine, 0)
    result = hqs(y, array, zoo.load("ffdnet"), sigmas=schedule(0.3, 0.01, 30), lam=1.0)
    chi2 = array.chi2s(result.image, y)
    assert all(0.3 < float(chi2[kind].mean()) < 2 for kind in ("cphase", "logcamp"))
    by_gradient = pgd(y, array, zoo.Identity(), sigmas=[0.1] * 10)
    assert (by_gradient.record["chi2"].diff(dim=0) <= 0).all()


def test_start_is_a_gaussian_with_the_measured_flux(array, sky):
    y = array.observe(sky, 0)
    assert torch.allclose(array.start(y).flatten(1) @ array.rows[-1], y.flux[:, 0], rtol=1e-6)


def test_bad_input(array, sky):
    plain = Interferometer.eht2017()
    for use in (("bispectrum",), ()):
        with pytest.raises(ValueError, match="unknown data term or none"):
            Uncalibrated(plain, use=use)
    with pytest.raises(ValueError, match="closures need the column"):
        Uncalibrated(Interferometer.from_table(plain.table[["u", "v", "sigma"]]))
    vis = torch.full((1, 189), torch.nan, dtype=torch.complex128)
    with pytest.raises(ValueError, match="visibilities or flux have NaN"):
        array.measure(vis, torch.ones(1))
