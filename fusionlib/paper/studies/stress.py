"""Chapter 07: what was fitted to one array and one kind of sky, given another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fusionlib import metrics
from fusionlib.interferometer import COVERAGE, MIN_BASELINE, Interferometer
from fusionlib.paper.experiment import WINDOW, device, method_of, observed, tuned
from fusionlib.paper.methods.method import with_truth
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies.ablations import like, reference_specs
from fusionlib.paper.tables import compared
from fusionlib.paper.tasks import Task, recorded

IMAGES = {"smoke": 2, "quick": 16, "paper": 64}
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


@recorded(version=1)
@torch.inference_mode()
def under_stress(spec: Spec, n: int) -> dict[str, np.ndarray]:
    """PSNR (n,) of `n` development images under each of STRESSES, of the image scaled and moved back. Nothing is fitted
    or tuned anew."""
    psnr, (settings, _, fitted), method = {}, tuned(spec), with_truth(method_of(spec))
    for name, (flux, move, noise, coverage) in STRESSES.items():
        parts, lists = [], len(COVERAGE[coverage])
        for draw in range(min(lists, n)):
            table = Interferometer.eht2017(coverage, draw).table
            table = table.assign(sigma=table.sigma * noise)
            array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW).to(device())
            truth, _ = observed(spec, "dev", n, 0, array, slice(draw, None, lists))
            y = array.observe(torch.roll(truth, (move, move), (2, 3)) * flux, 99 + draw)
            image = method.run(settings, fitted, array, y, None).image
            back = torch.roll(image, (-move, -move), (2, 3)) / flux
            parts.append(metrics.psnr(back, truth).cpu().numpy())
        psnr[name] = np.concatenate(parts)
    return psnr


def stress_table(specs: Sequence[Spec], n: int) -> pd.DataFrame:
    """stress, method, psnr, and the gain over the average: `under_stress`."""
    rows, stressed = [], {s.method: under_stress(s, n) for s in specs}
    for name in STRESSES:
        for method, psnr in stressed.items():
            rows.append(((name, method, psnr[name].mean()), psnr[name] - stressed["average"][name]))
    return compared(rows, ["stress", "method", "psnr"])


def stress_tasks(profile: str, priors: Sequence[str], sky: str = "", **_: Any) -> list[Task]:
    return [under_stress.task(s, IMAGES[profile]) for s in stress_specs(profile, priors, sky)]
