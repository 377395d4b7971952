"""What is imaged without calibration: an observation that was measured, and the simulated twin of its baselines."""

import importlib.util
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fusionlib import files
from fusionlib.interferometer import (
    GAIN_ERROR,
    KINDS,
    MIN_BASELINE,
    RELEASED,
    ClosureData,
    Interferometer,
    Uncalibrated,
    compact_flux,
    eht2017_table,
    read_observation,
)
from fusionlib.paper.experiment import SYSTEMATIC, WINDOW, device
from fusionlib.sky import black_holes

# As M87 (EHTC 2019 Paper V): the jet comes towards us at 17 degrees and position angle 288, the spin points away
TWIN = {"spin": 0.5, "inclination": 163.0, "theta_g": 3.8, "position_angle": 108.0, "x": 0.0, "y": 0.0, "xi": 0.9}
TWIN |= {"width": 1.2, "gamma": -0.5, "turbulence": 0.5, "brightness": 0.8}


@dataclass(frozen=True, eq=False)
class Source:
    """A table of baselines with measured `vis` [Jy], the compact flux [Jy], and the truth (1, 1, 64, 64) if known, or
    the file of the observation, and what it is in words."""

    name: str
    table: pd.DataFrame
    flux: float
    truth: Tensor | None = None
    observation: str = ""
    label: str = ""

    @cache  # noqa: B019  (two sources live as long as a chapter)
    def array(
        self, without: tuple[int, ...] = (), use: tuple[str, ...] = KINDS, window: float = WINDOW
    ) -> tuple[Uncalibrated, ClosureData]:
        """The uncalibrated instrument without some scans, and its data."""
        plain = Interferometer.from_table(self.table, min_baseline=MIN_BASELINE, without=without)
        array = Uncalibrated(plain, use, systematic=SYSTEMATIC, window=window).to(device())
        vis = torch.tensor(plain.table.vis.to_numpy(np.complex128), device=device())[None]
        return array, array.measure(vis, torch.tensor([self.flux], device=device()))


def twin(table: pd.DataFrame | None = None, observation: str = "", seed: int = 2017) -> Source:
    """A simulated black hole like M87, seen by the baselines of a table, by default the packaged ones, through unknown
    phases and gains."""
    table = eht2017_table() if table is None else table
    sky = black_holes(1, seed, **TWIN)  # type: ignore[arg-type]
    plain = Interferometer.from_table(table)
    array = Uncalibrated(plain)
    y = plain.observe(sky.fine, seed, gains=GAIN_ERROR, phases=True)
    flux = float(array.observe(sky.fine, seed).flux)
    table = table.assign(vis=plain.visibilities(y)[0].numpy())
    return Source("twin", table, flux, sky.image, observation, "simulated twin, same baselines")


def sources(observation: str | Path, flux: float = 0.0) -> tuple[list[Source], str]:
    """The observation, if there is one with stations and visibilities, and its twin; and a word on what there is.

    `flux` [Jy] in the compact source, by default `compact_flux`.
    """
    content = files.sha256(Path(observation)) if observation and Path(observation).is_file() else ""
    return _sources(str(observation), content, flux)


@lru_cache(maxsize=4)
def _sources(observation: str, content: str, flux: float) -> tuple[list[Source], str]:
    packaged, path = twin(), Path(observation)
    if not observation:
        return [packaged], f"there is no data/{RELEASED}"
    if path.suffix.lower() != ".csv" and importlib.util.find_spec("ehtim") is None:
        return [packaged], f"{path.name} is there; reading it needs ehtim: pip install -e '.[eht]'"
    table = read_observation(observation)
    try:
        real, why = measured(table, path, flux)
    except ValueError as error:
        return [packaged], str(error)
    word = f"{real.label} in {path.name}; compact flux {real.flux:.3g} Jy, {why}"
    return [real, packaged if _packaged(table) else twin(table.drop(columns="vis"), observation)], word


def measured(table: pd.DataFrame, path: Path, flux: float = 0.0) -> tuple[Source, str]:
    """The source of a table that was read from a file, with a flux [Jy], by default `compact_flux`, and where that is
    from. Raises ValueError, naming the file, for a table without stations, scans or visibilities."""
    if lacking := {"scan", "t1", "t2", "vis"} - set(table):
        raise ValueError(f"{path.name} has no column(s) {sorted(lacking)}, so it cannot be imaged")
    name, date = table.attrs.get("source") or path.stem, table.attrs.get("date", "")
    used, why = (flux, "as given") if flux else compact_flux(table)
    return Source(name, table, used, observation=str(path), label=", ".join(filter(None, (name, date)))), why


def _packaged(table: pd.DataFrame) -> bool:
    """Whether these are the packaged baselines."""
    mine, other = eht2017_table(), table
    if len(mine) != len(other):
        return False
    both = mine.merge(other, on=["scan", "t1", "t2"])
    return len(both) == len(mine) and bool(np.allclose(both[["u_x", "v_x"]], both[["u_y", "v_y"]], rtol=1e-2, atol=1e7))


def source_of(name: str, observation: str, flux: float = 0.0) -> Source:
    """The source of that name, and its observation."""
    return next(s for s in sources(observation, flux)[0] if s.name == name)
