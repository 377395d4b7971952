"""Chapter 08: what is said of the weights."""

import numpy as np
import pytest
import torch

from fusionlib import FusedPrior, PriorBank, black_holes, gates
from fusionlib.paper import Spec
from fusionlib.paper.profiles import PROFILES
from fusionlib.paper.studies import weight_analysis
from fusionlib.priors.classical import Identity, TotalVariation


def seen(weights: torch.Tensor, sigmas: tuple[float, ...] = (0.2, 0.1)) -> weight_analysis.Seen:
    """A loop with made-up outputs, fused with `weights` (N,)."""
    truth = black_holes(4, 3).image
    rng = torch.Generator().manual_seed(0)
    outputs = truth + 0.1 * torch.randn(len(sigmas), len(weights), 4, 1, 64, 64, generator=rng)
    w = weights.view(1, -1, 1, 1, 1).expand(len(sigmas), -1, 4, 64, 64)
    fused = (w[:, :, :, None] * outputs).sum(1)
    spec = Spec("average", ("identity", "tv", "torus"), 1.0, 2, 4, "dev")
    return weight_analysis.Seen(spec, list(sigmas), truth, outputs[:, 0], outputs, w, fused)


def test_classes_part_the_image():
    parts = weight_analysis.classes(black_holes(6, 5).image)
    assert (parts.sum(0) == 1).all() and parts[[0, 1, 2, 5]].flatten(2).any(2).all()


@pytest.mark.row(44)
def test_structure_table_finds_the_shares_and_is_silent_where_there_is_nothing():
    found = weight_analysis.structure_table([seen(torch.tensor([0.2, 0.7, 0.1]))])
    sky = found[found.structure == "flat sky"].set_index("prior")
    assert np.allclose(sky.simplex[["identity", "tv", "torus"]], [0.2, 0.7, 0.1], atol=1e-3)
    assert np.allclose(found.more, 0, atol=1e-6) and (found.p_holm == 1).all()


@pytest.mark.row(43)
def test_weights_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="do not sum to one"):
        weight_analysis.weight_table([seen(torch.tensor([0.2, 0.7, 0.3]))])


@pytest.mark.row(25)
def test_cka_does_not_see_rotation_scale_or_shift():
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 20, 6, generator=rng)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=rng))
    assert weight_analysis.cka(a, 3 * a @ turn + 2) == pytest.approx(1, abs=1e-5)
    assert weight_analysis.cka(a, b) == pytest.approx(weight_analysis.cka(b, a)) and weight_analysis.cka(a, b) < 0.6


def test_regret_of_a_pick_that_is_the_best_is_zero():
    s = seen(torch.tensor([0.0, 1.0, 0.0]))
    worse = s.outputs.clone()
    worse[:, [0, 2]] += 1.0  # so that the second is best everywhere
    table = weight_analysis.regret_table([s._replace(outputs=worse)])
    assert np.allclose(table.regret, 0, atol=1e-4) and set(table.oracle) == set(weight_analysis.ORACLES)


def test_a_watched_loop_is_the_loop_and_a_prior_left_out_is_the_others_mean():
    p = PROFILES["smoke"]
    spec = Spec("average", ("identity", "tv", "torus"), 1.0, 1, 2, "dev", steps=3, grid=p.grid["fitted"])
    s = weight_analysis.watch(spec, 2)
    assert s.outputs.shape == (3, 3, 2, 1, 64, 64) and torch.allclose(s.fused, s.outputs.mean(1), atol=1e-6)
    bank, x = PriorBank({"identity": Identity(), "tv": TotalVariation()}), s.x[0].clone()
    bank.register_forward_hook(weight_analysis._without(1))
    assert torch.allclose(FusedPrior(bank, gates.average(2))(x, 0.1), x, atol=1e-6)
    assert len(weight_analysis.occlusion_table(spec, 2)) == 3
