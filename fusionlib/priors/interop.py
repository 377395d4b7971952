"""Bringing one's own: deepinv denoisers, diffusers networks, exported programs, other channels, ranges, sizes.

Nothing here imports the other package unless it has to read its files.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors.prior import sigma_map
from fusionlib.priors.wrappers import VP

Meaning = Literal["sigma", "blind", "threshold"]


class DeepInverse(nn.Module):
    """A deepinv Denoiser, whose second argument has one of three meanings.

    `sigma`: the noise level (DRUNet, FFDNet, GSDRUNet, ...). `blind`: ignored, the network knows one level `level`, to
    which image and noise are scaled (DnCNN, SCUNet, SwinIR). `threshold`: a regularisation weight, given as `level` x
    sigma, image by image and to a fresh copy, since some keep state between calls (TVDenoiser, WaveletDenoiser). Raises
    ValueError for another meaning, or a `level` that is missing.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, denoiser: nn.Module, meaning: Meaning = "sigma", level: float | None = None):
        super().__init__()
        if meaning not in ("sigma", "blind", "threshold"):
            raise ValueError(f"DeepInverse: meaning must be 'sigma', 'blind' or 'threshold', got {meaning!r}")
        if meaning != "sigma" and not (level and level > 0):
            raise ValueError(f"DeepInverse: a {meaning} denoiser needs a positive level, got {level}")
        self.denoiser, self.meaning, self.level = denoiser, meaning, level or 1.0

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s = sigma_map(sigma, x)
        if self.meaning == "sigma":
            return self.denoiser(x, s.flatten())
        if self.meaning == "blind":
            return self.denoiser(x * (self.level / s), None) * (s / self.level)
        parts = zip(x.split(1), s.flatten().tolist(), strict=True)
        return torch.cat([copy.deepcopy(self.denoiser)(image, self.level * value) for image, value in parts])


def diffusers_unet(folder: str | Path) -> VP:
    """The prior of an unconditional pipeline saved by diffusers: a UNet2DModel that predicts noise, and its scheduler.

    For images in [-1, 1], as they are trained there; wrap in `Range` and `Channels` as needed. Raises ValueError where
    diffusers is missing, the folder is not one, or the network predicts something else than noise.
    """
    try:
        from diffusers import DDPMScheduler, UNet2DModel
    except ImportError:
        raise ValueError("diffusers_unet: reading the folder needs the package diffusers") from None
    try:
        net = UNet2DModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
        scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except Exception as error:
        raise ValueError(f"diffusers_unet: {folder} holds no unet and scheduler ({error})") from None
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(f"diffusers_unet: it predicts {scheduler.config.prediction_type!r}; 'epsilon' is needed")
    return noise_predictor(lambda x, k: net(x, k).sample, scheduler.alphas_cumprod, module=net)


def noise_predictor(
    predict: Callable[[Tensor, Tensor], Tensor], alphas_cumprod: Tensor, module: nn.Module | None = None
) -> VP:
    """A prior from `predict(x_k, k)`, the noise at discrete step k (B,) of a variance-preserving chain.

    `alphas_cumprod` (K,) is the squared signal of each step. Noise between two steps goes to the step between them, as
    a fraction; noise beyond the chain to its end.
    """
    clock = -alphas_cumprod.double().log().cpu().numpy()  # t = - ln a^2, rising

    def index(t: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(t.double().cpu().numpy(), clock, np.arange(len(clock)))).to(t)

    def score(x: Tensor, k: Tensor) -> Tensor:
        t = torch.from_numpy(np.interp(k.double().cpu().numpy(), np.arange(len(clock)), clock)).to(x)
        return -predict(x, k) / (-torch.expm1(-t)).sqrt().view(-1, 1, 1, 1)

    prior = VP(score, index)
    if module is not None:
        prior.module = module
    return prior


class Exported(nn.Module):
    """A saved program `D(x, sigma)`, sigma (B,): TorchScript (`.pt`, `.ts`) or torch.export (`.pt2`).

    Raises ValueError for a file that cannot be read.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, path: str | Path):
        super().__init__()
        try:
            exported = Path(path).suffix == ".pt2"
            self.program: Any = torch.export.load(path).module() if exported else torch.jit.load(path)
        except Exception as error:
            raise ValueError(f"Exported: {path} is no TorchScript or torch.export file ({error})") from None

    def train(self, mode: bool = True) -> "Exported":
        """As it was saved: exported programs refuse to change mode."""
        return self

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.program(x, sigma_map(sigma, x).flatten())


class Channels(nn.Module):
    """A prior of colour images: sees the gray image in each of its channels, answers with their mean."""

    img_channels, img_resolution = 1, None

    def __init__(self, prior: nn.Module, channels: int = 3):
        super().__init__()
        self.prior, self.channels = prior, channels

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s = sigma_map(sigma, x).flatten()
        return self.prior(x.expand(-1, self.channels, -1, -1), s).mean(1, keepdim=True)


class Range(nn.Module):
    """A prior of images in [low, high] instead of [0, 1]; noise is scaled along."""

    img_channels, img_resolution = 1, None

    def __init__(self, prior: nn.Module, low: float, high: float):
        super().__init__()
        if not high > low:
            raise ValueError(f"Range: high must exceed low, got [{low}, {high}]")
        self.prior, self.low, self.span = prior, low, high - low

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s = sigma_map(sigma, x).flatten()
        return (self.prior(self.low + self.span * x, self.span * s) - self.low) / self.span


class Resolution(nn.Module):
    """A prior of images `side` px wide, a whole multiple or fraction of those it is given.

    Larger: each pixel repeated, the answer averaged back, the noise level as it is (its noise is then correlated, which
    the prior does not know). Smaller: pixels averaged, white noise lowered along; the answer replaces the averages and
    leaves the detail within them as it came. Raises ValueError for another ratio.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, prior: nn.Module, side: int):
        super().__init__()
        self.prior, self.side = prior, side

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s, width = sigma_map(sigma, x).flatten(), x.shape[-1]
        if max(width, self.side) % min(width, self.side):
            raise ValueError(f"Resolution: {self.side} px is no whole multiple or fraction of {width} px")
        if self.side >= width:
            k = self.side // width
            return F.avg_pool2d(self.prior(F.interpolate(x, scale_factor=k, mode="nearest"), s), k)
        k = width // self.side
        coarse = F.avg_pool2d(x, k)
        return x + F.interpolate(self.prior(coarse, s / k) - coarse, scale_factor=k, mode="nearest")
