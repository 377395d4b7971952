"""Scores of images, intervals of differences, and the measurement of rings."""

from fusionlib.metrics import rings
from fusionlib.metrics.scores import Interval, best_shift, blur, bootstrap, nxcorr, psnr, psnr_blur, smooth, ssim

__all__ = [
    "Interval",
    "best_shift",
    "blur",
    "bootstrap",
    "nxcorr",
    "psnr",
    "psnr_blur",
    "rings",
    "smooth",
    "ssim",
]
