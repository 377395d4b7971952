"""What is done to the priors' outputs before they are weighed: `adapters(outputs, sigma)`, (N, B, 1, H, W) to the same
shape. The priors behind them stay frozen."""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """A small residual per output: u + conv(silu(conv(u))), `width` channels inside; the identity at the start."""

    def __init__(self, n: int, width: int = 8):
        super().__init__()
        self.into = nn.ModuleList(nn.Conv2d(1, width, 3, padding=1, padding_mode="reflect") for _ in range(n))
        self.out = nn.ModuleList(
            nn.Conv2d(width, 1, 3, padding=1, padding_mode="reflect", bias=False) for _ in range(n)
        )
        for layer in self.out:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]

    def forward(self, outputs: Tensor, sigma: float | Tensor) -> Tensor:
        layers = zip(self.into, self.out, outputs, strict=True)
        return torch.stack([u + out(nn.functional.silu(into(u))) for into, out, u in layers])


class Joint(nn.Module):
    """A small residual to every output that reads all of them: u + conv(silu(conv(u))), `width` channels inside; the
    identity at the start."""

    def __init__(self, n: int, width: int = 24):
        super().__init__()
        self.into = nn.Conv2d(n, width, 3, padding=1, padding_mode="reflect")
        self.out = nn.Conv2d(width, n, 3, padding=1, padding_mode="reflect", bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, outputs: Tensor, sigma: float | Tensor) -> Tensor:
        u = outputs[:, :, 0].transpose(0, 1)
        return outputs + self.out(nn.functional.silu(self.into(u))).transpose(0, 1)[:, :, None]
