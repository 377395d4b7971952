"""Who weighs what. A gate gives weights (N, B, h, w) that sum to 1 over the N priors; h x w is 1 x 1 for one weight per
image, a patch grid, or the image grid.

`gate(x, sigma, outputs=None, data_step=None)`: x (B, 1, H, W) is what the priors are given, `outputs` (N, B, 1, H, W)
what they return, `data_step` what a loop knows of the data: an image to the image that fits them. `gate.reads_outputs`
tells whether outputs are needed; `gate.skips` whether weights can be 0 before the priors are called, so that they need
not be. No gate knows where in the image it is: weights move with the image.

Here the gates that nothing trains, and one gate per noise level; learned ones are in `routing`, solved ones in
`closed_form`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DataStep = Callable[[Tensor], Tensor]


def given(outputs: Tensor | None) -> Tensor:
    """The outputs, for a gate that reads them. Raises ValueError when there are none."""
    if outputs is None:
        raise ValueError("gate: this gate reads the priors' outputs; call it through FusedPrior")
    return outputs


def nearest(levels: Tensor, sigma: float | Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """For each of `batch` images which of the `levels` log sigma (K,) is nearest to its own, and how far away."""
    s = torch.as_tensor(sigma, dtype=levels.dtype, device=levels.device).log().expand(batch)
    away, stage = (levels[None] - s[:, None]).abs().min(1)
    return stage, away


class Static(nn.Module):
    """The same weights (N,) for every image and noise level. Raises ValueError unless finite and summing to 1."""

    w: Tensor
    reads_outputs = False

    def __init__(self, w: Tensor):
        super().__init__()
        w = torch.as_tensor(w, dtype=torch.float32)
        if w.ndim != 1 or not len(w) or not torch.isfinite(w).all() or abs(float(w.sum()) - 1) > 1e-5:
            raise ValueError(f"Static: weights must be finite, (N,), and sum to 1; got {w.tolist()}")
        self.register_buffer("w", w)
        self.skips = bool((w == 0).any())

    def forward(self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step=None) -> Tensor:
        return self.w.to(x).view(-1, 1, 1, 1).expand(-1, len(x), 1, 1)


def average(n: int) -> Static:
    """Equal weights for n priors."""
    return Static(torch.full((n,), 1 / n))


class Consensus(nn.Module):
    """Peer voting without training: who agrees with the others weighs more.

    v_i = - mean over j of |x_i - x_j|^2 / (2 h^2), h the root mean square disagreement times `bandwidth`; softmax(v).
    `cell` pixels share a vote (the image side: one per image). Inspired by MoTE (arXiv 2506.11038); wrong where the
    majority is.
    """

    reads_outputs, skips = True, False

    def __init__(self, cell: int, bandwidth: float = 0.5):
        super().__init__()
        self.cell, self.bandwidth = cell, bandwidth

    def forward(self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step=None) -> Tensor:
        o = given(outputs)
        apart = F.avg_pool2d(((o[:, None] - o[None])[:, :, :, 0] ** 2).flatten(0, 1), self.cell)
        apart = apart.view(len(o), len(o), *apart.shape[1:]).sum(1) / max(len(o) - 1, 1)
        h2 = apart.mean((0, 2, 3), keepdim=True).clamp(min=1e-12) * self.bandwidth**2
        return (-apart / (2 * h2)).softmax(0)


class PerNoiseLevel(nn.Module):
    """A module for each noise level of a loop, in between the nearest in log sigma: gates, adapters, or priors.

    They are called as `part(x, sigma, *more)`, x (..., B, 1, H, W). Images of different levels in one batch are handled
    one by one; `images` is the dimension that counts them in what comes back: 1 for gates and adapters, 0 for priors.
    Raises ValueError for another number of parts than levels.
    """

    levels: Tensor

    def __init__(self, sigmas: Sequence[float], parts: Sequence[nn.Module], images: int = 1):
        super().__init__()
        if not parts or len(sigmas) != len(parts):
            raise ValueError(f"PerNoiseLevel: as many parts as levels are needed, got {len(parts)} and {len(sigmas)}")
        self.register_buffer("levels", torch.tensor(sigmas).log())
        self.parts, self.images = nn.ModuleList(parts), images
        self.img_channels, self.img_resolution = 1, None
        self.reads_outputs, self.sharp = (getattr(parts[0], name, False) for name in ("reads_outputs", "sharp"))
        self.skips = any(getattr(part, "skips", False) for part in parts)

    def forward(
        self,
        x: Tensor,
        sigma: float | Tensor,
        outputs: Tensor | None = None,
        data_step: DataStep | None = None,
    ) -> Tensor:
        stage, _ = nearest(self.levels, sigma, x.shape[-4])
        more = (outputs, data_step) if outputs is not None or data_step is not None else ()
        if bool((stage == stage[0]).all()):
            return self.parts[int(stage[0])](x, sigma, *more)
        if data_step is not None:
            raise ValueError("PerNoiseLevel: sigma must be one number inside a loop")
        s = torch.as_tensor(sigma)
        one = lambda t, b: t.narrow(t.ndim - 4, b, 1)  # noqa: E731
        images = [
            self.parts[int(k)](one(x, b), s[b], *(() if outputs is None else (one(outputs, b),)))
            for b, k in enumerate(stage)
        ]
        return torch.cat(images, self.images)
