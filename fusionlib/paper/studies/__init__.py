"""What single chapters ask, beside scores: a module for each. Those here compute records."""

from fusionlib.paper.studies import disagreement, m87, patches, shift, strategies, stress, weight_analysis
