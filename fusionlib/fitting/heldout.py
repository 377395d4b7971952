"""Weights without labels: from how well each prior alone predicts visibilities that it was not shown.

Stacking (Breiman 1996) with cross-validation over scans. Inspired by the methods that weigh priors by their evidence
given the data (Feng, Bouman & Freeman 2024), not an implementation of one: no evidence is computed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fusionlib.gates import simplex_weights
from fusionlib.interferometer import Interferometer
from fusionlib.pnp import hqs
from fusionlib.priors import PriorBank


class PerImage(nn.Module):
    """Weights (N, B) for the images of one batch, the same at every noise level."""

    reads_outputs, skips = False, True

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = w

    def forward(self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step=None) -> Tensor:
        if self.w.shape[1] != len(x):
            raise ValueError(f"PerImage: weights are of {self.w.shape[1]} images, {len(x)} were given")
        return self.w.to(x)[:, :, None, None]


def held_out_weights(
    bank: PriorBank,
    array: Interferometer,
    y: Tensor,
    *,
    sigmas: Sequence[float],
    lam: float,
    window: float,
    folds: int = 4,
) -> Tensor:
    """Weights (N, B) on the simplex that predict held-out visibilities best, for whitened data y (B, 2 M).

    In each fold every prior alone reconstructs (`pnp.hqs`) from the other scans, single visibilities where the array
    knows no scans; (folds x N) reconstructions per image. `window` as for the array. Raises ValueError for an array of
    fewer scans than two.
    """
    table, count = array.table, len(array.table)
    group = table.scan.to_numpy() if "scan" in table else np.arange(count)
    present = np.unique(group)
    folds = min(folds, len(present))
    if folds < 2:
        raise ValueError("held_out_weights: at least two scans are needed, to hold one out")
    gram = torch.zeros(len(y), len(bank), len(bank), dtype=torch.float64)
    for fold in range(folds):
        out = torch.from_numpy(np.isin(group, present[fold::folds]))
        kept = Interferometer(table[~out.numpy()], npix=array.npix, fov=array.fov, window=window).to(y.device)
        both = torch.cat([out, out]).to(y.device)
        errors = []
        for prior in bank.priors:
            image = hqs(y[:, ~both], kept, prior, sigmas=sigmas, lam=lam).image
            errors.append(array.residual(image, y)[:, both])
        e = torch.stack(errors, 1).double().cpu()
        gram += e @ e.mT
    return torch.stack([simplex_weights(g) for g in gram], 1).float().to(y.device)
