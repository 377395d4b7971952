"""Plug-and-Play reconstruction: (y, physics, prior, ...) -> Reconstruction.

`physics` is an Interferometer with whitened data, or an Uncalibrated one with closure data: whatever has `prox`,
`descend`, `chi2` and `start` for its kind of y. Every loop sees the data through these alone.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from tqdm.auto import tqdm

from fusionlib.fusion import FusedPrior
from fusionlib.gates import DataStep
from fusionlib.priors import PriorBank, call, check, evaluating


class Proximal(Protocol):
    """What a half-quadratic step needs of an instrument; y is its own kind of data, sliced by image."""

    def prox(self, z: Tensor, y: Any, rho: float) -> Tensor: ...


class Physics(Proximal, Protocol):
    """What a loop needs of an instrument."""

    npix: int

    def descend(self, z: Tensor, y: Any) -> Tensor: ...
    def chi2(self, x: Tensor, y: Any) -> Tensor: ...
    def start(self, y: Any) -> Tensor: ...


class Reconstruction(NamedTuple):
    """Image (B, 1, H, W); record of tensors with the iteration first: `chi2` (K, B), `step` (K, B, root mean square
    change of the image), and for a fused prior `weights` (K, N, B, h, w), `kept` (K, N, B); wall time."""

    image: Tensor
    record: dict[str, Tensor]
    seconds: float


class Options(TypedDict, total=False):
    """What every loop takes: `start` (B, 1, H, H), the first z, by default that of the physics; `tolerance`: an image
    stops once it changes by less (root mean square); `progress`: show a bar."""

    start: Tensor | None
    tolerance: float
    progress: bool


Denoise = Callable[[Tensor, float, DataStep], Tensor]
Step = Callable[[Tensor, Tensor, float, Any, Denoise], tuple[Tensor, Tensor]]  # (z, u, sigma, y, denoise) -> (z, u)


def schedule(sigma_max: float, sigma_min: float, steps: int) -> list[float]:
    """`steps` noise levels falling geometrically from `sigma_max` to `sigma_min`."""
    if not (sigma_max >= sigma_min > 0 and steps >= 1):
        raise ValueError(
            f"schedule: sigma_max >= sigma_min > 0 and steps >= 1 needed, got {sigma_max, sigma_min, steps}"
        )
    return [sigma_max * (sigma_min / sigma_max) ** (k / max(steps - 1, 1)) for k in range(steps)]


def data_step(physics: Proximal, y: Any, rho: float) -> DataStep:
    """What a loop knows of the data at penalty `rho`: an image to the image that fits them."""
    return lambda v: physics.prox(v, y, rho)


def half_quadratic(physics: Proximal, lam: float) -> Step:
    """One iteration of `hqs`, which the fits along its trajectory take too."""

    def step(z: Tensor, u: Tensor, sigma: float, y: Any, denoise: Denoise) -> tuple[Tensor, Tensor]:
        fit = data_step(physics, y, lam / sigma**2)
        return denoise(fit(z), sigma, fit), u

    return step


def hqs(
    y: Any, physics: Physics, prior: nn.Module, *, sigmas: Sequence[float], lam: float, **options: Unpack[Options]
) -> Reconstruction:
    """Annealed half-quadratic splitting (Zhang et al., DPIR, TPAMI 2021) with the exact data prox.

    For each noise level: x = prox(z, y, rho = lam / sigma^2), then z = prior(x, sigma). `y` whitened data (B, 2 M) or
    ClosureData. The image returned is the last z. Raises ValueError for NaN data, sigma or lam <= 0, and, by name, for
    a prior that returns NaN or another shape.
    """

    return _run(half_quadratic(physics, lam), y, physics, prior, sigmas, lam, **options)


def admm(
    y: Any, physics: Physics, prior: nn.Module, *, sigmas: Sequence[float], lam: float, **options: Unpack[Options]
) -> Reconstruction:
    """Plug-and-Play ADMM (Venkatakrishnan et al. 2013), arguments as `hqs`, with the scaled dual variable u.

    x = prox(z - u, y, lam / sigma^2), z = prior(x + u, sigma), u = u + x - z.
    """

    def step(z: Tensor, u: Tensor, sigma: float, y: Any, denoise: Denoise) -> tuple[Tensor, Tensor]:
        fit = data_step(physics, y, lam / sigma**2)
        x = fit(z - u)
        new = denoise(x + u, sigma, fit)
        return new, u + x - new

    return _run(step, y, physics, prior, sigmas, lam, **options)


def pgd(
    y: Any, physics: Physics, prior: nn.Module, *, sigmas: Sequence[float], **options: Unpack[Options]
) -> Reconstruction:
    """Plug-and-Play proximal gradient descent, arguments as `hqs`: z = prior(descend(z, y), sigma).

    `descend` is one gradient step on the data term, of length 1 / Lipschitz constant for an Interferometer, by
    backtracking for an Uncalibrated one. The weight of the prior is in sigma alone.
    """

    def step(z: Tensor, u: Tensor, sigma: float, y: Any, denoise: Denoise) -> tuple[Tensor, Tensor]:
        return denoise(physics.descend(z, y), sigma, lambda v: physics.descend(v, y)), u

    return _run(step, y, physics, prior, sigmas, 1.0, **options)


def red(
    y: Any, physics: Physics, prior: nn.Module, *, sigmas: Sequence[float], lam: float, **options: Unpack[Options]
) -> Reconstruction:
    """Regularisation by denoising, fixed-point form (Romano, Elad & Milanfar 2017, sec. 4), arguments as `hqs`.

    x = prox(prior(x, sigma), y, lam): where it settles, grad f(x) + lam (x - prior(x, sigma)) = 0. Unlike in `hqs`, lam
    does not grow as sigma falls, and the image returned is the data step's.
    """

    def step(z: Tensor, u: Tensor, sigma: float, y: Any, denoise: Denoise) -> tuple[Tensor, Tensor]:
        fit = data_step(physics, y, lam)
        return fit(denoise(z, sigma, fit)), u

    return _run(step, y, physics, prior, sigmas, lam, **options)


def _run(
    step: Step,
    y: Any,
    physics: Physics,
    prior: nn.Module,
    sigmas: Sequence[float],
    lam: float,
    start: Tensor | None = None,
    tolerance: float = 0.0,
    progress: bool = False,
) -> Reconstruction:
    """Check what came in, iterate, check what comes out. The caller's start and modules are left as they were."""
    if not torch.isfinite(physics.start(y)).all() or (isinstance(y, Tensor) and not torch.isfinite(y).all()):
        raise ValueError("data y have NaN or infinite entries; drop or flag those visibilities")
    if not len(sigmas) or min(sigmas) <= 0 or lam <= 0:
        raise ValueError(f"sigmas and lam must be positive, got sigmas = {list(sigmas)}, lam = {lam}")
    began = time.perf_counter()
    usual = physics.start(y)
    first = _start(usual, start)
    shown: Iterable[float] = tqdm(sigmas, "pnp", leave=False) if progress else sigmas
    with torch.inference_mode(), evaluating(prior) as watch:
        image, record = iterate(step, y, physics, prior, _unwatched(shown, watch), first, tolerance)
        if not torch.isfinite(image).all():
            _blame(step, y, prior, sigmas, first)
            raise ValueError(f"the image is not finite after {len(sigmas)} iterations; try a larger lam")
        if usual.any() and not image.flatten(1).any(1).all():  # of no light closures say nothing
            raise ValueError(f"{type(prior).__name__} left no flux: an image is zero after {len(sigmas)} iterations")
    return Reconstruction(image, record, time.perf_counter() - began)


def _start(usual: Tensor, given: Tensor | None) -> Tensor:
    """Where a loop starts, a tensor of its own. Raises ValueError for a start that is not finite or does not fit."""
    if given is None:
        return usual
    if given.ndim != 4 or given.shape[1:] != usual.shape[1:] or len(given) not in (1, len(usual)):
        raise ValueError(f"start: {tuple(usual.shape)} is needed, got {tuple(given.shape)}")
    if not torch.isfinite(given).all():
        raise ValueError("start: the image has NaN or infinite entries")
    return given.to(usual).expand_as(usual).clone()


def _unwatched(sigmas: Iterable[float], watch: RemovableHandle) -> Iterator[float]:
    """The noise levels; from the second on every module has been seen once."""
    for k, sigma in enumerate(sigmas):
        if k == 1:
            watch.remove()
        yield sigma


def images(step: Step, y: Any, denoise: Denoise, sigmas: Iterable[float], start: Tensor) -> Iterator[Tensor]:
    """The loop itself: the image after each iteration."""
    z, u = start, torch.zeros_like(start)
    for sigma in sigmas:
        z, u = step(z, u, sigma, y, denoise)
        yield z


def last_image(step: Step, y: Any, denoise: Denoise, sigmas: Iterable[float], start: Tensor) -> Tensor:
    """Where `images` end."""
    z = start
    for image in images(step, y, denoise, sigmas, start):
        z = image
    return z


def iterate(
    step: Step,
    y: Any,
    physics: Physics,
    prior: nn.Module,
    sigmas: Iterable[float],
    start: Tensor,
    tolerance: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The last image and the record. With `tolerance`, images that have settled leave the batch."""
    rows: dict[str, list[Tensor]] = {"chi2": [], "step": []}

    def denoise(x: Tensor, sigma: float, data_step: DataStep) -> Tensor:
        if not isinstance(prior, FusedPrior):
            return call(prior, x, sigma, type(prior).__name__)
        fused = prior.fuse(x, sigma, data_step)
        rows.setdefault("weights", []).append(fused.weights)
        rows.setdefault("kept", []).append(fused.kept)
        return fused.image

    if tolerance > 0:
        return _iterate_until_settled(step, y, physics, denoise, sigmas, start, tolerance, rows)
    z = start
    for new in images(step, y, denoise, sigmas, start):
        rows["chi2"].append(physics.chi2(new, y))
        rows["step"].append((new - z).square().mean((1, 2, 3)).sqrt())
        z = new
    return z, {name: torch.stack(values) for name, values in rows.items()}


def _iterate_until_settled(
    step: Step,
    y: Any,
    physics: Physics,
    denoise: Denoise,
    sigmas: Iterable[float],
    start: Tensor,
    tolerance: float,
    rows: dict[str, list[Tensor]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """As `iterate`; a settled image keeps its chi-square in the record, its step is 0, its weights are NaN."""
    z, u = start.clone(), torch.zeros_like(start)
    moving = torch.arange(len(z), device=z.device)
    chi2 = physics.chi2(z, y)
    wide: dict[str, list[Tensor]] = {"chi2": [], "step": []}
    for sigma in sigmas:
        if not len(moving):
            break
        new, u[moving] = step(z[moving], u[moving], sigma, y[moving], denoise)
        change = (new - z[moving]).square().mean((1, 2, 3)).sqrt()
        chi2 = chi2.index_copy(0, moving, physics.chi2(new, y[moving]))
        wide["chi2"].append(chi2)
        wide["step"].append(torch.zeros_like(chi2).index_copy(0, moving, change))
        for name in {"weights", "kept"} & set(rows):
            part = rows[name][-1]
            whole = part.new_zeros(part.shape[0], len(z), *part.shape[2:])
            whole = whole if name == "kept" else whole + torch.nan
            wide.setdefault(name, []).append(whole.index_copy(1, moving, part))
        z[moving] = new
        moving = moving[change >= tolerance]
    return z, {name: torch.stack(values) for name, values in wide.items()}


def _blame(step: Step, y: Any, prior: nn.Module, sigmas: Sequence[float], z: Tensor) -> None:
    """Walk the loop again and raise the ValueError of the first single prior that is at fault, if one is."""
    if isinstance(prior, FusedPrior):
        singles = list(zip(prior.bank.names, prior.bank.priors, strict=True))
    else:
        singles = [(type(prior).__name__, prior)]

    def denoise(x: Tensor, sigma: float, data_step: DataStep) -> Tensor:
        for name, single in singles:
            check(single, x, sigma, name)
        return prior(x, sigma)

    last_image(step, y, denoise, sigmas, z)


def mace(
    y: Any,
    physics: Physics,
    bank: PriorBank,
    *,
    sigmas: Sequence[float],
    lam: float,
    rho: float = 0.5,
    share: float = 0.5,
    start: Tensor | None = None,
) -> Reconstruction:
    """The equilibrium F(v) = G(v) of the data step and the priors, by Mann iteration, sigma falling as in `pnp.hqs`.

    v = (1 - rho) v + rho (2 G - I)(2 F - I) v: F applies to each agent's state the agent, the data step with penalty
    lam / sigma^2 first; G averages, the data with weight `share`, the priors with equal parts of the rest. The image
    returned is the average of F(v). Raises ValueError for settings that are not positive, and, by name, for a prior
    that returns another shape.
    """
    if not len(sigmas) or min(sigmas) <= 0 or lam <= 0 or not (0 < rho < 1 and 0 < share < 1):
        raise ValueError(
            f"mace: sigmas, lam > 0 and 0 < rho, share < 1 needed, got {list(sigmas)}, {lam}, {rho}, {share}"
        )
    began = time.perf_counter()
    first = _start(physics.start(y), start)
    v = first[None].repeat(len(bank) + 1, 1, 1, 1, 1)
    mu = torch.tensor([share, *[(1 - share) / len(bank)] * len(bank)]).to(v).view(-1, 1, 1, 1, 1)
    rows: dict[str, list[Tensor]] = {"chi2": [], "step": []}
    image = first
    with torch.inference_mode(), evaluating(bank) as watch:
        for sigma in _unwatched(sigmas, watch):
            agents = [physics.prox(v[0], y, lam / sigma**2)]
            agents += [
                call(prior, v[k + 1], sigma, name)
                for k, (name, prior) in enumerate(zip(bank.names, bank.priors, strict=True))
            ]
            f = torch.stack(agents)
            new = (mu * f).sum(0)
            reflected = 2 * f - v
            v = (1 - rho) * v + rho * (2 * (mu * reflected).sum(0) - reflected)
            rows["chi2"].append(physics.chi2(new, y))
            rows["step"].append((new - image).square().mean((1, 2, 3)).sqrt())
            image = new
    return Reconstruction(image, {k: torch.stack(r) for k, r in rows.items()}, time.perf_counter() - began)
