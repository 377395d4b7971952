"""The methods of the paper: one table of them, and how each is fitted and reconstructs."""

from fusionlib.paper.methods.method import Data, Fitted, Method, OracleMethod, Settings, always, with_truth
from fusionlib.paper.methods.table import (
    HEADLINE,
    METHODS,
    NOT_TRAINED,
    RML_PRIOR,
    color,
    entry,
    identity,
    label,
    make,
    resolution,
    short,
)
