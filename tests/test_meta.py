from dataclasses import replace

import pytest
import torch
from torch import nn

from fusionlib import FusedPrior, Interferometer, black_holes
from fusionlib.fitting.meta import (
    MetaConfig,
    Pair,
    Task,
    adapt,
    episode,
    fit_meta,
    fuse,
    maml_gradient,
    meta_fit,
    mse,
    parameters_of,
    reptile_update,
)
from fusionlib.gates.adapters import Residual
from fusionlib.gates.routing import Learned, Router, cosine_router
from fusionlib.priors import zoo
from fusionlib.sky.families import geometric

F64 = torch.float64


class Line(Learned):
    """One parameter t: weights (t, 1 - t) everywhere, so that every loss is a parabola in t."""

    def __init__(self, t: float):
        super().__init__()
        self.head = nn.Parameter(torch.tensor(t, dtype=F64))

    def weigh(self, maps):
        one = torch.ones(1, len(maps), 1, 1, dtype=F64)
        return torch.cat([self.head * one, (1 - self.head) * one])


def parabola(seed: int, b: int = 3) -> tuple[Task, float, float]:
    """A task with loss a (t - c)^2 + const, and a, c."""
    rng = torch.Generator().manual_seed(seed)
    o = torch.rand(2, b, 1, 4, 4, generator=rng, dtype=F64)
    x = torch.rand(b, 1, 4, 4, generator=rng, dtype=F64)
    d, e = o[0] - o[1], x - o[1]
    a = float(d.square().mean())
    return Task(x, o, x, torch.ones(2, dtype=torch.bool)), a, float((d * e).mean()) / a


@pytest.mark.row(17, 18)
def test_second_order_maml_is_the_derivative_by_hand():
    """L_S = a (t - c)^2, t' = t - 2 r a (t - c), L_Q = p (t' - q)^2: dL_Q/dt = 2 p (t' - q) (1 - 2 r a)."""
    gate, r, t = Line(0.3), 0.4, 0.3
    support, a, c = parabola(1)
    query, p, q = parabola(2)
    moved = t - 2 * r * a * (t - c)
    theta = parameters_of(gate)
    assert abs(float(adapt(gate, theta, support, r)["head"]) - moved) < 1e-12
    exact = maml_gradient(gate, theta, [(support, query)], r)["head"]
    assert abs(float(exact) - 2 * p * (moved - q) * (1 - 2 * r * a)) < 1e-12
    first = maml_gradient(gate, theta, [(support, query)], r, first_order=True)["head"]
    assert abs(float(first) - 2 * p * (moved - q)) < 1e-12 and abs(float(first - exact)) > 1e-3
    learned = maml_gradient(gate, theta, [(support, query)], {"head": torch.tensor(r, dtype=F64)})
    assert abs(float(learned["rate.head"]) - 2 * p * (moved - q) * (-2 * a * (t - c))) < 1e-12


@pytest.mark.row(17)
def test_three_steps_of_maml_agree_with_finite_differences():
    support, *_ = parabola(1)
    query, *_ = parabola(2)

    def after(t: float) -> float:
        gate = Line(t)
        return float(mse(fuse(gate, adapt(gate, parameters_of(gate), support, 0.4, 3), query), query))

    exact = float(maml_gradient(Line(0.3), parameters_of(Line(0.3)), [(support, query)], 0.4, 3)["head"])
    assert abs(exact - (after(0.3 + 1e-5) - after(0.3 - 1e-5)) / 2e-5) < 1e-8


@pytest.mark.row(18)
def test_one_step_of_reptile_is_gradient_descent():
    gate, tasks = Line(0.3), [parabola(k)[0] for k in (1, 2)]
    found = reptile_update(gate, parameters_of(gate), tasks, rate=0.2, steps=1, epsilon=0.5)["head"]
    slopes = [2 * a * (0.3 - c) for _, a, c in (parabola(1), parabola(2))]
    assert abs(float(found) - (0.3 - 0.5 * 0.2 * sum(slopes) / 2)) < 1e-12


def pool(n: int = 14, seed: int = 0) -> Task:
    rng = torch.Generator().manual_seed(seed)
    x = torch.arange(float(n)).view(-1, 1, 1, 1) + torch.rand(n, 1, 16, 16, generator=rng)
    return Task(torch.rand(n, 3, 16, 16, generator=rng), x + torch.rand(4, n, 1, 16, 16, generator=rng), x,
                torch.ones(4, dtype=torch.bool))  # fmt: skip


@pytest.mark.row(16, 21)
def test_support_and_query_never_overlap_and_come_back_from_the_seed():
    rng = torch.Generator().manual_seed(7)
    for _ in range(50):
        support, query = episode(pool(), rng, priors=2)
        a, b = ({int(v) for v in t.truth.mean((1, 2, 3))} for t in (support, query))
        assert len(a) == len(b) == 5 and not a & b
        assert int(support.keep.sum()) == 2 and torch.equal(support.keep, query.keep)
    again = [episode(pool(), torch.Generator().manual_seed(7), priors=2)[0].truth for _ in range(2)]
    assert torch.equal(*again)
    with pytest.raises(ValueError, match="10 images are needed"):
        episode(pool(9), rng)


def router() -> Router:
    torch.manual_seed(0)
    return cosine_router(4, None, 4)


@pytest.mark.row(21)
def test_priors_that_are_not_there_count_for_nothing():
    gate, task = router(), pool()
    few = task._replace(keep=torch.tensor([True, False, False, True]))
    changed = few._replace(outputs=few.outputs + few.keep.logical_not().view(-1, 1, 1, 1, 1))
    theta = parameters_of(gate)
    assert torch.allclose(fuse(gate, theta, few), fuse(gate, theta, changed))
    with torch.no_grad():
        w = gate.weigh(task.maps)
    chosen = gate.head(gate.encoder(task.maps))[few.keep].softmax(0)
    assert torch.allclose(w[few.keep] / w[few.keep].sum(0), chosen, atol=1e-6)


@pytest.mark.parametrize("rule", ["maml", "fomaml", "metasgd", "reptile"])
def test_meta_training_lowers_the_loss_after_adaptation(rule):
    """Conditions differ in which prior is good; after one step on five labels the meta-trained start is better."""
    pools = []
    for good in range(4):
        p = pool(20, good)
        maps = p.maps.clone()
        maps[:, 1] = good / 4
        outputs = p.truth + torch.where(torch.arange(4).view(-1, 1, 1, 1, 1) == good, 0.02, 0.5) * (p.outputs - p.truth)
        pools.append(p._replace(maps=maps, outputs=outputs))
    gate = router()

    def after(theta) -> float:
        rng, losses = torch.Generator().manual_seed(99), []
        for p in pools:
            support, query = episode(p, rng)
            theta_ = {k: v for k, v in theta.items() if not k.startswith("rate.")}
            losses.append(float(mse(fuse(gate, adapt(gate, theta_, support, 0.05), query), query)))
        return sum(losses)

    outer = {"outer": 3e-3} if rule != "reptile" else {}
    options = {"rounds": 30, "steps": 3 if rule == "reptile" else 1, "rate": 2.0 if rule == "reptile" else 0.05}
    runs = [meta_fit(gate, pools, rule=rule, **options, **outer) for _ in range(2)]
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert after(runs[0]) < 0.95 * after(parameters_of(gate))


def test_anil_moves_the_head_alone_and_wrong_rules_are_refused():
    gate, task = router(), pool()
    theta = parameters_of(gate)
    moved = adapt(gate, theta, task, 0.1, inner=("head",))
    changed = {k.split(".")[0] for k in theta if not torch.equal(theta[k], moved[k])}
    assert changed == {"head"}
    with pytest.raises(ValueError, match="rule must be"):
        meta_fit(gate, [task], rule="mamlpp")


@pytest.mark.row(16)
def test_the_inner_loss_may_do_without_labels():
    """A misfit that knows no truth: the images' sums, say, as an array measures them."""
    gate, task = router(), pool()
    blind = task._replace(truth=torch.full_like(task.truth, torch.nan))
    total = task.truth.sum((1, 2, 3))

    def misfit(fused: torch.Tensor, _: Task) -> torch.Tensor:
        return (fused.sum((1, 2, 3)) - total).square().mean() / 1e4

    theta = parameters_of(gate)
    adapted = adapt(gate, theta, blind, 0.05, 5, loss=misfit)
    before, after = (float(misfit(fuse(gate, t, blind), blind)) for t in (theta, adapted))
    assert after < before


@pytest.mark.row(24)
def test_adapters_are_meta_learned_with_their_gate():
    """The inner loop moves both; with the gate alone moving it is the gate's own adaptation."""
    gate, task = router(), pool()._replace(sigma=0.1)
    pair = Pair(gate, Residual(4))
    theta = parameters_of(pair)
    assert torch.allclose(fuse(pair, theta, task), fuse(gate, parameters_of(gate), task))  # adapters start as identity
    moved = adapt(pair, theta, task, 0.05)
    assert all(any(not torch.equal(moved[k], v) for k, v in theta.items() if k.startswith(p)) for p in ("gate", "adap"))
    alone = adapt(pair, theta, task, 0.05, inner=("gate",))
    own = adapt(gate, parameters_of(gate), task, 0.05)
    assert all(torch.allclose(alone[f"gate.{k}"], v, atol=1e-7) for k, v in own.items())


def test_meta_learning_along_the_trajectory_adapts_to_the_labels_and_comes_back_from_the_seed():
    bank = zoo.bank(["identity", "tv", "torus"])
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(6, 5)
    other = geometric("disc", 6, 1)
    data = [(array, sky.image, array.observe(sky.fine, 0))]
    others = [(array, other.image, array.observe(other.fine, 1))]
    make = lambda: (cosine_router(3, None), Residual(3))  # noqa: E731
    course = MetaConfig(rounds=2, first=1, tasks=2, k=3)
    runs = [fit_meta(bank, data, others, [0.2, 0.05], 0.1, make, course=course) for _ in range(2)]
    for (g, a), (again, _) in zip(*runs, strict=True):
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in g.state_dict().items()) and a is not None
    step = lambda v: array.prox(v, data[0][2], 0.1 / 0.2**2)  # noqa: E731
    x = step(array.start(data[0][2]))
    error = {}
    for rule, shots in (("maml", 0), ("maml", 5), ("metasgd", 5)):
        (found,) = fit_meta(bank, data, others, [0.2], 0.1, make, course=replace(course, rule=rule, shots=shots))
        with torch.no_grad():
            image = FusedPrior(bank, *found).fuse(x, 0.2, step).image
        error[rule, shots] = (image - sky.image).square().mean()
    assert error["maml", 5] < 0.99 * error["maml", 0] and error["metasgd", 5] < 0.99 * error["maml", 0]
    zero = replace(course, unseen=True, shots=0)  # then the labels say nothing, whatever they are
    wrong = [(array, sky.image.flip(2), data[0][2])]
    ((one, _),), ((two, _),) = (fit_meta(bank, d, others, [0.2], 0.1, make, course=zero) for d in (data, wrong))
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
