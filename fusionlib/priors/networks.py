"""Our own small networks, one body in three roles: denoiser, score of a diffusion model, and x2 super-resolution."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fusionlib.priors.prior import sigma_map

WEIGHTS = Path(__file__).parent / "weights"


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))), no normalisation."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.first(F.silu(x)), inplace=not torch.is_grad_enabled())
        return x + self.second(h)


class Body(nn.Module):
    """U-Net from (B, channels, h, w) and a number per image to (B, 1, 2 h, 2 w).

    `blocks` residual blocks down and up at each width; h and w must divide by 2 ** (len(widths) - 1).
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (24, 48, 64), blocks: int = 2):
        super().__init__()
        self.head = nn.Conv2d(channels + 1, widths[0], 3, padding=1)
        self.down, self.up, self.shrink, self.grow = (nn.ModuleList() for _ in range(4))
        for width, wider in pairwise(widths):
            self.down.append(nn.Sequential(*[Residual(width) for _ in range(blocks)]))
            self.shrink.append(nn.Conv2d(width, wider, 2, stride=2))
            self.grow.append(nn.ConvTranspose2d(wider, width, 2, stride=2))
            self.up.append(nn.Sequential(*[Residual(width) for _ in range(blocks)]))
        self.middle = nn.Sequential(*[Residual(widths[-1]) for _ in range(blocks)])
        self.tail = nn.Conv2d(widths[0], 4, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        self.divisor = 2 ** len(self.down)

    def forward(self, u: Tensor, number: Tensor) -> Tensor:
        if u.shape[2] % self.divisor or u.shape[3] % self.divisor:
            raise ValueError(f"network: image sides must divide by {2 * self.divisor}")
        number = number.expand(len(u), 1, *u.shape[2:])
        h = self.head(torch.cat([u, number], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            kept.append(blocks(h))
            h = shrink(kept[-1])
        h = self.middle(h)
        for grow, blocks in zip(reversed(self.grow), reversed(self.up), strict=True):
            h = blocks(grow(h) + kept.pop())
        return F.pixel_shuffle(self.tail(F.silu(h)), 2).contiguous()


class LocalBody(nn.Module):
    """From (B, channels, h, w) and a number per image to (B, 1, 2 h, 2 w), three 3 x 3 convolutions deep.

    A pixel of the output sees at most 14 x 14 pixels; a patch that starts at an even pixel needs 6 pixels around it.
    """

    halo = 6

    def __init__(self, channels: int, width: int = 64):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, width, 3, padding=1) for a in (channels + 1, width, width))
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in self.convs)
        self.tail = nn.Conv2d(width, 4, 1)
        nn.init.zeros_(self.tail.weight)

    def forward(self, u: Tensor, number: Tensor) -> Tensor:
        number = number.expand(len(u), 1, *u.shape[2:])
        h = torch.cat([u, number], 1).contiguous(memory_format=torch.channels_last)
        for conv, mix in zip(self.convs, self.mixes, strict=True):
            h = F.silu(conv(h))
            h = h + F.silu(mix(h))
        return F.pixel_shuffle(self.tail(h), 2).contiguous()


class Denoiser(nn.Module):
    """x0 = D(x, sigma), preconditioned as Karras et al. 2022 (EDM, table 1) for images of root mean square `scale`."""

    img_channels, img_resolution = 1, None

    def __init__(self, scale: float, body: nn.Module):
        super().__init__()
        self.scale, self.body, self.halo = scale, body, getattr(body, "halo", None)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = sigma_map(sigma, x)
        variance = sigma**2 + self.scale**2
        inside = self.body(F.pixel_unshuffle(x * variance.rsqrt(), 2), sigma.log() / 4)
        return self.scale**2 / variance * x + sigma * self.scale * variance.rsqrt() * inside

    def loss(self, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Squared error weighted as in EDM: about 1 at every sigma for an untrained network."""
        weight = (sigma**2 + self.scale**2) / (sigma * self.scale) ** 2
        error = self(clean + sigma[:, None, None, None] * noise, sigma) - clean
        return (weight[:, None, None, None] * error.square()).mean()


class Score(nn.Module):
    """grad log p_t(x) of a variance-preserving diffusion: `score(x, t)`, x = a x0 + sqrt(1 - a^2) noise, a = e^(-t/2).

    It predicts the noise; x (B, 1, H, H), t (B,) > 0. No prior yet: `wrappers.VP` makes it one.
    """

    def __init__(self, **body):
        super().__init__()
        self.body = Body(4, **body)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.noise(x, t) / (-torch.expm1(-t)).sqrt()[:, None, None, None]

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(F.pixel_unshuffle(x, 2), torch.expm1(t).log()[:, None, None, None] / 8)

    def loss(self, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the noise; sigma is the noise over the signal, sqrt(1 - a^2) / a."""
        a = (1 + sigma**2).rsqrt()[:, None, None, None]
        x = a * clean + (1 - a**2).sqrt() * noise
        return (self.noise(x, torch.log1p(sigma**2)) - noise).square().mean()


class SuperResolution(nn.Module):
    """Twice the resolution: `net(small, sigma)` (B, 1, h, w) to (B, 1, 2 h, 2 w), noise of std `sigma` in `small`."""

    def __init__(self, scale: float, **body):
        super().__init__()
        self.scale, self.body = scale, Body(1, **body)

    def forward(self, small: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = sigma_map(sigma, small)
        variance = sigma**2 + self.scale**2
        inside = self.body(small * variance.rsqrt(), sigma.log() / 4)
        base = F.interpolate(self.scale**2 / variance * small, scale_factor=2, mode="bilinear", align_corners=False)
        return base + (sigma * self.scale * variance.rsqrt() + 0.1 * self.scale) * inside

    def loss(self, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """As `Denoiser.loss`, levelled off where the missing detail outweighs the noise."""
        small = F.avg_pool2d(clean + sigma[:, None, None, None] * noise, 2)
        error = self(small, sigma / 2) - clean
        return (error.square() / (sigma**2 + 0.05**2)[:, None, None, None]).mean()


class Gaussian(nn.Module):
    """Posterior mean under a Gaussian on the principal components of some images; isotropic beyond the first `rank`.

    D(x, sigma) = m + sum_r v_r s_r^2 / (s_r^2 + sigma^2) <v_r, x - m> + the rest of x - m, shrunk by its own variance.
    Images of `npix` pixels a side alone.
    """

    img_channels = 1
    mean: Tensor
    components: Tensor
    deviation: Tensor
    rest: Tensor

    def __init__(self, npix: int = 64, rank: int = 400):
        super().__init__()
        self.img_resolution = npix
        shapes = {"mean": (npix**2,), "components": (rank, npix**2), "deviation": (rank,), "rest": ()}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def solve(self, images: Tensor) -> None:
        """From images (n, 1, npix, npix), n > rank."""
        rank, flat = len(self.components), images.flatten(1)
        self.mean = flat.mean(0)
        _, singular, right = torch.linalg.svd(flat - self.mean, full_matrices=False)
        variance = singular**2 / len(flat)
        self.components, self.deviation = right[:rank], variance[:rank].sqrt()
        self.rest = (variance[rank:].sum() / (flat.shape[1] - rank)).sqrt()

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if x.shape[-1] != self.img_resolution or x.shape[-2] != self.img_resolution:
            raise ValueError(
                f"Gaussian: images of {self.img_resolution} pixels a side are needed, got {tuple(x.shape)}"
            )
        noise = sigma_map(sigma, x).flatten(1) ** 2
        apart = x.flatten(1) - self.mean.to(x)
        along = apart @ self.components.T.to(x)
        known, other = self.deviation.to(x) ** 2, self.rest.to(x) ** 2
        left = other / (other + noise)
        inside = (along * (known / (known + noise) - left)) @ self.components.to(x)
        return (self.mean.to(x) + inside + left * apart).view_as(x)


# What the shipped networks are; `training.RECIPES` says what they were trained on
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torus": lambda: Denoiser(0.12, Body(4)),
    "galaxies": lambda: Denoiser(0.12, LocalBody(4)),
    "unet_galaxies": lambda: Denoiser(0.12, Body(4)),
    "faces": Gaussian,
    "digits": Score,
    "sr": lambda: SuperResolution(0.4),
    "sky": lambda: Denoiser(0.08, Body(4, widths=(32, 64, 96))),
    "local_torus": lambda: Denoiser(0.12, LocalBody(4)),
    "local_photographs": lambda: Denoiser(0.4, LocalBody(4)),
}


def trained(name: str, path: Path | None = None) -> nn.Module:
    """The network `name` with its shipped weights, or those in the file `path`. Raises ValueError for a broken one."""
    path = path or WEIGHTS / f"{name}.safetensors"
    net = NETWORKS[name]()
    try:
        net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    except Exception as error:
        raise ValueError(f"weights {path} are missing or broken ({error}); check out the repository again") from None
    return net
