"""Paired comparisons of scores per image: effect, interval, p value, and one verdict."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

THRESHOLD = 0.1  # dB of PSNR: a smaller difference is of no practical use


class Interval(NamedTuple):
    mean: float
    lo: float
    hi: float


class Comparison(NamedTuple):
    """Mean difference with its 95 % interval, p value after Holm over the comparisons made together, and verdict:
    `better`, `worse`, `negligible`, `undecided`, or `same`."""

    effect: float
    lo: float
    hi: float
    p_holm: float
    verdict: str


def bootstrap(values: np.ndarray, level: float = 0.95, draws: int = 4000, seed: int = 0) -> Interval:
    """Mean of `values` (images,) or (seeds, images) with a percentile interval, images and seeds resampled together.

    For a paired comparison give the differences. Raises ValueError for an empty or non-finite array.
    """
    v = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if not v.size or not np.isfinite(v).all():
        raise ValueError(f"bootstrap: values must be finite and not empty, got shape {np.shape(values)}")
    of_rows, of_cols = _drawn(*v.shape, draws, seed)
    means = (of_rows * (of_cols @ v.T)).sum(1) / v.size
    lo, hi = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(v.mean()), float(lo), float(hi))


@lru_cache(maxsize=4)
def _drawn(rows: int, cols: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each row and each column is drawn, with replacement: (draws, rows), (draws, cols)."""
    rng, first = np.random.default_rng(seed), np.arange(draws)[:, None]

    def counts(n: int) -> np.ndarray:
        return np.bincount((rng.integers(n, size=(draws, n)) + n * first).ravel(), minlength=draws * n).reshape(
            draws, n
        )

    return counts(rows).astype(np.float64), counts(cols).astype(np.float64)


def compare(differences: Sequence[np.ndarray], threshold: float = THRESHOLD) -> list[Comparison]:
    """Each of several paired differences, (images,) or (seeds, images), judged together.

    p values are of Wilcoxon's signed-rank test over images (means over seeds), corrected for their number (Holm 1979).
    A difference is significant if p < 0.05 and its 95 % bootstrap interval leaves out zero. `better` and `worse` are
    significant and at least `threshold`, in units of the scores; `negligible` is significant and smaller, or an
    interval wholly within the threshold; all else is `undecided`. Differences that are all zero are the `same`.
    """
    intervals = [bootstrap(d) for d in differences]
    p = holm(np.array([_p(np.atleast_2d(d).mean(0)) for d in differences]))
    return [
        Comparison(*interval, float(p_holm), _verdict(interval, p_holm, threshold, bool(np.any(d))))
        for d, interval, p_holm in zip(differences, intervals, p, strict=True)
    ]


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number (Holm 1979)."""
    order, count = np.argsort(p), len(p)
    corrected = np.maximum.accumulate(p[order] * (count - np.arange(count))).clip(max=1)
    return corrected[np.argsort(order)]


def _p(d: np.ndarray) -> float:
    from scipy.stats import wilcoxon  # slow to import

    return float(wilcoxon(d).pvalue) if np.any(d) else 1.0


def _verdict(interval: Interval, p: float, threshold: float, differs: bool) -> str:
    effect, lo, hi = interval
    if not differs:
        return "same"
    if p < 0.05 and (lo > 0 or hi < 0):
        return "negligible" if abs(effect) < threshold else "better" if effect > 0 else "worse"
    return "negligible" if max(-lo, hi) < threshold else "undecided"
