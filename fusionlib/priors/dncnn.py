"""DnCNN with the weights that SCICO publishes: a denoiser of photographs for one noise level."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors.downloads import DNCNN_17M, fetch
from fusionlib.priors.prior import sigma_map


class DnCNN(nn.Module):
    """DnCNN (Zhang et al., TIP 2017), circular convolutions, trained for noise of `sigma_trained` on [0, 1].

    Another noise level is reached by scaling the image, so that its noise is the one of training.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, width: int = 64, depth: int = 17, sigma_trained: float = 0.1):
        super().__init__()
        self.sigma_trained = sigma_trained
        sizes = [1, *[width] * (depth - 1), 1]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, padding_mode="circular") for a, b in pairwise(sizes))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        scale = self.sigma_trained / sigma_map(sigma, x)
        u = (x * scale).contiguous(memory_format=torch.channels_last)
        for conv in self.convs[:-1]:
            u = F.relu(conv(u), inplace=True)
        return (x - self.convs[-1](u) / scale).contiguous()


def read_flax(path: Path) -> dict:
    """The nested dictionaries of arrays in a flax msgpack file."""
    import msgpack  # no other prior needs it

    def array(code: int, data: bytes) -> np.ndarray:
        shape, dtype, raw = msgpack.unpackb(data)
        return np.frombuffer(raw, dtype).reshape(shape)

    return msgpack.unpackb(path.read_bytes(), ext_hook=array)


def dncnn() -> DnCNN:
    """DnCNN of 17 layers for noise 0.1 (`dncnn17M` of SCICO, BSD-3), batch normalisation folded in."""
    tree, net = read_flax(fetch(DNCNN_17M)), DnCNN()
    params, stats = tree["params"], tree["batch_stats"]
    blocks = [f"ConvBNBlock_{k}" for k in range(len(net.convs) - 2)]
    kernels = [params["conv_start"], *(params[b]["Conv_0"] for b in blocks), params["conv_end"]]
    for k, (conv, kernel) in enumerate(zip(net.convs, kernels, strict=True)):
        weight = np.array(kernel["kernel"].transpose(3, 2, 0, 1))
        gain, shift = np.ones(len(weight), np.float32), np.zeros(len(weight), np.float32)
        if 0 < k < len(kernels) - 1:
            norm, seen = (tree[blocks[k - 1]]["BatchNorm_0"] for tree in (params, stats))
            gain = norm["scale"] / np.sqrt(seen["var"] + 1e-5)
            shift = norm["bias"] - seen["mean"] * gain
        conv.weight.data = torch.from_numpy(weight * gain[:, None, None, None])  # type: ignore[union-attr]
        conv.bias.data = torch.from_numpy(shift)  # type: ignore[union-attr]
    return net
