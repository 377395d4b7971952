"""Images from files: .npy, .npz, and FITS with what its header says."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ENDINGS = (".npy", ".npz", ".fits", ".fits.gz", ".fit", ".fts")
ANGLES = {
    "deg": 3.6e9,
    "degree": 3.6e9,
    "degrees": 3.6e9,
    "arcsec": 1e6,
    "mas": 1e3,
    "uas": 1.0,
    "rad": 6.48e11 / math.pi,
}
LINEAR = re.compile(
    r"jy|^[mµu]?k$|count|^cts?|adu|^dn|electron|photon|maggy|erg|^w"
)  # units of brightness; the peak is set anew


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image; hidden files are none."""
    return path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    return sorted(f for f in folder.glob("*") if is_image(f))


def read_images(path: Path, side: int, fov: float) -> list[Tensor]:
    """The images of a file, (1, 1, side, side) each, peak 1, not negative, row 0 north and column 0 east.

    Without a pixel size an image is as wide as the field, `fov` [microarcseconds]. With one it is put into the middle
    of the field at that size, its flux conserved but for what lies outside, with a warning that says so. Of a Stokes
    cube I is taken. Raises ValueError, naming the file, for one that cannot be read or understood, and for an image
    that is not square, not finite, or nowhere positive.
    """
    fits = not path.name.lower().endswith((".npy", ".npz"))
    try:
        images, width = _read_fits(path) if fits else (_read_numpy(path), None)
    except ImportError:
        raise ValueError(
            f"from_folder: reading {path} needs astropy; in the checkout: pip install -e '.[eht]'"
        ) from None
    except Exception as error:
        line = " ".join(str(error).split())
        raise ValueError(f"from_folder: {path} cannot be read as {path.suffix} ({line})") from None
    found = []
    for image in images:
        if image.ndim != 2 or image.shape[0] != image.shape[1] or image.shape[0] < 8:
            raise ValueError(f"from_folder: {path} has an image of shape {image.shape}; a square one is needed")
        if not np.isfinite(image).all() or image.max() <= 0:
            raise ValueError(f"from_folder: {path} has an image that is not finite or has no positive pixel")
        x = torch.from_numpy(np.ascontiguousarray(image / image.max()))[None, None].clamp(min=0)
        if width is None or abs(width / fov - 1) < 1e-3:
            mode = "area" if x.shape[-1] >= side else "bilinear"
            x = F.interpolate(x.float(), size=(side, side), mode=mode)
        else:
            if width / x.shape[-1] > fov / 8:
                raise ValueError(
                    f"from_folder: {path} has pixels of {width / x.shape[-1]:.3g} µas by its header, too coarse for a "
                    f"field of {fov:g} µas; without CDELT in the header it is taken as {fov:g} µas wide"
                )
            x = regrid(x, width, fov, side).float()
            if not x.any():
                raise ValueError(f"from_folder: {path} is {width:.3g} µas wide; nothing of it is left at {fov:g} µas")
        found.append(x / x.max())
    if width is not None and abs(width / fov - 1) >= 1e-3:
        warnings.warn(f"{path}: {width:.4g} µas wide by its header; put into the field of {fov:g} µas", stacklevel=3)
    return found


def regrid(x: Tensor, width: float, fov: float, side: int) -> Tensor:
    """Images (B, 1, H, H) of a `width` in the middle of a field `fov`, with `side` pixels.

    Values are fluxes per pixel, conserved but for what lies outside: by shared area, where pixels grow finer of the
    image's bilinear interpolation.
    """
    if width / x.shape[-1] > fov / side:
        finer = math.ceil(width / x.shape[-1] / (fov / side))
        x = F.interpolate(x, scale_factor=finer, mode="bilinear") / finer**2
    old = (torch.arange(x.shape[-1] + 1, dtype=x.dtype) / x.shape[-1] - 0.5) * width
    new = (torch.arange(side + 1, dtype=x.dtype) / side - 0.5) * fov
    shared = torch.minimum(old[None, 1:], new[1:, None]) - torch.maximum(old[None, :-1], new[:-1, None])
    share = shared.clamp(min=0) / (width / x.shape[-1])
    return share @ x @ share.T


def _read_numpy(path: Path) -> list[np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    if array.dtype.kind not in "fiub":
        raise ValueError(f"real numbers are needed, not {array.dtype}")
    array = np.asarray(array, np.float64)
    return list(array) if array.ndim == 3 else [array]


def _read_fits(path: Path) -> tuple[list[np.ndarray], float | None]:
    """Images with row 0 north and column 0 east, and their width [microarcseconds] if the header has it."""
    from astropy.io import fits  # extra `eht`

    with fits.open(path, memmap=False) as file:
        hdu = next((h for h in file if getattr(h, "is_image", False) and h.header.get("NAXIS", 0) >= 2), None)
        if hdu is None:
            raise ValueError("no image in it")
        header, array = hdu.header, np.asarray(hdu.data, np.float64)
    unit = str(header.get("BUNIT", "")).strip().lower()
    if unit and not LINEAR.search(unit):
        raise ValueError(f"BUNIT {header['BUNIT']!r} is no brightness; take it out of the header if it is one")
    for axis in range(array.ndim, 2, -1):  # FITS counts axes from the last
        kind, count = str(header.get(f"CTYPE{axis}", "")).strip().upper(), array.shape[0]
        if kind == "STOKES":
            array = array[_stokes_i(header, axis, count)]
        elif count == 1:
            array = array[0]
        elif kind or axis > 3:
            raise ValueError(f"axis {axis} is {kind or 'unnamed'}, {count} long")
        else:
            break  # a stack of images
    x, y = _pixel(header, 1), _pixel(header, 2)
    if x is not None and y is not None and abs(abs(x / y) - 1) > 1e-3:
        raise ValueError(f"pixels are not square: {abs(x):.4g} by {abs(y):.4g} µas")
    if y is None or y > 0:
        array = array[..., ::-1, :]  # the first row is south
    if x is not None and x > 0:
        array = array[..., ::-1]  # the first column is west
    images = list(array) if array.ndim == 3 else [array]
    return images, None if x is None else abs(x) * array.shape[-1]


def _stokes_i(header: Any, axis: int, count: int) -> int:
    """Where on its axis Stokes I (1) is."""
    value, step, at = (float(header.get(f"{k}{axis}", 1)) for k in ("CRVAL", "CDELT", "CRPIX"))
    index = (1 - value) / (step or 1) + at - 1
    if not 0 <= round(index) < count or abs(index - round(index)) > 1e-6:
        raise ValueError(f"its Stokes axis ({count} long, from {value:g}) has no I")
    return round(index)


def _pixel(header: Any, axis: int) -> float | None:
    """Signed pixel [microarcseconds] along an axis, None without one. Raises ValueError for an image that is turned."""
    other = 3 - axis
    matrix = "CD" if f"CD{axis}_{axis}" in header else "PC"
    diagonal = float(header.get(f"{matrix}{axis}_{axis}", 1.0))
    skew = float(header.get(f"{matrix}{axis}_{other}", 0.0))
    turned = float(header.get("CROTA2", header.get("CROTA1", 0.0)) or 0.0) % 360
    if abs(skew) > 1e-3 * abs(diagonal) or min(turned, 360 - turned) > 0.05:
        raise ValueError("the image is rotated against north; turn it first")
    step = diagonal * (1.0 if matrix == "CD" else float(header.get(f"CDELT{axis}", 0.0)))
    if not math.isfinite(step) or step == 0:
        return None
    unit = str(header.get(f"CUNIT{axis}", "deg")).strip().lower() or "deg"
    if unit not in ANGLES:
        if f"CUNIT{axis}" in header and str(header.get(f"CTYPE{axis}", "")).strip():
            raise ValueError(f"CUNIT{axis} {unit!r} is no angle")
        return None
    return step * ANGLES[unit]
