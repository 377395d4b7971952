"""What people who image with these arrays and priors have reported of other programs, a kind of fault each."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fusionlib import FusedPrior, Interferometer, PriorBank, Uncalibrated, black_holes, hqs, schedule
from fusionlib.gates import average
from fusionlib.interferometer import closures, compact_flux, eht2017_table, observations, read_observation
from fusionlib.paper import Spec, run
from fusionlib.paper.studies import m87, sources
from fusionlib.pnp import admm, mace, pgd, red
from fusionlib.priors import Function, Identity, check, guard, zoo
from fusionlib.sky import from_folder, images

SIGMAS = {"sigmas": schedule(0.2, 0.05, 3)}
LOOPS = {"hqs": hqs, "admm": admm, "red": red, "pgd": lambda *args, lam, **options: pgd(*args, **options)}


@pytest.fixture(scope="module")
def array() -> Interferometer:
    return Interferometer.eht2017(0.3, window=60)


@pytest.fixture(scope="module")
def y(array) -> torch.Tensor:
    return array.observe(black_holes(2, 3).fine, 0)


# --- A: priors that need autograd ---


class GradientStep(nn.Module):
    """x less a tenth of the gradient of |x|^2: 0.8 x."""

    def forward(self, x, sigma):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return (x - 0.1 * torch.autograd.grad(x.square().sum(), x)[0]).detach()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_prior_may_differentiate_inside_every_loop(array, y, loop):
    plain = Function(lambda x, sigma: 0.8 * x)
    mine, same = (LOOPS[loop](y, array, p, lam=0.1, **SIGMAS).image for p in (GradientStep(), plain))
    assert torch.allclose(mine, same, atol=1e-6)


def test_a_prior_may_differentiate_in_banks_and_checks(array, y):
    bank = PriorBank({"mine": GradientStep(), "identity": Identity()})
    fused = hqs(y, array, FusedPrior(bank, average(2)), lam=0.1, **SIGMAS).image
    assert torch.allclose(fused, hqs(y, array, Function(lambda x, sigma: 0.9 * x), lam=0.1, **SIGMAS).image, atol=1e-6)
    assert torch.isfinite(mace(y, array, bank, lam=0.1, **SIGMAS).image).all()
    check(GradientStep(), torch.rand(2, 1, 16, 16), 0.1)
    assert "mine" not in guard(bank, torch.rand(2, 1, 16, 16) / 10, [0.5])


# --- B: missing values ---


def observed_table(array: Interferometer, seed: int = 0) -> pd.DataFrame:
    vis = array.visibilities(array.observe(black_holes(1, 3).fine, seed))[0].numpy()
    return array.table.assign(vis=vis)


def test_rows_without_a_value_are_left_out_of_a_csv_with_a_count(array, tmp_path):
    table, path = observed_table(array), tmp_path / "o.csv"
    holes = table.assign(vis=[str(v) if k % 2 else "nan" for k, v in enumerate(table.vis)])
    holes.to_csv(path, index=False)
    with pytest.warns(UserWarning, match=rf"o.csv: {(len(table) + 1) // 2} of {len(table)} rows"):
        left = read_observation(path)
    assert np.allclose(left.vis, table.vis[1::2]) and np.allclose(left.u, table.u[1::2])


def write_uvfits(path: Path, table: pd.DataFrame, spoil=None, scans=None) -> Path:
    """Rows of a table as UVFITS through ehtim, its data then spoilt."""
    eh = pytest.importorskip("ehtim")
    from astropy.io import fits

    sites = pd.read_csv(observations.DATA / "eht2017_sites.csv").set_index("site")
    names = sorted({*table.t1, *table.t2})
    lines = [f"{s} {sites.x[s]} {sites.y[s]} {sites.z[s]} 1000 1000 0 0 0 0 0 0 0" for s in names]
    text = path.with_suffix(".txt")
    text.write_text("#Site X Y Z SEFDR SEFDL FR_PAR FR_EL FR_OFF DR_RE DR_IM DL_RE DL_IM\n" + "\n".join(lines) + "\n")
    rows = np.zeros(len(table), dtype=eh.const_def.DTPOL_STOKES)
    for name, values in {"time": table.ut, "tint": table.seconds, "t1": table.t1, "t2": table.t2, "u": table.u,
                         "v": table.v, "vis": table.vis, "sigma": table.sigma, "qsigma": table.sigma,
                         "usigma": table.sigma, "vsigma": table.sigma}.items():  # fmt: skip
        rows[name] = values.to_numpy()
    with warnings.catch_warnings(action="ignore"):
        array = eh.array.load_txt(str(text)).tarr
        obs = eh.obsdata.Obsdata(12.5, 12.39, 227e9, 1.8e9, rows, array, source="3C000", mjd=57854)
        if scans is not None:
            obs.scans = np.asarray(scans)
        obs.save_uvfits(str(path))
        with fits.open(path, mode="update", memmap=False) as file:
            if spoil:
                spoil(file[0].data["DATA"])
    return path


def integrations(count: int = 4, seconds: float = 10.0) -> pd.DataFrame:
    """One scan of a source of 1 Jy, `count` times."""
    one = eht2017_table().query("scan == 15").assign(vis=1.0 + 0j, ut=5.0)
    return pd.concat([one.assign(ut=5.0 + k * seconds / 3600, seconds=seconds) for k in range(count)])


def test_nan_visibilities_of_a_uvfits_are_no_measurements(tmp_path):
    def spoil(data):
        data[::2, ..., :2, :2] = np.nan  # both hands of every second row, with their weights

    with pytest.warns(UserWarning, match="visibilities are not finite"):
        table = read_observation(write_uvfits(tmp_path / "o.uvfits", integrations(), spoil))
    assert np.allclose(table.vis, 1, atol=1e-6)

    def one_gone(data):
        data[3, ..., :2, :2] = np.nan

    with pytest.warns(UserWarning, match="2 of"):
        table = read_observation(write_uvfits(tmp_path / "p.uvfits", integrations(1), one_gone))
    assert len(table) == len(integrations(1)) - 1


# --- C: FITS images ---


def write_fits(path: Path, image: np.ndarray, **header) -> Path:
    fits = pytest.importorskip("astropy.io.fits")
    head = fits.Header()
    for key, value in header.items():
        head[key] = value
    fits.PrimaryHDU(image, head).writeto(path, overwrite=True)
    return path


def corner(side: int = 64) -> np.ndarray:
    """A blob in the north-east, as an array with row 0 north, column 0 east."""
    image = np.zeros((side, side))
    image[side // 4 - 2 : side // 4 + 2, side // 4 - 2 : side // 4 + 2] = 1
    return image


DEGREE = 3.6e9


@pytest.mark.parametrize("x, y", [(-1, 1), (1, 1), (-1, -1), (1, -1)])
@pytest.mark.parametrize("how", ["CDELT", "CD"])
def test_fits_images_are_turned_north_up_east_left(tmp_path, x, y, how):
    image = corner()[::-y, ::-x]  # FITS counts rows northwards for CDELT2 > 0, columns eastwards for CDELT1 > 0
    pixel = 160 / 64 / DEGREE
    keys = {"CDELT1": x * pixel, "CDELT2": y * pixel} if how == "CDELT" else {"CD1_1": x * pixel, "CD2_2": y * pixel}
    (read,) = images.read_images(write_fits(tmp_path / "a.fits", image.copy(), **keys), 64, 160.0)
    assert np.allclose(read[0, 0], corner(), atol=1e-6)


@pytest.mark.parametrize("width, side", [(80, 32), (80, 64), (100, 64), (240, 96), (320, 64)])
def test_a_fits_image_keeps_its_size_and_its_flux(tmp_path, width, side):
    t = (np.arange(side) + 0.5) / side * width - width / 2
    blob = np.exp(-(t[:, None] ** 2 + (t[None] - 8) ** 2) / (2 * 12**2))  # 12 µas wide, 8 µas west of the middle
    path = write_fits(tmp_path / "a.fits", blob, CDELT1=-width / side / DEGREE, CDELT2=width / side / DEGREE)
    with pytest.warns(UserWarning, match=f"a.fits: {width} µas wide by its header"):
        (read,) = images.read_images(path, 128, 160.0)
    u = (np.arange(128) + 0.5) / 128 * 160 - 80
    flux = read[0, 0].double().numpy()
    assert (flux * u[None]).sum() / flux.sum() == pytest.approx(8, abs=0.3)
    assert np.sqrt((flux * (u[None] - 8) ** 2).sum() / flux.sum()) == pytest.approx(12, abs=0.8)
    x = torch.rand(1, 1, side, side, dtype=torch.float64)
    assert float(images.regrid(x, 100.0, 160.0, 128).sum()) == pytest.approx(float(x.sum()))


@pytest.mark.parametrize("scale", [1e40, 1e-42, 1e-300])
def test_values_beyond_single_precision_are_images_too(tmp_path, scale):
    np.save(tmp_path / "a.npy", corner() * scale)
    sky = from_folder(tmp_path)
    assert torch.isfinite(sky.image).all() and float(sky.image.max()) > 0.1


def test_stokes_i_is_taken_and_what_cannot_be_understood_is_refused(tmp_path):
    cube = np.stack([corner(), *(np.random.default_rng(0).random((3, 64, 64)))])[:, None]
    axes = {"CTYPE3": "FREQ", "CTYPE4": "STOKES", "CRVAL4": 1.0, "CDELT4": 1.0, "CRPIX4": 1.0}
    (read,) = images.read_images(write_fits(tmp_path / "a.fits", cube, **axes), 64, 160.0)
    assert np.allclose(read[0, 0], corner()[::-1], atol=1e-6)
    for name, data, header, said in (
        ("s", cube, axes | {"CRVAL4": -1.0, "CDELT4": -1.0}, "has no I"),
        ("f", cube, {"CTYPE3": "FREQ", "CTYPE4": "FREQ"}, "axis 4 is FREQ"),
        ("r", corner(), {"CROTA2": 30.0, "CDELT1": -1e-9, "CDELT2": 1e-9}, "rotated"),
        ("p", corner(), {"CDELT1": -1e-9, "CDELT2": 2e-9}, "not square"),
        ("u", corner(), {"BUNIT": "KM/S"}, "BUNIT 'KM/S'"),
        ("w", corner(), {"CDELT1": -1.0, "CDELT2": 1.0}, "too coarse"),
    ):
        path = write_fits(tmp_path / f"{name}.fits", data, **header)
        with pytest.raises(ValueError, match=f"{name}.fits.*{said}"):
            images.read_images(path, 64, 160.0)


def test_hidden_files_are_skipped_and_endings_go_by_any_case(tmp_path):
    write_fits(tmp_path / "a.fits.gz", corner())
    write_fits(tmp_path / "b.FITS", corner())
    (tmp_path / "._a.npy").write_bytes(b"rubbish")
    assert len(from_folder(tmp_path).image) == 2


# --- D, E: integrations and scans ---


def test_every_integration_enters_the_closures():
    one = eht2017_table().query("scan == 15")
    for both in (
        pd.concat([one.assign(ut=5.0), one.assign(ut=5.1)]),
        pd.concat([one.drop(columns="ut")] * 2),
        pd.concat([one.assign(ut=5.0), one.assign(ut=5.1)]).sample(frac=1, random_state=0),
    ):
        psi, lam = closures.closure_matrices(both)
        single = closures.closure_matrices(one)
        assert len(psi) == 2 * len(single[0]) and len(lam) == 2 * len(single[1])
        assert bool(psi.any(0).all()) and bool(lam.any(0).all())
        stamp = both.reset_index(drop=True).get("ut", pd.Series(np.repeat([0, 1], len(one))))
        assert all(np.ptp(stamp[np.flatnonzero(row)]) == 0 for row in psi.numpy())


def test_integrations_average_down_as_their_number():
    """Four integrations of a quarter of the time carry what one does: phases scatter alike."""
    table = eht2017_table().query("scan == 15")
    parts = [table.assign(ut=5 + k / 360, sigma=2 * table.sigma) for k in range(4)]
    averaged = observations.average_scans(pd.concat(parts).assign(vis=1.0 + 0j))
    assert np.allclose(averaged.sigma, table.sort_values(["t1", "t2"]).sigma)
    whole, split = (
        Uncalibrated(Interferometer.from_table(t, min_baseline=1e8))
        for t in (table, pd.concat(parts, ignore_index=True))
    )
    ones = [a.measure(torch.ones(1, len(a.sigma), dtype=torch.complex128), torch.ones(1)) for a in (whole, split)]
    information = [float((1 / y.sigma_cphase**2).sum()) for y in ones]
    assert information[1] == pytest.approx(information[0], rel=0.05)


def test_the_scans_of_the_file_are_used(tmp_path):
    rows = pd.concat([integrations(3, 60.0).assign(ut=lambda t, k=k: t.ut + k * 0.2) for k in range(3)])
    starts = [5.0 + k * 0.2 for k in range(3)]
    stated = [(t - 1 / 60, t + 3 / 60) for t in starts]
    table = read_observation(write_uvfits(tmp_path / "o.uvfits", rows, scans=stated))
    assert table.scan.nunique() == 3 and len(table) == 3 * len(integrations(1))
    apart = observations.scans_of(rows.ut, rows.seconds)  # and where the file states none
    assert len(set(apart)) == 3
    with pytest.warns(UserWarning, match="outside the scans"):
        observations.scans_of(rows.ut, rows.seconds, np.array(stated[:2]))


# --- F, G: what a prior may and may not do ---


def test_a_prior_that_writes_to_its_input_changes_nobody_elses(array, y):
    cut = Function(lambda x, sigma: x.clamp_(0, 0.2))
    order = [hqs(y, array, FusedPrior(PriorBank(bank), average(2)), lam=0.1, **SIGMAS).image for bank in (
        {"cut": cut, "identity": Identity()}, {"identity": Identity(), "cut": cut})]  # fmt: skip
    assert torch.allclose(*order, atol=1e-6)
    start = torch.rand(2, 1, 64, 64)
    kept = start.clone()
    for loop in LOOPS.values():
        loop(y, array, cut, lam=0.1, start=start, **SIGMAS)
        assert torch.equal(start, kept)

    sigma = torch.tensor([0.1, 0.2])
    zoo_bank = PriorBank({"scales": Function(lambda x, s: x * s.mul_(2).view(-1, 1, 1, 1)), "identity": Identity()})
    zoo_bank(kept, sigma)
    assert torch.equal(sigma, torch.tensor([0.1, 0.2]))


def test_a_prior_that_returns_its_own_buffer_overwrites_nothing(array, y):
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = torch.zeros(2, 1, 64, 64)

        def forward(self, x, sigma):
            return self.out.copy_(0.9 * x)

    prior = Buffered()
    first = hqs(y, array, prior, lam=0.1, **SIGMAS)
    image = first.image.clone()
    prior(torch.zeros(2, 1, 64, 64), 0.1)
    assert torch.equal(first.image, image) and bool((first.record["step"] > 0).all())
    twice = PriorBank({"a": prior, "b": prior})(torch.rand(2, 1, 64, 64), 0.1)
    assert torch.equal(twice[0], twice[1]) and float(twice.max()) <= 0.9


@pytest.mark.parametrize("hidden", [False, True])
def test_networks_left_in_training_mode_are_evaluated_and_their_buffers_kept(array, y, hidden):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 3, padding=1)
    )
    before = {name: v.clone() for name, v in net.state_dict().items()}
    holder = {"net": net.train()}
    prior = Function(lambda x, sigma: holder["net"](x)) if hidden else net.train()
    called = prior if hidden else Function(lambda x, sigma: net(x))
    first, again = (hqs(y, array, called, lam=0.1, **SIGMAS).image for _ in range(2))
    assert torch.equal(first, again)
    check(called, torch.rand(2, 1, 64, 64), 0.1)
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items()) and net.training
    PriorBank({"net": Function(lambda x, sigma: net(x))})
    assert not net.training  # a bank freezes what it can see


@pytest.mark.parametrize(
    "returned, said",
    [
        (lambda x: (x, x), "tuple"),
        (lambda x: None, "NoneType"),
        (lambda x: x.half(), "torch.float16"),
        (lambda x: x.to(torch.complex64), "torch.complex64"),
        (lambda x: x.to("meta"), "meta"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: x[:, 0], "shape"),
    ],
)
def test_a_prior_of_the_wrong_type_is_named_with_it(array, y, returned, said):
    mine = Function(lambda x, sigma: returned(x))
    with pytest.raises(ValueError, match=rf"mine returned .*{said}"):
        hqs(y, array, FusedPrior(PriorBank({"identity": Identity(), "mine": mine}), average(2)), lam=0.1, **SIGMAS)
    with pytest.raises(ValueError, match=said):
        hqs(y, array, mine, lam=0.1, **SIGMAS)


def test_double_precision_is_converted(array, y):
    images = [hqs(y, array, Function(f), lam=0.1, **SIGMAS).image for f in (
        lambda x, sigma: 0.9 * x.double(), lambda x, sigma: 0.9 * x)]  # fmt: skip
    assert images[0].dtype == torch.float32 and torch.allclose(*images, atol=1e-6)


# --- H: parameters ---


def test_paths_and_priors_are_taken_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run #2", "010", "M87: april", "yes", "[a]"):
        Path(name).mkdir()
        assert run.read_parameters([f"sky={name}"]) == {"sky": str(tmp_path.resolve() / name)}
    Path("my #2.py").write_text("")
    read = run.read_parameters(["priors=[identity, 'tv',my #2.py:prior]"])["priors"]
    assert read == ["identity", "tv", f"{tmp_path.resolve() / 'my #2.py'}:prior"]


def test_a_bad_parameter_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    for given in ("priors=3", "priors=[3]", "priors=[]", "sky=/no#where", "train=[", "train", "=3"):
        assert run.main(["smoke", "--only", "15", "-p", given]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1, said


# --- I, J: few scans, dark images ---


def test_an_observation_of_one_scan_is_imaged_with_nothing_held_out(monkeypatch, tmp_path):
    table = sources.twin().table
    for scans in ([15], [15, 16]):
        path = tmp_path / f"{len(scans)}.csv"
        table[table.scan.isin(scans)].to_csv(path, index=False)
        grid = (("sigma_max", (0.2,)), ("sigma_min", (0.05,)), ("lam", (0.3,)))
        spec = Spec("single:identity", ("identity",), 1.0, 1, 2, "dev", regime="uncalibrated", steps=2, grid=grid)
        found, _ = m87.sources(path)
        monkeypatch.setattr(m87, "tuned", lambda spec: ({"sigma_max": 0.2, "sigma_min": 0.05, "lam": 0.3}, 0.0, {}))
        record = m87.reconstruct.function(spec, found[0].name, str(path))
        assert np.isfinite(record["denoised_cphase"]) and ("denoised_cphase_heldout" in record) == (len(scans) > 1)


def test_darkness_is_lit_again_or_said_to_be():
    array = Uncalibrated(Interferometer.eht2017(0.1), window=60)
    y = array.observe(black_holes(2, 3).fine, 0)
    dark = torch.zeros(2, 1, 64, 64)
    assert torch.isfinite(array.chi2(dark, y)).all() and all(v.isfinite().all() for v in array.chi2s(dark, y).values())
    for step in (array.prox(dark, y, 1.0), array.descend(dark, y)):
        assert torch.isfinite(step).all() and bool((array.chi2(step, y) < array.chi2(dark, y)).all())
    result = hqs(y, array, Identity(), lam=0.3, start=dark, **SIGMAS)
    assert bool((array.chi2(result.image, y) < 10).all())
    with pytest.raises(ValueError, match="Function left no flux"):
        hqs(y, array, Function(lambda x, sigma: 0 * x), lam=0.3, **SIGMAS)


def test_a_bad_start_is_blamed_on_the_start(array, y):
    nan = torch.full((2, 1, 64, 64), torch.nan)
    for loop in LOOPS.values():
        with pytest.raises(ValueError, match=r"^start: .* NaN"):
            loop(y, array, Identity(), lam=0.1, start=nan, **SIGMAS)
    with pytest.raises(ValueError, match=r"start: \(2, 1, 64, 64\) is needed"):
        hqs(y, array, Identity(), lam=0.1, start=torch.zeros(2, 1, 32, 32), **SIGMAS)


# --- K, L: flux, and files that change ---


def test_the_flux_is_suggested_by_the_data_and_can_be_given(tmp_path):
    table = sources.twin().table
    bright = table.assign(vis=2.5 * table.vis)
    path = tmp_path / "other.csv"
    bright.to_csv(path, index=False)
    short = bright[(bright.t1 == "AA") & (bright.t2 == "AP")]
    suggested, why = compact_flux(bright)
    assert suggested == pytest.approx(np.abs(short.vis).mean(), rel=0.05) and "ALMA-APEX" in why
    found, word = m87.sources(path)
    assert found[0].flux == pytest.approx(suggested) and "ALMA-APEX" in word and found[0].name == "other"
    assert m87.sources(path, 1.5)[0][0].flux == 1.5
    far = bright[np.hypot(bright.u, bright.v) > 1e9]
    assert "shortest" in compact_flux(far)[1]
    released = table.copy()
    released.attrs = {"source": "M87"}
    assert compact_flux(released)[0] == 0.6


def test_a_twin_takes_the_baselines_of_its_observation(tmp_path):
    table = sources.twin().table.query("scan < 12")
    path = tmp_path / "half.csv"
    table.to_csv(path, index=False)
    real, twin = m87.sources(path)[0]
    assert np.allclose(twin.table.u, real.table.u) and not np.allclose(twin.table.vis, real.table.vis)
    assert m87.source_of("twin", str(path)).truth is not None


def test_the_explorer_sees_a_file_that_was_written_again(tmp_path):
    from fusionlib import explorer

    np.save(tmp_path / "a.npy", corner())
    state = replace(explorer.State(), truth=f' "{tmp_path / "a.npy"}" ')  # as pasted
    first = explorer.state.truth(state).image
    np.save(tmp_path / "a.npy", corner()[::-1])
    assert torch.allclose(explorer.state.truth(state).image, first.flip(2), atol=1e-5)
    path, table = tmp_path / "o.csv", sources.twin().table
    table.to_csv(path, index=False)
    one = explorer.measured(str(path))[1].amp
    table.assign(vis=2 * table.vis).to_csv(path, index=False)
    two = explorer.measured(f"'{path}'")[1]
    assert torch.allclose(two.amp[one > 0.1], 2 * one[one > 0.1], rtol=0.05)
    assert float(explorer.measured(str(path), 1.5)[1].flux) == 1.5


# --- M: the kernel ---


def test_chapters_run_in_this_interpreter_whatever_kernels_there_are(tmp_path, monkeypatch):
    from jupyter_client.kernelspec import KernelSpecManager

    from fusionlib.paper import chapter

    other = tmp_path / "other" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    monkeypatch.setattr(chapter.papermill, "execute_notebook", lambda *_, **__: None)
    chapter._execute(Path("a"), Path("b"), {})
    import sys

    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == sys.executable
    assert str(tmp_path / "other") in os.environ["JUPYTER_PATH"]


# --- N, O: small things; released CSV files ---


def test_small_things(array, tmp_path):
    with pytest.raises(ValueError, match=r"\['tv'\] given twice"):
        zoo.bank(["tv", "tv"])
    path = tmp_path / "o.csv"
    path.write_text("scan,t1,t2,u,v,sigma,vis\n0,NA,PV,1e9,2e9,0.01,1+2i\n0,NA,AA,1e9,1e9,0.01,(0.5-1j)\n")
    table = read_observation(path)
    assert table.t1.tolist() == ["NA", "NA"] and table.vis.tolist() == [1 + 2j, 0.5 - 1j]
    for text, said in (
        ("u,v,sigma,vis\n1,2,0.1,1+2j\n1,2,0.1,hello\n", r"o.csv, line 3: vis is 'hello'"),
        ("u,v,sigma\n1,2,much\n", r"o.csv, line 2: sigma is 'much'"),
        ("u,v,sigma\n1,2,-1\n", "o.csv: .*sigma must be positive"),
        ("u,v\n1,2\n", r"o.csv: .*\['sigma'\]"),
        ("u,v,sigma\n", "o.csv: .*empty"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_observation(path)
    frame = pd.DataFrame({"u": [1e9], "v": [1e9], "sigma": ["0.1 Jy"]})
    with pytest.raises(ValueError, match="column sigma must hold numbers"):
        Interferometer.from_table(frame)
    plain = Interferometer.from_table(frame.assign(sigma=0.1))
    with pytest.raises(ValueError, match=r"station errors need the column\(s\) \['scan', 't1', 't2'\]"):
        plain.observe(torch.zeros(1, 1, 64, 64), 0, phases=True)
    x = torch.rand(2, 1, 16, 16)
    tv = zoo.load("tv")
    assert torch.equal(tv(x, torch.tensor([0.1])), tv(x, 0.1))


RELEASE = """#SRC:M87,DATE(MJD):57854,FREQ:227.0707GHz
#time(UTC),T1,T2,U(lambda),V(lambda),Iamp(Jy),Iphase(d),Isigma(Jy)
00.53472224,AA,PV,-4395897344.0000,-4509549056.0000,0.2,90.0,0.004
00.53749998,AA,PV,-4396411392.0000,-4510217216.0000,0.4,90.0,0.003
00.90000000,AA,AP,1200000.0000,-100000.0000,1.1,-180.0,0.004
"""


def test_released_csv_files_are_read_as_published(tmp_path):
    path = tmp_path / "SR1.csv"
    path.write_text(RELEASE)
    table = read_observation(path)
    facts = {"source": "M87", "date": "2017-04-11", "frequency": 227.0707e9}
    assert table.attrs == facts and table.scan.tolist() == [0, 1]
    assert np.allclose(table.vis, [0.3j, -1.1]) and table.sigma[0] == pytest.approx(0.0025)
    assert m87.sources(path)[0][0].label == "M87, 2017-04-11"
    path.write_text(RELEASE.replace("Iphase(d),", ""))
    with pytest.raises(ValueError, match=r"SR1\.csv"):
        read_observation(path)


@pytest.mark.skipif("EHT_CSV" not in os.environ, reason="EHT_CSV and EHT_UVFITS name no released files")
def test_both_forms_of_a_release_are_the_same_observation():
    csv, uvfits = (read_observation(os.environ[name]) for name in ("EHT_CSV", "EHT_UVFITS"))
    both = csv.merge(uvfits, on=["scan", "t1", "t2"])
    assert len(both) == len(csv) == len(uvfits) and np.allclose(both.vis_x, both.vis_y, atol=1e-5)
    assert np.allclose(both.sigma_x, both.sigma_y, rtol=1e-4)
