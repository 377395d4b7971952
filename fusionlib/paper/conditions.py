"""Under which conditions methods are tested, and fitted: arrays, objects, and the mixture that `mixed` fits see.

What a fit may see and what a test shows are told apart here: objects of HELD_OUT, and arrays turned as far as a test
turns them, are in no fit.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from fusionlib.interferometer import GAIN_ERROR, eht2017_april10_table, eht2017_table, turned_table
from fusionlib.sky import FAMILIES, Sky, geometric, tori


class Instrument(NamedTuple):
    """A table of baselines, and the standard deviation of log station gains that its data have and nobody is told."""

    table: Callable[[], pd.DataFrame]
    gains: float = 0.0


def _noisier(factor: float) -> pd.DataFrame:
    table = eht2017_table()
    return table.assign(sigma=factor * table.sigma)


ARRAYS: dict[str, Instrument] = {  # beside the packaged one and its lists of scans
    "noise x4": Instrument(partial(_noisier, 4.0)),
    "gains 5 %": Instrument(eht2017_table, 0.05),
    "10 April": Instrument(eht2017_april10_table),
    "declination -29": Instrument(partial(eht2017_table, -29.0)),
    "turned 40": Instrument(lambda: turned_table(eht2017_table(), 40.0)),
}
SIMULATED = ("ring", "crescent", "double")  # families that fits may see: they cost no label
HELD_OUT = ("disc", "gaussian", "torus")  # objects that no fit sees
OBJECTS = (*FAMILIES, "torus")

# The mixture: so many arrays, each turned by up to so many degrees, with at least this share of the scans, and noise up
# to so many times that of the packaged array; and a share of the number of labels for each simulated family.
DRAWN, TURN, SHARE, NOISE, FREE = 8, 30.0, 0.3, 3.0, 0.2


def objects(name: str, n: int, seed: int) -> Sky:
    """`n` skies of an object of OBJECTS."""
    return tori(n, seed) if name == "torus" else geometric(name, n, seed)


def drawn_table(seed: int, k: int) -> pd.DataFrame:
    """Baselines of array k of the mixture, drawn from its ranges."""
    rng, table = np.random.default_rng([seed, k, 11]), eht2017_table()
    scans = rng.permutation(sorted(set(table.scan)))[: max(3, round(rng.uniform(SHARE, 1.0) * table.scan.nunique()))]
    turn, noise = rng.uniform(-TURN, TURN), math.exp(rng.uniform(0.0, math.log(NOISE)))
    table = turned_table(table[table.scan.isin(scans)], float(turn))
    return table.assign(sigma=noise * table.sigma).reset_index(drop=True)


def station_gains(name: str) -> dict[str, float]:
    """Gain errors of an array of ARRAYS, by station, as `Interferometer.observe` takes them."""
    gains = ARRAYS[name].gains if name else 0.0
    return dict.fromkeys(GAIN_ERROR, gains) if gains else {}
