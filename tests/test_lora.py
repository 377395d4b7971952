import copy

import pytest
import torch
from torch import nn

from fusionlib import Interferometer, black_holes
from fusionlib.fitting import lora
from fusionlib.priors import zoo

NAMES = ["identity", "ffdnet", "torus"]


@pytest.mark.row(35)
def test_lora_starts_as_the_prior_and_counts_what_it_trains():
    x, conv = torch.rand(2, 8, 6, 6), nn.Conv2d(8, 5, 3, padding=1, bias=False)
    moved = lora.LoRAConv(conv, rank=4)
    assert torch.equal(moved(x), conv(x))
    assert sum(p.numel() for p in moved.parameters() if p.requires_grad) == 4 * 3 * (8 * 3 + 5 * 3)
    nn.init.normal_(moved.b)
    by_hand = nn.functional.conv2d(x, conv.weight + 2.0 * (moved.b @ moved.a).view(5, 8, 3, 3), padding=1)
    assert torch.allclose(moved(x), by_hand, atol=1e-5)
    with pytest.raises(ValueError, match="groups"):
        lora.LoRAConv(nn.Conv2d(4, 4, 3, groups=2))


@pytest.mark.row(35)
def test_the_baseline_starts_as_the_average_lowers_its_error_and_leaves_the_priors_alone():
    bank, array, sky = zoo.bank(NAMES), Interferometer.eht2017(0.1, window=60), black_holes(4, 5)
    before, data = copy.deepcopy(bank.state_dict()), [(array, sky.image, array.observe(sky.fine, 0))]
    with torch.no_grad():
        nn.init.zeros_((start := lora.make(bank)).gate.head.layer.weight)
        assert torch.allclose(start(sky.image, 0.1), bank(sky.image, 0.1).mean(0), atol=1e-6)
    sigmas, few = [0.2, 0.05], lora.Schedule(steps=8, first=1)
    first, again = (lora.fit_lora(bank, data, sigmas, 0.1, schedule=few) for _ in range(2))
    for mine, same in zip(first, again, strict=True):
        assert all(torch.equal(v, same[k]) for k, v in mine.items())
        assert not any(k.endswith("conv.weight") for k in mine) and any("priors.1" in k for k in mine)
        assert not any("priors.0" in k for k in mine)  # the identity has nothing to adapt
        assert any(bool(v.any()) for k, v in mine.items() if k.endswith(".b"))
    assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())
    with torch.no_grad():
        x = array.prox(array.start(data[0][2]), data[0][2], 0.1 / sigmas[0] ** 2)
        fused = lora.per_noise_level(lora.make(bank), sigmas, first)(x, sigmas[0])
        assert (fused - sky.image).square().mean() < 0.95 * (bank(x, sigmas[0]).mean(0) - sky.image).square().mean()
    prior = lora.per_noise_level(lora.make(bank), sigmas, first)
    with torch.no_grad():
        x = sky.image[:2]
        both = prior(x, torch.tensor([0.2, 0.05]))
        assert torch.allclose(both[:1], prior(x[:1], 0.2), atol=1e-5)
        assert torch.allclose(both[1:], prior(x[1:], 0.05), atol=1e-5)
        assert not torch.allclose(both[1:], prior(x[1:], 0.2), atol=1e-5)
