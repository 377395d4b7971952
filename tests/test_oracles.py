import itertools
import math

import pytest
import torch
from torch import nn

from fusionlib import FusedPrior, Interferometer, PriorBank, black_holes, hqs, metrics, schedule
from fusionlib.fitting.closed_form import fit_static
from fusionlib.gates.gate import PerNoiseLevel, Static
from fusionlib.gates.oracles import NoiseLevels, Oracle, affine_weights, error_correlation, simplex_weights
from fusionlib.priors import wrappers, zoo

F64 = torch.float64


@pytest.fixture(scope="module")
def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    x = black_holes(3, 12).image
    return x, x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def gram(seed: int, n: int = 4) -> torch.Tensor:
    e = torch.randn(n, 50, generator=torch.Generator().manual_seed(seed), dtype=F64)
    e = e + 2 * e[:1]  # errors that have something in common
    return e @ e.T


@pytest.mark.parametrize(("sigma", "apart"), [(0.1, 0.12), (0.3, 0.22)])
def test_a_mixture_of_gaussians_is_fused_exactly_by_its_responsibilities(sigma, apart):
    """8 px, three components: weights softmax(log pi + log p(x)) on the components' posterior means give E[x0 | x]."""
    rng = torch.Generator().manual_seed(3)
    means, variances = torch.rand(3, 64, generator=rng, dtype=F64), 0.02 + 0.05 * torch.rand(3, 64, generator=rng)
    means, log_pi = apart * means, torch.tensor([0.5, 0.3, 0.2], dtype=F64).log()
    variances = variances.to(F64).mean(1, keepdim=True).expand(3, 64)

    def component(k: int) -> nn.Module:
        def mean(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            keep = variances[k] / (variances[k] + s[:, None] ** 2)
            return (means[k] + keep * (x.flatten(1) - means[k])).view_as(x)

        return wrappers.Function(mean)

    class Responsibilities(nn.Module):
        reads_outputs, skips = False, False

        def forward(self, x, s, outputs=None, data_step=None):
            total = variances + s**2
            log_p = -((x.flatten(1)[:, None] - means) ** 2 / total + total.log() + math.log(2 * math.pi)).sum(2) / 2
            return torch.softmax(log_pi + log_p, 1).T[:, :, None, None]

    pick = torch.randint(3, (40,), generator=rng)
    x0 = means[pick] + variances[pick].sqrt() * torch.randn(40, 64, generator=rng, dtype=F64)
    x = (x0 + sigma * torch.randn(40, 64, generator=rng, dtype=F64)).view(40, 1, 8, 8)
    gate = Responsibilities()
    r = gate(x, sigma)[:, :, 0, 0]
    entropy = float(-(r * r.clamp(min=1e-300).log()).sum(0).mean() / math.log(3))
    assert 0.3 < entropy < 0.7  # soft enough to be a test
    fused = FusedPrior(PriorBank({str(k): component(k) for k in range(3)}), gate)(x, sigma)
    # E[x0 | x] = x + sigma^2 grad log p(x), differentiated from the density itself
    z = x.clone().requires_grad_()
    total = variances + sigma**2
    log_p = -((z.flatten(1)[:, None] - means) ** 2 / total + total.log()).sum(2) / 2
    (score,) = torch.autograd.grad(torch.logsumexp(log_pi + log_p, 1).sum(), z)
    assert torch.allclose(fused, x + sigma**2 * score, atol=1e-8)


def test_finer_and_freer_oracles_leave_less_error(noisy):
    truth, z = noisy
    bank = zoo.bank(["identity", "tv", "torus"])
    with torch.no_grad():
        outputs = bank(z, 0.2)
        left = {
            name: (Oracle(bank, truth, cell, affine)(z, 0.2) - truth).square().mean((1, 2, 3))
            for name, cell, affine in (("image", 64, False), ("8", 8, False), ("pixel", 1, False), ("affine", 64, True))
        }
    alone = (outputs - truth).square().mean((2, 3, 4))
    assert torch.allclose(left["image"], alone.amin(0))
    assert (left["8"] < left["image"]).all() and (left["pixel"] < left["8"]).all()
    assert (left["affine"] < left["image"]).all()
    per_pixel = (outputs - truth).square().amin(0).mean((1, 2, 3))
    assert torch.allclose(left["pixel"], per_pixel, rtol=1e-4)
    with pytest.raises(ValueError, match="cell must divide"):
        Oracle(bank, truth, 7)


def test_ambiguity_decomposition(noisy):
    """Squared error of the mean = mean squared error - mean squared deviation from the mean (Krogh & Vedelsby)."""
    truth, z = noisy
    with torch.no_grad():
        outputs = zoo.bank(["identity", "tv", "torus"])(z, 0.2)
    mean = outputs.mean(0)
    error, spread = (outputs - truth).square().mean(0), (outputs - mean).square().mean(0)
    assert torch.allclose((mean - truth).square(), error - spread, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_weights_minimise_what_they_should(seed):
    g = gram(seed)
    affine, simplex = affine_weights(g, ridge=1e-9), simplex_weights(g)
    assert affine.sum() == pytest.approx(1) and simplex.sum() == pytest.approx(1) and (simplex >= 0).all()
    gradient = g @ affine
    assert (gradient - gradient.mean()).abs().max() < 1e-5 * g.diagonal().mean()
    ticks = torch.linspace(0, 1, 21, dtype=F64)
    grid = torch.stack([torch.stack(w) for w in itertools.product(ticks, repeat=4) if abs(sum(w) - 1) < 1e-9])
    assert simplex @ g @ simplex <= (grid @ g * grid).sum(1).min() + 1e-9
    batch = torch.stack([g, gram(seed + 10)])
    assert torch.allclose(affine_weights(batch)[0], affine_weights(g))


def test_static_weights_find_priors_whose_errors_cancel():
    """One prior errs by +e, the other by -e: half of each is the truth, and the reconstruction nearly so."""
    truth = black_holes(2, 5).image
    array = Interferometer.eht2017(0.1)
    y = array.observe(truth, 0)
    e = 0.2 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    bank = PriorBank(
        {s: wrappers.Function(lambda x, _, k=k: truth + k * e) for s, k in (("plus", 1.0), ("minus", -1.0))}
    )
    sigmas = schedule(0.3, 0.05, 3)
    for simplex in (True, False):
        w = fit_static(bank, [(array, truth, y)], sigmas, 0.3, simplex=simplex)
        assert w.shape == (3, 2) and torch.allclose(w, torch.full((3, 2), 0.5), atol=1e-2)
    image = hqs(y, array, FusedPrior(bank, PerNoiseLevel(sigmas, [Static(v) for v in w])), sigmas=sigmas, lam=0.3).image
    assert metrics.psnr(image, truth).min() > 45


def test_scheduled_weights_follow_the_noise_level(noisy):
    w = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    gate = PerNoiseLevel([0.4, 0.1], [Static(v) for v in w])
    mixed = gate(noisy[1], torch.tensor([0.5, 0.12, 0.3]))[:, :, 0, 0].T
    assert torch.equal(mixed, w[[0, 1, 0]])
    with pytest.raises(ValueError, match="as many parts"):
        PerNoiseLevel([0.4], [Static(v) for v in w])


def test_errors_of_like_priors_correlate(noisy):
    truth, z = noisy
    with torch.no_grad():
        outputs = PriorBank({"a": zoo.load("tv"), "b": NoiseLevels(zoo.load("tv"), 1.0), "c": zoo.load("torus")})(
            z, 0.2
        )
    c = error_correlation(outputs, truth)
    assert c[0, 1] == pytest.approx(1, abs=1e-5) and torch.allclose(c, c.T) and c[0, 2] < 0.99
