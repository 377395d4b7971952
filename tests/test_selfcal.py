"""Gains of stations against a picture, the data step that they leave, and the loop that goes back and forth."""

import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from fusionlib import FusedPrior, Interferometer, Uncalibrated, black_holes, schedule
from fusionlib.gates import Static
from fusionlib.interferometer import GAIN_ERROR, S_REF, Gains, SelfCalibrated
from fusionlib.paper import experiment
from fusionlib.paper.shift_specs import calibrating_specs
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import selfcal
from fusionlib.priors import zoo
from fusionlib.selfcal import calibrating, self_calibrating

F64 = torch.float64


def made(table, **options) -> SelfCalibrated:
    return SelfCalibrated(Uncalibrated(Interferometer.from_table(table, dtype=F64, window=60.0)), **options)


def through(
    array: SelfCalibrated, x: torch.Tensor, seed: int, noise: float = 0.0, size: float = 1.0, turn: float = 3.0
):
    """Data of skies through random gains, and these."""
    rng = torch.Generator().manual_seed(seed)
    shape = len(x), len(array.stations)
    a = size * array.budget * torch.randn(shape, dtype=F64, generator=rng)
    p = turn * torch.randn(shape, dtype=F64, generator=rng)
    vis = array.model(x) * array._factors(a, p)
    parts = torch.randn(2, *vis.shape, dtype=F64, generator=rng)
    vis = vis + noise * array.physics.sigma * torch.complex(*parts)
    flux = x.sum((1, 2, 3)) * array.physics._flux_per_value()
    p = p - p[:, array.first]
    return array.physics.measure(vis, flux), Gains(a, torch.atan2(p.sin(), p.cos()))


@pytest.fixture(scope="module")
def table():
    return Interferometer.eht2017(0.1).table


@pytest.fixture(scope="module")
def sky() -> torch.Tensor:
    return black_holes(3, 21).image.double()


def test_gains_are_recovered_from_noiseless_data(table, sky):
    """To 1e-4; also where baselines are missing, and where only two stations see a scan."""
    pair = {"AA", "PV"}
    two = table[(table.scan != 9) | (table.t1.isin(pair) & table.t2.isin(pair))]
    holes = table.drop(table.index[::9])
    for some in (table, two, holes):
        array = made(some.assign(sigma=some.sigma * 1e-5))
        y, true = through(array, sky, 0)
        found = array.solve(sky, y)
        error = (found.phase - true.phase + np.pi) % (2 * np.pi) - np.pi
        pairs = torch.tensor([sum(s == scan for s, _ in array.stations) > 2 for scan, _ in array.stations])
        assert error.abs().max() < 1e-4
        assert (found.log_amplitude - true.log_amplitude)[:, pairs].abs().max() < 1e-4
    pull = (found.log_amplitude - true.log_amplitude) @ array.ends.T
    assert pull.abs().max() < 1e-4


def test_gains_are_those_of_an_independent_solver(table, sky):
    """At the noise of the array, with budgets: scipy's least squares on one scan, from the truth."""
    array = made(table[table.scan == 15], tail=1e6)
    y, true = through(array, sky, 1, noise=1.0)
    found, model, n = array.solve(sky, y), array.model(sky).numpy(), len(array.stations)
    ends, ring, budget = (t.numpy() for t in (array.ends, array.ring, array.budget))
    for b in range(len(sky)):

        def residual(g, b=b):
            m = model[b] * np.exp(ends @ g[:n] + 1j * ring @ g[n:])
            r = (y.vis[b].numpy() - m) / array.physics.sigma.numpy()
            return np.concatenate([r.real, r.imag, g[:n] / budget])

        best = least_squares(residual, torch.cat([g[b] for g in true]).numpy(), xtol=1e-12, ftol=1e-12, gtol=1e-12).x
        assert np.allclose(found.log_amplitude[b], best[:n], atol=1e-5)
        assert np.allclose(found.phase[b], best[n:] - best[n], atol=1e-5)


def test_gains_are_those_of_ehtim(table, sky):
    """Its self-calibration of all stations, on the same data and picture; gains loosely bound, at little noise."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        eh = pytest.importorskip("ehtim")
        from ehtim.calibrating.self_cal import self_cal
        from ehtim.const_def import DTARR, DTPOL_STOKES
    array = made(table.assign(sigma=table.sigma / 100))
    y, _ = through(array, sky[:1], 0, noise=1.0)
    found, t = array.solve(sky[:1], y), array.physics.array.table
    rows, sites = np.zeros(len(t), DTPOL_STOKES), sorted({*t.t1, *t.t2})
    rows["time"], rows["tint"], rows["vis"] = t.scan * 0.5, 300, y.vis[0].numpy()
    for name in ("t1", "t2", "u", "v", "sigma", "qsigma", "usigma", "vsigma"):
        rows[name] = t[name if name in t else "sigma"]
    stations = np.zeros(len(sites), DTARR)
    stations["site"], stations["x"] = sites, 1.0 + np.arange(len(sites))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        obs = eh.obsdata.Obsdata(12.5, 12.4, 230e9, 2e9, rows, stations, source="M87", mjd=57854)
        picture = eh.image.Image(
            sky[0, 0].numpy() * S_REF, 160 * eh.RADPERUAS / 64, 12.5, 12.4, rf=230e9, source="M87", mjd=57854
        )
        options = {"method": "both", "ttype": "direct", "gain_tol": 10.0, "caltable": True, "processes": -1}
        gains = self_cal(obs, picture, **options).data
    theirs = {(scan, site): 1 / gains[site]["rscale"][np.abs(gains[site]["time"] - scan * 0.5).argmin()]
              for scan, site in array.stations}  # fmt: skip
    for k, (key, first) in enumerate(zip(array.stations, array.first, strict=True)):
        mine = torch.polar(found.log_amplitude[0, k].exp(), found.phase[0, k]).item()
        reference = theirs[array.stations[int(first)]]
        assert abs(mine - theirs[key] / reference * abs(reference)) < 1e-3


def test_a_gain_far_beyond_its_budget_is_found(table, sky):
    """The SMT, known to 3 %, at 1.5 for a whole scan, to 0.1; a Gaussian prior fights that."""
    array, stiff = (made(table, tail=tail) for tail in (3.0, 1e6))
    plain, _ = through(array, sky, 2, noise=1.0, size=0.0)
    k = array.stations.index((15, "AZ"))
    y = array.physics.measure(plain.vis * (1 + 0.5 * array.ends[:, k]), plain.flux[:, 0])
    error, other = ((a.solve(sky, y).log_amplitude[:, k].exp() - 1.5).abs().max() for a in (array, stiff))
    assert error < 0.1 < 0.2 < other


def test_what_stays_free_is_in_the_noise(table, sky):
    """Data whose gains are off as they are said to be have a chi-square of 1; taken for calibrated, far more."""
    array = made(table.assign(sigma=table.sigma / 4), freedom=0.02)
    x = sky[:1].expand(200, 1, 64, 64)
    y, _ = through(array, x, 3, noise=1.0, size=0.3, turn=0.02)
    array.budget *= 0.3
    known = Gains(*torch.zeros(2, 200, len(array.stations), dtype=F64))
    chi2 = array.chi2(x, array.calibrate(x, y, known))
    assert abs(chi2.mean() - 1) < 0.05
    array.budget *= 1e-6
    array.freedom = 0.0
    assert array.chi2(x, array.calibrate(x, y, known)).mean() > 5


def test_the_data_step_is_the_minimum(table, sky):
    array = made(table)
    y, _ = through(array, sky, 4, noise=1.0)
    data, z, rho = array.calibrate(sky, y), sky.flip(0), 3.0
    x = array.prox(z, data, rho)
    basis = array.physics.basis
    c = (torch.linalg.lstsq(basis, (x - z).flatten(1).T).solution.T).requires_grad_()
    moved = z + (c @ basis.T).view_as(z)
    objective = (array.residual(moved, data).square().sum() + rho * c.square().sum()) / 2
    (gradient,) = torch.autograd.grad(objective, c)
    scale = torch.einsum("bnr,bn->br", data.modes, array.residual(z, data)).abs().max()
    assert gradient.abs().max() < 1e-8 * scale
    down = array.descend(z, data)
    assert (array.chi2(down, data) < array.chi2(z, data)).all()
    part = data[torch.tensor([2, 0])]
    assert len(part) == 2 and torch.allclose(array.prox(z[[2, 0]], part, rho), x[[2, 0]])


def test_the_picture_does_not_depend_on_station_phases_and_hardly_on_gains(table, sky):
    bank = zoo.bank(("identity", "tv")).double()
    prior = FusedPrior(bank, Static(torch.tensor([0.3, 0.7])))
    array = made(table)
    pictures = []
    for size, turn in ((0.0, 0.0), (0.0, 3.0), (0.5, 3.0)):
        y, _ = through(array, sky, 5, size=size, turn=turn)
        pictures.append(
            self_calibrating(y, array.physics, prior, sigmas=schedule(0.2, 0.02, 6), lam=0.1, rounds=2).image
        )
    plain, turned, changed = pictures
    apart = (plain - sky).square().mean().sqrt()
    assert (turned - plain).square().mean().sqrt() < 1e-3 * apart
    assert (changed - plain).square().mean().sqrt() < 0.5 * apart


def test_the_loop_keeps_the_round_that_fits_closures_best(table, sky):
    array = made(table)
    y, _ = through(array, sky, 6, noise=1.0)
    shown = iter([sky.flip(3), sky, sky.flip(2)])

    def reconstruct(data, physics):
        from fusionlib import Reconstruction

        return Reconstruction(next(shown), {}, 0.0)

    found = calibrating(y, array.physics, reconstruct, sky.flip(2), 3)
    assert torch.equal(found.image, sky) and found.record["chi2_closures"].argmin(0).tolist() == [1, 1, 1]
    assert found.record["phase"].shape == (3, 3, len(array.stations))
    with pytest.raises(ValueError, match="rounds >= 1"):
        calibrating(y, array.physics, reconstruct, sky, 0)
    with pytest.raises(ValueError, match="freedom >= 0"):
        SelfCalibrated(array.physics, freedom=-1)


def test_budgets_are_those_of_the_stations(table):
    array = made(table)
    assert [GAIN_ERROR[site] for _, site in array.stations] == array.budget.tolist()
    assert array.ends.sum(1).tolist() == [2] * len(table) and not array.ring.sum(1).any()


def test_experiments_of_the_self_calibrated_regime_rest_on_calibrated_fits(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    grid = (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.1,)))
    plain = Spec("single:tv", ("tv",), 1.0, 1, 2, "dev", steps=3, grid=grid)
    spec = replace(plain, regime="self-calibrated")
    assert experiment.tuning(spec) == experiment.tuning(plain) and spec.key != plain.key
    record = experiment.scores(spec)
    assert record["psnr"].shape == (1, 2) and np.isfinite(record["chi2_cphase"]).all()
    closures = experiment.scores(replace(plain, regime="uncalibrated"))
    assert record["psnr"].mean() > closures["psnr"].mean() - 1


def test_the_table_of_uncalibrated_data_says_what_the_scores_say(monkeypatch):
    """Every row has its level, 1 dB less where data are not calibrated; fused rows 2 dB over the average."""

    def made_up(s):
        level = 30 + 2 * (s.method not in ("average", "single:torus")) - (s.regime == "self-calibrated")
        noise = np.random.default_rng(len(s.family)).normal(size=(1, s.n_test))
        named = {"chi2_cphase": 1.0, "chi2_logcamp": 0.5, "ring": float(s.family == "")}
        return {"psnr": level + noise} | {k: np.full((1, s.n_test), v) for k, v in named.items()}

    monkeypatch.setattr(selfcal, "scores", made_up)
    monkeypatch.setattr(selfcal.store, "has", lambda key: True)
    specs = calibrating_specs("paper")
    assert {s.regime for s in specs} == {"self-calibrated"} and {s.n_test for s in specs if not s.family} == {200}
    table = selfcal.uncalibrated_table(specs)
    assert len(table) == len(specs) and np.allclose(table.calibrated, 1)
    fused = ~table.method.isin(("average", "single:torus"))
    assert np.allclose(table[fused].over_average, 2) and np.allclose(table[~fused].over_hi, 0)
    assert set(table[table.rings > 0].object) == {"sky"}
    assert len(set(table.groupby("object").size())) == 1
