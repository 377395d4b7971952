"""FFDNet with its published weights: a denoiser of photographs."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors.downloads import FFDNET_GRAY, fetch
from fusionlib.priors.prior import sigma_map


class FFDNet(nn.Module):
    """FFDNet for gray photographs (Zhang et al., TIP 2018): 15 convolutions on 2 x 2 unshuffled pixels and a noise map.

    Trained for sigma up to 75/255; above, image and noise are scaled down together into that range. Odd sizes are
    padded by reflection.
    """

    img_channels, img_resolution = 1, None
    sigma_max = 75 / 255

    def __init__(self, width: int = 64, depth: int = 15):
        super().__init__()
        sizes = [5, *[width] * (depth - 1), 4]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = sigma_map(sigma, x)
        scale = (self.sigma_max / sigma).clamp(max=1)
        h, w = x.shape[2:]
        noisy = F.pad(x * scale, (0, w % 2, 0, h % 2), mode="reflect")
        u = F.pixel_unshuffle(noisy, 2)
        u = torch.cat([(sigma * scale).expand(-1, 1, *u.shape[2:]), u], 1).contiguous(memory_format=torch.channels_last)
        for conv in self.convs[:-1]:
            u = F.relu(conv(u), inplace=True)
        noise = F.pixel_shuffle(self.convs[-1](u), 2)
        return ((noisy - noise) / scale)[:, :, :h, :w].contiguous()


def ffdnet() -> FFDNet:
    """FFDNet with its published gray weights (M. Tassano's IPOL code; GPL-3), batch normalisation folded in."""
    state = torch.load(fetch(FFDNET_GRAY), map_location="cpu", weights_only=True)
    weights = [v for v in state.values() if v.ndim == 4]
    norms = [state[k.removesuffix("running_var") + part] for k in state if k.endswith("running_var")
             for part in ("weight", "bias", "running_mean", "running_var")]  # fmt: skip
    net = FFDNet()
    for k, (conv, weight) in enumerate(zip(net.convs, weights, strict=True)):
        gain, shift = torch.ones(len(weight)), torch.zeros(len(weight))
        if 0 < k < len(weights) - 1:
            g, b, mean, var = norms[4 * (k - 1) : 4 * k]
            gain = g / (var + 1e-5).sqrt()
            shift = b - mean * gain
        conv.weight.data, conv.bias.data = weight * gain[:, None, None, None], shift  # type: ignore[union-attr]
    return net
