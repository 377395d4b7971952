"""A run that is killed again and again ends as one that is not."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
from test_chapters import fresh, records, runner

from fusionlib.paper import store


def test_killed_twice_and_resumed_from_the_store_alone_it_ends_with_the_same_tables(tmp_path, monkeypatch):
    given, chance = ("--only", "02", "-p", "priors=[identity,tv]"), random.Random(0)

    def tables(where: Path) -> pd.DataFrame:
        assert runner(where, *given).wait(timeout=900) == 0
        found = sorted((where / "build" / "smoke" / "tables").glob("tab02_*.csv"))
        return pd.concat([pd.read_csv(t).drop(columns="seconds", errors="ignore") for t in found])

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
    pd.testing.assert_frame_equal(tables(place), tables(fresh(tmp_path / "whole")))
