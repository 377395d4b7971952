"""A run that is killed again and again ends as one that is not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from test_chapters import fresh, records, runner

from fusionlib.paper import store

ALONE = (
    "from fusionlib.paper import baseline_specs, score_table\n"
    "score_table(baseline_specs('smoke', ('identity', 'tv'))).drop(columns='seconds').to_csv({!r}, index=False)\n"
)


@pytest.mark.slow
def test_killed_twice_and_resumed_from_the_store_alone_it_ends_with_the_same_table(tmp_path, monkeypatch):
    given, chance = ("--only", "02", "-p", "priors=[identity,tv]"), random.Random(0)
    place = fresh(tmp_path / "first")
    for name in ("second", "third"):
        run, wanted = runner(place, *given), chance.randint(1, 3)
        while len(records(place)) < wanted and run.poll() is None:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        after = fresh(tmp_path / name)
        monkeypatch.setenv("FUSIONLIB_HOME", str(place))
        store.pack(path.stem for path in store.here("").parent.glob("*.safetensors"))
        shutil.copytree(store.packed(), after / "figures" / "scores")
        place = after
    assert (place / "figures" / "scores" / "index.csv").exists()
    assert runner(place, *given).wait(timeout=900) == 0
    resumed = pd.read_csv(place / "build" / "smoke" / "tables" / "tab02_baselines.csv").drop(columns="seconds")
    undisturbed = tmp_path / "undisturbed.csv"
    environment = {**os.environ, "FUSIONLIB_HOME": str(fresh(tmp_path / "whole"))}
    subprocess.run([sys.executable, "-c", ALONE.format(str(undisturbed))], env=environment, check=True)
    pd.testing.assert_frame_equal(resumed, pd.read_csv(undisturbed), atol=6e-4)  # tables are written rounded
