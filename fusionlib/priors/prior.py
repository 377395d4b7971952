"""The Prior contract, and banks of priors.

A prior is any module with `prior(x, sigma) -> x0`: the posterior-mean estimate of an image from x = x0 + noise of
standard deviation `sigma` (a float or (B,), in units of x), same shape as x (B, 1, H, W). It is pure: the output for an
image depends on nothing but that image and its sigma. Attributes: `img_channels`, `img_resolution` (None: any size).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle


class Prior(Protocol):
    img_channels: int
    img_resolution: int | None

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor: ...


def sigma_map(sigma: float | Tensor, x: Tensor) -> Tensor:
    """`sigma` as (B, 1, 1, 1) on the device of `x`. Raises ValueError unless it is positive, a number or (B,)."""
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    s = s[0] if s.shape == (1,) else s
    if s.ndim > 1 or (s.ndim == 1 and len(s) != len(x)):
        raise ValueError(f"sigma has shape {tuple(s.shape)}; a number or ({len(x)},), one per image, is needed")
    if not torch.compiler.is_compiling() and not bool(((s > 0) & s.isfinite()).all()):
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    return s.expand(len(x)).view(-1, 1, 1, 1)


class PriorBank(nn.Module):
    """Named priors, frozen here, called together: `bank(x, sigma) -> (N, B, 1, H, W)`.

    Raises ValueError for an empty bank or for priors of different `img_resolution`.
    """

    def __init__(self, priors: Mapping[str, nn.Module]):
        super().__init__()
        if not priors:
            raise ValueError("PriorBank: the bank is empty; give at least one prior")
        sizes = {getattr(p, "img_resolution", None) for p in priors.values()} - {None}
        if len(sizes) > 1:
            raise ValueError(f"PriorBank: priors of different img_resolution {sizes}; wrap them first")
        self.names = tuple(priors)
        self.priors = nn.ModuleList(priors.values()).requires_grad_(False).eval()
        self.img_channels, self.img_resolution = 1, sizes.pop() if sizes else None

    def __len__(self) -> int:
        return len(self.names)

    def train(self, mode: bool = True) -> "PriorBank":
        """Frozen: always in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor, sigma: float | Tensor, keep: Tensor | None = None) -> Tensor:
        """Outputs (N, B, 1, H, W); with `keep` (bool, (N, B) or (N, B, h, w)) zero where an image keeps nothing.

        A prior is computed for the images that keep it somewhere, and for no others; with `keep` per patch, a prior
        that says how many pixels around a patch it needs (`halo`) for those patches alone, unless that is more than the
        whole image. Raises ValueError, naming the prior, for an output of another shape.
        """
        if keep is None:
            return torch.stack([call(p, x, sigma, n) for n, p in zip(self.names, self.priors, strict=True)])
        if keep.ndim not in (2, 4) or keep.shape[:2] != (len(self), len(x)) or keep.dtype != torch.bool:
            raise ValueError(
                f"keep is {keep.dtype} {tuple(keep.shape)}; bool ({len(self)}, {len(x)}[, h, w]) is needed"
            )
        sigma = sigma_map(sigma, x).flatten()
        out = x.new_zeros(len(self), *x.shape)
        for i, prior in enumerate(self.priors):
            some = keep[i].view(len(x), -1).any(1)
            if keep.ndim == 4 and getattr(prior, "halo", None) is not None:
                whole = patch_share(prior, keep[i], x.shape[2:]) == 1
                few = some & ~whole
                if few.any():
                    out[i, few] = in_patches(prior, x[few], sigma[few], keep[i, few], self.names[i])
                some = whole
            if some.any():
                out[i, some] = call(prior, x[some], sigma[some], self.names[i])
        return out


def patch_share(prior: nn.Module, keep: Tensor, size: Sequence[int]) -> Tensor:
    """The share of an image of `size` pixels, (B,), that is computed for its patches `keep`, bool (B, h, w).

    The windows of its patches with their `halo`; 1 where these are more than the whole image, which is then computed.
    """
    high, wide = _window(prior, keep, size)
    return (keep.flatten(1).sum(1) * high * wide / (size[0] * size[1])).clamp(max=1)


def _window(prior: nn.Module, keep: Tensor, size: Sequence[int]) -> tuple[int, int]:
    """Sides of a patch's window: even, as are its corners, since networks may go by pairs of pixels."""
    if size[0] % keep.shape[1] or size[1] % keep.shape[2]:
        grid = f"{keep.shape[1]} x {keep.shape[2]}"
        raise ValueError(f"keep: a grid of {grid} patches does not divide an image of {size[0]} x {size[1]}")
    sides = [whole // parts + 2 * int(prior.halo) for whole, parts in zip(size, keep.shape[1:], strict=True)]  # type: ignore[arg-type]
    high, wide = (min(side + side % 2, whole) for side, whole in zip(sides, size, strict=True))
    return high, wide


def in_patches(prior: nn.Module, x: Tensor, sigma: Tensor, keep: Tensor, name: str) -> Tensor:
    """The prior's output (B, 1, H, W) in the patches `keep`, bool (B, h, w), and zero elsewhere.

    Each patch is computed with the `halo` of pixels that the prior looks at around it; at the edge of the image the
    window is moved inwards, so that the prior meets the edge where it is. Raises ValueError where patches do not divide
    the image.
    """
    (height, width), halo = x.shape[2:], int(prior.halo)  # type: ignore[arg-type]
    tall, broad = _window(prior, keep, (height, width))
    high, wide = height // keep.shape[1], width // keep.shape[2]
    image, row, column = keep.nonzero().unbind(1)
    out = torch.zeros_like(x)
    if not len(image):
        return out
    top = ((row * high - halo) // 2 * 2).clamp(0, height - tall)
    left = ((column * wide - halo) // 2 * 2).clamp(0, width - broad)

    def grid(first: Tensor, size: int, second: Tensor, other: int) -> tuple[Tensor, Tensor]:
        rows, columns = (torch.arange(k, device=x.device) for k in (size, other))
        return (first[:, None] + rows)[:, :, None], (second[:, None] + columns)[:, None]

    windows = x[image[:, None, None], 0, *grid(top, tall, left, broad)]
    outputs = call(prior, windows[:, None], sigma[image], name)[:, 0]
    inner = grid(row * high - top, high, column * wide - left, wide)
    patches = outputs[torch.arange(len(outputs), device=x.device)[:, None, None], *inner]
    out[image[:, None, None], 0, *grid(row * high, high, column * wide, wide)] = patches
    return out


def call(prior: nn.Module, x: Tensor, sigma: float | Tensor, name: str) -> Tensor:
    """`prior(x, sigma)`, of copies: a prior may write to its input, or return a buffer of its own.

    A float64 output becomes that of x. Raises ValueError, naming the prior, if it fails, and for any other type, shape
    or device.
    """
    try:
        out = _called(prior, x, sigma)
    except (RuntimeError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} failed for input {tuple(x.shape)}: {type(error).__name__}: {line}") from error
    if not isinstance(out, Tensor):
        raise ValueError(
            f"{name} returned a {type(out).__name__}; one tensor is needed: wrap it as "
            "priors.Function(lambda x, sigma: ...) that gives its image alone"
        )
    if out.shape != x.shape:
        raise ValueError(f"{name} returned shape {tuple(out.shape)} for input {tuple(x.shape)}; the same is needed")
    if out.layout != x.layout:
        raise ValueError(f"{name} returned a {out.layout} tensor; a dense one is needed: .to_dense()")
    if out.device != x.device:
        raise ValueError(f"{name} returned a tensor on {out.device} for input on {x.device}; move it with .to(x)")
    if out.dtype not in (x.dtype, torch.float64):
        raise ValueError(f"{name} returned {out.dtype} for input {x.dtype}; convert it with .to(x)")
    return out.to(x.dtype, copy=True)


_DIFFERENTIATE: WeakSet[nn.Module] = WeakSet()  # priors that cannot work in inference mode, once that was seen


def _called(prior: nn.Module, x: Tensor, sigma: float | Tensor) -> Any:
    """The prior on copies; outside of inference mode, which makes small loops faster, where it fails inside."""
    own = sigma.clone() if isinstance(sigma, Tensor) else sigma
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return prior(x.clone(), own)
    if not _DIFFERENTIATE or prior not in _DIFFERENTIATE:
        try:
            return prior(x.clone(), own)
        except RuntimeError:
            own = sigma.clone() if isinstance(sigma, Tensor) else sigma
    with torch.inference_mode(False), torch.no_grad():
        out = prior(x.clone(), own.clone() if isinstance(own, Tensor) else own)
    _DIFFERENTIATE.add(prior)
    return out


@contextmanager
def evaluating(*priors: nn.Module) -> Iterator[RemovableHandle]:
    """These priors in evaluation mode, with every module that they call, held or hidden in a function, so that batch
    statistics and dropout are as trained; their modes come back at the end.

    Hidden ones are seen when they are called, until the handle given is removed: watching costs a little per module.
    """
    switched: list[nn.Module] = []

    def off(module: nn.Module, *_: Any) -> None:
        if module.training:
            module.training = False
            switched.append(module)

    for module in (m for prior in priors for m in prior.modules()):
        off(module)
    handle = register_module_forward_pre_hook(off)
    try:
        yield handle
    finally:
        handle.remove()
        for module in switched:
            module.training = True


def check(prior: nn.Module, x: Tensor, sigma: float | Tensor, name: str = "prior") -> None:
    """Raises ValueError, naming the prior, if it returns NaN or another shape, or is no pure function of each image."""
    with evaluating(prior):
        _check(prior, x, sigma, name)


def _check(prior: nn.Module, x: Tensor, sigma: float | Tensor, name: str) -> None:
    out = call(prior, x, sigma, name)
    if not torch.isfinite(out).all():
        raise ValueError(f"{name} returned NaN or infinite values at sigma = {sigma}; leave it out or mend its wrapper")
    first = sigma[:1] if isinstance(sigma, Tensor) and sigma.ndim else sigma
    alone = call(prior, x[:1], first, name)
    if not torch.allclose(alone, out[:1], rtol=1e-4, atol=1e-5):
        raise ValueError(f"{name} is not pure: its output for an image changes with the batch or with earlier calls")


def guard(
    bank: PriorBank, clean: Tensor, sigmas: Sequence[float], margin: float = 1.0, seed: int = 0
) -> dict[str, str]:
    """Names of the priors of `bank` to leave out, and why: at calibration time, on clean images (B, 1, H, W).

    A prior is at fault that breaks its contract (`check`), or that on images with white noise of any of `sigmas` gives
    a mean squared error more than `margin` dB above that of its own input.
    """
    faults: dict[str, str] = {}
    with torch.inference_mode():
        for sigma in sigmas:
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
            for name, prior in zip(bank.names, bank.priors, strict=True):
                try:
                    check(prior, clean + sigma * noise, sigma, name)
                except ValueError as error:
                    faults.setdefault(name, str(error))
                    continue
                left = (call(prior, clean + sigma * noise, sigma, name) - clean).square().mean()
                worse = 10 * float(torch.log10(left / (sigma * noise).square().mean()))
                if worse > margin:
                    faults.setdefault(name, f"{name} makes noise of {sigma:g} worse by {worse:.1f} dB")
    return faults
