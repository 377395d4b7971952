"""Chapter 07: what was fitted to one array and one kind of sky, given another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from fusionlib import metrics
from fusionlib.baselines import COVERAGE
from fusionlib.interferometer import MIN_BASELINE, Interferometer
from fusionlib.metrics import bootstrap
from fusionlib.paper.ablations import like, reference_specs
from fusionlib.paper.experiment import WINDOW, Spec, device, method_of, observed, tuned

STRESSED = ("average", "static_affine", "a:image", "closed_form", "gradient:pixel", "unet")


class Stress(NamedTuple):
    """What a method meets that it was not fitted to: flux and noise in units of what it was, a shift in pixels, and a
    share of the scans."""

    flux: float = 1.0
    move: int = 0
    noise: float = 1.0
    coverage: float = 1.0


STRESSES = {
    "as fitted": Stress(),
    "half the flux": Stress(flux=0.5),
    "twice the flux": Stress(flux=2.0),
    "moved 10 µas": Stress(move=4),
    "moved 30 µas": Stress(move=12),
    "thrice the noise": Stress(noise=3.0),
    "30 % of the scans": Stress(coverage=0.3),
    "10 % of the scans": Stress(coverage=0.1),
}


def stress_specs(profile: str, priors: Sequence[str], sky: str = "") -> list[Spec]:
    """What is stressed: the methods of STRESSED as chapters 03 to 05 fitted them at full coverage, first seed."""
    s = reference_specs(profile, priors, sky)[0]
    return [like(s, profile, m, tuple(priors)) for m in (STRESSED if profile != "smoke" else STRESSED[:1])]


@torch.inference_mode()
def stress_table(profile: str, priors: Sequence[str], n: int, sky: str = "") -> pd.DataFrame:
    """stress, method, psnr, delta, lo, hi: `n` development images under each of STRESSES; PSNR of the image scaled and
    moved back, beside the average's. Nothing is fitted or tuned anew."""
    specs, rows = stress_specs(profile, priors, sky), []
    for name, (flux, move, noise, coverage) in STRESSES.items():
        found: dict[str, list[np.ndarray]] = {}
        lists = len(COVERAGE[coverage])
        for draw in range(min(lists, n)):
            table = Interferometer.eht2017(coverage, draw).table
            table = table.assign(sigma=table.sigma * noise)
            array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW).to(device())
            truth, _ = observed(specs[0], "dev", n, 0, array, slice(draw, None, lists))
            y = array.observe(torch.roll(truth, (move, move), (2, 3)) * flux, 99 + draw)
            for s in specs:
                settings, _, fitted = tuned(s)
                image = method_of(s).run(settings, fitted, array, y, truth, None).image
                back = torch.roll(image, (-move, -move), (2, 3)) / flux
                found.setdefault(s.method, []).append(metrics.psnr(back, truth).cpu().numpy())
        all_psnr = {method: np.concatenate(parts) for method, parts in found.items()}
        for method, psnr in all_psnr.items():
            rows.append((name, method, psnr.mean(), *bootstrap(psnr - all_psnr["average"])))
    return pd.DataFrame(rows, columns=["stress", "method", "psnr", "delta", "lo", "hi"])
