"""Under which conditions methods are tested, and fitted: arrays, objects, banks, and the mixture that `mixed` fits see.

What a fit may see and what a test shows are told apart here: objects of HELD_OUT, and arrays turned as far as a test
turns them, are in no fit.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from fusionlib.interferometer import GAIN_ERROR, Interferometer, eht2017_april10_table, eht2017_table, turned_table
from fusionlib.sky import FAMILIES, Sky, from_folder, geometric, tori


class Instrument(NamedTuple):
    """A table of baselines, and the standard deviation of log station gains that its data have and nobody is told."""

    table: Callable[[], pd.DataFrame]
    gains: float = 0.0


def _noisier(factor: float) -> pd.DataFrame:
    table = eht2017_table()
    return table.assign(sigma=factor * table.sigma)


def _thinned(coverage: float) -> pd.DataFrame:
    return Interferometer.eht2017(coverage).table


def _drawn(seed: int, k: int, turn: float, share: float, noise: float) -> pd.DataFrame:
    """Baselines of an array turned by up to `turn` degrees, with at least this share of the scans, and noise up to
    `noise` times that of the packaged array."""
    rng, table = np.random.default_rng([seed, k, 11]), eht2017_table()
    scans = rng.permutation(sorted(set(table.scan)))[: max(3, round(rng.uniform(share, 1.0) * table.scan.nunique()))]
    angle, factor = rng.uniform(-turn, turn), math.exp(rng.uniform(0.0, math.log(noise)))
    table = turned_table(table[table.scan.isin(scans)], float(angle))
    return table.assign(sigma=factor * table.sigma).reset_index(drop=True)


# The headline set: arrays of its own, from wider ranges than those of fits, each with one kind of object, "" for the
# sky of the labels. Half of them show objects that are in no fit.
SHOWN = (
    *("", "disc", "ring", "gaussian", "", "torus", "crescent", "disc", "double", "gaussian"),
    *("", "torus", "ring", "disc", "", "gaussian", "crescent", "torus", "double", "disc"),
)
WIDER = {"turn": 45.0, "share": 0.1, "noise": 4.0}
MIXED = tuple((f"drawn {k}", family) for k, family in enumerate(SHOWN))

ARRAYS: dict[str, Instrument] = {  # beside the packaged one and its lists of scans
    **{f"coverage {c}": Instrument(partial(_thinned, c)) for c in (0.3, 0.1)},
    "noise x4": Instrument(partial(_noisier, 4.0)),
    "gains 5 %": Instrument(eht2017_table, 0.05),
    "10 April": Instrument(eht2017_april10_table),
    "declination -29": Instrument(partial(eht2017_table, -29.0)),
    "turned 40": Instrument(lambda: turned_table(eht2017_table(), 40.0)),
    **{name: Instrument(partial(_drawn, 20_000, k, **WIDER)) for k, (name, _) in enumerate(MIXED)},
}
# Families that fits may see, since they cost no label, in groups: rings and crescents are alike.
ALIKE = (("ring", "crescent"), ("double",))
SIMULATED = tuple(name for group in ALIKE for name in group)
HELD_OUT = ("disc", "gaussian", "torus")  # objects that no fit sees
OBJECTS = (*FAMILIES, "torus")

# What takes the place of a prior after the fit. `unet_galaxies` knows the same images as `galaxies`, and no fit has
# seen it; in the place of the torus it leaves no prior near the sky; `upside_down` is `galaxies` turned over.
REPLACED: dict[str, dict[str, str]] = {
    "": {},
    "galaxies replaced": {"galaxies": "unet_galaxies"},
    "torus missing": {"torus": "unet_galaxies"},
    "galaxies upside down": {"galaxies": "upside_down"},
}

# The mixture that fits see: so many arrays, their ranges, and simulated skies of each family by the number of labels.
DRAWN, FREE = 32, 0.2
FITS = ("", "mixed", *(f"mixed less {group[0]}" for group in ALIKE))
VERSION = 1  # of the mixture; fits to another are other records
RANGES = {"turn": 30.0, "share": 0.3, "noise": 3.0}


class Condition(NamedTuple):
    """A condition of the map: an array of ARRAYS, "" for the packaged one; an object of OBJECTS or a folder of images,
    "" for the sky of the labels; and what is changed in the bank, of REPLACED."""

    array: str = ""
    family: str = ""
    replaced: str = ""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.array, Path(self.family).name, self.replaced))) or "as fitted"


# by importance: the plain ones, then pairs
CONDITIONS = (
    Condition(),
    *(Condition(name) for name in ("turned 40", "coverage 0.1")),
    *(Condition(family=name) for name in ("disc", "double", "ring", "gaussian", "torus", "crescent")),
    *(Condition(name) for name in ("declination -29", "10 April", "noise x4", "gains 5 %", "coverage 0.3")),
    *(Condition("turned 40", name) for name in ("disc", "double", "torus")),
    *(Condition("coverage 0.1", name) for name in ("disc", "ring")),
    *(Condition("declination -29", name) for name in ("gaussian", "crescent")),
    *(Condition("gains 5 %", "disc"), Condition("noise x4", "torus"), Condition("10 April", "double")),
    *(Condition(replaced=name) for name in REPLACED if name),
)


def group_of(name: str) -> int:
    """Which of ALIKE a family belongs to."""
    return next(k for k, group in enumerate(ALIKE) if name in group)


def objects(name: str, n: int, seed: int) -> Sky:
    """`n` skies of an object of OBJECTS, or the first ones of a folder of images."""
    if name not in OBJECTS:
        return from_folder(name)[:n]
    return tori(n, seed) if name == "torus" else geometric(name, n, seed)


def drawn_table(seed: int, k: int) -> pd.DataFrame:
    """Baselines of array k of the mixture, drawn from its RANGES."""
    return _drawn(seed, k, **RANGES)


def station_gains(name: str) -> dict[str, float]:
    """Gain errors of an array of ARRAYS, by station, as `Interferometer.observe` takes them."""
    gains = ARRAYS[name].gains if name else 0.0
    return dict.fromkeys(GAIN_ERROR, gains) if gains else {}
