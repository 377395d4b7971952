"""pMoE: the model against its formula written out, routing, gradients, the three trainings, its data."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fusionlib import pmoe
from fusionlib.paper.studies import classification
from fusionlib.pmoe import Arm

SEPARATE, JOINT = Arm("separate", 2, 3, 8), Arm("joint", 4, 3, 8)


def samples(n: int = 9, d: int = 5, trials: int = 2, count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(trials, count, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(arm: Arm, trials: int = 2, d: int = 5, seed: int = 1) -> pmoe.Mixture:
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(trials, *shape, generator=rng, dtype=torch.float64)  # noqa: E731
    return pmoe.Mixture(draw(arm.k, d), draw(arm.k, arm.m // arm.k, d), pmoe.start(arm, 1, d, 0).signs.double())


def by_hand(m: pmoe.Mixture, x: torch.Tensor, arm: Arm, trial: int) -> float:
    """The formula, one sample, in loops."""
    total = 0.0
    for s in range(arm.k):
        g = x @ m.routers[trial, s]
        chosen = sorted(range(len(x)), key=lambda j: -g[j])[: arm.l]
        gates = g[chosen].softmax(0) if arm.kind == "joint" else torch.ones(arm.l)
        for r in range(arm.m // arm.k):
            for gate, j in zip(gates, chosen, strict=True):
                total += float(m.signs[s, r] / arm.l * max(float(m.neurons[trial, s, r] @ x[j]), 0.0) * gate)
    return total


@pytest.mark.row(46, 49, 50, 51)
@pytest.mark.parametrize("arm", [SEPARATE, JOINT], ids=lambda a: a.kind)
def test_output_is_the_formula(arm):
    x, m = samples(), model(arm)
    f = pmoe.output(m, x, arm)
    for r in range(2):
        for b in range(4):
            assert f[r, b].item() == pytest.approx(by_hand(m, x[r, b], arm, r), abs=1e-12)


@pytest.mark.row(46, 52)
def test_one_expert_of_all_patches_with_unit_gates_is_the_cnn():
    """f_C = sum over neurons of a_r times the mean over patches of ReLU."""
    x, cnn = samples(), Arm("cnn", m=8)
    m = model(cnn)
    exact = (F.relu(torch.einsum("rmd,rbnd->rbnm", m.neurons[:, 0], x)) * m.signs[0]).mean(2).sum(2)
    assert torch.allclose(pmoe.output(m, x, cnn), exact, atol=1e-13)
    # and as a mixture: two experts that choose every patch, gates 1
    two = model(Arm("separate", 2, 9, 8))
    assert torch.equal(two.signs.flatten(), torch.tensor([1.0] * 4 + [-1.0] * 4, dtype=torch.float64))
    same = pmoe.Mixture(m.routers, two.neurons.flatten(1, 2)[:, None], two.signs.view(1, 8))
    assert torch.allclose(pmoe.output(two, x, Arm("separate", 2, 9, 8)), pmoe.output(same, x, cnn), atol=1e-12)
    # one router, l = n
    one = pmoe.Arm("joint", 1, 9, 8)
    _, index = pmoe.route(m.routers, x, 9)
    assert (index.sort(3).values == torch.arange(9)).all()
    flat = m._replace(routers=torch.zeros_like(m.routers))  # then every gate of the softmax is 1 / n
    assert torch.allclose(9 * pmoe.output(flat, x, one), exact, atol=1e-12)


@pytest.mark.row(47)
def test_each_expert_chooses_exactly_its_l_best_patches():
    x, m = samples(), model(JOINT)
    values, index = pmoe.route(m.routers, x, 3)
    g = torch.einsum("rkd,rbnd->rbkn", m.routers, x)
    assert index.shape == (2, 4, 4, 3) and torch.equal(values, g.gather(3, index))
    assert all(len(set(i.tolist())) == 3 for i in index.flatten(0, 2))
    rest = g.scatter(3, index, -math.inf).amax(3)
    assert (values.amin(3) >= rest).all()
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pmoe.output(m, x[:, :, shuffled], JOINT), pmoe.output(m, x, JOINT), atol=1e-12)


@pytest.mark.row(48)
def test_all_arms_have_the_same_neurons():
    for arm in (Arm("cnn"), Arm("separate", 2, 2), Arm("joint", 8, 6), Arm("image", 4)):
        assert pmoe.start(arm, 3, 7, 0).neurons.shape == (3, arm.k, 40 // arm.k, 7)


@pytest.mark.row(50)
def test_routers_learn_by_sgd_on_their_linear_loss_and_are_frozen_then():
    x, y, _ = pmoe.theory(2, 12, 6, 10, seed=3)
    first = pmoe.start(SEPARATE, 2, 10, 0).routers
    w, rng = first.clone().requires_grad_(), torch.Generator().manual_seed(5)
    for _ in range(4):  # epochs, in any order
        for part in torch.randperm(12, generator=rng).split(4):
            apart = torch.einsum("rd,rbd->rb", w[:, 0] - w[:, 1], x[:, part].sum(2))
            (slope,) = torch.autograd.grad(-(y[:, part] * apart).mean(1).sum(), w)
            w = (w - 0.3 * slope).detach().requires_grad_()
    ours = pmoe.fit_routers(first, x, y, rate=0.3, epochs=4, batch=4)
    assert torch.allclose(ours, w, atol=1e-5)
    done = pmoe.fit(x, y, SEPARATE, rate=0.3, epochs=7, batch=4)
    frozen = pmoe.fit_routers(first, x, y, rate=0.3, epochs=100, batch=4)
    assert torch.equal(done.routers, frozen) and not torch.equal(done.neurons, pmoe.start(SEPARATE, 2, 10, 0).neurons)


@pytest.mark.row(51, 58)
def test_joint_training_moves_the_routers_unless_one_patch_is_chosen():
    """The softmax of one value is 1 whatever the value: no gradient, so that joint training with l = 1 cannot route."""
    for l, moves in ((3, True), (1, False)):
        x, arm = samples(), Arm("joint", 4, l, 8)
        m = model(arm)
        routers = m.routers.clone().requires_grad_()
        (slope,) = torch.autograd.grad(pmoe.output(m._replace(routers=routers), x, arm).sum(), routers)
        assert bool(slope.abs().max() > 1e-6) == moves


@pytest.mark.row(51)
def test_joint_training_learns_the_routers_too():
    x, y, _ = pmoe.theory(2, 20, 6, 10, seed=3)
    for l, moves in ((3, True), (1, False)):
        arm = Arm("joint", 2, l, 8)
        before, after = pmoe.start(arm, 2, 10, 0), pmoe.fit(x, y, arm, rate=1.0, epochs=3, seed=0)
        assert torch.equal(before.routers, after.routers) != moves
        assert not torch.equal(before.neurons, after.neurons)


def test_the_mixture_by_sample_sends_each_sample_to_one_expert():
    x, arm = samples(), Arm("image", 4, m=8)
    m = model(arm)
    gate = torch.einsum("rkd,rbd->rbk", m.routers, x.sum(2))
    best = gate.argmax(2)
    for s in range(4):
        other = m.neurons.clone()
        other[:, s] += 1
        changed = pmoe.output(m._replace(neurons=other), x, arm) != pmoe.output(m, x, arm)
        assert torch.equal(changed, best == s)


@pytest.mark.row(60)
def test_two_levels_choose_inside_the_best_blocks():
    x, m = samples(n=8), model(SEPARATE)
    blocks = torch.einsum("rkd,rbqd->rbkq", m.routers, x.unflatten(2, (4, 2)).sum(3))
    for coarse in (2, 3, 4):
        _, index = pmoe.route(m.routers, x, 3, coarse)
        there = torch.zeros_like(blocks, dtype=torch.bool).scatter(3, blocks.topk(coarse, 3).indices, True)
        assert there.gather(3, index // 2).all()
    assert torch.equal(pmoe.route(m.routers, x, 3, 4)[1], pmoe.route(m.routers, x, 3)[1])


@pytest.mark.row(55, 56)
def test_operations_and_memory_are_those_of_the_patches_read():
    x = samples(n=16, d=12, trials=1, count=1)
    levels = [Arm("separate", 2, 2, 8, coarse=c) for c in (1, 2, 3)]
    for arm in (Arm("cnn", m=8), Arm("separate", 2, 2, 8), Arm("joint", 4, 6, 8), *levels):
        with FlopCounterMode(display=False) as counter:
            pmoe.output(model(arm, 1, 12), x, arm)
        assert counter.get_total_flops() == pmoe.flops(arm, 16, 12)
    float_x, y = samples(16, 12, 1, 20).float(), torch.ones(1, 20)
    kept = [pmoe.saved_bytes(Arm("separate", 2, l, 8), float_x, y) for l in (2, 4, 8)]
    assert kept[0] < kept[1] < kept[2] < 4.5 * kept[0]


@pytest.fixture(scope="module")
def digits():
    images, labels = (torch.as_tensor(v) for v in load_digits(return_X_y=True))
    return pmoe.prepared(images.float(), labels)


@pytest.mark.row(59)
def test_routers_find_the_discriminative_patch():
    train, test = pmoe.theory(6, 600, seed=1), pmoe.theory(6, 600, seed=1, split=1)
    assert not torch.equal(train.y, test.y)
    arm = Arm("separate", 2, 2)
    fitted = pmoe.fit(train.x, train.y, arm, rate=5.0, epochs=10)
    assert pmoe.router_hit(fitted, test.x, test.y, test.where, arm).mean() > 0.95
    assert pmoe.accuracy(fitted, test.x, test.y, arm).mean() > 0.95
    assert torch.equal(fitted.neurons, pmoe.fit(train.x, train.y, arm, rate=5.0, epochs=10).neurons)
    untrained = pmoe.start(arm, 6, 64, 0)
    assert pmoe.router_hit(untrained, test.x, test.y, test.where, arm).mean() < 0.3


@pytest.mark.row(53)
def test_fewer_patches_per_expert_need_fewer_samples(digits):
    train, test = (pmoe.composed([d] * 6, n, seed=k) for k, (d, n) in enumerate(zip(digits, (80, 400), strict=True)))
    accuracy = {}
    for l in (2, 8, 16):
        arm = Arm("separate", 2, l)
        fitted = pmoe.fit(train.x, train.y, arm, rate=5.0, epochs=60)
        accuracy[l] = pmoe.accuracy(fitted, test.x, test.y, arm).mean()
    assert accuracy[2] > accuracy[8] + 0.03 > accuracy[16] + 0.03


def test_composed_samples_have_one_digit_that_tells_and_test_digits_are_others(digits):
    train, test = digits
    both = torch.cat([train.patches, test.patches])
    assert len(both) == 1797 and torch.allclose(both.norm(dim=1), torch.ones(1797))
    assert torch.cdist(train.patches, test.patches).min() > 1e-4
    x, y, where = pmoe.composed([train] * 3, 50, 9, seed=0)
    number = torch.cdist(x.flatten(0, 2), train.patches).argmin(1)
    digit = train.labels[number].view(3, 50, 9)
    assert ((digit < 2).sum(2) == 1).all()
    assert torch.equal(digit.gather(2, where[..., None])[..., 0], (y > 0).long())
    assert torch.equal(pmoe.composed([train] * 3, 50, 9, seed=0).x, x)


def test_bad_input_says_what_is_wrong():
    x, y, _ = pmoe.theory(1, 4, 8, 10, seed=0)
    for call, message in (
        (lambda: Arm("soft"), "kind must be one of"),
        (lambda: Arm("joint", 3, 2, 40), "must divide"),
        (lambda: Arm("joint", 4, 0), "l must be at least 1"),
        (lambda: Arm("separate", 3, 2, 42), "one router per class"),
        (lambda: pmoe.fit(x, (y + 1) / 2, JOINT, rate=0.1), "labels"),
        (lambda: pmoe.route(torch.zeros(1, 2, 10), x, 9), "l must be in 1 .. 8"),
        (lambda: pmoe.route(torch.zeros(1, 2, 10), x[:, :, :6], 2, 2), "divisible by 4"),
        (lambda: pmoe.theory(1, 4, d=4, seed=0), "d must be at least"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.row(54, 55, 56, 57, 58)
def test_the_tables_of_chapter_09(tmp_path, monkeypatch):
    """Every cell small: who is compared with whom, and what is counted."""
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    cells = classification.by_samples("smoke") + classification.by_neurons("smoke") + classification.by_patches("smoke")
    table = classification.table(cells)
    assert {
        "arm",
        "data",
        "N",
        "l",
        "k",
        "m",
        "trials",
        "accuracy",
        "lo",
        "hi",
        "success",
        "router_hit",
        "flops",
    } < set(table)
    assert {8, 16, 40} == set(table.m) and {4, 9, 16} == set(table.n) and {20, 40, 100} == set(table.N)
    gains = classification.gain_table(cells)
    assert set(gains.arm) == {"separate", "joint", "image"}
    one = classification.Cell(classification.arms()[1], trials=2, epochs=3)
    base = classification.Cell(classification.arms()[0], trials=2, epochs=3)
    row = gains[
        (gains.arm == "separate") & (gains.data == "digits") & (gains.N == 100) & (gains.n == 16) & (gains.m == 40)
    ]
    exact = (classification.result(one)["accuracy"] - classification.result(base)["accuracy"]).mean()
    assert row.effect.iloc[0] == pytest.approx(exact)
    first, second = (classification._samples(one, purpose, 2, 5).x for purpose in ("train", "test"))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    costs = classification.cost_table((1, 2), samples=20, epochs=1, repeats=1)
    assert set(costs.arm) == {"separate", "joint"} and (costs[costs.arm == "separate"].flops < 0.2).all()
    trends = classification.trend_table(classification.by_chosen("smoke"))
    verdicts = classification.verdict_table(gains, trends, classification.table(classification.by_chosen("smoke")))
    assert set(verdicts.arm) == {"separate", "joint"} and verdicts.claim.nunique() == 3
    cells = classification.cells("smoke")
    assert len(set(cells.values())) == len(cells) > 20
