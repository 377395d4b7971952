"""The store: names, packing, and what happens when something breaks."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fusionlib import files
from fusionlib.paper import Spec, publish, specs, store, tasks
from fusionlib.paper.experiment import tuning
from fusionlib.paper.studies import conclusions, m87, patches
from fusionlib.paper.tasks import Task
from fusionlib.priors import zoo

ROOT = Path(__file__).parents[1]
MAIN = zoo.BANKS["main"]
FITTED = (("sigma_max", (0.1, 0.2)), ("sigma_min", (0.02,)), ("lam", (0.1, 0.3)))
GOLDEN = {  # another Python, machine or layout of the code must not change them; a raised version does
    "aa00ecf8da46316b": Spec("single:torus", ("torus",), 1.0, 100, 1000, "test", seed=1),
    "834de6d55474e604": Spec("closed_form:8", MAIN, 1.0, 12, 32, "dev", grid=FITTED),
    "88da39a829ad8813": Spec("average", MAIN, 1.0, 16, 100, "test", regime="uncalibrated", steps=30, family="disc"),
    "6dbfbaa6d69fc056": Spec("ceiling", (), 0.1, 100, 60, "test"),
    "5b224f8bce622fd4": tuning(Spec("a:pixel", MAIN[:-1], 0.3, 100, 60, "test", grid=FITTED)),
}


def test_names_of_records_are_golden():
    assert {key: spec.key for key, spec in GOLDEN.items()} == {key: key for key in GOLDEN}
    defaults = {"seed": 0, "regime": "calibrated", "steps": 16, "family": "", "sky": "", "observation": ""}
    found = asdict(GOLDEN["aa00ecf8da46316b"]) | {"seed": 0}
    assert found.items() >= defaults.items()  # a changed default would give old names another meaning: raise PIPELINE
    assert found["grid"] == (
        *(("sigma_max", (0.1, 0.2, 0.4)), ("sigma_min", (0.01, 0.02)), ("lam", (0.03, 0.1, 0.3, 1.0))),
    )


def test_names_tell_apart_what_matters_and_nothing_else(tmp_path):
    plain = Spec("single:tv", ("tv",), 1.0, 3, 2, "dev")
    assert Spec("single:tv", ("tv",), 1, 3, 2, "dev", steps=16).key == plain.key
    changes = [{"seed": 1}, {"n_test": 3}, {"coverage": 0.1}, {"steps": 8}, {"regime": "uncalibrated"}]
    assert len({Spec(**(asdict(plain) | change)).key for change in changes} | {plain.key}) == 6
    first, moved = tmp_path / "one.py", tmp_path / "elsewhere.py"
    first.write_text("from fusionlib.priors import Identity as prior\n")
    moved.write_text(first.read_text())
    one, other = (Spec(f"single:{p}:prior", (f"{p}:prior",), 1.0, 3, 2, "dev") for p in (first, moved))
    assert one.key == other.key
    before = one.key
    first.write_text("from fusionlib.priors import TotalVariation as prior\n")
    assert one.key != before == other.key


def test_no_edit_of_the_code_that_computes_the_same_renames_a_record(tmp_path):
    """A copy with a module renamed, a function moved, everything reformatted, and a field with a default added."""
    copy, names = tmp_path / "fusionlib", re.compile(r"(?<=from fusionlib\.)rml\b")
    subprocess.run(["cp", "-r", str(ROOT / "fusionlib"), str(copy)], check=True)
    (copy / "rml.py").rename(copy / "regularised.py")
    for path in copy.rglob("*.py"):
        path.write_text(names.sub("regularised", path.read_text()))
    headroom, tables = copy / "paper" / "studies" / "headroom.py", copy / "paper" / "tables.py"
    body = headroom.read_text()
    start, end = body.index("def milliseconds("), body.index("def _noisy(")
    tables.write_text(
        tables.read_text()
        + "\n\nimport time\n\nfrom torch import nn\n\nfrom fusionlib.paper.experiment import device\n\n\n"
    )
    tables.write_text(tables.read_text() + body[start:end])
    moved = "from fusionlib.paper.tables import milliseconds, score_table"
    headroom.write_text((body[:start] + body[end:]).replace("from fusionlib.paper.tables import score_table", moved))
    spec = copy / "paper" / "experiment.py"
    spec.write_text(spec.read_text().replace('    sky: str = ""\n', '    mood: str = ""\n    sky: str = ""\n', 1))
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "--line-length", "80", str(copy)], check=True)
    ask = (
        "import json, fusionlib\n"
        "from fusionlib.priors import zoo\n"
        "from fusionlib.paper.studies import classification, conclusions, stress\n"
        "parts = [*conclusions.conclusion_specs('paper'), *stress.stress_tasks('paper', zoo.BANKS['main'])]\n"
        "keys = sorted({part.key for part in parts} | set(classification.cells('paper')))\n"
    )
    show = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{ask}print(json.dumps([fusionlib.__file__, keys]))"
    run = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, cwd=tmp_path)
    where, keys = json.loads(run.stdout or "[]") or pytest.fail(run.stderr)
    here: dict[str, list[str]] = {}
    exec(ask, here)
    assert Path(where).parent == copy and keys == here["keys"] and len(keys) > 300


def test_tasks_are_jobs_and_name_their_experiments():
    some = specs.closure_specs("smoke", ("identity", "tv"))[:2]
    task = patches.cost_table.task(some, 2, repeats=1)
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task and again.key == task.key and again.specs == some
    assert patches.cost_table.task(some[:1], 2, repeats=1).key != task.key
    assert m87.reconstruct.task(some[0], "twin", "").key != m87.reconstruct.task(some[1], "twin", "").key
    with pytest.raises(ValueError, match="'nothing' is not recorded"):
        Task.from_dict({"task": "nothing"})


def test_a_recorded_function_gives_its_tables_back(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    table = pd.DataFrame({"method": ["average", "bé"], "n": [1, 2], "x": [0.1, np.nan], "good": [True, False]})
    calls = []

    @tasks.recorded(version=3)
    def found(n: int) -> dict:
        calls.append(n)
        return {"table": table, "empty": table[:0], "map": np.arange(6, dtype=np.float32).reshape(2, 3)}

    first, second = found(2), found(2)
    assert calls == [2]
    for result in (first, second):
        pd.testing.assert_frame_equal(result["table"], table)
        assert list(result["empty"]) == list(table) and result["map"].dtype == np.float32
    store.pack([found.task(2).key])
    store.here(found.task(2).key).unlink()
    pd.testing.assert_frame_equal(found(2)["table"], table)
    assert calls == [2] and store.index()[found.task(2).key]["versions"] == '{"function": 3, "pipeline": 1}'
    monkeypatch.setattr(tasks.RECORDED["found"], "version", 4)
    assert len(found(2)) == 3 and calls == [2, 2]


# --- packing ---


@pytest.fixture
def made(monkeypatch, tmp_path) -> list[str]:
    """A project with three records, of two kinds."""
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    rng, keys = np.random.default_rng(0), []
    for k, (method, kind) in enumerate([("average", "baseline"), ("closed_form", "fused"), ("closed_union", "fused")]):
        record = {name: rng.random((1 + k, 5)).astype(np.float32) for name in ("psnr", "ssim")}
        record |= {"ring": rng.random((1 + k, 5)) > 0.5} if k else {}
        record |= {f"{store.FIT}theta": rng.random((2, 3))} if k else {}
        record |= {f"{store.SETTING}lam": np.array(0.1), "kind": np.array(kind), "seconds": np.array(0.25)}
        asked = {"method": method, "priors": ["identity", "tv"], "n_train": 4, "n_test": 5, "grid": [["lam", [0.1]]]}
        keys.append(files.digest(asked))
        files.folder("build", "scores")
        store.write(store.here(keys[-1]), record, {"asked": asked, "versions": {"pipeline": 1}, "commit": "c0"})
    return keys


def same(a: store.Record, b: store.Record) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def test_packed_records_come_back_as_they_were(made):
    whole = {key: store.load(key) for key in made}
    assert store.pack(made) == (3, 0)
    for key in made:
        store.here(key).unlink()
    assert all(same(store.load(key), whole[key]) for key in made)
    assert {p.name for p in store.packed().glob("*/*")} == {"baseline.parquet", "fused.parquet", "closed.safetensors"}
    scores = pd.read_parquet(store.packed() / "scores").merge(pd.read_csv(store.packed() / "index.csv"), on="record")
    assert len(scores) == 5 + 10 + 15 and set(scores.priors) == {"identity+tv"}
    before = {p: p.read_bytes() for p in store.packed().rglob("*.*")}
    assert store.pack([]) == (0, 0) and before == {p: p.read_bytes() for p in store.packed().rglob("*.*")}
    assert store.pack([], made[1:2]) == (0, 1) and not store.has(made[1])
    assert same(store.load(made[2]), whole[made[2]])


def test_packing_killed_at_any_time_loses_nothing(made):
    """Killed for good at each renaming in turn: every record is found afterwards, and packing again ends the same."""
    whole = {key: store.load(key) for key in made}
    store.pack(made[:1])

    def packing_killed_after(renamings: int, real=Path.replace) -> None:
        left = iter(range(renamings))
        Path.replace = lambda *a: real(*a) if next(left, None) is not None else os.kill(os.getpid(), signal.SIGKILL)
        store.pack(made[1:], made[:1])
        os._exit(0)

    for renamings in range(9):
        if not (child := os.fork()):
            packing_killed_after(renamings)
        _, ended = os.waitpid(child, 0)
        assert all(same(store.load(key), whole[key]) for key in made)
        for key in store.index():
            assert same(store.unpacked(key), whole[key])
        if not os.WIFSIGNALED(ended):
            break
        store.pack(made[:1])
    assert ended == 0 and renamings > 3
    assert set(store.index()) == set(made[1:])


def test_broken_records_name_themselves_and_the_remedy(made):
    store.pack(made)
    path = store.here(made[1])
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=rf"record .*{made[1]}.* is broken .*; delete it, it is computed anew"):
        store.load(made[1])
    path.unlink()
    assert store.load(made[1])["psnr"].shape == (2, 5)
    for name in ("fits/closed.safetensors", "scores/fused.parquet", "index.csv"):
        packed = store.packed() / name
        packed.write_bytes(b'"')
        with pytest.raises(ValueError, match=rf"{packed} cannot be read .*git checkout .* is computed anew"):
            store.load(made[1])


def test_two_processes_that_compute_the_same_record_do_no_harm(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    one = Spec("single:identity", ("identity",), 1.0, 1, 1, "dev", steps=1, grid=FITTED)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "cache").symlink_to(ROOT / "build" / "cache")
    command = [sys.executable, "-m", "fusionlib.paper", json.dumps(asdict(one))]
    runs = [subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sorted(p.stem for p in (tmp_path / "build" / "scores").iterdir()) == sorted([one.key, tuning(one).key])
    assert np.isfinite(store.load(one.key)["psnr"]).all()


def test_the_store_that_ships_is_small_and_read_in_two_lines():
    folder = ROOT / "figures" / "scores"
    assert len([p for p in folder.rglob("*") if p.is_file()]) <= 60
    scores = pd.read_parquet(folder / "scores").merge(pd.read_csv(folder / "index.csv"), on="record")
    torus = scores[(scores.method == "single:torus") & (scores.n_test == 1000) & (scores.seed == 0)]
    table = pd.read_csv(ROOT / "figures" / "tab13_results.csv").set_index("method")
    assert abs(scores[scores.record.isin(torus.record)].psnr.mean() - table.psnr["single:torus"].mean()) < 0.1
    fits = load_file(folder / "fits" / "closed.safetensors")
    spec = next(s for s in conclusions.result_specs("paper") if s.method == "closed_form")
    assert f"{tuning(spec).key}/{store.FIT}theta" in fits


def test_every_record_that_ships_is_wanted():
    assert publish.unwanted() == []
