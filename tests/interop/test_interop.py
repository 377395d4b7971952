"""Priors of ours in deepinv's loops and InverseBench's calls, priors of deepinv and diffusers in ours."""

import deepinv
import pytest
import torch
from deepinv.optim import HQS, L2, PnP

from fusionlib import FusedPrior, Interferometer, black_holes, gates, hqs, schedule
from fusionlib.priors import zoo
from fusionlib.priors.interop import Channels, DeepInverse, Range, diffusers_unet
from fusionlib.priors.prior import check

SIGMAS, LAM = schedule(0.3, 0.05, 5), 0.3


@pytest.fixture(scope="module")
def array() -> Interferometer:
    return Interferometer.eht2017(0.1)


@pytest.fixture(scope="module")
def fused() -> FusedPrior:
    return FusedPrior(zoo.bank(["tv", "torus"]), gates.average(2))


class Visibilities(deepinv.physics.LinearPhysics):
    """Our interferometer as deepinv's physics, with its exact data step."""

    def __init__(self, array: Interferometer):
        super().__init__()
        self.array = array

    def A(self, x: torch.Tensor, **_) -> torch.Tensor:
        return self.array(x)

    def A_adjoint(self, y: torch.Tensor, **_) -> torch.Tensor:
        return self.array.adjoint(y)

    def prox_l2(self, z: torch.Tensor, y: torch.Tensor, gamma, **_) -> torch.Tensor:
        return self.array.prox(z, y, 1 / torch.as_tensor(gamma))


def test_a_fused_prior_in_deepinvs_hqs_gives_our_image(array, fused, monkeypatch):
    """deepinv's step is the data step with stepsize, then the prior at g_param: stepsize = sigma^2 / lam."""
    monkeypatch.setattr(zoo, "FAST", False)  # in bfloat16 a last digit of an iterate may show
    y = array.observe(black_holes(2, 3).fine, 0)
    ours = hqs(y, array, fused, sigmas=SIGMAS, lam=LAM).image
    model = HQS(
        prior=PnP(fused),
        data_fidelity=L2(),
        stepsize=[s**2 / LAM for s in SIGMAS],
        g_param=SIGMAS,
        max_iter=len(SIGMAS),
        custom_init=lambda y, physics: array.start(y),
    )
    theirs = model(y, Visibilities(array))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_fused_prior_under_inversebenchs_call(fused):
    """InverseBench asks net(x, sigma) with sigma a 0-dimensional tensor or one per image, and img_channels."""
    x = black_holes(3, 1).image
    with torch.no_grad():
        alone, together = fused(x, torch.tensor(0.1)), fused(x, torch.full((3,), 0.1))
    assert torch.allclose(alone, together, atol=1e-6) and fused.img_channels == 1


@pytest.mark.parametrize(
    ("denoiser", "meaning", "level"),
    [
        (deepinv.models.DRUNet(1, 1, nc=[8, 8, 8, 8], nb=1, pretrained=None), "sigma", None),
        (deepinv.models.DnCNN(1, 1, depth=3, nf=8, pretrained=None), "blind", 0.1),
        (deepinv.models.TVDenoiser(n_it_max=50), "threshold", 1.0),
    ],
    ids=["DRUNet", "DnCNN", "TV"],
)
def test_denoisers_of_deepinv_keep_our_contract(denoiser, meaning, level):
    x = black_holes(3, 1).image
    prior = DeepInverse(denoiser.eval(), meaning, level)
    with torch.no_grad():
        check(prior, x, torch.tensor([0.05, 0.1, 0.3]), "theirs")


def test_tv_of_deepinv_is_ours():
    x = black_holes(2, 1).image + 0.1 * torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = DeepInverse(deepinv.models.TVDenoiser(n_it_max=2000, crit=1e-9), "threshold", 1.0)(x, 0.1)
    assert (theirs - zoo.TotalVariation(2000)(x, 0.1)).square().mean().sqrt() < 2e-3


def test_a_unet_saved_by_diffusers_is_a_prior(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=64, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(tmp_path)
    x = black_holes(3, 1).image
    with torch.no_grad():
        loaded = diffusers_unet(tmp_path)
        check(Channels(Range(loaded, -1.0, 1.0)), x, torch.tensor([0.05, 0.1, 0.3]), "theirs")
        k, signal = torch.tensor([400]), DDPMScheduler().alphas_cumprod[400]
        sigma, rgb = ((1 - signal) / signal).sqrt(), x[:1].expand(-1, 3, -1, -1)
        noise = net.eval()(rgb * signal.sqrt(), k).sample
        assert torch.allclose(loaded(rgb, sigma), rgb - sigma * noise, atol=1e-4)
    with pytest.raises(ValueError, match="holds no unet and scheduler"):
        diffusers_unet(tmp_path / "nothing")
