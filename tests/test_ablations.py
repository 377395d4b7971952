"""Chapter 07: every arm is what it is named after, and nothing else differs."""

import itertools
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib.gates.routing import Linear, MultiGate
from fusionlib.paper import methods, specs
from fusionlib.paper.methods import variants
from fusionlib.paper.methods.method import Method
from fusionlib.paper.studies import ablations, stress
from fusionlib.paper.studies.ablation_list import ABLATIONS, HARMFUL, Arm
from fusionlib.paper.studies.ablations import arm_specs
from fusionlib.pnp import Reconstruction
from fusionlib.priors import networks, zoo

MAIN = zoo.BANKS["main"]
ARMS = [(a, arm) for a in ABLATIONS for arm in a.arms[1:]]


@pytest.mark.row(38, 39, 40)
@pytest.mark.parametrize("ablation, arm", ARMS, ids=lambda v: getattr(v, "label", getattr(v, "name", "")))
def test_arms_differ_from_the_first_in_method_or_bank_alone(ablation, arm):
    ours, first = (arm_specs("quick", MAIN, a) for a in (arm, ablation.arms[0]))
    assert len(ours) == len(first) > 0
    for one, other in zip(ours, first, strict=True):
        changed = {k for k, v in asdict(one).items() if v != asdict(other)[k]}
        assert changed and changed <= {"method", "priors", "grid"}
        assert one.key != other.key
    named = {arm.without, arm.with_, ablation.arms[0].without, ablation.arms[0].with_} - {""}
    assert set(ours[0].priors) ^ set(first[0].priors) <= named | {"torus"}


def test_variants_are_what_they_are_called():
    names = ("identity", "tv", "torus")
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    gate, _ = variants.blind(names, None, 0)
    assert torch.equal(gate(x, 0.1, None, lambda v: v), gate(x, 0.1, None, lambda v: 3 * v))
    gate, adapters = variants.bare(names, None, 1)
    assert adapters is None
    assert isinstance(variants.linear_head(names, None, 0)[0].head, Linear)
    by_error, at_random = (f(MAIN, None, 0)[0] for f in (variants.grouped_by_error, variants.grouped_at_random))
    for gate in (by_error, at_random):
        assert isinstance(gate, MultiGate) and sorted(k for g in gate.groups for k in g) == list(range(len(MAIN)))
    harmful, prior = zoo.load(HARMFUL), networks.trained("galaxies")
    with torch.no_grad():
        assert torch.equal(harmful(x, 0.1), prior(x, 0.1).flip(2))


def test_verdicts_say_what_the_comparisons_say():
    rows = [
        ("a", 31.0, 0.0, 0.0, 0.0, "same"),
        ("b", 31.5, 0.5, 0.1, 0.9, "better"),
        ("c", 30, -1, -1.5, -0.2, "worse"),
    ]
    columns = ["ablation", "arm", "psnr", "effect", "lo", "hi", "verdict"]
    told = ablations.verdicts(pd.DataFrame([("A1 head", *row) for row in rows], columns=columns))
    assert told.verdict.tolist() == [
        "Against a (31.00 dB), b: better, +0.50 dB (+0.10 to +0.90); c: worse, -1.00 dB (-1.50 to -0.20)."
    ]


def test_differences_are_paired(monkeypatch):
    """Images differ by 10 dB, arms by 0.2: the interval knows the second alone."""
    base = np.linspace(25, 35, 32)[None]
    worth = {"a_linear:image": 0.0, "a:image": 0.2, "a_pixels:image": -0.05}
    monkeypatch.setattr(ablations, "ABLATIONS", ABLATIONS[:1])
    monkeypatch.setattr(ablations, "image_psnr", lambda found: base + worth[found[0].method])
    table = ablations.ablation_table("quick", MAIN).set_index("arm")
    assert table.effect.tolist() == pytest.approx([0, 0.2, -0.05])
    assert table.verdict.tolist() == ["same", "better", "negligible"]
    assert (table.hi - table.lo).max() < 1e-6 and table.n_test.eq(32).all()


def test_labels_and_leave_one_out_ask_for_what_they_say():
    found = ablations.label_specs("quick", MAIN)
    assert {s.n_train for s in found if s.method == "closed_form"} == {4, 12, 40, 120}
    assert {s.priors for s in found if s.method == "closed_form"} == set(specs.banks_of(MAIN))
    assert all(len(s.grid) == 1 or max(len(v) for _, v in s.grid) == 1 for s in found if s.n_train > 4)
    left = ablations.leave_specs("quick", MAIN)
    assert {name: set(MAIN) - set(rows[0].priors) for name, rows in left.items() if name} == {n: {n} for n in MAIN}
    shots = ablations.shot_specs("quick", MAIN)
    assert {n for _, n in shots} == {0, 1, 5, 10}
    number = ablations.number_specs("paper", MAIN)
    for order, method in {key[:2] for key in number}:
        banks = [number[order, method, n][0].priors for n in range(1, len(MAIN) + 1)]
        added = [*banks[0], *(name for a, b in itertools.pairwise(banks) for name in set(b) - set(a))]
        assert added == list(MAIN if order == "nearest last" else MAIN[::-1]) and banks[-1] == MAIN
    assert all(s.coverage == 0.1 and s.n_train == max(n, 1) for (_, n), rows in shots.items() for s in rows)
    without = arm_specs("quick", MAIN, Arm("", "c:image", "torus", HARMFUL))
    assert without[0].priors == (*(n for n in MAIN if n != "torus"), HARMFUL)
    assert replace(without[0], priors=MAIN) == arm_specs("quick", MAIN, Arm("", "c:image"))[0]


def test_stress_changes_what_it_says_and_fits_nothing(monkeypatch):
    """What a method is handed: its noise, its visibilities, and how bright the sky behind the data is; with fewer
    images than lists of scans, as in smoke."""
    handed: dict[str, list] = {}
    names = iter(name for name, s in stress.STRESSES.items() for _ in range(1 if s.coverage == 1 else 2))

    last: dict[str, torch.Tensor] = {}
    real = stress.observed

    def observed(*args):
        last["truth"], y = real(*args)
        return last["truth"], y

    def run(settings, fitted, array, y, start):
        handed.setdefault(next(names), []).append((array.table, y, last["truth"]))
        return Reconstruction(last["truth"] + 1e-3, {}, 0.0)

    monkeypatch.setattr(stress, "observed", observed)

    monkeypatch.setattr(stress, "under_stress", stress.under_stress.function)  # no record is made of this
    monkeypatch.setattr(stress, "tuned", lambda spec: ({}, 0.0, {}))
    monkeypatch.setattr(stress, "method_of", lambda spec: Method(run, "baseline", 1))
    table = stress.stress_table(stress.stress_specs("smoke", MAIN), 2)
    assert set(table.stress) == set(handed) == set(stress.STRESSES)
    plain, y, _ = handed["as fitted"][0]
    ratio = {name: float(parts[0][0].sigma.mean() / plain.sigma.mean()) for name, parts in handed.items()}
    assert ratio.pop("thrice the noise") == pytest.approx(3)
    assert [len(t) for t, _, _ in handed["10 % of the scans"]] < [len(t) for t, _, _ in handed["30 % of the scans"]]
    assert all(sum(len(truth) for _, _, truth in parts) == 2 for parts in handed.values())
    assert all(len(parts[0][0]) == len(plain) for name, parts in handed.items() if "scans" not in name)
    bright = {name: float(parts[0][1].abs().mean() / y.abs().mean()) for name, parts in handed.items()}
    assert bright["twice the flux"] == pytest.approx(2, abs=0.1)
    assert bright["half the flux"] == pytest.approx(0.5, abs=0.1)
    psnr = table.set_index("stress").psnr
    assert psnr["as fitted"] == pytest.approx(60, abs=0.1)
    assert psnr["moved 10 µas"] < 50  # the truth, moved back although it was not moved


def test_longer_training_is_the_same_experiment_but_for_its_steps():
    found = ablations.training_specs("paper", MAIN)
    usual = {s.method: s.grid for s in ablations.label_specs("paper", MAIN)}
    for s in found:
        assert {name for name, _ in s.grid} == set(methods.entry(s.method).settings)
        assert [part for part in s.grid if part[0] != "steps"] == [p for p in usual[s.method] if p[0] != "steps"]
        assert s.split == "dev"
    assert {s.method for s in found if s.grid == usual[s.method]} == {"unet", "denoiser", "finetuned"}
