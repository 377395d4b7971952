"""A bank of priors and a gate make a prior again."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.gates import DataStep
from fusionlib.priors import PriorBank


class Fused(NamedTuple):
    """Image (B, 1, H, W), weights (N, B, h, w), and which priors were called for which image, bool (N, B)."""

    image: Tensor
    weights: Tensor
    kept: Tensor


def spread(w: Tensor, height: int, width: int) -> Tensor:
    """Weights (N, B, h, w) on the image grid (N, B, 1, H, W), bilinear between patch centres; keeps sums over N."""
    if w.shape[2:] not in ((1, 1), (height, width)):
        w = F.interpolate(w, size=(height, width), mode="bilinear", align_corners=False)
    return w[:, :, None]


class FusedPrior(nn.Module):
    """sum_i w_i(x) A_i(P_i(x)): a prior, usable wherever a single prior is. Raises ValueError if the gate does not fit.

    `adapters(outputs, sigma)`, if any, turns the priors' outputs (N, B, 1, H, W) into adapted ones. A gate that reads
    outputs gets them as the priors gave them, and all priors are called; any other gate is asked first, and what it
    gives no weight is not called.
    """

    def __init__(self, bank: PriorBank, gate: nn.Module, adapters: nn.Module | None = None):
        super().__init__()
        self.bank, self.gate, self.adapters = bank, gate, adapters
        self.img_channels, self.img_resolution = bank.img_channels, bank.img_resolution

    def fuse(self, x: Tensor, sigma: float | Tensor, data_step: DataStep | None = None) -> Fused:
        """The fused image with the weights that made it; `data_step` is what a loop knows of the data."""
        outputs = self.bank(x, sigma) if self.gate.reads_outputs else None
        w = self.gate(x, sigma, outputs, data_step)
        if len(w) != len(self.bank):
            raise ValueError(f"gate gives {len(w)} weights for a bank of {len(self.bank)} priors")
        kept = (w != 0).flatten(2).any(2)
        if outputs is None:
            outputs = self.bank(x, sigma, keep=kept if self.gate.skips else None)
        adapted = self.adapters(outputs, sigma) if self.adapters is not None else outputs
        return Fused((spread(w, *x.shape[2:]) * adapted).sum(0), w, kept)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.fuse(x, sigma).image
