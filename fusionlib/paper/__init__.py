"""The paper: experiments, tables, figures, and the runner of its chapters."""

from fusionlib.paper import figures, studies
from fusionlib.paper.experiment import arrays, observed, prior_of, scores, tuned
from fusionlib.paper.manifest import output, provenance, show
from fusionlib.paper.plots import save
from fusionlib.paper.profiles import PROFILES
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import (
    baseline_specs,
    closure_specs,
    headroom_specs,
    patch_specs,
    strategy_specs,
    weight_specs,
)
from fusionlib.paper.tables import (
    compare_observation,
    coverage_table,
    examples,
    paired_table,
    score_table,
    settings_table,
    write_table,
)
