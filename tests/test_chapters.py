"""Every chapter in the smoke profile, through the real runner, killed once on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from fusionlib import files
from fusionlib.paper.chapter import CHAPTERS


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return fresh(tmp_path_factory.mktemp("home"))


def fresh(path: Path) -> Path:
    """A fresh project folder, but for this machine's cache of weights and skies."""
    real = files.home()
    shutil.copytree(real / "notebooks", path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    (real / "build" / "cache").mkdir(parents=True, exist_ok=True)
    (path / "build").mkdir()
    (path / "build" / "cache").symlink_to(real / "build" / "cache")
    return path


PRIORS = "priors=[identity,torus]"  # a bank that needs no network


def runner(home: Path, *args: str) -> subprocess.Popen:
    if "00" not in args and not any("priors=" in a for a in args):
        args = (*args, "-p", PRIORS)
    command = [sys.executable, "-m", "fusionlib.paper.run", "smoke", *args]
    return subprocess.Popen(
        command,
        env={**os.environ, "FUSIONLIB_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(home: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (home / "build" / "scores").glob("*.safetensors")}


def test_all_chapters_run_resume_after_a_kill_and_are_then_up_to_date(home):
    first = runner(home)
    deadline = time.monotonic() + 600
    while len(records(home)) < 3 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = records(home)
    assert before

    second = runner(home)
    said = second.communicate(timeout=3000)[0]
    assert second.returncode == 0, said
    assert len(records(home)) > len(before)
    # a record whose job was killed between writing and returning may be made again; every other is left alone
    redone = [name for name, when in before.items() if records(home)[name] != when]
    assert len(redone) <= 2, redone

    after = records(home)
    third = runner(home)
    said = third.communicate(timeout=600)[0]
    assert third.returncode == 0 and records(home) == after
    assert said.count("up to date") == len(CHAPTERS), said


@pytest.mark.row(26, 27, 28, 33)
def test_chapters_leave_tables_figures_and_whole_notebooks(home):
    out = home / "build" / "smoke"
    for chapter in CHAPTERS:
        notebook = nbformat.read(out / "notebooks" / f"{chapter.name}.ipynb", as_version=4)
        assert not any(o.output_type == "error" for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
        assert list((out / "figures").glob(f"fig{chapter.name[:2]}_*.png"))
    table = pd.read_csv(out / "tables" / "tab02_baselines.csv")
    assert table.psnr.between(15, 45).all() and (table.psnr_lo <= table.psnr).all()
    assert not list((out / "notebooks").glob("*.failed.ipynb"))


def test_a_lost_figure_is_made_again_and_a_parameter_is_not_forgotten(home):
    figure = home / "build" / "smoke" / "figures" / "fig00_sky.png"
    figure.unlink()
    assert runner(home, "--only", "00").wait(timeout=600) == 0 and figure.exists()
    with_parameter = runner(home, "--only", "02", "-p", "priors=[identity,tv]")
    assert with_parameter.wait(timeout=900) == 0
    table = home / "build" / "smoke" / "tables" / "tab02_baselines.csv"
    assert set(pd.read_csv(table).method) == {"single:identity", "single:tv", "average", "rml", "best_single"}
    pd.read_csv(table).head(1).to_csv(table, index=False)  # somebody edits a result
    assert runner(home, "--only", "02").wait(timeout=900) == 0  # the plain run again
    assert "single:torus" in set(pd.read_csv(table).method)


def test_a_failing_chapter_is_kept_aside_and_reported(home):
    chapter = home / "notebooks" / "00_sky_and_observation.py"
    good = chapter.read_text()
    chapter.write_text(good.replace("out = paper.output(profile)", "raise ValueError('the sky fell')"))
    run = runner(home, "--only", "00")
    said = run.communicate(timeout=600)[0]
    chapter.write_text(good)
    assert run.returncode == 1 and "the sky fell" in said and "FAILED, see build/smoke/notebooks/00" in said
    kept = home / "build" / "smoke" / "notebooks"
    assert (kept / "00_sky_and_observation.failed.ipynb").exists()
    assert (
        "the sky fell" not in (kept / "00_sky_and_observation.ipynb").read_text()
    )  # the last whole run is still there
    assert (kept.parent / "figures" / "fig00_sky.png").exists() and (
        kept.parent / "tables" / "tab00_coverage.csv"
    ).exists()


def test_own_images_and_coverage_run_through(home, tmp_path):
    images, coverage = tmp_path / "images", tmp_path / "uv.csv"
    images.mkdir()
    np.save(images / "stack.npy", np.random.default_rng(0).random((12, 64, 64)))
    pd.DataFrame({"u": [1e9, 2e9, 5e9], "v": [0, 1e9, 4e9], "sigma": 0.01}).to_csv(coverage, index=False)
    given = ("-p", f"sky={images}", "-p", f"observation={coverage}", "-p", "priors=[identity,tv]")
    run = runner(home, "--only", "00", "--only", "02", *given)
    said = run.communicate(timeout=900)[0]
    assert run.returncode == 0, said
    table = pd.read_csv(home / "build" / "smoke" / "tables" / "tab02_baselines.csv")
    assert set(table.coverage) == {1.0} and set(table.n_test) == {2}  # a tenth of twelve, rounded
