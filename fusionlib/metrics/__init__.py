"""Scores of images, intervals of differences, and the measurement of rings."""

from fusionlib.metrics import rings
from fusionlib.metrics.comparison import THRESHOLD, Comparison, Interval, bootstrap, compare, holm
from fusionlib.metrics.scores import best_shift, blur, nxcorr, psnr, psnr_blur, smooth, ssim

__all__ = [
    "THRESHOLD",
    "Comparison",
    "Interval",
    "best_shift",
    "blur",
    "bootstrap",
    "compare",
    "holm",
    "nxcorr",
    "psnr",
    "psnr_blur",
    "rings",
    "smooth",
    "ssim",
]
