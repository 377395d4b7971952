"""Headroom: the best that weights could do, if they were known.

An oracle sees the truth and picks greedily, iteration by iteration: a bound on what a gate of its resolution could be
expected to win, not a strict one, since a worse pick now may lead to a better image later.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors import PriorBank


class Oracle(nn.Module):
    """A prior that cheats: the bank's outputs weighed with the `truth` (B, 1, H, W) of the very batch it is given.

    `cell` pixels wide are the squares that share a weight: the image side for one pick per image, 8 for patches, 1 for
    pixels. With `affine` the weights that sum to one and leave the least error there, else the single best prior.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, bank: PriorBank, truth: Tensor, cell: int, affine: bool = False):
        super().__init__()
        if truth.shape[-1] % cell:
            raise ValueError(f"Oracle: cell must divide the image side {truth.shape[-1]}, got {cell}")
        self.bank, self.truth, self.cell, self.affine = bank, truth, cell, affine

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        outputs = self.bank(x, sigma)
        return (self.weights(outputs)[:, :, None] * outputs).sum(0)

    def weights(self, outputs: Tensor) -> Tensor:
        """Weights (N, B, H, W), constant over cells, from outputs (N, B, 1, H, W)."""
        error = (outputs - self.truth)[:, :, 0]
        if self.affine:
            pooled = F.avg_pool2d((error[:, None] * error[None]).flatten(0, 1), self.cell)
            count, batch, h, w = len(error), error.shape[1], *pooled.shape[2:]
            gram = pooled.view(count, count, batch, h, w).permute(2, 3, 4, 0, 1)
            cells = affine_weights(gram).permute(3, 0, 1, 2)
        else:
            best = F.avg_pool2d(error.square(), self.cell).argmin(0)
            cells = F.one_hot(best, len(error)).permute(3, 0, 1, 2).to(outputs)
        return cells.repeat_interleave(self.cell, 2).repeat_interleave(self.cell, 3)


def affine_weights(gram: Tensor, ridge: float = 1e-4) -> Tensor:
    """argmin w' G w over w (..., N) that sum to 1, for error Gram matrices (..., N, N), and a little ridge."""
    count = gram.shape[-1]
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp(min=1e-12)
    solved = torch.linalg.solve(gram / level + ridge * torch.eye(count).to(gram), torch.ones_like(gram[..., :1]))
    return (solved / solved.sum(-2, keepdim=True))[..., 0]


def simplex_weights(gram: Tensor) -> Tensor:
    """argmin w' G w over the simplex, for one Gram matrix (N, N): non-negative least squares on its root."""
    from scipy.optimize import nnls  # slow to import

    g = gram.double().cpu().numpy()
    scale = np.trace(g) / len(g)
    values, vectors = np.linalg.eigh(g / scale)
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    heavy = 1e3  # the sum is 1 to a millionth, then exactly
    w, _ = nnls(np.vstack([root, heavy * np.ones(len(g))]), np.append(np.zeros(len(g)), heavy))
    return torch.from_numpy(w / w.sum()).to(gram)


def error_correlation(outputs: Tensor, truth: Tensor) -> Tensor:
    """Correlation (N, N) of the priors' errors over pixels and images, outputs (N, B, 1, H, W)."""
    return torch.corrcoef((outputs - truth).flatten(1))


class NoiseLevels(nn.Module):
    """One prior told `factor` x sigma: with several factors, a bank of one prior at several noise levels."""

    img_channels, img_resolution = 1, None

    def __init__(self, prior: nn.Module, factor: float):
        super().__init__()
        self.prior, self.factor = prior, factor

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prior(x, self.factor * sigma)
