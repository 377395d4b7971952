import copy

import pytest
import torch

from fusionlib import FusedPrior, Interferometer, PriorBank, black_holes, gates, hqs, metrics, pnp, schedule
from fusionlib.fitting import csnet
from fusionlib.fitting.closed_form import fit_closed_form
from fusionlib.fitting.gradient import Schedule, fit_gate
from fusionlib.fitting.losses import (
    Objective,
    batch_entropy,
    collapse,
    diversity,
    diversity_literal,
    entropy,
    focal,
    importance,
    load,
    similarity,
)
from fusionlib.fitting.supervised import fit_denoiser, fit_end_to_end, from_nothing, starts
from fusionlib.fitting.trajectory import along_trajectory
from fusionlib.fitting.unroll import fit_unrolled
from fusionlib.gates import closed_form as cf
from fusionlib.gates.gate import PerNoiseLevel
from fusionlib.gates.oracles import simplex_weights
from fusionlib.gates.routing import Cosine, Encoder, Linear, Router, Voter, affine
from fusionlib.pnp import admm, pgd
from fusionlib.priors import wrappers, zoo

NAMES = ["identity", "tv", "torus"]


def weights(n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 4, 2, 2, generator=torch.Generator().manual_seed(seed)).softmax(0)


# --- losses ---


@pytest.mark.row(30, 31)
def test_losses_are_what_they_say():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 4, 1, 8, 8, generator=rng)
    w, o = weights(), torch.rand(3, 4, 1, 8, 8, generator=rng)
    assert torch.isclose(Objective()(y, x, w, o), ((y - x) ** 2).mean())
    assert torch.isclose(Objective("l1")(y, x, w, o), (y - x).abs().mean())
    assert torch.isclose(focal(y - x, gamma=0.0), ((y - x) ** 2).mean())
    assert torch.isclose(focal(3 * (y - x)), 9 * focal(y - x)) and focal(y - x) > focal(y - x, gamma=0.0)
    error = (y - x).requires_grad_()
    focal(error).backward()
    size = error.detach().abs()
    share = size / size.sum((1, 2, 3), keepdim=True)
    assert torch.allclose(error.grad, 2 * share * error.detach() / 4, atol=1e-7)  # no gradient through the weights
    with pytest.raises(ValueError, match="main must be one of"):
        Objective("huber")(y, x, w, o)
    with pytest.raises(ValueError, match="need weights on the simplex"):
        Objective(entropy=0.1)(y, x, affine(5 * torch.randn(3, 4, 2, 2)), o)


@pytest.mark.row(32, 45)
def test_entropies_and_collapse():
    uniform, one = torch.full((4, 3, 2, 2), 0.25), torch.zeros(4, 3, 2, 2)
    one[torch.arange(3), torch.arange(3)] = 1
    log4 = torch.log(torch.tensor(4.0))
    assert torch.isclose(entropy(uniform), log4) and torch.isclose(entropy(one), torch.tensor(0.0))
    assert torch.isclose(batch_entropy(one), torch.log(torch.tensor(3.0)))  # each image its own: no collapse
    o, x = torch.rand(4, 3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    loss = Objective(entropy=0.5)
    assert torch.isclose(loss(x, x, uniform, o), -0.5 * log4)
    found = collapse(one)
    assert found["greatest"] == 1 and found["entropy"] < 1e-6 and 0.7 < found["batch_entropy"] < 0.8
    assert importance(uniform) < 1e-9 and torch.isclose(importance(torch.eye(4)[:, :1, None, None]), torch.tensor(3.0))
    assert torch.isclose(load(torch.eye(4).view(4, 4, 1, 1)), torch.tensor(1.0))
    assert load(torch.eye(4)[:, :1, None, None]) == 4


@pytest.mark.row(14, 41)
def test_the_literal_diversity_loss_asks_for_collapse_and_the_quadratic_form_does_not():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 8, 8, generator=rng)
    outputs = x + 0.05 * torch.randn(4, 1, 1, 8, 8, generator=rng)
    one, uniform = torch.eye(4)[:, :1, None, None], torch.full((4, 1, 1, 1), 0.25)
    assert diversity_literal(one, outputs) == 0 and diversity_literal(uniform, outputs) > 0.7
    assert diversity(uniform, outputs) < 0.1 < diversity(one, outputs)
    raw = similarity(outputs, centred=False)
    assert raw.min() > 0.95
    # the ambiguity decomposition (Krogh & Vedelsby 1995), exactly
    w = weights(4)[:, :1, :1, :1].double()
    o, t = outputs.double(), x.double()
    y = (w[:, :, None] * o).sum(0)
    mean = lambda e: (w[:, 0, 0, 0] * e.square().mean((1, 2, 3, 4))).sum()  # noqa: E731
    assert torch.isclose((y - t).square().mean(), mean(o - t) - mean(o - y), rtol=1e-12)


# --- fits ---


class Noisy:
    """Physics of plain denoising: the data are the noisy image itself."""

    npix = 8

    def prox(self, z, y, rho):
        return y

    def descend(self, z, y):
        return y

    def chi2(self, x, y):
        return (x - y).square().mean((1, 2, 3))

    def start(self, y):
        return torch.zeros_like(y)


def mixture(n: int, sigma: float, seed: int):
    """Images of one of two kinds, dim or bright, one prior for each; the best weights are the responsibilities."""
    rng = torch.Generator().manual_seed(seed)
    means, variance = torch.tensor([0.3, 0.5]), 0.02
    kind = torch.randint(2, (n,), generator=rng)
    level = (means[kind] + 0.08 * torch.randn(n, generator=rng)).view(-1, 1, 1, 1)
    x = level + variance**0.5 * torch.randn(n, 1, 8, 8, generator=rng)
    y = x + sigma * torch.randn(x.shape, generator=rng)
    keep = variance / (variance + sigma**2)
    bank = PriorBank({str(k): wrappers.Function(lambda z, s, m=m: m + keep * (z - m)) for k, m in enumerate(means)})
    return bank, x, y


@pytest.mark.row(26)
def test_a_gradient_gate_comes_near_the_best_weights_of_a_mixture():
    """Two kinds of image, levels spread: within 2 % of the error of the exact posterior mean over the two priors."""
    sigma = 0.3
    bank, x, y = mixture(600, sigma, 1)
    _, xt, yt = mixture(400, sigma, 2)

    def make():
        encoder = Encoder(Router.maps, 8)
        return Router(encoder, Linear(encoder.channels, 2)), None

    fitted = fit_gate(bank, [(Noisy(), x, y)], [sigma], 1.0, make, schedule=Schedule(steps=200, first=2, batch=64))
    prior = FusedPrior(bank, fitted[0][0])
    with torch.no_grad():
        ours = (prior(yt, sigma) - xt).square().mean()
        # the posterior weight given the mean brightness, which holds all there is to know of the kind and level
        o, mean = bank(yt, sigma), yt.mean((1, 2, 3))
        spread = 0.08**2 + (0.02 + sigma**2) / 64
        log = torch.stack([-((mean - m) ** 2) / (2 * spread) for m in (0.3, 0.5)])
        kinds = log.softmax(0)
        level = sum(k * (m + 0.08**2 / spread * (mean - m)) for k, m in zip(kinds, (0.3, 0.5), strict=True))
        w = ((level - 0.5) / (0.3 - 0.5)).view(-1, 1, 1, 1)  # sends the fused mean to the posterior level
        w = w.clamp(0, 1)
        exact = (w * o[0] + (1 - w) * o[1] - xt).square().mean()
        average = (o.mean(0) - xt).square().mean()
    assert ours < 1.02 * exact < average


def test_gradient_fits_are_deterministic_and_leave_the_priors_alone():
    full = zoo.bank(NAMES)
    before = copy.deepcopy(full.state_dict())
    array = Interferometer.eht2017(0.1, window=60)
    sky = black_holes(3, 5)
    data = [(array, sky.image, array.observe(sky.fine, 0))]

    def voter():
        return Voter(Encoder(Voter.maps, 4)), None

    runs = [fit_gate(full, data, [0.2, 0.05], 0.1, voter, schedule=Schedule(steps=3)) for _ in range(2)]
    for (a, _), (b, _) in zip(*runs, strict=True):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in full.state_dict().items())


def test_images_a_fit_is_shown_are_those_of_its_policy():
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(3, 5)
    y, bank, sigmas = array.observe(sky.fine, 0), zoo.bank(NAMES), [0.3, 0.2]
    seen = {}
    for policy in ("own", "average", "white"):
        kept = seen[policy] = []

        def fit(stages, kept=kept):
            kept.append(stages[0])
            return lambda s: s.outputs[2]

        along_trajectory(bank, [(array, sky.image, y)], sigmas, 0.1, fit, policy=policy)
    first, second = seen["own"]
    assert torch.equal(second.x, pnp.data_step(array, y, 0.1 / 0.2**2)(first.outputs[2]))
    assert torch.equal(seen["average"][1].x, pnp.data_step(array, y, 0.1 / 0.2**2)(first.outputs.mean(0)))
    for stage, sigma in zip(seen["white"], sigmas, strict=True):
        assert (stage.x - sky.image).std() == pytest.approx(sigma, rel=0.03)
    with pytest.raises(ValueError, match="policy must be one of"):
        along_trajectory(bank, [(array, sky.image, y)], sigmas, 0.1, fit, policy="black")


def test_random_subsets_reach_a_gate_that_takes_any_number():
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(3, 5)
    data, counts = [(array, sky.image, array.observe(sky.fine, 0))], []

    class Counting(Voter):
        def weigh(self, maps):
            counts.append(maps.shape[1])
            return super().weigh(maps)

    bank = zoo.bank([*NAMES, "galaxies"])
    make = lambda: (Counting(Encoder(Voter.maps, 4)), None)  # noqa: E731
    fit_gate(bank, data, [0.2], 0.1, make, schedule=Schedule(steps=6, first=2, subsets=3))
    steps = counts[:12]
    assert steps[::2] == [4] * 6 and set(steps[1::2]) <= {2, 3}  # all, then some, in turn


def gate_of(sigmas, found, *options, **named):
    parts = (found[name] for name in ("theta", "static_weights", "whitening"))
    return cf.ClosedForm(torch.tensor(sigmas), *parts, *options, **named)


@pytest.mark.row(7)
def test_closed_form_is_the_least_squares_fit():
    """All columns of all images at once, by another solver: the same image."""
    sky = black_holes(4, 21).image
    bank = zoo.bank(NAMES)
    z = sky + 0.1 * torch.randn(sky.shape, generator=torch.Generator().manual_seed(0))
    found = fit_closed_form(bank, [(Noisy(), sky, z)], [0.1], 1.0, ridges=(1e-12,))
    gate = gate_of([0.1], found)
    with torch.no_grad():
        o = bank(z, 0.1)
        ours = FusedPrior(bank, gate).fuse(z, 0.1, lambda v: z).image
        phi = cf.maps(cf.ALL, z, o, torch.full((4,), 0.1), lambda v: z)
    size = torch.linalg.norm(torch.einsum("fg,bghw->bfhw", found["whitening"][0], phi), dim=1, keepdim=True)
    assert 0.8 < float((size**2).mean()) <= 1.0001  # less where features nearly depend on each other
    phi = phi / size.clamp(min=1)
    columns = ((o - o.mean(0))[:, None, :, 0] * phi.transpose(0, 1)[None]).flatten(0, 1).flatten(1).double()
    static = torch.einsum("n,nbchw->bchw", found["static_weights"][0], o)
    options = {"driver": "gelsd", "rcond": 1e-6}  # some features say the same here
    solved = torch.linalg.lstsq(columns.T, (sky - static).flatten().double(), **options).solution
    best = static + (solved @ columns).view_as(sky).float()
    apart, least = (ours - best).square().mean(), (best - sky).square().mean()
    assert apart < 1e-5 * least and least < 0.95 * (static - sky).square().mean()


@pytest.fixture(scope="module")
def small():
    array = Interferometer.eht2017(1.0, window=60)
    sky = black_holes(16, 33)
    y = array.observe(sky.fine, 0)
    sigmas, lam = schedule(0.2, 0.03, 6), 0.1
    bank = zoo.bank(NAMES)
    found = fit_closed_form(bank, [(array, sky.image[:8], y[:8])], sigmas, lam)
    gate = gate_of(sigmas, found)
    return array, sky, y, sigmas, lam, bank, gate


def psnr(image, sky):
    return float(metrics.psnr(image[8:], sky.image[8:]).mean())


def test_closed_form_beats_the_average_and_every_single_prior_here(small):
    array, sky, y, sigmas, lam, bank, gate = small
    run = lambda prior: psnr(hqs(y, array, prior, sigmas=sigmas, lam=lam).image, sky)  # noqa: E731
    ours = run(FusedPrior(bank, gate))
    assert ours > run(FusedPrior(bank, gates.average(3))) + 0.5
    assert ours > max(run(zoo.load(name)) for name in NAMES)


def test_its_weights_sum_to_one_and_move_with_the_image(small):
    _, sky, _, _, _, bank, gate = small
    x = sky.image[:1]
    with torch.no_grad():
        w = gate(x, 0.1, bank(x, 0.1), lambda v: v)
        moved = torch.roll(x, (3, 5), (2, 3))
        there = gate(moved, 0.1, bank(moved, 0.1), lambda v: v)
    assert torch.allclose(w.sum(0), torch.ones_like(w[0]), atol=1e-4)
    inner = (slice(None), slice(None), slice(20, 44), slice(20, 44))
    assert torch.allclose(torch.roll(w, (3, 5), (2, 3))[inner], there[inner], atol=2e-2)


def test_outside_what_was_fitted_weights_stay_bounded(small):
    """Another loop, another coverage: never worse than the average. Far off in noise: the static weights. On images
    unlike those of the fit: no more than features of unit leverage could bring about."""
    array, sky, y, sigmas, lam, bank, gate = small
    fused, average = FusedPrior(bank, gate), FusedPrior(bank, gates.average(3))
    x = sky.image[:2]
    with torch.no_grad():
        static = FusedPrior(bank, gates.Static(gate.static_weights[0] / gate.static_weights[0].sum()))
        assert torch.allclose(fused(x, 3.0), static(x, 3.0), atol=1e-5)
        k = int((gate.levels.exp() - 0.1).abs().argmin())
        most = torch.linalg.norm(gate.theta[k] @ torch.linalg.inv(gate.whitening[k]), dim=1)
        for strange in (50 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), 1e-3 * x, x.flip(2) ** 4):
            w = fused.fuse(strange, float(gate.levels[k].exp()), lambda v: 3 * v).weights
            moved = w - gate.static_weights[k].view(-1, 1, 1, 1)
            assert moved.abs().amax() <= (most + most.mean()).max() * 1.001
            assert torch.allclose(moved.sum(0), torch.zeros(()), atol=1e-4)
    few = Interferometer.eht2017(0.3, window=60)
    other = few.observe(sky.fine, 1)
    for loop, physics, data, options in (
        (admm, array, y, {"lam": lam}),
        (hqs, few, other, {"lam": lam}),
        (pgd, array, y, {}),
    ):
        images = [loop(data, physics, p, sigmas=sigmas, **options).image for p in (fused, average)]
        ours, theirs = (psnr(image, sky) for image in images)
        assert ours >= theirs - 0.02


def test_the_unrolled_pass_brings_the_last_image_nearer_to_the_labels(small):
    array, sky, y, sigmas, lam, bank, gate = small
    data, prior = [(array, sky.image[:6], y[:6])], FusedPrior(bank, gate)
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    options = {"last": 2, "steps": 20, "batch": 6, "rate": 0.2}
    first, again = (fit_unrolled(prior, ["gate.theta"], data, sigmas, lam, **options) for _ in range(2))
    assert torch.equal(first["gate.theta"], again["gate.theta"])
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())
    assert torch.equal(first["gate.theta"][:-2], gate.theta[:-2])  # only the last iterations move
    moved = FusedPrior(
        bank,
        gate_of(
            sigmas, {"theta": first["gate.theta"], "static_weights": gate.static_weights, "whitening": gate.whitening}
        ),
    )
    images = [hqs(y[:6], array, p, sigmas=sigmas, lam=lam).image for p in (prior, moved)]
    was, now = (metrics.psnr(image, sky.image[:6]).mean() for image in images)
    assert now > was + 0.02
    with pytest.raises(ValueError, match="no tensors"):
        fit_unrolled(prior, ["gate.w"], data, sigmas, lam)


def test_csnet_weighs_by_estimated_error(small):
    array, sky, y, sigmas, lam, bank, _ = small
    theta = csnet.fit_csnet(bank, [(array, sky.image[:8], y[:8])], sigmas, lam)
    assert theta.shape == (6, 3, 5)
    prior = FusedPrior(bank, csnet.CsNet(torch.tensor(sigmas), theta))
    found = prior.fuse(sky.image[:2] + 0.1, 0.1).weights
    assert torch.allclose(found.sum(0), torch.ones_like(found[0]), atol=1e-5) and (found >= 0).all()
    run = lambda p: psnr(hqs(y, array, p, sigmas=sigmas, lam=lam).image, sky)  # noqa: E731
    assert run(prior) > run(FusedPrior(bank, gates.average(3)))


def test_csnet_told_the_true_errors_finds_the_best_convex_weights():
    """The off-diagonals of the error Gram matrix follow from its diagonal and from how far the outputs are apart."""
    rng = torch.Generator().manual_seed(0)
    o, x = torch.rand(4, 2, 1, 8, 8, generator=rng).double(), torch.rand(2, 1, 8, 8, generator=rng).double()
    e = (o - x).flatten(2)
    w = csnet.weights(e.square().mean(2).T, o)
    for b in range(2):
        assert torch.allclose(w[:, b, 0, 0], simplex_weights(e[:, b] @ e[:, b].T), atol=1e-6)
    fused, single = ((w[:, :, None] * o).sum(0) - x).square().mean(), e.square().mean(2).amin(0).mean()
    assert fused < single


def test_the_end_to_end_network_learns_from_labels():
    array, sky = Interferometer.eht2017(1.0, window=60), black_holes(4, 3)
    y = array.observe(sky.fine, 0)
    first, again = (fit_end_to_end([(array, sky.image, y)], steps=30) for _ in range(2))
    with torch.no_grad():
        image = first(starts(array, y))
        assert torch.equal(image, again(starts(array, y)))
        base = starts(array, y)[:, 1:2]
    assert metrics.psnr(image, sky.image).mean() > metrics.psnr(base, sky.image).mean()


def test_a_denoiser_learns_from_labels_and_comes_back_from_the_seed():
    clean = black_holes(6, 3).image
    first, again = (fit_denoiser(from_nothing(), clean, steps=25, rate=2e-3, batch=8) for _ in range(2))
    x = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first(x, 0.3), again(x, 0.3)) and not first(x, 0.3).requires_grad
    assert (first(x, 0.3) - clean).square().mean() < (from_nothing()(x, 0.3) - clean).square().mean()


@pytest.mark.row(9, 37)
def test_heads_are_swapped_with_the_encoder_kept():
    torch.manual_seed(0)
    encoder = Encoder(Router.maps, 8)
    first, second = (Router(copy.deepcopy(encoder), head(encoder.channels, 3)) for head in (Cosine, Linear))
    x = black_holes(1, 2).image
    assert torch.equal(first.encoder(first.look(x, 0.1, None, None)), second.encoder(second.look(x, 0.1, None, None)))
    assert not PerNoiseLevel([0.1], [first]).reads_outputs
