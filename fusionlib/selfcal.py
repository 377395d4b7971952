"""The calibrating loop: a picture from closures, gains of the stations against it, the loop for calibrated data; again.

So a prior, a gate and settings that were made for calibrated data serve uncalibrated ones.
"""

import time
from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from fusionlib.fusion import FusedPrior
from fusionlib.gates import average
from fusionlib.interferometer import CalibratedData, ClosureData, SelfCalibrated, Uncalibrated
from fusionlib.pnp import Options, Reconstruction, hqs, schedule

FIRST_SIGMAS, FIRST_LAM = schedule(0.15, 0.01, 16), 0.3  # of the first picture
FIRST_WINDOW = 45.0  # microarcseconds; in a wider one a ring may come twice
ROUNDS = 3
VERSION = 1  # raise it when pictures change: their records, and no others, are computed anew


def self_calibrating(
    y: ClosureData,
    physics: Uncalibrated,
    prior: nn.Module,
    *,
    sigmas: Sequence[float],
    lam: float,
    rounds: int = ROUNDS,
    **options: Unpack[Options],
) -> Reconstruction:
    """Uncalibrated data with a prior, and settings, made for calibrated ones: arguments as `pnp.hqs`.

    The first picture is a `start`, or made from closures by `hqs` with the plain average of a bank, or the single
    prior; then `rounds` of `calibrating`.
    """
    given = options.pop("start", None)
    plain = FusedPrior(prior.bank, average(len(prior.bank))) if isinstance(prior, FusedPrior) else prior
    first = first_picture(y, physics, plain, **options) if given is None else given
    return calibrating(y, physics, lambda d, a: hqs(d, a, prior, sigmas=sigmas, lam=lam, **options), first, rounds)


def first_picture(y: ClosureData, physics: Uncalibrated, prior: nn.Module, **options: Unpack[Options]) -> Tensor:
    """A picture (B, 1, H, H) of a compact source from closures, amplitudes and flux, with a prior that needs no fit."""
    compact = Uncalibrated(physics.array, physics.use, systematic=physics.systematic, window=FIRST_WINDOW).to(y.flux)
    return hqs(y, compact, prior, sigmas=FIRST_SIGMAS, lam=FIRST_LAM, **options).image


def calibrating(
    y: ClosureData,
    physics: Uncalibrated,
    reconstruct: Callable[[CalibratedData, SelfCalibrated], Reconstruction],
    first: Tensor,
    rounds: int = ROUNDS,
) -> Reconstruction:
    """Rounds of self-calibration against a picture, the `first` (B, 1, H, H) to begin with, and of what `reconstruct`
    makes of the data so calibrated.

    Of every image that round is returned which fits the closures best: they alone know nothing of gains. The record is
    of the last round, with `log_amplitude`, `phase` (rounds, B, G) and `chi2_closures` (rounds, B) beside.
    """
    if rounds < 1:
        raise ValueError(f"calibrating: rounds >= 1 is needed, got {rounds}")
    began, array = time.perf_counter(), SelfCalibrated(physics)
    picture, made = first, []
    for _ in range(rounds):
        data = array.calibrate(array.centred(picture), y)
        found = reconstruct(data, array)
        picture = found.image
        made.append((picture, data.log_amplitude, data.phase, closures_chi2(picture, y, physics)))
    pictures, log_amplitude, phase, chi2 = (torch.stack(parts) for parts in zip(*made, strict=True))
    best = pictures[chi2.argmin(0), torch.arange(len(first), device=chi2.device)]
    told = {"log_amplitude": log_amplitude, "phase": phase, "chi2_closures": chi2}
    return Reconstruction(best, found.record | told, time.perf_counter() - began)


def closures_chi2(x: Tensor, y: ClosureData, physics: Uncalibrated) -> Tensor:
    """Reduced chi-square (B,) of closure phases and log closure amplitudes together."""
    parts, counts = physics.chi2s(x, y), {k: getattr(y, k).shape[1] for k in ("cphase", "logcamp")}
    return sum((parts[k] * n for k, n in counts.items() if n), torch.zeros(len(x)).to(x)) / max(sum(counts.values()), 1)
