"""A published diffusion prior of galaxies: the score network that galaxygrad trained on Hyper Suprime-Cam images."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fusionlib.priors.downloads import HSC_SCORE, fetch
from fusionlib.priors.interop import Range
from fusionlib.priors.wrappers import VP

END = 10.0  # of its diffusion time


class Mixer(nn.Module):
    """One MLP over patches, one over channels, each on normalised input and added to it; tokens (B, C, P)."""

    def __init__(self, channels: int, patches: int, inside: int):
        super().__init__()
        self.patches = nn.Sequential(nn.Linear(patches, inside), nn.ReLU(), nn.Linear(inside, patches))
        self.channels = nn.Sequential(nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, channels))
        self.norm1, self.norm2 = nn.LayerNorm((channels, patches)), nn.LayerNorm((patches, channels))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.patches(self.norm1(h))
        h = h.mT
        return (h + self.channels(self.norm2(h))).mT


class ScoreNet(nn.Module):
    """MLP-Mixer score(x, t) of a variance-preserving diffusion with beta = 1, for images (B, 1, 64, 64), t (B,)."""

    def __init__(self, side: int = 64, patch: int = 4, channels: int = 64, inside: int = 512, blocks: int = 4):
        super().__init__()
        patches = (side // patch) ** 2
        self.into = nn.Conv2d(2, channels, patch, stride=patch)
        self.out = nn.ConvTranspose2d(channels, 1, patch, stride=patch)
        self.blocks = nn.ModuleList(Mixer(channels, patches, inside) for _ in range(blocks))
        self.norm = nn.LayerNorm((channels, patches))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.into(torch.cat([x, (t / END).view(-1, 1, 1, 1).expand_as(x)], 1))
        shape = h.shape
        h = h.flatten(2)
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h).view(shape))


def read_equinox(path: Path) -> list[np.ndarray]:
    """The arrays of an equinox file: numpy arrays one after the other."""
    leaves = []
    with open(path, "rb") as file:
        while file.read(1):
            file.seek(-1, 1)
            leaves.append(np.load(file))
    return leaves


def scorenet(path: Path) -> ScoreNet:
    """ScoreNet with the weights in an equinox file. Raises ValueError where it does not hold just these."""
    net, arrays = ScoreNet(), iter(read_equinox(path))

    def take(layer: nn.Module, swap: bool = False) -> None:
        for name, parameter in layer.named_parameters(recurse=False):
            value = torch.from_numpy(np.array(next(arrays), np.float32))
            if swap and name == "weight":  # jax transposes a convolution without turning its kernel
                value = value.transpose(0, 1).flip(2, 3)
            if value.numel() != parameter.numel():
                raise ValueError(f"{path}: an array {tuple(value.shape)} where {tuple(parameter.shape)} should be")
            parameter.data = value.reshape(parameter.shape).contiguous()

    take(net.into)
    take(net.out, swap=True)
    for block in net.blocks:
        assert isinstance(block, Mixer)
        for layer in (*block.patches, *block.channels, block.norm1, block.norm2):
            take(layer)
    take(net.norm)
    return net


def hsc(scale: float = 3.0) -> Range:
    """The galaxy prior (galaxygrad 0.2.1, HSC_ScoreNet64; no licence stated), through Tweedie's formula.

    Its galaxies are some times as bright as our images: `scale`.
    """
    prior = Range(VP(scorenet(fetch(HSC_SCORE))), 0.0, scale)
    prior.img_resolution = 64  # type: ignore[assignment]
    return prior
