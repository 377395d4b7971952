"""Fitting along the trajectory of the loop: in closed form, by gradient, by meta-learning, and from labels alone."""

from fusionlib.fitting.closed_form import fit_closed_form, fit_static
from fusionlib.fitting.csnet import CsNet, fit_csnet
from fusionlib.fitting.expert_choice import ExpertChoice, fit_expert_choice
from fusionlib.fitting.gradient import MSE, USUAL, Schedule, fit_gate
from fusionlib.fitting.heldout import PerImage, held_out_weights
from fusionlib.fitting.lora import fit_lora
from fusionlib.fitting.losses import Objective, collapse
from fusionlib.fitting.meta import MetaConfig, fit_meta
from fusionlib.fitting.supervised import EndToEnd, fit_denoiser, fit_end_to_end, from_nothing, out_of_fold, starts
from fusionlib.fitting.trajectory import Data, Policy, Stage, along_trajectory
from fusionlib.fitting.unroll import fit_unrolled

__all__ = [
    "MSE",
    "USUAL",
    "CsNet",
    "Data",
    "EndToEnd",
    "ExpertChoice",
    "MetaConfig",
    "Objective",
    "PerImage",
    "Policy",
    "Schedule",
    "Stage",
    "along_trajectory",
    "collapse",
    "fit_closed_form",
    "fit_csnet",
    "fit_denoiser",
    "fit_end_to_end",
    "fit_expert_choice",
    "fit_gate",
    "fit_lora",
    "fit_meta",
    "fit_static",
    "fit_unrolled",
    "from_nothing",
    "held_out_weights",
    "out_of_fold",
    "starts",
]
