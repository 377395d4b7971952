"""Image priors: the contract, the bank, wrappers, networks, and the named priors with their weights."""

from fusionlib.priors.classical import Identity, TotalVariation
from fusionlib.priors.networks import NETWORKS, WEIGHTS, Body, Denoiser, Score, trained
from fusionlib.priors.prior import Prior, PriorBank, call, check, evaluating, guard, in_patches, patch_share, sigma_map
from fusionlib.priors.wrappers import VE, VP, Bfloat16, Fixed, Function, Restoration
from fusionlib.priors.zoo import BANKS, CARDS, PRIORS, available, bank, card, load

__all__ = [
    "BANKS",
    "CARDS",
    "NETWORKS",
    "PRIORS",
    "VE",
    "VP",
    "WEIGHTS",
    "Bfloat16",
    "Body",
    "Denoiser",
    "Fixed",
    "Function",
    "Identity",
    "Prior",
    "PriorBank",
    "Restoration",
    "Score",
    "TotalVariation",
    "available",
    "bank",
    "call",
    "card",
    "check",
    "evaluating",
    "guard",
    "in_patches",
    "load",
    "patch_share",
    "sigma_map",
    "trained",
]
