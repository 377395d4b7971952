"""One function per figure: tidy table or arrays in, figure out; a published figure's `drawn_by` is found here."""

from fusionlib.paper.figures.ablations import (
    fig07_ablations,
    fig07_labels,
    fig07_leave,
    fig07_number,
    fig07_shots,
    fig07_stress,
)
from fusionlib.paper.figures.conclusions import fig13_claims, fig13_efficiency, fig13_strip
from fusionlib.paper.figures.explorer import fig14_view
from fusionlib.paper.figures.m87 import fig10_closures, fig10_families, fig10_m87, fig10_profiles
from fusionlib.paper.figures.observation import observation_data, observation_picture, observation_rules
from fusionlib.paper.figures.overview import (
    fig00_coverage,
    fig00_observation,
    fig00_sky,
    fig01_correlation,
    fig01_denoised,
    fig01_winners,
    fig02_convergence,
    fig02_psnr,
)
from fusionlib.paper.figures.patches import (
    fig06_maps,
    fig06_pareto,
    fig06_regions,
    fig06_resolution,
    fig09_accuracy,
    fig09_cost,
    fig09_shape,
    fig09_success,
)
from fusionlib.paper.figures.shift import fig11_labels, fig11_map, fig11_mixed, fig11_pictures, fig11_trust
from fusionlib.paper.figures.strategies import curves, weights
from fusionlib.paper.figures.trained import fig15_data, fig15_families, fig15_losses, fig15_samples
from fusionlib.paper.figures.weight_analysis import (
    fig08_alignment,
    fig08_calibration,
    fig08_disagreement,
    fig08_embeddings,
    fig08_m87,
    fig08_occlusion,
    fig08_regret,
    fig08_regret_maps,
    fig08_structure,
)
from fusionlib.paper.plots import forest, mosaic
