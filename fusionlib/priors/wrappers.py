"""Making priors of what others have: functions, scores of diffusion models, restoration networks.

A wrapper is a module that keeps the Prior contract; what it wraps keeps its own weights.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.priors.prior import sigma_map


def modules_in(function: Any, depth: int = 3) -> nn.ModuleList:
    """The modules that a function, method, partial or callable object uses: what it holds and the globals it names."""
    if isinstance(function, nn.Module) or depth == 0:
        return nn.ModuleList([function] if isinstance(function, nn.Module) else [])
    parts: list[Any] = []
    if isinstance(function, partial):
        parts = [function.func, *function.args, *function.keywords.values()]
    elif inspect.ismethod(function):
        parts = [function.__self__, function.__func__]
    elif inspect.isfunction(function):
        named = inspect.getclosurevars(function)
        parts = [*named.nonlocals.values(), *named.globals.values(), *(function.__defaults__ or ())]
        parts = [p for p in parts if isinstance(p, nn.Module | partial) or inspect.isroutine(p)]
    elif callable(function) and hasattr(function, "__dict__"):
        parts = list(vars(function).values())
    return nn.ModuleList(dict.fromkeys(m for part in parts for m in modules_in(part, depth - 1)))


class Function(nn.Module):
    """Any callable `D(x, sigma)`; `sigma` is handed over as (B,). Networks that it uses are part of the module."""

    img_channels, img_resolution = 1, None

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.denoise, self.uses = denoise, modules_in(denoise)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.denoise(x, sigma_map(sigma, x).flatten())


class Bfloat16(nn.Module):
    """A network run in bfloat16 inside, float32 outside: half the time where the processor can, for a little error.

    What that costs inside the loop is measured for each prior in chapter 15; only those are reduced that lose less than
    0.02 dB.
    """

    img_channels = 1

    def __init__(self, prior: nn.Module):
        super().__init__()
        self.prior, self.img_resolution = prior, getattr(prior, "img_resolution", None)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.prior(x, sigma).to(x.dtype)


class VE(nn.Module):
    """Tweedie's formula for a variance-exploding score(x, sigma) = grad log p_sigma(x): x0 = x + sigma^2 score."""

    img_channels, img_resolution = 1, None

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.score, self.uses = score, modules_in(score)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s = sigma_map(sigma, x)
        return x + s**2 * self.score(x, s.flatten())


class VP(nn.Module):
    """Tweedie's formula for a variance-preserving score(x, t), x_t = a x0 + sqrt(1 - a^2) noise, a = e^(-t / 2).

    `t` is the integral of beta, so that sigma^2 = e^t - 1 for the rescaled image; `clock` turns it into the time that
    the network knows, if that is another. x0 = (a x + (1 - a^2) score(a x, t)) / a.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor], clock: Callable[[Tensor], Tensor] = lambda t: t):
        super().__init__()
        self.score, self.clock, self.uses = score, clock, modules_in(score)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        s = sigma_map(sigma, x)
        a = (1 + s**2).rsqrt()
        return x + s**2 * a * self.score(a * x, self.clock(torch.log1p(s**2).flatten()))


class Restoration(nn.Module):
    """A super-resolution network as a prior: D(x) = network(x averaged over 2 x 2 pixels, noise half as large).

    After Hu et al. 2023 (restoration networks as implicit priors): what the network cannot see, it makes up.
    """

    img_channels, img_resolution = 1, None

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.network, self.uses = network, modules_in(network)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.network(F.avg_pool2d(x, 2), sigma_map(sigma, x).flatten() / 2)


class Fixed(nn.Module):
    """A prior that ignores its input: images (B, 1, H, W) that something else made of the same data, for those B alone.

    So a network from the data to the image can be one expert of a bank. Raises ValueError for another batch.
    """

    img_channels, img_resolution = 1, None
    image: Tensor

    def __init__(self, image: Tensor):
        super().__init__()
        self.register_buffer("image", image, persistent=False)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if x.shape != self.image.shape:
            raise ValueError(f"Fixed: made for images {tuple(self.image.shape)}, asked for {tuple(x.shape)}")
        return self.image
