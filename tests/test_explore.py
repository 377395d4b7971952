"""The explorer, without a browser."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusionlib import black_holes, metrics
from fusionlib.explorer import lines, rules
from fusionlib.explorer import state as explore
from fusionlib.explorer.state import State, look
from fusionlib.explorer.widget import Explorer
from fusionlib.gates import average

PLAIN = State(priors=("identity", "tv", "torus"), strategy="average", iterations=4)


def fresh(lines: str) -> str:
    """What lines print in a process of their own, with as many threads as this one: sums differ with their order."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", lines]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | threads).stdout


def test_a_state_gives_a_picture_and_another_one_another():
    view = look(PLAIN)
    assert view.image.shape == view.truth.shape == view.beam.shape == (64, 64) and view.beam.max() == 1
    assert view.weights is not None and np.allclose(view.weights.sum(1), 1) and len(view.points) == 189
    changes = ({"inclination": 70.0}, {"noise": 5.0}, {"array": "coverage 0.3"}, {"family": "disc"})
    for change in (*changes, {"strategy": "tv"}, {"algorithm": "admm"}):
        assert abs(look(replace(PLAIN, **change)).psnr - view.psnr) > 0.01, change


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"algorithm": "pgd", "noise": 2.0},
        {"strategy": "torus", "array": "coverage 0.1"},
        {"array": "gains 5 %", "family": "ring"},
    ],
)
def test_exported_lines_give_the_same_number_in_a_fresh_process(change):
    state = replace(PLAIN, **change)
    said = fresh(lines(state))
    assert float(said) == pytest.approx(look(state).psnr, abs=1e-6)


def test_weights_of_priors_that_are_off_go_to_the_others():
    gate = rules.Shared(average(4), torch.tensor([True, False, True, False]))
    w = gate(torch.rand(2, 1, 8, 8), 0.1)
    assert torch.allclose(w[:, 0, 0, 0], torch.tensor([0.5, 0.0, 0.5, 0.0]))


def test_the_safe_rule_has_the_network_among_its_priors_and_can_be_exported():
    state = State(strategy=rules.FITTED[0], family="disc", array="turned 40", iterations=3)
    view, plain = look(state), look(replace(state, strategy="average"))
    assert view.names == (*state.priors, *rules.NETWORKS) and np.allclose(view.weights.sum(1), 1, atol=1e-4)
    assert float(fresh(lines(state))) == pytest.approx(view.psnr, abs=1e-5) and view.psnr != plain.psnr
    few = look(replace(state, priors=("tv", "torus")))
    assert np.abs(few.weights).max((0, 2, 3)).astype(bool).tolist() == [
        n in ("tv", "torus", *rules.NETWORKS) for n in view.names
    ]
    page = Explorer(state)
    page.wait()
    assert page.maps[rules.NETWORKS[0]].value != page.maps["tv"].value


def test_a_file_as_truth(tmp_path):
    np.save(tmp_path / "a.npy", black_holes(2, 9).fine[:, 0].numpy())
    one, other = (look(replace(PLAIN, truth=str(tmp_path), seed=k)) for k in (0, 1))
    state = replace(PLAIN, truth=str(tmp_path / "a.npy"), seed=0)
    assert look(state).psnr == one.psnr == pytest.approx(float(fresh(lines(state))), abs=1e-6)
    assert metrics.psnr(*(torch.from_numpy(v.truth)[None, None] for v in (one, other))) < 40


@pytest.mark.parametrize(
    "change, said",
    [
        ({"priors": ()}, "at least one"),
        ({"strategy": "closed"}, "there is no closed"),
        ({"truth": "/nowhere"}, "there is no file"),
        ({"truth": __file__}, "is no .npy"),
        ({"observation": "/nowhere.uvfits"}, "observation: there is no file"),
        ({"sigma_min": 0.5}, "sigma_max >= sigma_min"),
        ({"noise": 0.0}, "positive"),
        ({"array": "drawn 1"}, "array: one of"),
        ({"family": "star"}, "family: one of"),
        ({"algorithm": "fista"}, "algorithm"),
    ],
)
def test_what_cannot_be_is_said_in_words(change, said):
    with pytest.raises(ValueError, match=said):
        look(replace(PLAIN, **change))


def test_measured_visibilities_take_the_place_of_sky_and_array(tmp_path):
    simulated, table = black_holes(1, 3, x=0.0, y=0.0), explore.array().table
    array = explore.array()
    vis = array.visibilities(array.observe(simulated.fine, 0))[0].numpy()
    path = tmp_path / "mine.csv"
    table.assign(vis=[str(complex(v)) for v in vis]).to_csv(path, index=False)
    state = replace(PLAIN, observation=str(path), strategy="torus", iterations=8)
    view = look(state)
    assert np.isnan(view.psnr) and not view.truth.any() and len(view.points) == len(vis)
    said = fresh(lines(state))
    assert float(said) == pytest.approx(float(view.chi2[-1]), rel=1e-4)
    page = Explorer(state)
    page.wait()
    assert "truth unknown" in page.status.value


def test_a_run_can_be_cancelled():
    with pytest.raises(explore.Cancelled):
        look(PLAIN, lambda: True)
    assert look(PLAIN).psnr > 0  # and leaves nothing behind


def test_widgets_drive_the_state_and_errors_stay_on_the_page():
    page = Explorer(PLAIN)
    page.wait()
    before, picture = page.view.psnr, page.pictures["reconstruction"].value
    page.controls["inclination"].value = 70.0
    page.wait()
    assert page.state.inclination == 70.0 and page.view.psnr != before
    assert page.pictures["reconstruction"].value != picture and f"{page.view.psnr:.2f} dB" in page.status.value
    page.pin()
    page.priors["tv"].value = False
    page.controls["strategy"].value = "torus"
    page.wait()
    assert page.state.priors == ("identity", "torus") and page.view.weights is None
    page.pin()
    page.across.value = 100
    left = page.compared.value
    page.across.value = 0
    assert page.compared.value != left and len(page.kept) == 2 and "run 2" in page.second.label
    files = page.export()
    assert set(files) == {"picture.png", "lines.py", "runs.csv"} and b"'torus'" in files["lines.py"]
    kept = page.view
    page.controls["truth"].value = "/nowhere"
    page.wait()
    assert "there is no file" in page.status.value and page.view is kept
    page.controls["truth"].value = ""
    page.wait()
    assert "dB" in page.status.value
