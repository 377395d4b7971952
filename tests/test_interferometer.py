import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionlib import black_holes
from fusionlib.interferometer import observations
from fusionlib.interferometer.array import FOV, S_REF, UAS, Interferometer, dft_matrix, round_gaussian
from fusionlib.interferometer.observations import COVERAGE, eht2017_table, read_uvfits

DATA = Path(__file__).parent / "data"
F64 = torch.float64


@pytest.fixture(scope="module")
def array() -> Interferometer:
    return Interferometer.eht2017()


@pytest.fixture(scope="module")
def exact() -> Interferometer:
    return Interferometer.eht2017(dtype=F64)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return black_holes(4, 9).image


def test_packaged_coverage_is_the_released_one():
    """216 visibilities; u, v within 2e-4 of the scan-averaged public-domain release 2019-D01-01, 11 April, low band."""
    table = eht2017_table()
    released = pd.read_csv(DATA / "m87_2017_april11_lo_uv.csv")
    both = table.merge(released, on=["scan", "t1", "t2"], suffixes=("", "_r"))
    assert len(table) == len(both) == 216
    error = np.hypot(both.u - both.u_r, both.v - both.v_r) / np.hypot(both.u_r, both.v_r)
    assert error.max() < 2e-4
    assert abs(np.log(both.sigma / both.sigma_r).mean()) < 0.01  # the SEFDs were fitted to these
    assert len(Interferometer.eht2017().table) == 189


def test_coverage_lists_are_as_stated():
    count = eht2017_table().melt("scan", ["t1", "t2"]).groupby("scan").value.nunique()
    for coverage, scans in ((0.3, 7), (0.1, 3)):
        assert len(COVERAGE[coverage]) == 3
        for chosen in COVERAGE[coverage]:
            assert len(set(chosen)) == scans and (count.loc[chosen] >= 5).all()


def test_point_source_has_the_analytic_visibility(array):
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 20, 40] = 1
    pixel = FOV / 64 * UAS
    u, v = array.u, array.v
    phase = -2 * torch.pi * (u * (40 - 31.5) + v * (20 - 31.5)) * pixel
    expected = S_REF * torch.polar(torch.sinc(u * pixel) ** 2 * torch.sinc(v * pixel) ** 2, phase)
    assert torch.allclose(array.visibilities(array(x))[0].to(torch.complex128), expected, atol=1e-5 * S_REF)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (F64, 1e-9)])
def test_forward_equals_ehtim(dtype, limit, images):
    eh = pytest.importorskip("ehtim")
    array = Interferometer.eht2017(dtype=dtype, min_baseline=0.0)
    im = eh.image.make_empty(64, FOV * eh.RADPERUAS, ra=12.5, dec=12.4, rf=227e9, source="M87")
    uv = np.stack([array.u.numpy(), array.v.numpy()], 1)
    for x in images:
        im.imvec = x.numpy().ravel().astype(np.float64) * S_REF
        theirs = im.sample_uv(uv, ttype="direct", verbose=False)[0]
        ours = array.visibilities(array(x[None].to(dtype)))[0].numpy()
        assert np.abs(ours - theirs).max() / np.abs(theirs).max() < limit


def test_adjoint(array, images):
    y = torch.randn(4, 2 * len(array.table), generator=torch.Generator().manual_seed(0))
    left, right = (array(images) * y).sum(), (images * array.adjoint(y)).sum()
    assert abs(left - right) < 1e-5 * abs(left)


@pytest.mark.parametrize("coverage", [1.0, 0.1])
@pytest.mark.parametrize("rho", [0.18, 0.3, 10.0, 1e3, 1e4])
def test_prox_is_the_exact_minimiser(coverage, rho):
    """rho = lam / sigma^2 of HQS lies in this range."""
    fast, dense = Interferometer.eht2017(coverage), Interferometer.eht2017(coverage, dtype=F64).matrix
    s = black_holes(2, 4)
    y, z = fast.observe(s.fine, 0), s.image.flip(0)
    solved = torch.linalg.solve(
        dense.T @ dense + rho * torch.eye(4096, dtype=F64), (y.to(F64) @ dense + rho * z.flatten(1).to(F64)).T
    ).T
    error = (fast.prox(z, y, rho).flatten(1) - solved).norm() / solved.norm()
    assert error < 1e-4


def test_prox_in_a_window_minimises_in_its_metric():
    fast, rho = Interferometer.eht2017(0.3, window=60.0), 30.0
    dense = Interferometer.eht2017(0.3, dtype=F64).matrix
    w = round_gaussian(64, 160.0, 60.0).flatten().clamp(min=1e-4)
    s = black_holes(2, 4)
    y, z = fast.observe(s.fine, 0), s.image.flip(0)
    normal = dense.T @ dense + rho * torch.diag(1 / w)
    solved = torch.linalg.solve(normal, (y.to(F64) @ dense + rho * z.flatten(1).to(F64) / w).T).T
    assert (fast.prox(z, y, rho).flatten(1) - solved).norm() < 1e-4 * solved.norm()
    assert (fast.chi2(fast.descend(z, y), y) < fast.chi2(z, y)).all()


def test_prox_takes_a_penalty_per_image(array, images):
    y = array.observe(images, 0)
    rho = torch.tensor([0.3, 1.0, 10.0, 100.0])
    together = array.prox(0 * images, y, rho)
    alone = torch.cat([array.prox(0 * images[k : k + 1], y[k : k + 1], float(rho[k])) for k in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    for bad in (0.0, -1.0, torch.tensor([1.0, 1.0, 0.0, 1.0])):
        with pytest.raises(ValueError, match="rho must be positive"):
            array.prox(images, y, bad)


def test_chi_square_of_the_truth_is_one(array, images):
    """Over 200 noise draws, within three standard errors; the sky seen at the model's own resolution."""
    chi2 = torch.cat([array.chi2(images[:1], array.observe(images[:1], seed)) for seed in range(200)])
    assert abs(float(chi2.mean()) - 1) < 3 * float(chi2.std()) / 200**0.5


def test_observation_depends_on_seed_and_position_alone(array, images):
    y = array.observe(images, 3)
    assert torch.allclose(y[:2], array.observe(images[:2], 3), rtol=1e-4, atol=1e-3)
    assert (y - array.observe(images, 4)).std() > 1


def test_finer_sky_is_the_same_surface_brightness(array, images):
    fine = torch.nn.functional.interpolate(images, scale_factor=2, mode="nearest")
    coarse = array(images)
    assert float((array(fine) - coarse).norm() / coarse.norm()) < 0.05  # pulses differ, flux does not
    short = int(torch.hypot(array.u, array.v).argmin())
    assert torch.allclose(array(fine)[:, short], coarse[:, short], rtol=5e-3)


def test_dirty_image_of_a_point_has_unit_peak(array):
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 32, 32] = 1
    dirty = array.dirty_image(array(x))
    assert dirty.argmax() == 32 * 64 + 32 and abs(float(dirty.max()) - 1) < 0.05  # less the pulse


def test_uvfits_round_trip(tmp_path):
    """What ehtim writes, `from_uvfits` reads: scan averages of simulated 10 s rows, and the systematic noise."""
    pytest.importorskip("ehtim")
    path = write_uvfits(tmp_path / "o.uvfits")
    table = read_uvfits(path, systematic=0.1)
    plain = read_uvfits(path)
    assert set(table.t1) | set(table.t2) == {"AA", "AZ", "LM"} and len(table) == 6
    assert np.allclose(table.sigma**2, plain.sigma**2 + (0.1 * np.abs(plain.vis)) ** 2)
    image = torch.zeros(32, 32, dtype=F64)
    image[16, 16] = 0.6
    expected = dft_matrix(torch.tensor(plain.u), torch.tensor(plain.v), 32) @ image.flatten().to(torch.complex128)
    assert np.abs(plain.vis - expected.numpy()).max() < 5e-3  # averaged over 3 minutes, against the mean u, v
    array = Interferometer.from_uvfits(path)
    assert torch.allclose(array.visibilities(array.data)[0].to(torch.complex128), expected, atol=5e-3)


def write_uvfits(path: Path) -> Path:
    """Two scans of three stations on a 0.6 Jy point source."""
    import ehtim as eh

    table = pd.read_csv(observations.DATA / "eht2017_sites.csv").set_index("site")
    lines = [
        f"{s} {table.x[s]} {table.y[s]} {table.z[s]} {table.sefd[s]} {table.sefd[s]} 0 0 0 0 0 0 0"
        for s in ("AA", "AZ", "LM")
    ]
    text = path.with_suffix(".txt")
    text.write_text("#Site X Y Z SEFDR SEFDL FR_PAR FR_EL FR_OFF DR_RE DR_IM DL_RE DL_IM\n" + "\n".join(lines) + "\n")
    im = eh.image.make_empty(32, FOV * eh.RADPERUAS, ra=12.51373, dec=12.39112, rf=227.07e9, source="M87", mjd=57854)
    im.imvec[16 * 32 + 16] = 0.6
    parts = [
        im.observe(eh.array.load_txt(str(text)), 10, 10, start, start + 0.05, 1.856e9, mjd=57854, timetype="UTC",
                   ttype="direct", ampcal=True, phasecal=True, add_th_noise=False, verbose=False)
        for start in (3.0, 3.6)
    ]  # fmt: skip
    eh.obsdata.merge_obs(parts).save_uvfits(str(path))
    return path


@pytest.mark.skipif("EHT_UVFITS" not in os.environ, reason="EHT_UVFITS does not name the released file")
def test_the_released_file():
    """With EHT_UVFITS = path of SR1_M87_2017_101_lo_hops_netcal_StokesI.uvfits."""
    released = read_uvfits(os.environ["EHT_UVFITS"])
    both = eht2017_table().merge(released, on=["scan", "t1", "t2"], suffixes=("", "_r"))
    assert len(both) == len(released) == 216
    error = np.hypot(both.u - both.u_r, both.v - both.v_r) / np.hypot(both.u_r, both.v_r)
    assert error.max() < 2e-4


def test_bad_tables(tmp_path):
    good = eht2017_table().head(5)
    for column, value, message in (
        ("u", np.nan, "column u has NaN"),
        ("sigma", 0.0, "sigma must be positive"),
        ("vis", complex(np.nan), "column vis has NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            Interferometer.from_table(good.assign(**{column: value}))
    with pytest.raises(ValueError, match="lacks the column"):
        Interferometer.from_table(good.drop(columns="v"))
    with pytest.raises(ValueError, match="empty"):
        Interferometer.from_table(good, min_baseline=1e12)
    with pytest.raises(ValueError, match=r"coverage 0\.5"):
        Interferometer.eht2017(0.5)
    with pytest.raises(ValueError, match="no measured visibilities"):
        _ = Interferometer.from_table(good).data


@pytest.mark.parametrize("content", [b"", b"SIMPLE  =                    T" + b" " * 3000, None])
def test_bad_uvfits(tmp_path, content):
    pytest.importorskip("ehtim")
    path = tmp_path / "bad.uvfits"
    if content is None:
        whole = write_uvfits(tmp_path / "whole.uvfits").read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.uvfits (is no readable UVFITS|has no visibilities)"):
        Interferometer.from_uvfits(path)
    with pytest.raises(ValueError, match="there is no file"):
        Interferometer.from_uvfits(tmp_path / "missing.uvfits")


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 12), b=st.integers(1, 3), npix=st.sampled_from([4, 8, 12]), seed=st.integers(0, 99))
def test_any_array_has_an_adjoint_and_an_exact_prox(m, b, npix, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"u": rng.normal(0, 4e9, m), "v": rng.normal(0, 4e9, m), "sigma": rng.uniform(1e-3, 1e-1, m)})
    array = Interferometer.from_table(table, npix=npix, dtype=F64)
    x, y = torch.tensor(rng.normal(size=(b, 1, npix, npix))), torch.tensor(rng.normal(size=(b, 2 * m)))
    assert torch.allclose((array(x) * y).sum(), (x * array.adjoint(y)).sum(), atol=1e-9, rtol=1e-9)
    best = array.prox(x, y, 0.7)
    gradient = array.adjoint(array(best) - y) + 0.7 * (best - x)
    assert gradient.abs().max() < 1e-6 * max(1.0, float(array.adjoint(y).abs().max()))
    assert torch.allclose(array.whiten(array.visibilities(y)), y)


def test_wrong_shapes_are_named(array, images):
    y = array.observe(images, 0)
    with pytest.raises(ValueError, match=r"image has shape \(4, 1, 63, 64\)"):
        array(images[:, :, :63])
    with pytest.raises(ValueError, match=r"data y have shape \(4, 377\)"):
        array.prox(images, y[:, :-1], 1.0)
    assert dft_matrix(array.u, array.v, 8).shape == (189, 64)
