import base64
import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fusionlib import Interferometer, black_holes, files, hqs, metrics, schedule
from fusionlib.fitting import lora, meta, unroll
from fusionlib.fitting.gradient import Schedule
from fusionlib.gates import routing
from fusionlib.paper import (
    Spec,
    baseline_specs,
    experiment,
    figures,
    methods,
    prior_of,
    save,
    score_table,
    scores,
    strategy_specs,
    tuned,
)
from fusionlib.paper.chapter import CHAPTERS, check_parameters, source
from fusionlib.paper.methods import closed_form, gradient
from fusionlib.paper.methods.method import Labelled
from fusionlib.paper.publish import clean, publish
from fusionlib.paper.readme import fill, results_markdown
from fusionlib.paper.run import Plan, main, make_plan
from fusionlib.paper.spec import Grid, content
from fusionlib.paper.stale import reached
from fusionlib.paper.studies import headroom, strategies, stress
from fusionlib.paper.tables import SCHEMA
from fusionlib.priors import zoo

SMALL = {"coverage": 0.1, "n_train": 3, "n_test": 2, "split": "dev", "steps": 2}


def grid(lam: tuple[float, ...] = (0.1, 1.0), sigma_min: tuple[float, ...] = (0.01, 0.02)) -> Grid:
    return (("sigma_max", (0.2,)), ("sigma_min", sigma_min), ("lam", lam))


def small(method: str = "single:tv", priors: tuple[str, ...] = ("tv",), **more) -> Spec:
    return Spec(method=method, priors=priors, **(SMALL | {"grid": grid()} | more))


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """An empty project folder with the chapters and this machine's caches of weights and skies."""
    real = files.home()
    (tmp_path / "build").mkdir()
    (tmp_path / "notebooks").symlink_to(real / "notebooks")
    cache = real / "build" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (tmp_path / "build" / "cache").symlink_to(cache)
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    return tmp_path


def test_scores_are_computed_once_then_found(home, monkeypatch):
    first = scores(small())
    assert first["psnr"].shape == (3, 2)  # three scan lists, two images
    monkeypatch.setattr(experiment, "method_of", None)  # nothing may be computed now
    again = scores(small())
    assert all(np.array_equal(first[k], again[k]) for k in first)


def test_key_names_everything_that_matters(tmp_path):
    keys = {small().key, small(seed=1).key, small(grid=grid((0.1,))).key, small(n_test=3).key, small(coverage=1.0).key}
    assert len(keys) == 5
    table = tmp_path / "uv.csv"
    table.write_text("u,v,sigma\n1e9,1e9,0.01\n")
    before = small(observation=str(table), coverage=1.0).key
    moved = tmp_path / "moved.csv"
    moved.write_text(table.read_text())
    assert content(str(moved)) == content(str(table))
    table.write_text("u,v,sigma\n1e9,1e9,0.025\n")
    assert small(observation=str(table), coverage=1.0).key != before


def test_tuning_chooses_the_best_of_the_grid_on_training_images(home):
    """Twelve images, so that the first round sees three of them; a prior weight that is absurd must lose."""
    options = {"n_train": 12, "coverage": 1.0}
    lams = (1e-6, 0.1, 1e3, 1e6)
    settings, psnr, _ = tuned(small(grid=grid(lams, (0.02,)), **options))
    alone = {lam: tuned(small(grid=grid((lam,), (0.02,)), **options))[1] for lam in lams}
    assert settings["lam"] == max(alone, key=lambda k: alone[k]) and psnr == alone[settings["lam"]]
    assert len(set(alone.values())) == 4


def test_a_method_that_learns_is_judged_on_images_it_did_not_learn_from(home, monkeypatch):
    """Two-fold cross-validation inside the n labels; what is learnt in the end, from all of them, is stored."""
    seen = []
    real = experiment.methods.make

    def watched(*args):
        method = real(*args)

        def fit(settings, data):
            seen.append(sum(len(d.truth) for d in data))
            return method.fit(settings, data)

        return experiment.Method(method.run, method.kind, method.calls, fit)

    monkeypatch.setattr(experiment.methods, "make", watched)
    spec = small("static_affine", ("identity", "tv"), n_train=6, coverage=1.0, grid=grid((0.1, 0.3), (0.02,)))
    _, _, fitted = tuned(spec)
    assert seen[-1] == 6 and set(seen[-3:-1]) == {3}
    assert fitted["w"].shape == (2, 2) and np.allclose(fitted["w"].sum(1), 1, atol=1e-4)
    seen.clear()
    one = small("static_affine", ("identity", "tv"), n_train=6, coverage=1.0, grid=grid((0.1,), (0.02,)))
    assert np.isnan(tuned(one)[1]) and seen == [6]  # nothing to choose: fitted once
    record = scores(spec)
    assert int(record["trainable"]) == 4 and str(record["kind"]) == "baseline" and int(record["prior_calls"]) == 4


@pytest.mark.parametrize(
    "method", ["single_identity", "noise_levels", "static_simplex", "closed_union", "oracle:affine", "oracle:8"]
)
def test_every_method_runs_and_oracles_win(home, method):
    bank = ("identity", "tv")
    grids = grid((0.1,), (0.02,))
    found = scores(small(method, bank, coverage=1.0, grid=grids))
    assert np.isfinite(found["psnr"]).all()
    if method.startswith("oracle"):
        singles = [scores(small(f"single:{n}", (n,), coverage=1.0, grid=grids))["psnr"] for n in bank]
        assert (found["psnr"] > np.maximum(*singles) - 0.05).all()


META = {
    "fit_meta": partial(meta.fit_meta, course=meta.MetaConfig(rounds=1, first=1, tasks=1, k=1)),
    "conditions": partial(gradient.conditions, n=2),
}
FEW = {
    "heldout": {},
    "lora": {"fit_lora": partial(lora.fit_lora, schedule=lora.Schedule(steps=2, first=1))},
    "a_meta:image": META,
    "b_meta:image": META,
    "unrolled": {"fit_unrolled": partial(unroll.fit_unrolled, last=1, steps=2, batch=2)},
    "denoiser": {},
    "finetuned": {},
}


@pytest.mark.row(24, 26, 27, 35)
@pytest.mark.parametrize("method", sorted(FEW))
def test_slow_methods_fit_store_and_reconstruct(home, monkeypatch, method):
    """Those that learn for long, cut short: what a fit stores is what the scores are made with."""
    for name, short in FEW[method].items():
        monkeypatch.setattr({"fit_lora": gradient.lora, "fit_unrolled": closed_form}.get(name, gradient), name, short)
    bank = () if method == "denoiser" else ("identity", "torus")
    steps = (("steps", (3.0,)),) if method in ("denoiser", "finetuned") else ()
    spec = small(method, bank, n_train=4, coverage=0.3, grid=(*grid((0.1,), (0.02,)), *steps))
    _, _, found = tuned(spec)
    record = scores(spec)
    assert np.isfinite(record["psnr"]).all() and (int(record["trainable"]) > 0) == bool(set(found) - {"best", "shared"})
    assert str(record["kind"]) == {"heldout": "baseline", "lora": "baseline", "denoiser": "supervised"}.get(
        method, "supervised" if method == "finetuned" else "fused"
    )
    array = experiment.arrays(spec)[0]
    truth, y = experiment.observed(spec, "dev", 2, 0, array)
    image = experiment.method_of(spec).run(experiment.settings_of(record), found, array, y, None).image
    assert np.allclose(metrics.psnr(image, truth), record["psnr"][0], atol=1e-3)


def test_a_fitted_prior_is_a_prior_and_the_rest_is_refused(home):
    spec = small("static_affine", ("identity", "tv"), n_train=4, coverage=1.0, grid=grid((0.1,), (0.02,)))
    prior, settings = prior_of(spec)
    array = experiment.arrays(spec)[0]
    truth, y = experiment.observed(spec, "dev", 2, 0, array)
    sigmas = schedule(settings["sigma_max"], settings["sigma_min"], spec.steps)
    image = hqs(y, array, prior, sigmas=sigmas, lam=settings["lam"]).image
    assert np.allclose(metrics.psnr(image, truth), scores(spec)["psnr"][0], atol=1e-4)
    with pytest.raises(ValueError, match="no prior plugged"):
        prior_of(small("oracle:image", ("identity", "tv"), coverage=1.0, grid=grid((0.1,), (0.02,))))


@pytest.mark.row(33)
def test_diagrams_are_drawn_from_the_modules():
    gate = routing.cosine_router(3, None)
    drawn = strategies.shapes(gate, torch.rand(1, 1, 64, 64), 0.1)
    convolutions = [m for m in gate.modules() if isinstance(m, torch.nn.Conv2d)]
    assert list(drawn.kind).count("Conv2d") == len(convolutions)
    assert set(drawn[drawn.kind == "Conv2d"].parameters) == {
        sum(p.numel() for p in m.parameters()) for m in convolutions
    }


@pytest.mark.row(43, 45)
def test_runs_show_weights_that_sum_to_one_and_the_fit_by_iteration(home):
    spec = small("static_simplex", ("identity", "tv"), n_train=4, coverage=1.0, grid=grid((0.1,), (0.02,)))
    found = strategies.runs([spec], 2)
    weights, curves = strategies.weight_table(found), strategies.curve_table(found)
    assert np.allclose(weights.groupby("iteration").weight.sum(), 1, atol=1e-5)
    last = curves[(curves.images == "development") & (curves.iteration == spec.steps)].psnr.item()
    assert last == pytest.approx(float(scores(spec)["psnr"].mean()), abs=1e-3)
    assert set(strategies.collapse_table(found).columns) == {
        "method",
        "iteration",
        "entropy",
        "batch_entropy",
        "greatest",
    }
    broken = found[0]._replace(weights=2 * found[0].weights)
    with pytest.raises(ValueError, match="do not sum to one"):
        strategies.weight_table([broken])
    sizes = strategies.size_table([spec.__class__(**{**spec.__dict__, "priors": ("identity", "torus")})])
    assert sizes.trainable.item() == 4 and sizes.frozen.item() > 300_000


@pytest.mark.row(36)
def test_table_has_the_schema_and_pairs_with_the_best_single(home):
    bank = ("identity", "tv")
    specs = [small("single:identity", ("identity",)), small(), small("average", bank)]
    table = score_table(specs, bank).set_index("method")
    assert ["method", *table.columns] == list(SCHEMA)
    assert set(table.index) == {"single:identity", "single:tv", "average", "best_single"}
    best = max(specs[:2], key=lambda s: float(scores(s)["psnr_train"]))
    assert table.delta_best_single[best.method] == 0 and table.psnr["best_single"] == table.psnr[best.method]
    difference = scores(specs[2])["psnr"].mean() - scores(best)["psnr"].mean()
    assert table.delta_best_single["average"] == pytest.approx(difference, abs=1e-5)
    assert table.prior_calls["average"] == 4 and table.bank["average"] == "identity+tv"


def test_the_gap_is_a_share_of_what_the_ceiling_gains():
    rows = {"bank": "main", "coverage": 1.0, "method": ["single:tv", "average", "ceiling", "best_single"]}
    gap = headroom.gap_table(pd.DataFrame(rows | {"delta_best_single": [0.0, 0.5, 2.0, 0.0]}))
    assert gap.set_index("method").closed.to_dict() == {"ceiling": 1.0, "average": 0.25, "single:tv": 0.0}
    assert headroom.gap_table(pd.DataFrame(rows | {"delta_best_single": 0.0}).query("method != 'ceiling'")).empty


def test_experiments_of_one_table_differ_in_seed_only(home):
    with pytest.raises(ValueError, match="may differ in their seeds only"):
        score_table([small(), small(n_train=4)])


def test_own_images_and_own_coverage(home, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "a.npy", np.random.default_rng(0).random((30, 64, 64)))
    table = tmp_path / "uv.csv"
    pd.DataFrame({"u": [1e9, 2e9], "v": [0, 1e9], "sigma": 0.01}).to_csv(table, index=False)
    record = scores(small(sky=str(folder), observation=str(table), coverage=1.0))
    assert record["psnr"].shape == (1, 2) and np.isfinite(record["psnr"]).all()
    assert {s.coverage for s in baseline_specs("smoke", observation=str(table))} == {1.0}
    with pytest.raises(ValueError, match=r"coverage must be 1\.0 with an observation"):
        small(observation=str(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "median"}, "unknown method 'median'"),
        ({"method": "single:bm3d"}, "'single:bm3d' is not among the priors"),
        ({"regime": "closure"}, "regime must be"),
        ({"coverage": 0.5}, "coverage must be one of"),
    ],
)
def test_bad_specs(change, message):
    with pytest.raises(ValueError, match=message):
        small(**change)
    with pytest.raises(ValueError, match="unexpected keyword argument 'lambda_'"):
        Spec.from_dict({"method": "average", "lambda_": 1})


def test_unknown_parameters_profiles_and_chapters_are_refused(home, capsys):
    with pytest.raises(ValueError, match=r"02_baselines has no parameter \['prior'\]"):
        check_parameters("02_baselines", {"prior": 1})
    for call, message in (
        (["-p", "prior=tv"], "no chapter has a parameter ['prior']"),
        (["--only", "77"], "no chapter '77'"),
        (["-p", "profile=paper"], "profile is no parameter"),
        (["-p", "sky=/nowhere/at/all"], "parameter sky: there is no file or folder"),
        (["-p", "priors=tv"], "priors must be a list of distinct names"),
        (["-p", "priors=[tv,tv]"], "priors must be a list of distinct names"),
        (["-p", "priors=[tv,bm3d]"], "priors must be a list of distinct names"),
    ):
        assert main(["smoke", *call]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="profile must be one of"):
        baseline_specs("huge")


def test_the_wide_run_has_one_chapter_and_shows_what_is_stored(home):
    with pytest.raises(ValueError, match="has no profile wide"):
        make_plan("wide", ["00"], {})
    with pytest.raises(ValueError, match="some chapters only"):
        publish("wide")
    specs = strategy_specs("wide")
    assert {s.n_train for s in specs} == {300} and {s.method for s in specs} >= {"closed_form", "unet", "single:torus"}
    assert all(len(settings) == 1 for s in specs for _, settings in s.grid)
    stored = small(n_test=1)
    scores(stored)
    fused = small("average", ("identity", "tv"), n_test=1)
    assert strategies.known([stored, fused]) == [stored]
    assert strategies.known([stored, small(n_test=3)]) == []  # a reference is missing


def test_unwritable_build_folder_is_named(monkeypatch, tmp_path):
    (tmp_path / "build").write_text("a file where the folder should be")
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"build/quick cannot be written .*FUSIONLIB_HOME"):
        files.folder("build", "quick")
    assert main(["smoke"]) == 2


def test_a_second_runner_waits_for_nobody(home, capsys):
    import fcntl

    with open(files.folder("build", "smoke") / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["smoke"]) == 2
    assert "another run" in capsys.readouterr().err


def test_a_missing_prior_leaves_the_plan_whole(home, monkeypatch):
    monkeypatch.setattr(zoo, "available", lambda names: (["identity", "tv"], {"ffdnet": "offline"}))
    plan = make_plan("smoke", [], {})
    methods = {json.loads(spec).get("method", "") for spec, _ in plan.jobs.values()}
    singles = {m for m in methods if m.startswith("single:") and "local" not in m}  # that bank is chapter 06's own
    assert singles == {"single:identity", "single:tv"} and {"average", "rml", "static_affine"} <= methods
    assert len(plan.chapters) == len(CHAPTERS)


def test_an_edit_makes_the_chapters_stale_that_run_it_and_no_others(monkeypatch):
    def touched() -> dict[str, str]:
        return {c.name: files.digest(reached(source(c.name).read_text())) for c in CHAPTERS}

    def changed() -> set[str]:
        return {name[:2] for name, digest in touched().items() if digest != before[name]}

    before = touched()
    assert touched() == before
    with monkeypatch.context() as patch:
        patch.setattr(figures, "fig08_structure", figures.fig08_occlusion)
        assert changed() == {"08"}
    monkeypatch.setattr(stress, "IMAGES", {"smoke": 1})
    assert changed() == {"07"}


def test_the_plan_is_printed_and_nothing_is_done(home, capsys):
    assert main(["smoke", "--only", "02", "-p", "priors=[identity]", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "jobs and 1 chapters to do" in said and "single:identity, calibrated" in said and "02_baselines" in said
    assert not (home / "build" / "scores").exists()


def test_writing_is_all_or_nothing(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_figure_is_drawn_from_its_saved_data(tmp_path):
    data = pd.DataFrame(
        {"method": ["average"] * 3, "iteration": [1, 2, 3], "chi2": [9, 3, 1.5], "step": [1, 0.1, 0.01]}
    )
    save(figures.fig02_convergence, data, tmp_path, profile="smoke")
    made = {p.name for p in (tmp_path / "figures").iterdir()}
    assert made == {f"fig02_convergence.{s}" for s in ("csv", "png", "json")}
    facts = json.loads((tmp_path / "figures" / "fig02_convergence.json").read_text())
    assert facts["data_sha256"] == files.sha256(tmp_path / "figures" / "fig02_convergence.csv")


def test_a_run_that_is_not_current_is_not_published(home):
    with pytest.raises(ValueError, match="profile smoke is not up to date"):
        publish("smoke")


def test_chapters_that_are_up_to_date_are_published_the_others_stay(home, monkeypatch, capsys):
    ready, out = "02_baselines", files.folder("build", "smoke")
    others = [c.name for c in CHAPTERS if c.name != ready]
    plan = Plan("smoke", {}, {name: (name, "{}", []) for name in others})
    monkeypatch.setattr("fusionlib.paper.publish.make_plan", lambda *_: plan)
    monkeypatch.setattr("fusionlib.paper.publish.pack", lambda: None)  # tried in test_store.py
    published = {name: {"profile": "smoke", "seconds": 1, "made": {}} for name in others}
    (home / "notebooks").unlink()
    for folder in ("figures", "notebooks"):
        (home / folder).mkdir()
    for name in ("fig02_gone.png", "tab02_gone.csv", "fig01_stays.png"):
        (home / "figures" / name).touch()
    readme = "<!-- begin:results -->\nold\n<!-- end:results -->\n<!-- begin:chapters -->\n\n<!-- end:chapters -->\n"
    (home / "README.md").write_text(readme)
    with pytest.raises(ValueError, match="not up to date"):
        publish("smoke")  # nothing to leave as it is
    (home / "figures" / "manifest.json").write_text(json.dumps({"chapters": published}))

    data = pd.DataFrame({"method": ["average"], "iteration": [1], "chi2": [9.0], "step": [1.0]})
    save(figures.fig02_convergence, data, out, profile="smoke")
    (out / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), out / "notebooks" / f"{ready}.ipynb")
    facts = {"profile": "smoke", "seconds": 2, "made": {"fig02_convergence.png": ""}}
    (out / f"{ready}.json").write_text(json.dumps(facts))
    publish("smoke")
    kept = {p.name for p in (home / "figures").iterdir()}
    assert kept == {f"fig02_convergence.{s}" for s in ("csv", "json", "pdf", "png")} | {
        "fig01_stays.png",
        "manifest.json",
    }
    manifest = json.loads((home / "figures" / "manifest.json").read_text())
    assert manifest["chapters"] == published | {ready: facts} and list(home.glob("notebooks/*"))
    readme = (home / "README.md").read_text()
    assert "old" in readme and "`fig02_convergence`" in readme and readme.count("`smoke`") == len(CHAPTERS)
    assert capsys.readouterr().out.count("of it stays") == len(others)


def test_readme_blocks_are_filled_or_missed():
    text = "a\n<!-- begin:x -->\nold\n<!-- end:x -->\nb"
    assert fill(text, "x", "new") == "a\n<!-- begin:x -->\nnew\n<!-- end:x -->\nb"
    with pytest.raises(ValueError, match="no block 'y'"):
        fill(text, "y", "new")


def test_the_readme_shows_the_headline_by_bank():
    rows = [("main", "best_single", 0.0), ("main", "average", 0.1), ("main", "unet", -1.0), ("far", "best_single", 0.0)]
    rows += [("far", "average", 1.0)]
    table = pd.DataFrame(rows, columns=["bank", "method", "delta_best_single"])
    table = table.assign(coverage=1.0, psnr=30.0, kind="fused", delta_lo=-2.0, delta_hi=2.0, n_test=32, n_train=12)
    table = table.assign(ssim=0.9, psnr_blur=40.0, chi2_vis=1.0)
    gap = pd.DataFrame({"bank": ["main", "far"], "method": "closed_form", "n_train": 120, "closed": [np.nan, 0.5]})
    lines = results_markdown(table, gap.assign(closed_lo=0.4, closed_hi=0.6), "quick").splitlines()
    assert lines[0].startswith("Profile `quick`: 32 development images, 12 labels, 1 seed") and "in `far`" in lines[0]
    assert sum(line.startswith("| ") for line in lines) == 3 and any("+1.00 (-2.00 … +2.00)" in line for line in lines)
    assert [line for line in lines if "share of the way" in line] == [
        next(line for line in lines if "50% (40% … 60%)" in line)
    ]


def test_pictures_of_notebooks_shrink_and_widgets_go():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "png")
    picture = base64.b64encode(out.getvalue()).decode()
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"image/png": picture}),
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Box()"}),
    ]
    (kept,) = clean(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    assert 100 < len(kept.data["image/png"]) < 0.6 * len(picture)


def test_bad_job_says_what_is_wrong():
    run = subprocess.run(
        [sys.executable, "-m", "fusionlib.paper", '{"method": "average"}'],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert run.returncode == 1 and "FAILED job: Spec: " in run.stdout


def test_a_prior_may_join_after_the_fit_and_features_may_be_left_out():
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(3, 5)
    y, cpu, names = array.observe(sky.fine, 0), torch.device("cpu"), ("identity", "tv", "torus")
    settings, data = {"sigma_max": 0.2, "sigma_min": 0.1, "lam": 0.1}, [Labelled.numbered(array, sky.image, y)]
    late = gradient.learned(
        gradient.strategy_c, "image", names, 2, cpu, schedule=Schedule(steps=1, first=1), without="torus"
    )
    image = late.run(settings, late.fit(settings, data), array, y, None)
    assert image.record["weights"].shape[:2] == (2, 3)
    whole, blind = (closed_form.closed_form("image", names, 2, cpu, without=name) for name in ("", "context"))
    width = [method.fit(settings, data)["theta"].shape[2] for method in (whole, blind)]
    assert width[0] - width[1] == 2


def test_the_union_is_the_bank_and_the_other_levels_of_its_best_prior():
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(3, 5)
    y, names = array.observe(sky.fine, 0), ("identity", "tv", "torus")
    settings, data = {"sigma_max": 0.2, "sigma_min": 0.1, "lam": 0.1}, [Labelled.numbered(array, sky.image, y)]
    method = closed_form.union("", names, 2, torch.device("cpu"))
    fitted = method.fit(settings, data)
    assert method.kind == "fused" and method.calls == 8 and fitted["static_weights"].shape == (2, 8)
    bank = method.prior(settings, fitted).bank
    assert bank.names[:3] == names and [name.partition(" x ")[0] for name in bank.names[3:]] == ["torus"] * 5
    mixed = torch.zeros(2, 8)
    mixed[:, 2] = 1  # of the torus at the loop's own level alone: the prior itself, in the loop
    alone = fitted | {"theta": torch.zeros_like(fitted["theta"]), "static_weights": mixed}
    single = methods.make("single:torus", ("torus",), 2, torch.device("cpu"))
    image = method.run(settings, alone, array, y, None).image
    torch.testing.assert_close(image, single.run(settings, {}, array, y, None).image)
