import pytest
import torch

from fusionlib import black_holes
from fusionlib.metrics.rings import light_outside, measure
from fusionlib.sky.families import geometric


def test_a_ring_is_measured_as_it_was_drawn():
    s = geometric("ring", 12, 4, contrast=0.5)
    found, p = measure(s.image, smooth=2.0), s.parameters
    open_ = p["width"] < 0.5 * p["diameter"]  # the flanks of a wider one meet in the middle
    assert int(open_.sum()) >= 8 and found.is_ring[open_].all()
    turn = (found.position_angle - p["position_angle"] + 180) % 360 - 180
    for error, limit in (
        (found.x - p["x"], 1.5),
        (found.y - p["y"], 1.5),
        (found.diameter - p["diameter"], 2.5),
        (found.width - p["width"], 3.0),
        (found.asymmetry - 0.5, 0.12),
        (turn, 10.0),
    ):
        assert error[open_].abs().max() < limit


def test_profile_follows_the_position_angle():
    east = measure(geometric("ring", 1, x=0.0, y=0.0, contrast=0.6, position_angle=90.0).image)
    assert east.profile.shape == (1, 180) and int(east.profile[0].argmax()) in range(35, 56)


def test_a_ring_that_comes_twice_has_light_outside():
    """A fainter copy, 45 microarcseconds to the south."""
    ring = geometric("ring", 1, diameter=42.0, width=8.0, x=0.0, y=10.0, contrast=0.2).image
    twice = ring + 0.6 * ring.roll(18, 2)
    alone, both = (float(light_outside(x, measure(x))) for x in (ring, twice))
    assert alone < 0.1 and 0.2 < both < 0.4


@pytest.mark.parametrize(("family", "limit"), [("disc", 0.0), ("gaussian", 0.0), ("double", 0.05)])
def test_what_is_no_ring_is_not_called_one(family, limit):
    assert float(measure(geometric(family, 40, 7).image).is_ring.float().mean()) <= limit


def test_most_black_holes_are_rings():
    """But for those seen from the side, where one flank outshines the rest."""
    found = measure(black_holes(20, 3).image)
    assert float(found.is_ring.float().mean()) > 0.6
    ring = found.diameter[found.is_ring]
    assert 30 < float(ring.median()) < 50  # 2 sqrt(27) times 3.3 to 4.3 microarcseconds


def test_images_do_not_mix_and_empty_ones_do_not_fail():
    images = torch.cat([geometric("ring", 2, 4).image, torch.zeros(1, 1, 64, 64)])
    together, alone = measure(images), measure(images[1:2])
    assert torch.allclose(together.diameter[1:2], alone.diameter) and not bool(together.is_ring[2])


def test_bad_input():
    for bad in (torch.zeros(64, 64), torch.zeros(1, 1, 64, 32), torch.full((1, 1, 64, 64), torch.nan)):
        with pytest.raises(ValueError, match="finite images"):
            measure(bad)
