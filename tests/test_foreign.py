import pytest
import torch
from torch import nn

from fusionlib import FusedPrior, Interferometer, PriorBank, black_holes, gates, hqs, schedule
from fusionlib.priors import zoo
from fusionlib.priors.interop import Channels, DeepInverse, Exported, Range, Resolution, noise_predictor
from fusionlib.priors.prior import check

F64 = torch.float64
VARIANCE = 0.04


def noisy(dtype: torch.dtype = F64) -> torch.Tensor:
    x = black_holes(3, 12).image.to(dtype)
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


class Wiener(nn.Module):
    """The posterior mean of pixels ~ N(mean, VARIANCE), for sigma (B,)."""

    def __init__(self, mean: float = 0.0, variance: float = VARIANCE):
        super().__init__()
        self.mean, self.variance = mean, variance

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        keep = self.variance / (self.variance + sigma.view(-1, 1, 1, 1) ** 2)
        return self.mean + keep * (x - self.mean)


@pytest.fixture(params=[0.05, 0.3, torch.tensor([0.02, 0.1, 0.4], dtype=F64)], ids=["weak", "strong", "mixed"])
def sigma(request):
    return request.param


def exact(x: torch.Tensor, sigma) -> torch.Tensor:
    return Wiener()(x, torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)))


def test_deepinv_denoisers_of_every_meaning(sigma):
    x = noisy()
    assert torch.allclose(DeepInverse(Wiener())(x, sigma), exact(x, sigma))

    class Blind(nn.Module):
        """Knows images of all scales at noise 0.1: scaling by 0.1 / sigma must bring them there and back."""

        def forward(self, x, sigma=None):
            assert sigma is None
            return 0.5 * x

    assert torch.allclose(DeepInverse(Blind(), "blind", 0.1)(x, sigma), 0.5 * x)
    seen = []

    class Fixed(nn.Module):
        def forward(self, x, sigma=None):
            seen.append(x)
            return x

    DeepInverse(Fixed(), "blind", 0.1)(x, 0.2)
    assert torch.allclose(seen[0], x / 2)

    class Stateful(nn.Module):
        """Soft threshold that starts from what it did last, as deepinv's TVDenoiser does."""

        last = 0.0

        def forward(self, x, ths, **swallowed):
            assert isinstance(ths, float) and not swallowed
            x = x + self.last
            self.last = 0.1
            return x.sign() * (x.abs() - ths).clamp(min=0)

    prior = DeepInverse(Stateful(), "threshold", 2.0)
    check(prior, x, sigma)
    first = float(torch.as_tensor(sigma).flatten()[0])
    assert torch.allclose(prior(x, sigma)[:1], x[:1].sign() * (x[:1].abs() - 2 * first).clamp(min=0))


def test_a_chain_of_noise_predictions_gives_the_posterior_mean():
    """Predicted exactly, at the noise of its own steps: E[x0 | x] to 1e-6."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    signal = (1 - betas).cumprod(0)

    def predict(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        a2 = signal[k.round().long()].view(-1, 1, 1, 1)
        return x * (1 - a2).sqrt() / (a2 * VARIANCE + 1 - a2)

    prior = noise_predictor(predict, signal)
    x = noisy()
    steps = torch.tensor([50, 300, 900])
    sigmas = ((1 - signal[steps]) / signal[steps]).sqrt()
    assert torch.allclose(prior(x, sigmas), exact(x, sigmas), atol=1e-6)


@pytest.mark.parametrize("kind", ["script", "export"])
def test_saved_programs_are_priors(kind, tmp_path):
    x = noisy(torch.float32)
    s = torch.full((3,), 0.1)
    if kind == "script":
        path = tmp_path / "prior.pt"
        torch.jit.trace(Wiener(), (x, s)).save(path)
    else:
        path = tmp_path / "prior.pt2"
        batch = torch.export.Dim("batch", min=2)
        torch.export.save(torch.export.export(Wiener(), (x, s), dynamic_shapes=({0: batch}, {0: batch})), path)
    prior = Exported(path)
    assert torch.allclose(prior(x, 0.1), Wiener()(x, s))
    PriorBank({"saved": prior})
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"no program")
    with pytest.raises(ValueError, match=r"broken\.pt2 is no TorchScript or torch\.export file"):
        Exported(broken)


def test_channels_ranges_and_sizes(sigma):
    x = noisy()
    assert torch.allclose(Channels(Wiener())(x, sigma), exact(x, sigma))
    shifted = Range(Wiener(-1.0, 4 * VARIANCE), -1.0, 1.0)  # the same prior, its images from -1 to 1
    assert torch.allclose(shifted(x, sigma), exact(x, sigma))
    assert torch.allclose(Resolution(Wiener(), 128)(x, sigma), exact(x, sigma))
    smooth = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 2), scale_factor=2)
    smaller = Resolution(Wiener(), 32)(smooth, sigma)
    assert torch.allclose(smaller, exact(smooth, torch.as_tensor(sigma, dtype=F64).expand(3) / 2))
    with pytest.raises(ValueError, match="48 px is no whole multiple"):
        Resolution(Wiener(), 48)(x, 0.1)


def test_a_foreign_prior_joins_a_bank_and_reconstructs():
    array = Interferometer.eht2017(0.1)
    y = array.observe(black_holes(2, 3).fine, 0)
    bank = PriorBank({"theirs": Range(DeepInverse(Wiener()), 0.0, 255.0), "ours": zoo.load("tv")})
    image = hqs(y, array, FusedPrior(bank, gates.average(2)), sigmas=schedule(0.2, 0.05, 3), lam=0.3).image
    assert torch.isfinite(image).all()


def test_bad_requests():
    for arguments, message in (
        ((Wiener(), "std"), "meaning must be"),
        ((Wiener(), "blind"), "needs a positive level"),
        ((Wiener(), "threshold", -1.0), "needs a positive level"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepInverse(*arguments)
    with pytest.raises(ValueError, match="high must exceed low"):
        Range(Wiener(), 1.0, 0.0)
