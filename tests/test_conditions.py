"""What fits may see, and what tests show."""

import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fusionlib import Interferometer, black_holes, gates, hqs, metrics, schedule, sky
from fusionlib.fitting import fit_closed_form
from fusionlib.fusion import FusedPrior
from fusionlib.gates import closed_form as cf
from fusionlib.interferometer import eht2017_april10_table, eht2017_table, turned_table
from fusionlib.paper import Spec, conditions, experiment, figures
from fusionlib.paper import shift_specs as specs_of
from fusionlib.paper.methods import gradient
from fusionlib.paper.methods.method import Labelled, always
from fusionlib.paper.readme import shift_markdown
from fusionlib.paper.studies import shift
from fusionlib.priors import Fixed, PriorBank, check, zoo

ONE = (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.1,)))
MIXED = Spec("closed_form", ("identity", "tv"), 1.0, 10, 0, "train", steps=2, grid=ONE, fit="mixed")


LABELS = {10, 30, 100, 300, 1000}


def test_a_turned_array_sees_the_turned_sky():
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 20, 40] = 1  # 90 degrees from north to east: what was west is north
    plain, turned = (Interferometer.from_table(turned_table(eht2017_table(), a)) for a in (0.0, 90.0))
    assert torch.allclose(turned(torch.rot90(x, 1, (2, 3))), plain(x), atol=2e-2 * float(plain(x).abs().max()))


def test_packaged_arrays_are_what_they_say():
    april, low = eht2017_april10_table(), eht2017_table(-29.0)
    assert (len(april), april.scan.nunique()) == (91, 7)
    assert 100 < len(low) < 216 and len(eht2017_table()) == 216
    assert not {"PV"} & set(low[low.scan == low.scan.max()].t1)  # Spain has set
    for name in conditions.ARRAYS:
        spec = Spec("average", ("identity", "tv"), 1.0, 2, 2, "dev", array=name)
        (array,) = experiment.arrays(spec)
        truth, y = experiment.observed(spec, "dev", 2, 0, array)
        chi2 = float(array.chi2(truth, y).mean())
        assert (chi2 > 1.8) == (name == "gains 5 %"), (name, chi2)  # the sky at the model's own resolution


def test_arrays_are_drawn_from_their_ranges_and_from_a_seed_alone():
    home, tables = eht2017_table(), [conditions.drawn_table(0, k) for k in range(conditions.DRAWN)]
    shown = [conditions.ARRAYS[name].table() for name, _ in conditions.MIXED]
    for k, table in enumerate(tables):
        again = conditions.drawn_table(0, k)
        assert table.equals(again) and not table.equals(conditions.drawn_table(1, k))
    for some, ranges in ((tables, conditions.RANGES), (shown, conditions.WIDER)):
        for table in some:
            same = home.merge(table, on=["scan", "t1", "t2"])
            turn = np.angle((same.u_x + 1j * same.v_x) * np.conj(same.u_y + 1j * same.v_y), deg=True)
            assert np.ptp(turn) < 1e-6 and abs(turn[0]) <= ranges["turn"]
            noise = same.sigma_y / same.sigma_x
            assert np.ptp(noise) < 1e-9 and 1 <= noise[0] <= ranges["noise"]
            assert ranges["share"] * 22 - 1 <= table.scan.nunique() <= 22
        assert len({table.scan.nunique() for table in some}) > 2
    assert not any(a.equals(b) for a in tables for b in shown)


def test_the_map_and_the_headline_show_what_no_fit_has_seen():
    assert len(conditions.CONDITIONS) == len(set(conditions.CONDITIONS)) >= 20
    assert {c.array for c in conditions.CONDITIONS} <= {"", *conditions.ARRAYS}
    assert {c.family for c in conditions.CONDITIONS} == {"", *conditions.OBJECTS}
    unseen = [family in conditions.HELD_OUT for _, family in conditions.MIXED]
    assert 2 * sum(unseen) == len(unseen) == 20
    assert conditions.RANGES["turn"] < 40


def test_no_object_that_is_held_out_enters_any_fit():
    assert not set(conditions.HELD_OUT) & set(conditions.SIMULATED)
    assert set(conditions.HELD_OUT) | set(conditions.SIMULATED) == set(conditions.OBJECTS)
    data = experiment.labelled(MIXED)
    labels = sky.split("train", 10).image
    free = [conditions.objects(name, 2, sky.SEEDS["train"]).image for name in conditions.SIMULATED]
    allowed = {x.numpy().tobytes() for x in torch.cat([labels, *free])}
    shown = [x.cpu().numpy().tobytes() for d in data for x in d.truth]
    assert set(shown) == allowed
    assert all(shown.count(x.numpy().tobytes()) == 2 for x in labels)  # at home, and through one other array
    tested = {
        x.numpy().tobytes()
        for name in conditions.SIMULATED
        for x in conditions.objects(name, 4, sky.SEEDS["test"]).image
    }
    assert not tested & set(shown)


def test_conditions_name_records_and_tuning_knows_none_of_the_test():
    plain = replace(MIXED, fit="", n_test=4, split="dev")
    assert len({s.key for s in (plain, replace(plain, array="10 April"), replace(plain, fit="mixed"))}) == 3
    assert experiment.tuning(replace(plain, array="10 April", family="torus")) == experiment.tuning(plain)
    april = {"array": "10 April"}
    twice = [april | {"coverage": 0.3}, april | {"observation": "x.csv"}]
    for wrong in ({"array": "moon"}, *twice, {"fit": "away"}, {"family": "moon"}):
        with pytest.raises(ValueError, match="Spec: "):
            replace(plain, **wrong)


def test_no_labels_own_network_judges_it(monkeypatch):
    """Networks answer with their number, and what each was trained on is written down."""
    known: list[set[bytes]] = []

    class Numbered(nn.Module):
        def forward(self, starts):
            return torch.full_like(starts[:, :1], float(self.number))

    def train(data, *, steps):
        known.append({x.numpy().tobytes() for d in data for x in d.truth})
        net = Numbered()
        net.register_buffer("number", torch.tensor(len(known) - 1.0))
        return net

    def network(fitted, device):
        net = Numbered()
        net.number = fitted["number"]
        return net

    monkeypatch.setattr(gradient, "fit_end_to_end", train)
    monkeypatch.setattr(experiment, "network", network)
    monkeypatch.setattr(experiment, "stored", lambda key, compute, facts: compute())
    spec = replace(MIXED, priors=("identity", "tv", "unet:7", "unet:7/home"), n_train=9)
    data, seen = experiment.labelled(spec), 0
    kinds = [conditions.objects(name, 2, sky.SEEDS["train"]).image for name in conditions.SIMULATED]
    kinds = [{x.numpy().tobytes() for x in kind} for kind in kinds]
    assert len(known) == 4  # two folds of each
    for d in data:
        for name, images in d.images.items():
            for x, image, fold in zip(d.truth, images, d.fold, strict=True):
                mine, trained = x.numpy().tobytes(), known[int(image.max())]
                assert mine not in trained, name
                assert all(not (kind & trained) for kind in kinds if mine in kind)  # nor any of its kind
                assert int(image.max()) % 2 == fold
                seen += 1
    assert seen == 2 * sum(len(d.truth) for d in data)
    assert all(len(k) >= 4 for k in known) and len(known[0]) > len(known[2])  # at home there is no simulated sky
    used = experiment.images_of(spec, data[0].array, data[0].y[:2])
    assert known[int(used["unet:7"].max())] >= {x.numpy().tobytes() for x in data[0].truth}


def test_a_network_is_a_prior_like_any_other():
    image = torch.rand(1, 1, 64, 64)
    fixed = Fixed(image)
    check(fixed, torch.rand(1, 1, 64, 64), 0.1)
    bank = PriorBank({"identity": zoo.load("identity"), "network": fixed})
    x = torch.rand(1, 1, 64, 64)
    assert torch.allclose(FusedPrior(bank, gates.average(2))(x, 0.1), (x + image) / 2)
    with pytest.raises(ValueError, match="Fixed: made for images"):
        bank(torch.rand(2, 1, 64, 64), 0.1)


def test_a_gate_leaves_an_expert_that_the_data_contradict():
    """The truth as an expert at some labels, another sky at others: the gate must tell which is which by the data."""
    array, scene = Interferometer.eht2017(window=60), black_holes(16, 5)
    y, wrong = array.observe(scene.fine, 0), black_holes(16, 99).image
    expert = torch.where((torch.arange(16) % 2 == 0).view(-1, 1, 1, 1), scene.image, wrong)
    plain = zoo.bank(["identity", "torus"])

    def bank(images):
        return PriorBank({"identity": plain.priors[0], "torus": plain.priors[1], "network": Fixed(images)})

    sigmas, features = schedule(0.2, 0.05, 4), (*cf.ALL, cf.residuals)
    found = fit_closed_form([bank(expert)], [(array, scene.image, y)], sigmas, 0.1, features=features)
    parts = (found[name] for name in ("theta", "static_weights", "whitening"))
    gate = cf.ClosedForm(torch.tensor(sigmas), *parts, features)
    new = black_holes(8, 50)
    told = torch.where((torch.arange(8) % 2 == 0).view(-1, 1, 1, 1), new.image, black_holes(8, 77).image)
    result = hqs(array.observe(new.fine, 1), array, FusedPrior(bank(told), gate), sigmas=sigmas, lam=0.1)
    trust = result.record["weights"][:, 2].mean((0, 2, 3))
    assert trust[::2].min() > trust[1::2].max() and float(trust[::2].mean()) > float(trust[1::2].mean()) + 0.1


@pytest.mark.parametrize("method", ["static_affine", "closed_residuals", "a:pixel", "started", "switched", "stacked"])
def test_methods_take_the_network_among_their_priors(method):
    grid = (("sigma_max", (0.2,)), ("sigma_min", (0.05,)), ("lam", (0.1,)))
    images = {"unet:9": black_holes(6, 5).image}
    array = Interferometer.eht2017(0.1, window=60)
    y = array.observe(black_holes(6, 5).fine, 0)
    data = [Labelled.numbered(array, images["unet:9"], y)._replace(images=images)]
    spec = Spec(method, ("identity", "torus", "unet:9"), 1.0, 6, 2, "dev", steps=2, grid=grid)
    made, (settings,) = experiment.method_of(spec), experiment.settings_grid(spec)
    fitted = made.fit(settings, data)
    image = made.run(settings, fitted, array, y, None, images).image
    plain = always(zoo.load("torus"), 2, "single", 1).run(settings, {}, array, y).image
    assert metrics.psnr(image, data[0].truth).mean() > metrics.psnr(plain, data[0].truth).mean() + 3


def test_a_group_left_out_of_the_mixture_takes_what_is_like_it_along():
    def count(fit):
        return sum(len(d.truth) for d in experiment.labelled(replace(MIXED, fit=fit)))

    free = 2  # of each family, for ten labels
    assert count("mixed") == 20 + 3 * free and count("mixed less ring") == 20 + free
    assert count("mixed less double") == 20 + 2 * free


def test_a_folder_of_images_is_one_more_condition(tmp_path):
    np.save(tmp_path / "a.npy", black_holes(2, 9).fine[:, 0].numpy())
    inside, plain = (shift.map_specs("smoke", objects=folder) for folder in (str(tmp_path), ""))
    own = [s for s in inside if s not in plain]
    assert len(own) == len(specs_of.shift_rows("smoke")) and {s.n_test for s in own} == {2}
    assert shift.condition_of(own[0]).name == tmp_path.name
    assert experiment.tuning(own[0]) in map(experiment.tuning, plain)
    truth, _ = experiment.observed(own[0], "dev", 2, 0, experiment.arrays(own[0])[0])
    assert torch.equal(truth, sky.from_folder(tmp_path).image)
    key = own[0].key
    np.save(tmp_path / "a.npy", black_holes(2, 8).fine[:, 0].numpy())
    assert replace(own[0]).key != key


def test_a_prior_that_is_replaced_after_the_fit():
    spec = Spec("single:torus", ("torus",), 1.0, 2, 1, "dev", steps=2, grid=ONE)
    missing = replace(spec, replaced="torus missing")
    assert experiment.tuning(missing) == experiment.tuning(spec) and missing.key != spec.key
    alone = replace(spec, method="single:unet_galaxies", priors=("unet_galaxies",))
    runs = [experiment.method_of(s) for s in (missing, alone, replace(spec, replaced="galaxies upside down"), spec)]
    array = Interferometer.eht2017(0.1, window=60)
    y = array.observe(black_holes(1, 5).fine, 0)
    (settings,) = experiment.settings_grid(spec)
    first, same, untouched, own = (m.run(settings, {}, array, y).image for m in runs)
    assert torch.equal(first, same) and torch.equal(untouched, own) and not torch.equal(first, own)
    with pytest.raises(ValueError, match="replaced must be one of"):
        replace(spec, replaced="torus")


def test_tables_of_the_map_and_the_headline_say_what_the_scores_say(monkeypatch):
    """Every row has its own level, rules with a network 2 dB above the rest; on objects in no fit all lose 1 dB; under
    one of twenty conditions another prior is best, by 0.5 dB."""

    def made_up(s):
        rng, n = np.random.default_rng(len(s.array + s.family) + s.seed), s.n_test
        level = 30 + 2 * bool(s.networks) - (s.family in conditions.HELD_OUT) + (s.method == "single:tv") / 2
        level += (s.method == "single:sr") * (s.array == "drawn 2")
        kind = s.method.partition(":")[0] if s.method.startswith(("single", "ceiling")) else "fused"
        noise = rng.normal(size=(1, n)) + 9 * (s.method == "ceiling")
        found = {"psnr": level + noise, "chi2_vis": np.full((1, n), 1.0 + bool(s.networks)), "kind": np.array(kind)}
        ended = {"psnr_ended": level + noise - 0.1 * (s.array == "turned 40"), "chi2_ended": np.full((1, n), 0.5)}
        return found | (ended if s.method != "unet" else {})

    monkeypatch.setattr(shift, "scores", made_up)
    specs = shift.headline_specs("paper")
    mixed, rule = shift.mixed_table(specs), shift.row_of(shift.safe("paper"))
    assert set(mixed.n_test) == {1000} and {1, 3} == set(mixed.seed) and set(mixed.n_train) == {*LABELS, sky.MANY}
    mine = mixed[(mixed.bank == rule.bank) & (mixed.method == rule.method) & (mixed.n_train == 100)]
    assert np.allclose(mine.delta_best_single, 1.5) and np.allclose(mine.chi2, 2)
    assert np.allclose(mine.seen - mine.unseen, 1, atol=0.2)
    gains = shift.against(specs, rule)
    told = gains[(gains.method == "average") & (gains.n_train == 100)]
    assert np.allclose(told.effect, 2) and list(told.verdict) == ["better"]
    table = shift.map_table(shift.map_specs("paper"))
    assert len(table) == len(conditions.CONDITIONS) * len(specs_of.shift_rows("paper"))
    fair, ended = table[table.kind != "ceiling"], shift.ended_table(shift.map_specs("paper"))
    assert np.allclose(ended.least, -0.1) and np.allclose(ended.gain, -0.4 / 27) and np.allclose(ended.chi2_ended, 0.5)
    assert not {"unet", "ceiling"} & set(ended.method) and set(ended.chi2) == {1.0, 2.0}
    assert set(table[table.n_train == sky.MANY].kind) == {"ceiling"}
    assert (fair.groupby("condition").regret.min() == 0).all() and (fair.regret >= 0).all()
    assert np.allclose(table[table.method == "average"].regret, 2)
    gain = shift.picking_table("paper").set_index("pick").gain
    assert gain["one for all"] == 0 and np.allclose(gain[["one for each condition", "one for each image"]], 0.5 / 20)
    aims = shift.aims_table(table, specs, rule)
    assert (
        len(aims) == 6 and list(aims.met) == [True] * 6 and list(aims.network > 0) == [False] + [True] * 3 + [False] * 2
    )
    assert np.allclose(aims.network[:4], [0, 2, 2, 1])
    text = io.StringIO(), io.StringIO()
    shift.summary_table(table).to_csv(text[0], index=False)
    mixed.to_csv(text[1], index=False)
    summary, headline = (pd.read_csv(io.StringIO(t.getvalue()), keep_default_na=False) for t in text)
    first, *others = [s for s in shift_markdown(summary, headline, "paper").splitlines() if s[:2] == "| "][1:]
    assert "network (mixed) | 32" in first and len(others) == 9 and sum("reference" in s for s in others) == 1
    labels = shift.labels_table("paper")
    assert set(labels.n_train) == LABELS and set(labels.n_test) == {50, 1000}
    plt.close(figures.fig11_labels(labels))
    for draw, data in ((figures.fig11_map, table), (figures.fig11_mixed, mixed[mixed.n_train == 100])):
        plt.close(draw(shift.named(data)))
