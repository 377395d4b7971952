"""The explorer: one sky, one array, some priors, a way of fusing them, and what comes of it.

`State` says what is wanted, `look(state)` computes it. The page of chapter 14 puts widgets around these.
"""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib import files, metrics, sky
from fusionlib.explorer.rules import BANKS, prior
from fusionlib.fusion import FusedPrior
from fusionlib.interferometer import (
    MIN_BASELINE,
    ClosureData,
    Interferometer,
    Uncalibrated,
    compact_flux,
    eht2017_table,
    read_observation,
)
from fusionlib.paper import conditions
from fusionlib.paper.experiment import SYSTEMATIC, WINDOW
from fusionlib.paper.spec import content
from fusionlib.pnp import Reconstruction, admm, hqs, pgd, red, schedule
from fusionlib.sky import NPIX

ALGORITHMS: dict[str, Callable[..., Reconstruction]] = {"hqs": hqs, "admm": admm, "pgd": pgd, "red": red}
ARRAYS = ("", *(name for name in conditions.ARRAYS if not name.startswith("drawn")))
OBJECTS = ("", *conditions.OBJECTS)


@dataclass(frozen=True)
class State:
    """Everything that a picture of the explorer depends on.

    `truth` is an image file or a folder of them, of which number `seed` is taken, or "" for the simulator: `family`, an
    object of OBJECTS drawn from `seed`, or "" for a Kerr disc (`spin`, `inclination` [deg], `theta_g` [microarcsec],
    `position_angle` [deg], `turbulence`, `seed`). `array` is one of ARRAYS, "" for the EHT of 2017; `noise` is in units
    of its own. `observation`, a UVFITS or CSV file with measured visibilities, takes the place of sky and array; its
    phases and gains are taken as unknown, its compact `flux` [Jy] as given or, if 0, as `interferometer.compact_flux`.
    `strategy` is a prior of the bank, `average`, or one of `rules.FITTED`: first the rule of chapter 11, fitted in the
    profile `paper`, then gates of the profile `quick`, fitted to such data with the whole bank `main`, or `far` without
    the torus. The weights of priors that are not in `priors` go to the others in equal parts.
    """

    truth: str = ""
    family: str = ""
    observation: str = ""
    flux: float = 0.0
    spin: float = 0.5
    inclination: float = 30.0
    theta_g: float = 3.8
    position_angle: float = 108.0
    turbulence: float = 0.5
    seed: int = 1
    array: str = ""
    noise: float = 1.0
    priors: tuple[str, ...] = BANKS["main"]
    strategy: str = "closed_form"
    algorithm: str = "hqs"
    iterations: int = 16
    sigma_max: float = 0.2
    sigma_min: float = 0.02
    lam: float = 0.1


KERR = ("spin", "inclination", "theta_g", "position_angle", "turbulence")


@dataclass(frozen=True, eq=False)
class View:
    """What `look` found: images (H, W) `truth`, `dirty`, `beam`, `image`; `psnr` [dB]; `weights` (K, N, H, W) or None
    for one prior, `names` (N,); `points`, the table of baselines with `u`, `v` [wavelengths] and the whitened size of
    their `residual` (of the amplitude, without calibration); `chi2` and `step` (K,); the `seconds` of the loop; and a
    `note` on the data. Of an observation nobody knows the truth: it is empty there, and the `psnr` NaN."""

    state: State
    truth: np.ndarray
    dirty: np.ndarray
    beam: np.ndarray
    image: np.ndarray
    psnr: float
    weights: np.ndarray | None
    names: tuple[str, ...]
    points: pd.DataFrame
    chi2: np.ndarray
    step: np.ndarray
    seconds: float
    note: str = ""


@lru_cache(maxsize=8)
def array(name: str = "", noise: float = 1.0) -> Interferometer:
    """An instrument of ARRAYS, "" for the EHT of 2017, with so many times its noise."""
    if name not in ARRAYS:
        raise ValueError(f"array: one of {ARRAYS} is needed, got {name!r}")
    if not noise > 0:
        raise ValueError(f"noise: a positive number is needed, got {noise}")
    if noise == 1:
        table = conditions.ARRAYS[name].table() if name else eht2017_table()
        plain = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW)
        plain(torch.zeros(1, 1, 2 * NPIX, 2 * NPIX))  # makes the matrix of finer images, which skies are observed from
        return plain
    noisy = copy.deepcopy(array(name))  # another noise is another scale, and needs no new decomposition
    noisy.table = noisy.table.assign(sigma=noisy.table.sigma * noise)
    noisy.sigma = noisy.sigma * noise
    noisy.matrix, noisy.singular, noisy.norm2 = noisy.matrix / noise, noisy.singular / noise, noisy.norm2 / noise**2
    noisy._finer = {size: matrix / noise for size, matrix in noisy._finer.items()}
    return noisy


def place(text: str) -> Path:
    """A path as somebody typed or pasted it, perhaps in quotes."""
    return Path(text.strip().strip("\"'")).expanduser()


def measured(path: str, flux: float = 0.0) -> tuple[Uncalibrated, ClosureData]:
    """The instrument of an observation, and its data, with a compact flux [Jy], by default as suggested."""
    if not place(path).is_file():
        raise ValueError(f"observation: there is no file {path}")
    return _measured(place(path), files.sha256(place(path)), flux)


@lru_cache(maxsize=2)
def _measured(path: Path, sha: str, flux: float) -> tuple[Uncalibrated, ClosureData]:
    """As `measured`. `sha`, of the content, names what is remembered."""
    table = read_observation(path)
    if "vis" not in table:
        raise ValueError(f"observation: {path} has no column vis, the measured visibilities")
    plain = Interferometer.from_table(table, min_baseline=MIN_BASELINE)
    array = Uncalibrated(plain, systematic=SYSTEMATIC, window=WINDOW)
    used = flux if flux > 0 else compact_flux(table)[0]
    return array, array.measure(torch.tensor(plain.table.vis.to_numpy(complex))[None], torch.tensor([used]))


def truth(state: State) -> sky.Sky:
    """The sky of a state (which may differ in what the sky does not depend on)."""
    there = state.truth and place(state.truth).exists()
    return _truth(state, content(str(place(state.truth))) if there else "")


@lru_cache(maxsize=8)
def _truth(state: State, sha: str) -> sky.Sky:
    """As `truth`. `sha`, of the content, names what is remembered."""
    if state.family not in OBJECTS:
        raise ValueError(f"family: one of {OBJECTS} is needed, got {state.family!r}")
    if not state.truth and state.family:
        return conditions.objects(state.family, 1, state.seed)
    if not state.truth:
        return sky.black_holes(1, state.seed, x=0.0, y=0.0, **{name: getattr(state, name) for name in KERR})
    skies = images(state.truth)
    return skies[slice(state.seed % len(skies.image), state.seed % len(skies.image) + 1)]


def images(path: str) -> sky.Sky:
    """An image file, or a folder of them, as `sky.from_folder`."""
    there = place(path)
    if not there.exists():
        raise ValueError(f"truth: there is no file or folder {there}")
    if there.is_dir():
        return sky.from_folder(there)
    if not sky.is_image(there):
        raise ValueError(f"truth: {there} is no .npy, .npz or .fits image")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / there.name).symlink_to(there.resolve())
        return sky.from_folder(folder)


def _sky_of(state: State) -> State:
    return replace(State(), **{name: getattr(state, name) for name in ("truth", "family", "seed", *KERR)})


def observed(state: State) -> tuple[Interferometer, Tensor]:
    """The array of a state, and what it measures of its sky."""
    instrument, scene = array(state.array, state.noise), truth(_sky_of(state))
    return instrument, instrument.observe(scene.fine, state.seed, gains=conditions.station_gains(state.array))


class Cancelled(Exception):
    """Somebody wants something else by now."""


@torch.inference_mode()
def look(state: State, cancelled: Callable[[], bool] = lambda: False) -> View:
    """Observe, reconstruct, score. Raises ValueError, in words, for a state that cannot be; Cancelled at the next
    iteration once `cancelled()` is true."""
    if state.algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm: one of {sorted(ALGORITHMS)} is needed, got {state.algorithm!r}")
    scene, note = None, ""
    instrument: Interferometer | Uncalibrated
    data: Any
    if state.observation:
        instrument, data = measured(state.observation, state.flux)
        plain, note = instrument.array, f"compact flux {float(data.flux):.3g} Jy"
    else:
        scene, (plain, data) = truth(_sky_of(state)), observed(state)
        instrument = plain
    chosen = prior(state.strategy, state.priors, instrument, data)
    sigmas = schedule(state.sigma_max, state.sigma_min, state.iterations)
    options: dict[str, Any] = {} if state.algorithm == "pgd" else {"lam": state.lam}

    def check(*_: Any) -> None:
        if cancelled():
            raise Cancelled

    hook = (chosen.bank if isinstance(chosen, FusedPrior) else chosen).register_forward_pre_hook(check)
    try:
        result = ALGORITHMS[state.algorithm](data, instrument, chosen, sigmas=sigmas, **options)
    finally:
        hook.remove()
    table = plain.table
    if scene is None:
        vis = torch.tensor(table.vis.to_numpy(complex))[None]
        size, fit = vis[0].abs(), plain.visibilities(plain(result.image))[0].abs()
        residual = (size - fit).abs() / torch.hypot(plain.sigma, SYSTEMATIC * size)
        y, real = plain.whiten(vis.to(torch.complex64)), torch.zeros_like(result.image)
    else:
        residual = torch.hypot(*plain.residual(result.image, data)[0].chunk(2))
        y, real = data, scene.image
    dirty, weights = plain.dirty_image(y), result.record.get("weights")
    return View(
        state,
        real[0, 0].numpy(),
        (dirty / dirty.max())[0, 0].numpy(),
        plain.dirty_beam()[0, 0].numpy(),
        result.image[0, 0].numpy(),
        float("nan") if scene is None else float(metrics.psnr(result.image, scene.image)),
        None if weights is None else _wide(weights[:, :, 0], real.shape[-1]).numpy(),
        chosen.bank.names if isinstance(chosen, FusedPrior) else (state.strategy,),
        pd.DataFrame({"u": table.u, "v": table.v, "residual": residual.numpy()}),
        result.record["chi2"][:, 0].numpy(),
        result.record["step"][:, 0].numpy(),
        result.seconds,
        note,
    )


def _wide(w: Tensor, side: int) -> Tensor:
    """Weights (K, N, h, w) on the image grid."""
    return nn.functional.interpolate(w.float(), (side, side), mode="nearest-exact")
