"""Fusing frozen image priors inside Plug-and-Play reconstruction, shown on black-hole interferometry."""

from fusionlib.fusion import FusedPrior
from fusionlib.interferometer import Interferometer, Uncalibrated
from fusionlib.pnp import Reconstruction, admm, hqs, pgd, red, schedule
from fusionlib.priors import Prior, PriorBank
from fusionlib.selfcal import self_calibrating
from fusionlib.sky import Sky, black_holes

__version__ = "0.1.0"
__all__ = [
    "FusedPrior",
    "Interferometer",
    "Prior",
    "PriorBank",
    "Reconstruction",
    "Sky",
    "Uncalibrated",
    "admm",
    "black_holes",
    "hqs",
    "pgd",
    "red",
    "schedule",
    "self_calibrating",
]
