"""The sky: simulated black-hole images, and folders of images instead.

An image is a float tensor (B, 1, H, W), row 0 north, column 0 east; a shape with peak 1 times a brightness, so the
peak and the flux are unknown to every method. Images exist twice: `fine` (128 px) is what the array observes, `image`
(64 px, its block average) is what is reconstructed and scored: no inverse crime.

The simulator is a semi-analytic Kerr disc with a turbulent emissivity, after AART (arXiv:2211.07469), Gralla, Lupsasca
& Marrone (arXiv:2008.03879) and Lee & Gammie (ApJ 906, 39). It is not a GRMHD simulation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from fusionlib import files
from fusionlib.sky import kerr
from fusionlib.sky.images import image_files, read_images

FOV = 160.0  # field of view [microarcseconds]
NPIX = 64
OVERSAMPLE = 2
MAX_OFFSET = 12.0  # largest distance of the image centre from the phase centre [microarcseconds]
BRIGHTNESS = (0.5, 1.0)
SEEDS = {"train": 101, "dev": 202, "test": 303}  # disjoint streams of images
MANY = 10_000  # images that a ceiling is trained on, the training set among them
SIZES = {"train": 1000, "dev": 200, "test": 1000}
BLOCK = 40  # images per cache file

Ranges = dict[str, tuple[float, float, str]]
# name: (low, high, unit or meaning); all drawn uniformly
RANGES: Ranges = {
    "spin": (-0.97, 0.97, "a/M; negative: retrograde disc"),
    "inclination": (10.0, 60.0, "degrees; one half of the images is seen from below, at 180 minus this"),
    "theta_g": (3.3, 4.3, "angular gravitational radius, microarcseconds"),
    "position_angle": (0.0, 360.0, "degrees east of north of the projected spin"),
    "xi": (0.6, 1.0, "angular momentum over Keplerian"),
    "beta_r": (0.5, 1.0, "radial velocity: 0 free fall, 1 circular"),
    "beta_phi": (0.5, 1.0, "angular velocity: 0 free fall, 1 circular"),
    "width": (0.4, 1.8, "theta of the Johnson-SU emissivity, M"),
    "gamma": (-1.5, 0.5, "gamma of the Johnson-SU emissivity"),
    "turbulence": (0.3, 1.0, "standard deviation of log emissivity"),
    "correlation": (0.5, 3.0, "turbulence: correlation length along the arms, radians"),
    "elongation": (3.0, 10.0, "turbulence: length over width of a structure"),
    "pitch": (10.0, 30.0, "turbulence: pitch angle of the trailing spiral, degrees"),
}


@dataclass(frozen=True)
class Sky:
    """Images for scoring (n, 1, 64, 64), for observing (n, 1, 128, 128), and what they were made from (n,) each."""

    image: Tensor
    fine: Tensor
    parameters: dict[str, Tensor]

    def __getitem__(self, index: slice | Tensor) -> "Sky":
        """Images `index` (slice or index tensor) of the set."""
        return Sky(self.image[index], self.fine[index], {k: v[index] for k, v in self.parameters.items()})


def _draw(ranges: Ranges, seed: int, index: int, **fixed: float) -> tuple[dict[str, float], int]:
    """Parameters of image `index` of stream `seed`, and the seed of its turbulence."""
    rng = np.random.default_rng([seed, index])
    p = {name: float(rng.uniform(low, high)) for name, (low, high, _) in ranges.items()}
    if rng.uniform() < 0.5:
        p["inclination"] = 180 - p["inclination"]
    radius, angle = MAX_OFFSET * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    p["x"], p["y"] = float(radius * np.cos(angle)), float(radius * np.sin(angle))
    p["brightness"] = float(np.exp(rng.uniform(*np.log(BRIGHTNESS))))
    return p | fixed, int(rng.integers(2**31))


def turbulence(seed: Tensor, length: Tensor, elongation: Tensor, pitch: Tensor, n: int = 256) -> Tensor:
    """Standard Gaussian fields (B, n, n) on a 2 pi torus of (ln r, phi): Matern, nu = 1, drawn out along log-spirals.

    f = F^-1[white / (1 + (l1 k1)^2 + (l2 k2)^2)], the static self-similar case of Lee & Gammie.
    """
    device = length.device
    noise = torch.stack([torch.randn(n, n, generator=torch.Generator().manual_seed(int(s))) for s in seed])
    k = torch.fft.fftfreq(n, 1 / n, device=device)
    k_r, k_phi = k[:, None], k[None, : n // 2 + 1].abs()
    c, s = pitch.cos()[:, None, None], pitch.sin()[:, None, None]
    along, across = c * k_phi - s * k_r, s * k_phi + c * k_r  # a trailing arm: r falls as phi grows
    l1, l2 = length[:, None, None], (length / elongation)[:, None, None]
    response = 1 / (1 + (l1 * along) ** 2 + (l2 * across) ** 2)
    f = torch.fft.irfft2(torch.fft.rfft2(noise.to(device, length.dtype)) * response, s=(n, n))
    weight = torch.full((n // 2 + 1,), 2.0, device=device)  # rfft stores half the plane
    weight[0] = weight[-1] = 1.0
    return f / (weight * response**2).mean(dim=1).sum(-1).div(n).sqrt()[:, None, None]


def sample(field: Tensor, which: Tensor, r: Tensor, phi: Tensor) -> Tensor:
    """Bilinear values of periodic fields (B, n, n) at (ln r, phi), ray k in field `which[k]`."""
    n = field.shape[-1]
    row, col = r.log() * (n / (2 * torch.pi)), phi * (n / (2 * torch.pi))
    row0, col0 = row.floor(), col.floor()
    row, col = row - row0, col - col0
    r0, c0 = row0.long() % n, col0.long() % n
    r1, c1 = (r0 + 1) % n, (c0 + 1) % n
    top = field[which, r0, c0] * (1 - col) + field[which, r0, c1] * col
    return top * (1 - row) + (field[which, r1, c0] * (1 - col) + field[which, r1, c1] * col) * row


def screen(q: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Bardeen's alpha, beta [M] of rays at x (right), y (up) [microarcseconds] in images with parameters `q`."""
    x, y, angle = x - q["x"], y - q["y"], q["position_angle"].deg2rad()
    alpha = (x * angle.cos() + y * angle.sin()) / q["theta_g"]
    return alpha, (y * angle.cos() - x * angle.sin()) / q["theta_g"]


def _shine(
    p: dict[str, Tensor], field: Tensor, which: Tensor, x: Tensor, y: Tensor, steps: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Intensity (R,) along rays at screen positions x (right), y (up) [microarcseconds] of the images `which`.

    Also tells which rays cross the disc more than once: there the photon ring lies.
    """
    q = {k: v[which] for k, v in p.items()}
    alpha, beta = screen(q, x, y)
    a, i = q["spin"], q["inclination"].deg2rad()
    crossings, _ = kerr.trace(alpha, beta, a, i, steps)
    total = torch.zeros_like(alpha)
    for c in crossings:
        g = kerr.redshift(c, alpha, a, i, q["xi"], q["beta_r"], q["beta_phi"])
        s = (c.r - (1 - (1 - a**2).sqrt())) / q["width"]
        emissivity = torch.exp(-((q["gamma"] + s.asinh()) ** 2) / 2) / (s**2 + 1).sqrt()
        emissivity *= torch.exp(q["turbulence"] * (sample(field, which, c.r, c.phi) - q["turbulence"] / 2))
        total += torch.where(c.hit, g**3 * emissivity, 0.0)
    return total, crossings[min(1, len(crossings) - 1)].hit


def render(
    p: dict[str, Tensor], seed: Tensor, npix: int = NPIX * OVERSAMPLE, steps: tuple[int, ...] = (16, 10), ring: int = 3
) -> Tensor:
    """Intensity (B, 1, npix, npix) of discs with parameters `p` (tensors (B,), keys of RANGES plus x, y).

    I = sum_n g^3 J(r_n, phi_n) over the direct image and the photon rings n = 1 .. len(steps) - 1 (P1 eq. 50), one ray
    per pixel and `ring` x `ring` rays near the photon ring, which is thinner than a pixel; arbitrary units.
    `seed` (B,) draws the turbulence. Device and dtype are those of `p`.
    """
    batch = len(seed)
    field = turbulence(seed, p["correlation"], p["elongation"], p["pitch"].deg2rad())
    which, x, y = pixels(batch, npix, field)
    image, inner = _shine(p, field, which, x, y, steps)
    near = F.max_pool2d(inner.view(batch, 1, npix, npix).float(), 3, 1, 1) > 0
    return refined(image, near, lambda k, x, y: _shine(p, field, k, x, y, steps)[0], ring)


def pixels(batch: int, npix: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image number and sky position right, up [microarcseconds] of every pixel of a batch, (batch npix^2,) each."""
    which = torch.arange(batch, device=like.device).repeat_interleave(npix**2)
    grid = (torch.arange(npix, device=like.device, dtype=like.dtype) - (npix - 1) / 2) * (FOV / npix)
    return which, grid.repeat(npix).repeat(batch), -grid.repeat_interleave(npix).repeat(batch)


def refined(image: Tensor, near: Tensor, shine: Callable[[Tensor, Tensor, Tensor], Tensor], ring: int = 3) -> Tensor:
    """Images (B, 1, H, H) from one ray per pixel, (B H^2,), with `ring` x `ring` rays each where `near` (B, 1, H, H).

    `shine(which, x, y)` gives intensities along rays at x, y [microarcseconds] of the images `which`.
    """
    batch, npix = len(near), near.shape[-1]
    chosen = near.view(-1).nonzero()[:, 0]
    which, x, y = (t[chosen] for t in pixels(batch, npix, image))
    offset = ((torch.arange(ring, device=image.device) + 0.5) / ring - 0.5) * (FOV / npix)
    fine_x = (x[:, None] + offset.repeat(ring)).view(-1)
    fine_y = (y[:, None] + offset.repeat_interleave(ring)).view(-1)
    image[chosen] = shine(which.repeat_interleave(ring**2), fine_x, fine_y).view(-1, ring**2).mean(1)
    return image.view(batch, 1, npix, npix)


def block_mean(x: Tensor, npix: int = NPIX) -> Tensor:
    """Average (B, 1, k npix, k npix) over k x k blocks."""
    return F.avg_pool2d(x, x.shape[-1] // npix)


def scaled(fine: Tensor, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Images at 64 px and as given, with peaks at 64 px set to `brightness` (B,)."""
    image = block_mean(fine)
    scale = brightness[:, None, None, None] / image.amax((1, 2, 3), keepdim=True)
    return image * scale, fine * scale


def black_holes(
    n: int, seed: int = 0, *, start: int = 0, device: str | torch.device = "cpu", progress: bool = False, **fixed: float
) -> Sky:
    """`n` Kerr discs: images `start` .. `start + n - 1` of the stream `seed`.

    Image k depends on (seed, k) alone, so a longer set begins with the shorter one. Parameters are drawn from RANGES;
    `fixed` pins some of them (`spin=0.9`; also `x`, `y` [microarcseconds] and `brightness`). Raises ValueError for an
    unknown name.
    """
    return simulate(render, RANGES, n, seed, start=start, device=device, progress=progress, **fixed)


def simulate(
    render: Callable[[dict[str, Tensor], Tensor], Tensor],
    ranges: Ranges,
    n: int,
    seed: int,
    *,
    start: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
    **fixed: float,
) -> Sky:
    """As `black_holes`, for any `render(parameters, seeds) -> (B, 1, 128, 128)` with parameters drawn from `ranges`."""
    known = {*ranges, "x", "y", "brightness"}
    if unknown := set(fixed) - known:
        raise ValueError(f"sky: unknown parameter {sorted(unknown)}; known are {sorted(known)}")
    if n < 1:
        raise ValueError(f"sky: n must be at least 1, got {n}")
    draws = [_draw(ranges, seed, k, **fixed) for k in range(start, start + n)]
    p = {k: torch.tensor([d[k] for d, _ in draws], device=device) for k in draws[0][0]}
    turbulence = torch.tensor([s for _, s in draws], device=device)
    batch = 1 if p["spin"].device.type == "cpu" else 64  # one image stays in cache
    fine = []
    for b in tqdm(range(0, n, batch), "sky", disable=None if progress else True, unit_scale=batch, leave=False):
        cut = slice(b, b + batch)
        fine.append(render({k: v[cut] for k, v in p.items()}, turbulence[cut]))
    image, observed = scaled(torch.cat(fine), p["brightness"])
    return Sky(image, observed, p)


def from_folder(path: str | Path, seed: int = 0) -> Sky:
    """Square images (`image_files`; one or a stack per file, sorted by name), as a Sky of `FOV` microarcseconds.

    Row 0 is north, column 0 east; FITS files are turned to that, and put into the field with the size that their header
    states, see `read_images`. Each image is brought to 128 px (area average or bilinear), negative pixels are set to 0,
    and the peak is set to a brightness drawn as for the simulator. Raises ValueError for a missing or empty folder, and
    as `read_images`.
    """
    folder = Path(path)
    names = image_files(folder)
    if not names:
        raise ValueError(f"from_folder: {folder} holds no .npy, .npz or .fits image")
    images = [image for name in names for image in read_images(name, NPIX * OVERSAMPLE, FOV)]
    low, high = np.log(BRIGHTNESS)
    brightness = [np.exp(np.random.default_rng([seed, k]).uniform(low, high)) for k in range(len(images))]
    p = {"brightness": torch.tensor(brightness, dtype=torch.float32)}
    return Sky(*scaled(torch.cat(images), p["brightness"]), p)


def split_sizes(count: int | None = None) -> dict[str, int]:
    """How many images `split` has of each set: simulated, or cut from a folder of `count` images."""
    if count is None:
        return SIZES
    cuts = [0, round(0.45 * count), round(0.55 * count), count]
    return {name: b - a for name, a, b in zip(SIZES, cuts, cuts[1:], strict=False)}


def split(name: str, n: int, *, seed: int = 0, source: str = "") -> Sky:
    """`n` images of the `train`, `dev` or `test` set: simulated, or from the folder `source`.

    `seed` draws the training subset: of the simulator the run of images from 331 seed on, cyclically (images are
    independent), of a folder a random one; dev and test are always the first ones. A folder is shuffled once, image by
    image, and cut into 45 % train, 10 % dev, 45 % test. Simulated images are cached under `build/cache` in blocks,
    named by the code that made them. For ceilings `train` goes on beyond the training set, up to MANY images. Raises
    ValueError when the set has fewer than `n` images.
    """
    if name not in SEEDS:
        raise ValueError(f"split: name must be one of {sorted(SEEDS)}, got {name!r}")
    everything = from_folder(source) if source else None
    size = split_sizes(len(everything.image) if everything else None)[name]
    if name == "train" and not everything and n > size:
        size = MANY
    if not 1 <= n <= size:
        raise ValueError(f"split: n must be between 1 and {size}, the size of the {name} set, got {n}")
    if everything:
        order = torch.randperm(len(everything.image), generator=torch.Generator().manual_seed(0))
        first = {"train": 0, "dev": round(0.45 * len(order)), "test": round(0.55 * len(order))}[name]
        pool = order[first : first + size]
        if name == "train":
            pool = pool[torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
        return everything[pool[:n]]
    index = (331 * seed * (name == "train") + torch.arange(n)) % size
    blocks = {b: _block(name, b) for b in sorted({int(i) // BLOCK for i in index})}
    parts = [blocks[int(i) // BLOCK][int(i) % BLOCK : int(i) % BLOCK + 1] for i in index]
    stacked = {k: torch.cat([part.parameters[k] for part in parts]) for k in parts[0].parameters}
    return Sky(torch.cat([part.image for part in parts]), torch.cat([part.fine for part in parts]), stacked)


def _block(name: str, block: int) -> Sky:
    path = files.folder("build", "cache") / f"sky-{name}-{block:02d}-v{files.PIPELINE}.npz"
    if not path.exists():
        sky = black_holes(BLOCK, SEEDS[name], start=block * BLOCK, progress=True)
        with files.replacing(path) as aside, open(aside, "wb") as out:
            np.savez(out, **{"fine": sky.fine.numpy()}, **{k: v.numpy() for k, v in sky.parameters.items()})  # type: ignore[arg-type]
    with np.load(path) as z:
        fine = torch.from_numpy(z["fine"])
        return Sky(block_mean(fine), fine, {k: torch.from_numpy(z[k]) for k in z.files if k != "fine"})
