"""The sky: simulated black holes, thick tori and geometric families, and folders of images."""

from fusionlib.sky.families import FAMILIES, geometric
from fusionlib.sky.images import image_files, is_image
from fusionlib.sky.simulator import (
    BRIGHTNESS,
    FOV,
    MANY,
    MAX_OFFSET,
    NPIX,
    OVERSAMPLE,
    RANGES,
    SEEDS,
    SIZES,
    Sky,
    black_holes,
    block_mean,
    from_folder,
    render,
    split,
    split_sizes,
)
from fusionlib.sky.torus import tori

__all__ = [
    "BRIGHTNESS",
    "FAMILIES",
    "FOV",
    "MANY",
    "MAX_OFFSET",
    "NPIX",
    "OVERSAMPLE",
    "RANGES",
    "SEEDS",
    "SIZES",
    "Sky",
    "black_holes",
    "block_mean",
    "from_folder",
    "geometric",
    "image_files",
    "is_image",
    "render",
    "split",
    "split_sizes",
    "tori",
]
