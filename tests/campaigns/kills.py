"""Kill a run again and again: `python tests/campaigns/kills.py [kills] [profile]`, 50 kills of `smoke` by default.

The process group of `make figures` is killed with SIGKILL at random times until it has been killed so often; then the
run is let finish. Its tables, less times, must equal those of a run that nobody disturbed, and no record that was there
at a kill may be made again, but for one a core that was in flight.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from fusionlib import files

TIMES = {"seconds", "cpu_seconds", "ratio", "ms", "ms_per_image", "time", "time_saved", "bytes"}
PRIORS = "priors=[identity,torus]"


def home() -> Path:
    """A fresh project folder, but for this machine's cache of weights and skies."""
    real, path = files.home(), Path(tempfile.mkdtemp())
    shutil.copytree(real / "notebooks", path / "notebooks", ignore=shutil.ignore_patterns("*.ipynb"))
    (path / "build").mkdir()
    (path / "build" / "cache").symlink_to(real / "build" / "cache")
    return path


def start(where: Path, profile: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fusionlib.paper.run", profile, "-p", PRIORS]
    environment = {**os.environ, "FUSIONLIB_HOME": str(where)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def records(where: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (where / "build" / "scores").glob("*.safetensors")}


def tables(where: Path, profile: str) -> dict[str, pd.DataFrame]:
    found = {p.name: pd.read_csv(p) for p in (where / "build" / profile / "tables").glob("*.csv")}
    return {name: t.drop(columns=[c for c in t if c in TIMES]) for name, t in found.items()}


def main(kills: int = 50, profile: str = "smoke", seed: int = 0) -> int:
    chance, disturbed, undisturbed = random.Random(seed), home(), home()
    killed, redone = 0, 0
    while True:
        before = records(disturbed)
        run = start(disturbed, profile)
        wait = chance.uniform(3, 25)
        try:
            said = run.communicate(timeout=wait if killed < kills else None)[0]
            done = run.returncode == 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            killed, done = killed + 1, False
            time.sleep(1.5)  # jobs notice that the runner is gone
        again = [name for name, when in before.items() if records(disturbed).get(name) != when]
        redone += len(again)
        assert len(again) <= 2, f"after kill {killed} records are made again: {again}"
        print(f"{killed} kills, {len(records(disturbed))} records", flush=True)
        if done and killed >= kills:
            break
        if done:  # everything is there: take some of it away, and go on
            shutil.rmtree(disturbed / "build" / profile)
            for path in chance.sample(sorted((disturbed / "build" / "scores").glob("*.safetensors")), 40):
                path.unlink()
        elif killed >= kills and run.returncode not in (0, -signal.SIGKILL):
            print(said)
            return 1
    assert start(undisturbed, profile).wait() == 0
    mine, theirs = tables(disturbed, profile), tables(undisturbed, profile)
    assert set(mine) == set(theirs)
    for name, table in theirs.items():
        pd.testing.assert_frame_equal(mine[name], table, obj=name, atol=2e-3)
    print(f"{killed} kills: all {len(theirs)} tables equal, {redone} records in flight made again")
    for path in (disturbed, undisturbed):
        shutil.rmtree(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(*(kind(a) for kind, a in zip((int, str, int), sys.argv[1:], strict=False))))
