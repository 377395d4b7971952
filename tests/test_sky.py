import numpy as np
import pytest
import torch

from fusionlib.sky import simulator as sky


def test_image_depends_on_seed_and_index_alone():
    whole, tail = sky.black_holes(3, 5), sky.black_holes(1, 5, start=2)
    assert torch.equal(whole.fine[2:], tail.fine)
    assert not torch.equal(whole.fine, sky.black_holes(3, 6).fine)


def test_images_are_finite_shapes_with_the_stated_brightness():
    s = sky.black_holes(6, 1)
    assert s.image.shape == (6, 1, 64, 64) and s.fine.shape == (6, 1, 128, 128)
    assert torch.isfinite(s.fine).all() and (s.fine >= 0).all()
    assert torch.allclose(s.image.amax((1, 2, 3)), s.parameters["brightness"])
    assert torch.allclose(sky.block_mean(s.fine), s.image, atol=1e-6)
    for name, (low, high, _) in sky.RANGES.items():
        drawn = s.parameters[name]
        drawn = torch.minimum(drawn, 180 - drawn) if name == "inclination" else drawn
        assert (drawn >= low - 1e-4).all() and (drawn <= high + 1e-4).all()


def test_position_angle_turns_the_image_from_north_to_east():
    """East is left: a quarter turn of position angle is a quarter turn counter-clockwise on the page."""
    fixed = {"x": 0.0, "y": 0.0, "spin": 0.6, "inclination": 40.0}
    north, east = (sky.black_holes(1, 3, position_angle=pa, **fixed) for pa in (0.0, 90.0))
    turned = torch.rot90(north.image, 1, (2, 3))
    assert (turned - east.image).abs().max() < 0.02 * float(east.image.max())


def test_centre_moves_right_and_up():
    fixed = {"spin": 0.0, "inclination": 10.0, "brightness": 1.0}
    at_zero, moved = sky.black_holes(1, 3, x=0.0, y=0.0, **fixed), sky.black_holes(1, 3, x=10.0, y=5.0, **fixed)
    shifted = torch.roll(at_zero.fine, (-4, 8), (2, 3))  # 1.25 uas per pixel; up is towards row 0
    assert (shifted - moved.fine)[..., 16:-16, 16:-16].abs().max() < 1e-2


def test_turbulence_is_standard_and_trails():
    n = 40
    pitch = torch.full((n,), 0.4)
    f = sky.turbulence(torch.arange(n), torch.full((n,), 0.6), torch.full((n,), 6.0), pitch)
    assert abs(float(f.std()) - 1) < 0.1
    spectrum = torch.fft.fft2(f).abs().square().mean(0)
    k = torch.fft.fftfreq(256, 1 / 256)
    same_sign = spectrum[(k[:, None] * k[None]) > 0].sum()
    other_sign = spectrum[(k[:, None] * k[None]) < 0].sum()
    assert same_sign > 1.5 * other_sign  # crests at constant ln r + phi tan(pitch): r falls along phi


def alike(a: torch.Tensor, b: torch.Tensor) -> int:
    """How many images of a are in b."""
    return sum(any(torch.equal(x, y) for y in b) for x in a)


@pytest.mark.row(2)
def test_splits_are_disjoint_and_seeds_draw_other_training_images(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    monkeypatch.setattr(sky, "BLOCK", 2)
    train, dev, test = (sky.split(name, 4).image for name in ("train", "dev", "test"))
    other = sky.split("train", 4, seed=1).image
    assert alike(train, dev) == alike(train, test) == alike(dev, test) == alike(train, other) == 0
    assert torch.equal(sky.split("train", 4).image, train)  # from the cache
    assert torch.equal(sky.split("train", 2).image, train[:2])
    with pytest.raises(ValueError, match="between 1 and 200"):
        sky.split("dev", 201)
    with pytest.raises(ValueError, match="name must be one of"):
        sky.split("validation", 1)
    with pytest.raises(ValueError, match="10000"):
        sky.split("train", 10_001)


def test_folder_of_images_becomes_a_sky(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((64, 64)))
    np.savez(tmp_path / "b.npz", stack=rng.random((39, 80, 80)))
    sets = {name: sky.split(name, n, source=str(tmp_path)) for name, n in sky.split_sizes(40).items()}
    assert {name: len(s.image) for name, s in sets.items()} == {"train": 18, "dev": 4, "test": 18}
    assert sum(alike(s.image, t.image) for a, s in sets.items() for b, t in sets.items() if a != b) == 0
    again = sky.split("train", 9, seed=1, source=str(tmp_path)).image
    assert 0 < alike(again, sets["train"].image[:9]) < 9 and alike(again, sets["train"].image) == 9
    peak = sets["train"].image.amax((1, 2, 3))
    assert (peak >= 0.5 - 1e-6).all() and (peak <= 1 + 1e-6).all()
    assert sets["train"].fine.shape == (18, 1, 128, 128)
    with pytest.raises(ValueError, match="size of the dev set"):
        sky.split("dev", 5, source=str(tmp_path))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((64, 32)), "square"),
        (np.full((64, 64), np.nan), "not finite"),
        (np.zeros((64, 64)), "no positive pixel"),
    ],
)
def test_bad_images_are_named(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ValueError, match=f"bad.npy.*{message}"):
        sky.from_folder(tmp_path)


def test_bad_folder_and_parameters(tmp_path):
    with pytest.raises(ValueError, match="holds no"):
        sky.from_folder(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match=r"broken.npz cannot be read"):
        sky.from_folder(tmp_path)
    with pytest.raises(ValueError, match="unknown parameter"):
        sky.black_holes(1, spinn=0.5)
    with pytest.raises(ValueError, match="n must be"):
        sky.black_holes(0)
