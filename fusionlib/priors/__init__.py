"""Image priors: the contract, the bank, wrappers, networks, and the named priors with their weights."""

from fusionlib.priors.classical import Identity, TotalVariation
from fusionlib.priors.networks import NETWORKS, WEIGHTS, Body, Denoiser, Score, trained
from fusionlib.priors.prior import Prior, PriorBank, call, check, guard, in_patches, patch_share, sigma_map
from fusionlib.priors.wrappers import VE, VP, Function, Reduced, Restoration
from fusionlib.priors.zoo import BANKS, CARDS, PRIORS, available, bank, card, load

__all__ = [
    "BANKS",
    "CARDS",
    "NETWORKS",
    "PRIORS",
    "VE",
    "VP",
    "WEIGHTS",
    "Body",
    "Denoiser",
    "Function",
    "Identity",
    "Prior",
    "PriorBank",
    "Reduced",
    "Restoration",
    "Score",
    "TotalVariation",
    "available",
    "bank",
    "call",
    "card",
    "check",
    "guard",
    "in_patches",
    "load",
    "patch_share",
    "sigma_map",
    "trained",
]
