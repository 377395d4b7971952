"""Chapter 13: what a verdict rests on, and that nothing the essays name is missing."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from fusionlib.paper import methods, specs, tables
from fusionlib.paper.profiles import PROFILES
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import ablations, claims, conclusions, strategies
from fusionlib.paper.studies.checklist import CHECKLIST
from fusionlib.priors import zoo

MAIN = zoo.BANKS["main"]
PAPER = PROFILES["paper"]


def test_the_headline_has_all_images_and_seeds_and_nothing_else_has():
    found = conclusions.result_specs("paper")
    assert {(s.n_test, s.n_train, s.split) for s in found} == {(1000, PAPER.n_train, "test")}
    for bank in specs.banks_of(MAIN):
        mine = Counter(s.method for s in found if s.priors in ((), bank) and not s.method.startswith("single:"))
        wanted = set(methods.HEADLINE) - (set() if bank == MAIN else {"a:pixel"})
        assert wanted <= set(mine) and set(mine.values()) == {3}
    rest = [s for s in specs.strategy_specs("paper") if s.coverage == 1.0 and not specs.of_headline(s)]
    rest += [s for s in ablations.ablation_specs("paper") if s.n_test != 1000]
    assert {s.n_test for s in rest} == {PAPER.n_other} and {s.seed for s in rest} == {0}


def test_every_comparison_has_two_sides_that_differ_in_what_it_names():
    for claim in claims.claims("quick", MAIN):
        for pair in claim.pairs:
            one, other = claims.sides(pair, "quick", MAIN, "")
            assert one and other and not set(one) & set(other), (claim.says, pair)
            assert {s.method for s in one} == {pair.method.method}
            alone = ("best_single", "unet", "denoiser")
            if pair.minus.method not in alone and not pair.minus.without:
                assert {s.priors for s in one} == {s.priors for s in other}
            if pair.far:
                assert not any("torus" in s.priors for s in one + other)


def test_every_comparison_is_among_the_experiments_of_the_chapter():
    there = set(conclusions.conclusion_specs("quick"))
    for claim in claims.claims("quick", MAIN):
        for pair in claim.pairs:
            for side in claims.sides(pair, "quick", MAIN, ""):
                assert set(side) <= there


def test_differences_count_what_both_sides_have(monkeypatch):
    worth = {"average": np.arange(12.0).reshape(2, 6), "a:image": np.ones((1, 4))}
    monkeypatch.setattr(tables, "image_psnr", lambda found: worth[found[0].method])
    one, other = (Spec(m, ("identity", "tv"), 1.0, 1, 1, "dev") for m in worth)
    assert tables.difference([one], [other]).tolist() == [[-1, 0, 1, 2]]


def test_the_best_single_prior_is_that_of_the_labels(monkeypatch):
    told = {"single:tv": 30.0, "single:torus": 31.0}
    monkeypatch.setattr(tables, "scores", lambda s: {"psnr_train": told[s.method]})
    found = [Spec(m, (m.partition(":")[2],), 1.0, 1, 1, "dev", seed=k) for m in told for k in (0, 1)]
    assert {s.method for s in tables.best_of(found)} == {"single:torus"} and len(tables.best_of(found)) == 2


def test_the_lead_is_that_of_the_best_fused_row_over_every_other(monkeypatch):
    level = {"closed_union": 33.0, "closed_form": 32.5, "unet": 34.0, "single:torus": 32.0}
    images = np.random.default_rng(0).normal(0, 2, (1, 20))  # the same for every row: of a difference nothing is left

    def told(s: Spec) -> dict:
        fused = level.get(s.method, 30.0) + 1.0 * ("torus" not in s.priors) * (s.method == "closed_form") + images
        return {"psnr": fused, "kind": "fused" if s.method in ("closed_union", "closed_form") else "other"}

    for module in (strategies, tables):
        monkeypatch.setattr(module, "scores", told)
    found = specs.strategy_specs("wide")
    table = strategies.lead_table(found, MAIN).set_index(["bank", "minus"])
    assert table.loc["main", "method"].eq("closed_union").all() and table.loc["far", "method"].eq("closed_form").all()
    assert table.loc[("main", "unet"), "effect"] == pytest.approx(-1) and table.loc[("far", "unet"), "hi"] < 0
    assert table.loc[("main", "single:torus"), "lo"] == pytest.approx(1) and ("far", "single:torus") not in table.index
    assert len(table.loc["main"]) == len({s.method for s in found if s.priors in ((), MAIN) or len(s.priors) == 1}) - 1


def test_on_images_of_ones_own_there_is_the_main_table_alone(tmp_path):
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).random((40, 64, 64)))
    own, ours = conclusions.conclusion_specs("quick", sky=str(tmp_path)), conclusions.conclusion_specs("quick")
    named = {s.method for s in own if not s.method.startswith("single:")}
    assert named == set(methods.HEADLINE) - {"ceiling"} | {"oracle:pixel"} and {s.n_train for s in own} == {12}
    assert len(own) < len(ours) / 3 and all(s.sky for s in own)
    assert not len(claims.claim_table("quick", MAIN, str(tmp_path)))
    assert not len(conclusions.gap_table("quick", MAIN, str(tmp_path)))


def test_a_claim_holds_where_its_comparisons_do():
    told = {
        ("better", "better"): "holds",
        ("better", "undecided"): "holds x",
        ("better", "negligible"): "holds x",
        ("undecided", "worse"): "does not hold",
        ("worse", "worse"): "the reverse holds",
        ("negligible", "same"): "negligible",
        ("negligible", "undecided"): "does not hold",
    }
    for verdicts, overall in told.items():
        assert claims.overall(list(zip("xy", verdicts, strict=True))) == overall


def test_a_share_of_the_gap_is_a_ratio_of_means():
    top = np.random.default_rng(0).normal(1.0, 0.2, (1, 200))
    share, low, high = conclusions._share(0.5 * top, top)
    assert share == pytest.approx(0.5) and low == pytest.approx(0.5) and high == pytest.approx(0.5)
    share, low, high = conclusions._share(0.5 * top[:, ::-1], top)
    assert share == pytest.approx(0.5) and low < 0.5 < high


def test_nothing_that_the_essays_name_is_left_out():
    assert [row for row, *_ in CHECKLIST] == list(range(1, 61))
    tests = claims.tests_by_row()
    only_said = {15}  # merging experts: there is nothing to run
    assert set(range(1, 61)) - set(tests) == only_said
    assert len(claims.checklist_table()) == 60


@pytest.mark.row(29)
def test_the_essays_table_has_a_number_in_every_cell(monkeypatch):
    columns = {"delta_best_single": 0.1, "delta_lo": 0.0, "delta_hi": 0.2, "delta_worst": -1.0, "coverage": 1.0}
    rows = [(bank, m) for bank in ("main", "far") for m in claims.ESSAY.values()]
    results = pd.DataFrame(rows, columns=["bank", "method"]).assign(**columns, seconds=0.1, prior_calls=128)
    gap = pd.DataFrame([("main", "a:image", 10, 0.1)], columns=["bank", "method", "n_train", "effect"])
    monkeypatch.setattr(conclusions, "gap_table", lambda *_: gap)
    monkeypatch.setattr(conclusions, "trained", lambda spec: 1000)
    table = conclusions.essay_table("quick", MAIN, results)
    cells = table[["A", "B", "C"]].to_numpy().ravel()
    assert all(any(c.isdigit() for c in cell) or cell == "not run" for cell in cells)
    assert (cells == "not run").sum() == 2  # B and C were not among the labels here
