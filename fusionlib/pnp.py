"""Plug-and-Play reconstruction: (y, interferometer, prior, ...) -> Reconstruction."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusionlib.fusion import FusedPrior
from fusionlib.interferometer import Interferometer
from fusionlib.priors import call, check


class Reconstruction(NamedTuple):
    """Image (B, 1, H, W); record of tensors with the iteration first: `chi2` (K, B), `step` (K, B, root mean square
    change of the image), and for a fused prior `weights` (K, N, B, h, w), `kept` (K, N, B); wall time."""

    image: Tensor
    record: dict[str, Tensor]
    seconds: float


def schedule(sigma_max: float, sigma_min: float, steps: int) -> list[float]:
    """`steps` noise levels falling geometrically from `sigma_max` to `sigma_min`."""
    if not (sigma_max >= sigma_min > 0 and steps >= 1):
        raise ValueError(
            f"schedule: sigma_max >= sigma_min > 0 and steps >= 1 needed, got {sigma_max, sigma_min, steps}"
        )
    return [sigma_max * (sigma_min / sigma_max) ** (k / max(steps - 1, 1)) for k in range(steps)]


def hqs(
    y: Tensor,
    interferometer: Interferometer,
    prior: nn.Module,
    *,
    sigmas: Sequence[float],
    lam: float,
    start: Tensor | None = None,
) -> Reconstruction:
    """Annealed half-quadratic splitting (Zhang et al., DPIR, TPAMI 2021) with the exact data prox.

    For each noise level: x = prox(z, y, rho = lam / sigma^2), then z = prior(x, sigma). `y` (B, 2 M) whitened data;
    `start` (B, 1, H, H) is the first z, zero if not given, so that the first x is the Tikhonov image.
    The image returned is the last z.
    Raises ValueError for NaN data, sigma or lam <= 0, and, by name, for a prior that returns NaN or another shape.
    """
    if not torch.isfinite(y).all():
        raise ValueError("hqs: data y have NaN or infinite entries; drop or flag those visibilities")
    if not len(sigmas) or min(sigmas) <= 0 or lam <= 0:
        raise ValueError(f"hqs: sigmas and lam must be positive, got sigmas = {list(sigmas)}, lam = {lam}")
    began = time.perf_counter()
    n = interferometer.npix
    z = y.new_zeros(len(y), 1, n, n) if start is None else start
    with torch.inference_mode():
        image, record = _hqs(y, interferometer, prior, tuple(sigmas), lam, z)
    if not torch.isfinite(image).all():
        _blame(y, interferometer, prior, sigmas, lam, z)
        raise ValueError(
            f"hqs: the image is not finite after {len(sigmas)} iterations; try a larger lam or fewer steps"
        )
    return Reconstruction(image, record, time.perf_counter() - began)


def _hqs(
    y: Tensor, interferometer: Interferometer, prior: nn.Module, sigmas: tuple[float, ...], lam: float, z: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    rows: dict[str, list[Tensor]] = {"chi2": [], "step": []}
    for sigma in sigmas:
        x = interferometer.prox(z, y, lam / sigma**2)
        if isinstance(prior, FusedPrior):
            new, weights, kept = prior.fuse(x, sigma)
            rows.setdefault("weights", []).append(weights)
            rows.setdefault("kept", []).append(kept)
        else:
            new = call(prior, x, sigma, type(prior).__name__)
        rows["chi2"].append(interferometer.chi2(new, y))
        rows["step"].append((new - z).square().mean((1, 2, 3)).sqrt())
        z = new
    return z, {name: torch.stack(values) for name, values in rows.items()}


def _blame(
    y: Tensor, interferometer: Interferometer, prior: nn.Module, sigmas: Sequence[float], lam: float, z: Tensor
) -> None:
    """Walk the loop again and raise the ValueError of the first single prior that is at fault, if one is."""
    if isinstance(prior, FusedPrior):
        singles = list(zip(prior.bank.names, prior.bank.priors, strict=True))
    else:
        singles = [(type(prior).__name__, prior)]
    for sigma in sigmas:
        x = interferometer.prox(z, y, lam / sigma**2)
        for name, single in singles:
            check(single, x, sigma, name)
        z = prior(x, sigma)
