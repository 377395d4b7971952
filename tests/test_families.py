import math

import pytest
import torch

from fusionlib.sky.families import FAMILIES, geometric


def centroid(image: torch.Tensor) -> tuple[float, float]:
    """Right and up [microarcseconds] of the brightness."""
    t = (torch.arange(64) - 31.5) * 2.5
    total = image.sum()
    return float((image[0].sum(0) * t).sum() / total), float(-(image[0].sum(1) * t).sum() / total)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_images_are_whole_reproducible_and_in_range(family):
    s = geometric(family, 4, 3)
    assert s.image.shape == (4, 1, 64, 64) and (s.image >= 0).all() and torch.isfinite(s.fine).all()
    assert torch.allclose(s.image.amax((1, 2, 3)), s.parameters["brightness"])
    assert torch.equal(geometric(family, 1, 3, start=2).fine, s.fine[2:3])
    for name, (low, high, _) in FAMILIES[family][1].items():
        assert (s.parameters[name] >= low).all() and (s.parameters[name] <= high).all()
    border = torch.cat([s.image[..., 0, :], s.image[..., -1, :], s.image[..., 0], s.image[..., -1]], -1)
    assert border.max() < 0.02  # nothing is cut off


def test_centre_and_position_angle_are_where_they_are_said_to_be():
    assert centroid(geometric("gaussian", 1, x=8.0, y=-5.0, fwhm=30.0).image[0]) == pytest.approx((8.0, -5.0), abs=0.1)
    for family, fixed in (("ring", {"contrast": 0.6}), ("crescent", {"asymmetry": 1.0}), ("double", {"ratio": 0.3})):
        for degrees in (0.0, 90.0, 200.0):
            right, up = centroid(geometric(family, 1, x=0.0, y=0.0, position_angle=degrees, **fixed).image[0])
            found = math.degrees(math.atan2(-right, up)) % 360
            assert abs((found - degrees + 180) % 360 - 180) < 2, (family, degrees, found)


def test_sizes_are_as_stated():
    ring = geometric("ring", 1, x=0.0, y=0.0, diameter=50.0, width=8.0, contrast=0.0).fine[0, 0]
    across = ring[64]  # the middle row
    assert abs((across[64:].argmax() + 0.5) * 1.25 - 25) < 1.3 and across[64] < 0.01
    disc = geometric("disc", 1, x=0.0, y=0.0, diameter=60.0, edge=4.0, brightness=1.0).fine[0, 0]
    assert abs(float((disc > 0.5).sum()) * 1.25**2 - math.pi * 30**2) < 40


def test_bad_requests():
    with pytest.raises(ValueError, match="unknown family 'square'"):
        geometric("square", 1)
    with pytest.raises(ValueError, match=r"disc has no parameter \['width'\]"):
        geometric("disc", 1, width=3.0)
