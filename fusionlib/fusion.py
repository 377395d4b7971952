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


def spread(w: Tensor, height: int, width: int, *, sharp: bool = False) -> Tensor:
    """Weights (N, B, h, w) on the image grid (N, B, 1, H, W); keeps sums over N.

    Bilinear between patch centres, or with `sharp` one weight to the patch's edge, so that where it is 0 nothing needs
    to be known.
    """
    if w.shape[2:] not in ((1, 1), (height, width)):
        options = {"mode": "nearest-exact"} if sharp else {"mode": "bilinear", "align_corners": False}
        w = F.interpolate(w, size=(height, width), **options)  # type: ignore[arg-type]
    return w[:, :, None]


class FusedPrior(nn.Module):
    """sum_i w_i(x) A_i(P_i(x)): a prior, usable wherever a single prior is. Raises ValueError if the gate does not fit.

    `adapters(outputs, sigma)`, if any, turns the priors' outputs (N, B, 1, H, W) into adapted ones. A gate that reads
    outputs gets them as the priors gave them: of all priors, or of those that its `calls(sigma, batch)` names. Any
    other gate is asked first, and what it gives no weight is not called; of priors that can be run on a part of the
    image (`halo`) only the patches with weight are computed, where the gate is `sharp` between patches.
    """

    def __init__(self, bank: PriorBank, gate: nn.Module, adapters: nn.Module | None = None):
        super().__init__()
        self.bank, self.gate, self.adapters = bank, gate, adapters
        self.img_channels, self.img_resolution = bank.img_channels, bank.img_resolution

    def fuse(self, x: Tensor, sigma: float | Tensor, data_step: DataStep | None = None) -> Fused:
        """The fused image with the weights that made it; `data_step` is what a loop knows of the data."""
        calls, outputs = getattr(self.gate, "calls", None), None
        if self.gate.reads_outputs:
            outputs = self.bank(x, sigma, keep=calls(sigma, len(x)) if calls else None)
        w = self.gate(x, sigma, outputs, data_step)
        if len(w) != len(self.bank):
            raise ValueError(f"gate gives {len(w)} weights for a bank of {len(self.bank)} priors")
        sharp, kept = getattr(self.gate, "sharp", False), w != 0
        if outputs is None:
            if not self.gate.skips:
                outputs = self.bank(x, sigma)
            else:
                outputs = self.bank(x, sigma, keep=kept if sharp else kept.flatten(2).any(2))
        adapted = self.adapters(outputs, sigma) if self.adapters is not None else outputs
        return Fused((spread(w, *x.shape[2:], sharp=sharp) * adapted).sum(0), w, kept.flatten(2).any(2))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.fuse(x, sigma).image
