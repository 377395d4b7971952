"""Priors that nobody trained."""

import torch
from torch import Tensor, nn

from fusionlib.priors.prior import sigma_map


class Identity(nn.Module):
    """The prior that believes what it sees: x0 = x."""

    img_channels, img_resolution, halo = 1, None, 0

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma_map(sigma, x)
        return x


class TotalVariation(nn.Module):
    """argmin_u |u - x|^2 / 2 + sigma TV(u), isotropic, by fast gradient projection on the dual (Beck & Teboulle 2009).

    A fixed number of steps from zero, so the output is a pure function of each image. The weight is sigma itself:
    its scale is absorbed by the tuned noise schedule of the PnP loop.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, iterations: int = 40):
        super().__init__()
        self.iterations = iterations

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        weight, image = sigma_map(sigma, x)[:, 0], x[:, 0]
        b, h, w = image.shape
        down, right = (
            x.new_zeros(b, h + 1, w),
            x.new_zeros(b, h, w + 1),
        )  # dual variables on edges; the outer ones stay 0
        old_down, old_right, t = down, right, 1.0
        for _ in range(self.iterations):
            u = torch.addcmul(image, torch.diff(down, dim=1) + torch.diff(right, dim=2), weight) / (8 * weight)
            new_down, new_right = down.clone(), right.clone()
            new_down[:, 1:-1] += torch.diff(u, dim=1)
            new_right[:, :, 1:-1] += torch.diff(u, dim=2)
            norm = (new_down[:, 1:].square() + new_right[:, :, 1:].square()).clamp(min=1).rsqrt()
            new_down[:, 1:] *= norm
            new_right[:, :, 1:] *= norm
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            momentum = 1 + (t - 1) / t_new
            down, right = torch.lerp(old_down, new_down, momentum), torch.lerp(old_right, new_right, momentum)
            old_down, old_right, t = new_down, new_right, t_new
        u = torch.addcmul(image, torch.diff(old_down, dim=1) + torch.diff(old_right, dim=2), weight)
        return u[:, None]
