import pytest
import torch

from fusionlib import Interferometer, black_holes
from fusionlib.fitting.heldout import PerImage, held_out_weights
from fusionlib.fusion import FusedPrior
from fusionlib.priors import zoo
from fusionlib.priors.prior import PriorBank
from fusionlib.priors.wrappers import Function


def test_who_predicts_unseen_visibilities_weighs_more():
    array, sky = Interferometer.eht2017(0.3, window=60), black_holes(2, 4)
    y = array.observe(sky.fine, 0)
    nothing = Function(lambda x, sigma: 0 * x)
    bank = PriorBank({"nothing": nothing, "torus": zoo.load("torus")})
    options = {"sigmas": [0.2, 0.1, 0.05], "lam": 0.1, "window": 60.0}
    w = held_out_weights(bank, array, y, **options)
    assert w.shape == (2, 2) and torch.allclose(w.sum(0), torch.ones(2)) and bool((w[1] > 0.8).all())
    twice = PriorBank({"a": zoo.load("torus"), "b": zoo.load("torus"), "nothing": nothing})
    both = held_out_weights(twice, array, y, **options)
    assert torch.allclose(both[:2].sum(0), w[1], atol=0.02)
    with pytest.raises(ValueError, match="two scans"):
        held_out_weights(bank, one := Interferometer.eht2017(scans=[9], window=60), one.observe(sky.fine, 0), **options)


def test_weights_of_one_batch_are_not_for_another():
    gate = PerImage(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    prior = FusedPrior(zoo.bank(["identity", "tv"]), gate)
    x = torch.rand(2, 1, 64, 64)
    fused = prior.fuse(x, 0.1)
    assert torch.equal(fused.image[0], x[0]) and torch.equal(fused.kept, gate.w.bool())
    with pytest.raises(ValueError, match="2 images"):
        prior(x[:1], 0.1)
