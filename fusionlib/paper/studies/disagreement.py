"""Chapter 08: whether disagreement of the priors tells the error."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.ndimage import gaussian_gradient_magnitude

from fusionlib import metrics
from fusionlib.metrics import bootstrap
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies.m87 import Source, task_of
from fusionlib.paper.studies.watched import Seen, flat
from fusionlib.paper.tables import examples
from fusionlib.paper.tasks import recorded


@recorded(version=1)
def alone(specs: Sequence[Spec], n: int) -> dict[str, np.ndarray]:
    """`disagreement` (n, H, W): the standard deviation of what each prior makes of `n` development images by itself,
    each with its own settings."""
    return {"disagreement": torch.from_numpy(examples(specs, n)[0]["image"]).std(0).numpy()}


def disagreement_arrays(s: Seen, disagreement: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """`truth`, `fused`, `error`, `disagreement` (n, H, W), the last as `alone` has it."""
    return {
        "truth": flat(s.truth, n),
        "fused": flat(s.fused[-1], n),
        "error": flat((s.fused[-1] - s.truth).abs(), n),
        "disagreement": disagreement[:n],
    }


def calibration_table(seen: Sequence[Seen], disagreement: np.ndarray, bins: int = 12) -> pd.DataFrame:
    """method, bin, disagreement, error: pixels of all images by their disagreement, its mean and the root mean square
    error there."""
    rows, d = [], disagreement.ravel()
    for s in seen:
        e = (s.fused[-1] - s.truth).flatten().cpu().numpy()
        for k, part in enumerate(np.array_split(np.argsort(d), bins)):
            rows.append((s.spec.method, k, d[part].mean(), np.sqrt(np.mean(e[part] ** 2))))
    return pd.DataFrame(rows, columns=["method", "bin", "disagreement", "error"])


def error_map_table(seen: Sequence[Seen], disagreement: np.ndarray) -> pd.DataFrame:
    """method, guess, correlation, lo, hi: rank correlation per image of the absolute error with the priors'
    disagreement, each by itself or inside the loop's last iteration, and with two maps that need no second prior: the
    image itself and its gradient."""
    rows = []
    for s in seen:
        error, image = (s.fused[-1] - s.truth).abs().flatten(1).cpu().numpy(), s.fused[-1][:, 0].cpu().numpy()
        guesses = {
            "disagreement, each by itself": disagreement.reshape(len(disagreement), -1),
            "disagreement inside the loop": s.outputs[-1].std(0).flatten(1).cpu().numpy(),
            "brightness": np.stack([u.ravel() for u in image]),
            "gradient": np.stack([gaussian_gradient_magnitude(u, 1.0).ravel() for u in image]),
        }
        for name, guess in guesses.items():
            found_r = [stats.spearmanr(a, b).statistic for a, b in zip(error, guess, strict=True)]
            rows.append((s.spec.method, name, *bootstrap(np.array(found_r))))
    return pd.DataFrame(rows, columns=["method", "guess", "correlation", "lo", "hi"])


def disagreement_on(specs: Sequence[Spec], sources: Sequence[Source]) -> dict[str, np.ndarray]:
    """`source` (S,), `fused` and `disagreement` (S, H, W): the average of the priors on uncalibrated data, real or not,
    and the standard deviation of what each makes by itself, all moved onto the average's image; for the simulated twin
    also `error`."""
    maps: dict[str, list[np.ndarray]] = {"fused": [], "disagreement": [], "error": []}
    for source in sources:
        images = {
            s.method: torch.from_numpy(cast(Any, task_of(s, source).result())["denoised"])[None, None] for s in specs
        }
        fused = images.pop("average")
        moved = torch.stack([metrics.best_shift(image, fused) for image in images.values()])
        maps["fused"].append(fused[0, 0].numpy())
        maps["disagreement"].append(moved.std(0)[0, 0].numpy())
        if source.truth is not None:
            maps["error"].append((fused - metrics.best_shift(source.truth, fused))[0, 0].abs().numpy())
    return {k: np.stack(v) for k, v in maps.items() if v} | {"source": np.array([s.name for s in sources])}
