"""Scores of a reconstruction against the truth."""

import math
from functools import cache

import torch
from torch import Tensor

from fusionlib.sky import FOV

BLUR = 20.0  # microarcseconds, full width at half maximum: the nominal resolution of the array


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB with data range 1, whatever the peak of the truth; no clipping."""
    return -10 * (x - truth).square().mean((1, 2, 3)).log10()


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (B,): Gaussian window, sigma 1.5 px, data range 1, mean over the image (torchmetrics)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    value = structural_similarity_index_measure(x, truth, data_range=1.0, reduction="none")
    return value.reshape(-1) if isinstance(value, Tensor) else value[0]


def blur(x: Tensor, fwhm: float = BLUR, fov: float = FOV) -> Tensor:
    """Convolve (B, 1, H, H) with a round Gaussian of `fwhm` microarcseconds; empty sky outside the field."""
    return smooth(x, fwhm / math.sqrt(8 * math.log(2)) / (fov / x.shape[-1]))


def smooth(x: Tensor, s: float) -> Tensor:
    """Convolve (B, 1, H, H) with a round Gaussian of standard deviation `s` pixels; empty sky outside the field."""
    rows, columns = (_gaussian(side, s, x.dtype, x.device) for side in x.shape[-2:])
    return rows @ x @ columns


@cache
def _gaussian(side: int, s: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The convolution of `side` pixels as a symmetric matrix, which is faster than a convolution at these sizes."""
    with torch.inference_mode(False):
        t = torch.arange(side, dtype=torch.float64)
        half = math.ceil(4 * s)
        whole = torch.exp(-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * s**2)).sum()
        apart = (t[:, None] - t[None]).abs()
        k = torch.exp(-(apart**2) / (2 * s**2)) / whole * (apart <= half)
        return k.to(device, dtype)


def psnr_blur(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR (B,) after blurring both to `BLUR`: the part of the image the array resolves."""
    return psnr(blur(x), blur(truth))


def nxcorr(x: Tensor, truth: Tensor) -> Tensor:
    """Normalised cross-correlation (B,) at zero shift, in [-1, 1] (EHTC 2019 Paper IV, eq. 15)."""
    a, b = (t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (x, truth))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)


def best_shift(x: Tensor, truth: Tensor) -> Tensor:
    """x (B, 1, H, W) moved by the whole pixels (around the edges; zero among them) that bring it nearest to the truth.

    Closure quantities do not know where the source is; images made from them are scored after this.
    """
    overlap = torch.fft.irfft2(torch.fft.rfft2(truth) * torch.fft.rfft2(x).conj(), s=x.shape[-2:])
    best, width = overlap.flatten(1).argmax(1), x.shape[-1]
    moved = [torch.roll(image, divmod(int(k), width), (1, 2)) for image, k in zip(x, best, strict=True)]
    return torch.stack(moved)
