"""The instrument: observations, the forward operator with its exact data step, and closure quantities."""

from fusionlib.interferometer.array import MIN_BASELINE, S_REF, Interferometer
from fusionlib.interferometer.closures import GAIN_ERROR, KINDS, ClosureData, Uncalibrated
from fusionlib.interferometer.gains import CalibratedData, Gains, SelfCalibrated
from fusionlib.interferometer.observations import (
    COVERAGE,
    RELEASED,
    compact_flux,
    eht2017_april10_table,
    eht2017_table,
    read_observation,
    released_data,
    turned_table,
)

__all__ = [
    "COVERAGE",
    "GAIN_ERROR",
    "KINDS",
    "MIN_BASELINE",
    "RELEASED",
    "S_REF",
    "CalibratedData",
    "ClosureData",
    "Gains",
    "Interferometer",
    "SelfCalibrated",
    "Uncalibrated",
    "compact_flux",
    "eht2017_april10_table",
    "eht2017_table",
    "read_observation",
    "released_data",
    "turned_table",
]
