"""Who weighs what: fixed, learned and closed-form gates, output adapters, oracles."""

from fusionlib.gates.adapters import Joint, Residual
from fusionlib.gates.closed_form import ALL, Cell, ClosedForm, Features, residuals
from fusionlib.gates.gate import Consensus, DataStep, PerNoiseLevel, Static, average, given, nearest
from fusionlib.gates.oracles import NoiseLevels, Oracle, affine_weights, error_correlation, simplex_weights
from fusionlib.gates.routing import (
    Cosine,
    Encoder,
    Learned,
    Linear,
    MultiGate,
    Pixels,
    Router,
    Voter,
    affine,
    cosine_router,
    dense,
    expert_choice,
    top_k,
    top_p,
)

__all__ = [
    "ALL",
    "Cell",
    "ClosedForm",
    "Consensus",
    "Cosine",
    "DataStep",
    "Encoder",
    "Features",
    "Joint",
    "Learned",
    "Linear",
    "MultiGate",
    "NoiseLevels",
    "Oracle",
    "PerNoiseLevel",
    "Pixels",
    "Residual",
    "Router",
    "Static",
    "Voter",
    "affine",
    "affine_weights",
    "average",
    "cosine_router",
    "dense",
    "error_correlation",
    "expert_choice",
    "given",
    "nearest",
    "residuals",
    "simplex_weights",
    "top_k",
    "top_p",
]
