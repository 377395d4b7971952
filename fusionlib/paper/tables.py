"""Tables of the paper: one schema, from stored per-image scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fusionlib import files
from fusionlib.metrics import bootstrap
from fusionlib.paper.experiment import BANKS, Record, Spec, scores

KEYS = ("method", "kind", "bank", "regime", "coverage", "resolution", "n_train", "seed", "n_test")
INTERVALS = ("psnr", "psnr_lo", "psnr_hi", "delta_best_single", "delta_lo", "delta_hi")
SCHEMA = (*KEYS, *INTERVALS, "ssim", "psnr_blur", "nxcorr", "chi2_vis", "trainable", "prior_calls", "seconds")
DECIMALS = {"ssim": 4, "nxcorr": 4, "seconds": 4} | dict.fromkeys(
    (*INTERVALS, "psnr_train", "psnr_blur", "chi2_vis"), 3
)


def bank_name(priors: Sequence[str]) -> str:
    """The name of a bank, or its members joined by `+` where it has none (a prior left out, say)."""
    return next((name for name, members in BANKS.items() if members == tuple(priors)), "+".join(priors))


def score_table(specs: Sequence[Spec], bank: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of `specs` in SCHEMA, one per method, coverage and bank, seeds together.

    Scores are means over images, scan lists and seeds. Intervals are 95 % bootstraps of images and seeds together;
    `delta_*` are paired differences to `best_single`: the single prior with the best PSNR on the training images, not
    on the images scored. `seed` counts the seeds behind a row's mean. A `best_single` row is added per coverage.
    """
    rows = []
    for coverage in dict.fromkeys(s.coverage for s in specs):
        group: dict[str, list[tuple[Spec, Record]]] = {}
        for s in specs:
            if s.coverage == coverage:
                group.setdefault(s.method, []).append((s, scores(s)))
        singles = {
            m: np.mean([float(r["psnr_train"]) for _, r in g]) for m, g in group.items() if m.startswith("single:")
        }
        best = max(singles, key=lambda m: singles[m], default=None)
        if best is not None:
            group["best_single"] = group[best]
        reference = _per_image(group[best], "psnr") if best is not None else None
        for method, found in group.items():
            spec, psnr = found[0][0], _per_image(found, "psnr")
            delta = psnr - reference if reference is not None else np.full_like(psnr, np.nan)
            interval, gain = bootstrap(psnr), bootstrap(delta) if reference is not None else (np.nan,) * 3
            rows.append(
                {
                    "method": method,
                    "kind": "baseline" if method == "average" else "single",
                    "bank": bank_name(bank or max((s.priors for s in specs), key=len)),
                    "regime": spec.regime,
                    "coverage": coverage,
                    "resolution": spec.resolution,
                    "n_train": spec.n_train,
                    "seed": len(found),
                    "n_test": spec.n_test,
                    **dict(zip(("psnr", "psnr_lo", "psnr_hi"), interval, strict=True)),
                    **dict(zip(("delta_best_single", "delta_lo", "delta_hi"), gain, strict=True)),
                    **{k: _per_image(found, k).mean() for k in ("ssim", "psnr_blur", "nxcorr", "chi2_vis")},
                    "trainable": 0,
                    "prior_calls": int(found[0][1]["prior_calls"]),
                    "seconds": np.mean([float(r["seconds"]) for _, r in found]),
                }
            )
    return pd.DataFrame(rows, columns=list(SCHEMA))


def _per_image(found: list[tuple[Spec, Record]], name: str) -> np.ndarray:
    """Scores (seeds, images), scan lists averaged."""
    return np.stack([record[name].mean(0) for _, record in found])


def settings_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """The PnP settings each method was given by tuning, with the number of settings tried."""
    rows = []
    for s in specs:
        r = scores(s)
        tried = len(s.sigma_max) * len(s.sigma_min) * len(s.lam)
        rows.append(
            {"method": s.method, "coverage": s.coverage, "seed": s.seed, "n_train": s.n_train, "settings_tried": tried}
            | {k: float(r[k]) for k in ("sigma_max", "sigma_min", "lam", "psnr_train")}
        )
    return pd.DataFrame(rows)


def write_table(frame: pd.DataFrame, name: str, out: Path) -> Path:
    """`out/tables/<name>.csv`, columns rounded as DECIMALS says."""
    folder = out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with files.replacing(path) as aside:
        frame.round(DECIMALS).to_csv(aside, index=False)
    return path
