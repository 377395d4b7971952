import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import files
from fusionlib.paper import Spec
from fusionlib.paper.studies import m87, sources


@pytest.fixture
def home(monkeypatch, tmp_path):
    cache = files.home() / "build" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "cache").symlink_to(cache)
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))


def spec(method: str = "single:torus", priors: tuple[str, ...] = ("torus",)) -> Spec:
    grid = (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.3,)))
    return Spec(method, priors, 1.0, 1, 2, "dev", regime="uncalibrated", steps=6, grid=grid)


def test_the_twin_is_seen_as_m87_is_and_fits_its_own_truth():
    twin = sources.twin()
    assert len(twin.table) == 216 and twin.flux == pytest.approx(float(twin.truth.sum()) * 4.5e-3, abs=0.06)
    array, y = twin.array()
    chi2 = array.chi2s(twin.truth, y)
    assert 0.5 < float(chi2["cphase"]) < 1.7 and 0.4 < float(chi2["logcamp"]) < 1.7
    again = sources.twin()
    assert np.allclose(twin.table.vis, again.table.vis)
    phases = np.angle(twin.table.vis.to_numpy())
    assert np.abs(np.mean(np.exp(1j * phases))) < 0.3  # stations have random phases


def test_held_out_scans_fit_worse_than_those_fitted(home, monkeypatch):
    monkeypatch.setattr(m87, "FOLDS", 2)
    twin = sources.twin()
    table, pictures = m87.m87_table([spec()], [twin])
    assert list(table.image) == ["denoised", "data_step"]
    step = table[table.image == "data_step"].iloc[0]
    assert step.chi2_cphase < step.chi2_cphase_heldout and np.isfinite(step.chi2_logcamp_heldout)
    assert pictures["image_twin"].shape == (1, 64, 64) and pictures["psnr"][0] > 24
    assert 30 < step.diameter_uas < 50
    spread = m87.spread_table(table)
    assert set(spread.feature) == {"diameter_uas", "width_uas", "position_angle_deg"}


def test_spread_of_angles_goes_around_north():
    rows = {"source": "a", "image": "denoised", "ring": True, "diameter_uas": 40.0, "width_uas": 10.0}
    table = pd.DataFrame([rows | {"position_angle_deg": angle} for angle in (350.0, 10.0, 0.0)])
    found = m87.spread_table(table).set_index("feature").loc["position_angle_deg"]
    assert found["most"] - found["least"] == pytest.approx(20) and found["std"] == pytest.approx(10)


def test_an_observation_that_cannot_be_imaged_is_said_to_be(tmp_path, monkeypatch):
    path = tmp_path / "uv.csv"
    pd.DataFrame({"u": [1e9], "v": [2e9], "sigma": [0.01]}).to_csv(path, index=False)
    found, note = m87.sources(path)
    assert [s.name for s in found] == ["twin"] and "uv.csv has no column(s) ['scan', 't1', 't2', 'vis']" in note
    assert "there is no data/SR1" in m87.sources("")[1]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found, note = m87.sources(tmp_path / "released.uvfits")
    assert [s.name for s in found] == ["twin"] and "reading it needs ehtim: pip install -e '.[eht]'" in note


def test_starts_have_the_flux_and_are_what_they_are_called():
    array, y = sources.twin().array()
    for start in m87.starts(array, y).values():
        assert torch.allclose(start.sum(), array.start(y).sum(), rtol=1e-5)
    ring = m87.starts(array, y)["ring, 42 µas"][0, 0]
    assert ring[32, 32] < 0.05 * ring.max() and int(ring[32, 32:].argmax()) in (7, 8, 9)
