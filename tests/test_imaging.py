"""`fusionlib image`: a stranger's observation in one command."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from fusionlib import Interferometer, black_holes, sky
from fusionlib.__main__ import main
from fusionlib.interferometer import GAIN_ERROR
from fusionlib.paper import imaging
from fusionlib.paper.studies import m87


@pytest.fixture
def observation(tmp_path, monkeypatch):
    """A black hole through unknown gains and phases, as a CSV file."""
    monkeypatch.setattr(m87, "FOLDS", 2)
    array, scene = Interferometer.eht2017(), black_holes(1, 77)
    vis = array.visibilities(array.observe(scene.fine, 3, gains=GAIN_ERROR, phases=True))[0].numpy()
    path = tmp_path / "source.csv"
    array.table.assign(vis=vis).to_csv(path, index=False)
    return path, scene


def test_four_files_of_an_observation(observation, tmp_path, capsys):
    path, scene = observation
    flux = float(scene.image.sum()) * 4.5e-3
    out = tmp_path / "out"
    assert main(["image", str(path), "--rule", "torus", "--flux", str(flux), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "189 visibilities of 22 scans" in said and "chi-square" in said
    assert {p.name for p in out.iterdir()} == {"image.png", "image.fits", "data.png", "facts.json"}
    facts = json.loads((out / "facts.json").read_text())
    assert facts["chi2"]["cphase"] < 2 and facts["fits_the_data"] and facts["chi2"]["cphase_heldout"] > 0
    assert facts["stations"] == sorted(GAIN_ERROR) and facts["scans"] == 22
    assert facts["flux_jy"] == pytest.approx(flux) and len(facts["gains"]) > 100
    from astropy.io import fits

    with fits.open(out / "image.fits") as file:
        picture, header = file[0].data[::-1], file[0].header
    assert header["BUNIT"] == "JY/PIXEL" and header["CDELT1"] < 0 < header["CDELT2"]
    assert picture.sum() == pytest.approx(flux, rel=0.1)
    (out / "image.png").unlink(), (out / "data.png").unlink()
    again = sky.from_folder(out).image[0, 0]
    a, b = (t / t.max() for t in (again, torch.from_numpy(picture.astype(np.float32))))
    assert (a - b).abs().max() < 0.05


def test_what_cannot_be_imaged_is_said_in_one_line(observation, tmp_path, capsys):
    rubbish = tmp_path / "rubbish.csv"
    rubbish.write_text("not, an\nobservation\n")
    path = str(observation[0])
    for given, fault in (
        ([str(rubbish)], "rubbish.csv"),
        ([str(tmp_path / "none.csv")], "there is no file"),
        ([path, "--rule", "best"], "rule: one of"),
        ([path, "--flux", "-1"], "flux: a positive number"),
    ):
        assert main(["image", *given, "--out", str(tmp_path / "out")]) == 1
        said = capsys.readouterr().err
        assert fault in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_it_is_a_command():
    said = subprocess.run([sys.executable, "-m", "fusionlib", "image", "--help"], capture_output=True, text=True)
    assert said.returncode == 0 and "--compare" in said.stdout
    assert all(name in " ".join(said.stdout.split()) for name in imaging.RULES)
