"""Who weighs what. A gate gives weights (N, B, h, w) that sum to 1 over the N priors; h x w is 1 x 1 for one weight per
image, a patch grid, or the image grid. `gate.skips` tells whether weights can be 0, so that priors can be left out."""

import torch
from torch import Tensor, nn


class Static(nn.Module):
    """The same weights (N,) for every image and noise level. Raises ValueError unless finite and summing to 1."""

    w: Tensor

    def __init__(self, w: Tensor):
        super().__init__()
        w = torch.as_tensor(w, dtype=torch.float32)
        if w.ndim != 1 or not len(w) or not torch.isfinite(w).all() or abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"Static: weights must be finite, (N,), and sum to 1; got {w.tolist()}")
        self.register_buffer("w", w)
        self.skips = bool((w == 0).any())

    def forward(self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None) -> Tensor:
        return self.w.to(x).view(-1, 1, 1, 1).expand(-1, len(x), 1, 1)


def average(n: int) -> Static:
    """Equal weights for n priors."""
    return Static(torch.full((n,), 1 / n))
