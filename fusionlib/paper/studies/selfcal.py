"""Chapter 10: rules fitted to calibrated data, on uncalibrated data in rounds of self-calibration."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fusionlib.metrics import bootstrap
from fusionlib.paper import store
from fusionlib.paper.experiment import scores
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies.shift import row_of


def uncalibrated_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """A line for every row and kind of object of `calibrating_specs`: `object, method, bank, fit, n_train, n_test`,
    `psnr` and `over_average` with their intervals, `calibrated`, `chi2_cphase`, `chi2_logcamp`, `rings`.

    PSNR [dB] after the best shift; `over_average` is the paired gain over the plain average in the same rounds;
    `calibrated` what calibrated data of the same images would give more, where that is computed; chi-squares are
    medians over images; `rings` is the share of pictures that show one.
    """
    psnr = {s: scores(s)["psnr"].mean(0) for s in specs}
    averages = {s.family: v for s, v in psnr.items() if s.method == "average"}
    rows = []
    for s, v in psnr.items():
        row, record, plain = row_of(s), scores(s), replace(s, regime="calibrated")
        told: dict[str, Any] = {"object": s.family or "sky", "method": s.method, "bank": row.bank, "fit": row.fit}
        told |= {"n_train": s.n_train, "n_test": len(v)}
        told |= dict(zip(("psnr", "psnr_lo", "psnr_hi"), bootstrap(v), strict=True))
        told |= dict(zip(("over_average", "over_lo", "over_hi"), bootstrap(v - averages[s.family]), strict=True))
        bound = scores(plain)["psnr"].mean(0) if store.has(plain.key) else np.full(len(v), np.nan)
        told |= {"calibrated": float((bound - v).mean())}
        told |= {k: float(np.median(record[k])) for k in ("chi2_cphase", "chi2_logcamp")}
        rows.append(told | {"rings": float(record["ring"].mean())})
    return pd.DataFrame(rows)
