"""A radio interferometer as one dense whitened matrix: forward, adjoint, exact data prox, observation.

Sign and pixel conventions are ehtim's: visibility V(u, v) = P sum_rc I[r, c] exp(-2 pi i (u x_c + v y_r)) with
x_c = (c - (N - 1) / 2) p, y_r = (r - (N - 1) / 2) p, pixel p [rad] and pulse P = sinc^2(u p) sinc^2(v p). An image
value of 1 means `S_REF` Jy per 64-px pixel, so a finer image is surface brightness in the same unit.

Data live in whitened form: y (B, 2 M) stacks real and imaginary parts of the M visibilities, each over its noise
standard deviation; `visibilities` and `whiten` convert to and from complex Jansky.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib.interferometer.observations import COVERAGE, check_table, eht2017_table, read_csv, read_uvfits
from fusionlib.sky import FOV, NPIX

S_REF = 4.5e-3  # Jy per pixel at image value 1: a mean simulated sky then has 0.6 Jy, the compact flux of M87
UAS = math.pi / 180 / 3600e6  # one microarcsecond [rad]
MIN_BASELINE = 0.1e9  # shorter ones see the extended jet [wavelengths]
RANK_TOLERANCE = 1e-9  # singular modes below this fraction of the largest are dropped


def pixel_grid(npix: int, fov: float = FOV) -> tuple[Tensor, float]:
    """Pixel centres (npix,) and pixel size, both in radians, for a field of `fov` microarcseconds."""
    pixel = fov / npix * UAS
    return (torch.arange(npix, dtype=torch.float64) - (npix - 1) / 2) * pixel, pixel


def dft_matrix(u: Tensor, v: Tensor, npix: int, fov: float = FOV) -> Tensor:
    """Complex (M, npix^2) float64 matrix from Jy per pixel to Jy, for u, v (M,) in wavelengths."""
    x, pixel = pixel_grid(npix, fov)
    u, v = u.double(), v.double()
    pulse = torch.sinc(u * pixel) ** 2 * torch.sinc(v * pixel) ** 2
    row = torch.exp(-2j * torch.pi * v[:, None] * x)
    col = torch.exp(-2j * torch.pi * u[:, None] * x)
    return (pulse[:, None, None] * row[:, :, None] * col[:, None, :]).flatten(1)


def round_gaussian(npix: int, fov: float, fwhm: float) -> Tensor:
    """A Gaussian of full width `fwhm` [microarcseconds] with peak 1 in the middle (npix, npix), float64."""
    t = (torch.arange(npix, dtype=torch.float64) - (npix - 1) / 2) * (fov / npix)
    line = torch.exp(-4 * math.log(2) * (t / fwhm) ** 2)
    return line[:, None] * line


def window_root(npix: int, fov: float, fwhm: float) -> Tensor:
    """Square root (npix^2,) of the weights of pixels in the metric of a data step, see `Interferometer`."""
    return round_gaussian(npix, fov, fwhm).flatten().clamp(min=1e-4).sqrt()


def wide_svd(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vh of a wide matrix, by QR of its transpose first: less than half the time of a direct one."""
    q, r = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(r.T, full_matrices=False)
    return u, s, vh @ q.T


class Interferometer(nn.Module):
    """Baselines (M,) with coordinates `u`, `v` [wavelengths] and noise `sigma` [Jy per real or imaginary part].

    `table` may name the stations and scan of each visibility (columns `t1`, `t2`, `scan`) and, for a real
    observation, hold the measured complex visibilities [Jy] in `vis`: then `data` (1, 2 M) is their whitened form.

    `window` says that the source is compact: a round Gaussian w of that full width [microarcseconds], in whose metric
    `prox` measures how far an image moves, so that it moves little far from the middle. By default w = 1.

    Raises ValueError for unequal lengths, non-finite entries, sigma <= 0, or no baseline left.
    """

    matrix: Tensor
    seen: Tensor
    moved: Tensor
    singular: Tensor
    left: Tensor
    sigma: Tensor
    u: Tensor
    v: Tensor

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        npix: int = NPIX,
        fov: float = FOV,
        window: float = math.inf,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_table(table)
        self.table = table.reset_index(drop=True)
        self.npix, self.fov = npix, fov
        u, v, sigma = (torch.tensor(self.table[k].to_numpy(np.float64)) for k in ("u", "v", "sigma"))
        matrix = self._whitened_matrix(u, v, sigma, npix)
        root = window_root(npix, fov, window)
        left, singular, right = wide_svd(matrix * root)
        self.norm2 = float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1])
        keep = singular > RANK_TOLERANCE * singular[0]
        for name, value in {"u": u, "v": v, "sigma": sigma}.items():
            self.register_buffer(name, value, persistent=False)
        for name, value in {
            "matrix": matrix,
            "left": left[:, keep],
            "singular": singular[keep],
            "seen": right[keep].T / root[:, None],
            "moved": right[keep].T * root[:, None],
        }.items():
            self.register_buffer(name, value.to(dtype).contiguous(), persistent=False)
        self._finer: dict[int, Tensor] = {}

    def _whitened_matrix(self, u: Tensor, v: Tensor, sigma: Tensor, npix: int) -> Tensor:
        scale = S_REF * (NPIX / npix) ** 2
        vis = scale * dft_matrix(u, v, npix, self.fov) / sigma[:, None]
        return torch.cat([vis.real, vis.imag])

    # --- makers ---

    @classmethod
    def eht2017(
        cls,
        coverage: float = 1.0,
        draw: int = 0,
        *,
        min_baseline: float = MIN_BASELINE,
        scans: list[int] | None = None,
        **options,
    ) -> Self:
        """The EHT of 11 April 2017 on M87, low band: 216 visibilities of 22 scans, 189 above `min_baseline`.

        `coverage` 1.0, 0.3 or 0.1 picks the packaged list number `draw` of 22, 7 or 3 scans; `scans` picks any.
        Noise from effective SEFDs, fitted to the released visibility errors (EHTC 2019-D01-01).
        `options` as for the class. Raises ValueError for an unknown coverage, draw or scan.
        """
        if scans is None:
            if coverage not in COVERAGE or not 0 <= draw < len(COVERAGE[coverage]):
                known = {c: len(lists) for c, lists in COVERAGE.items()}
                raise ValueError(
                    f"eht2017: coverage {coverage}, draw {draw} unknown; coverage: number of draws: {known}"
                )
            scans = COVERAGE[coverage][draw]
        table = eht2017_table()
        if unknown := set(scans) - set(table.scan):
            raise ValueError(f"eht2017: scans {sorted(unknown)} unknown; there are 0 .. {table.scan.max()}")
        return cls.from_table(table[table.scan.isin(scans)], min_baseline=min_baseline, **options)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame | str | Path,
        *,
        min_baseline: float = 0.0,
        without: Collection[int] = (),
        **options,
    ) -> Self:
        """From a frame or CSV file with columns `u`, `v` [wavelengths], `sigma` [Jy], optionally `t1 t2 scan vis`.

        Scans `without` are held out. Raises ValueError for one that the table does not have.
        """
        frame = table if isinstance(table, pd.DataFrame) else read_csv(Path(table))
        check_table(frame)
        if without:
            if unknown := set(without) - set(frame.get("scan", [])):
                raise ValueError(f"without: the table has no scans {sorted(unknown)}")
            frame = frame[~frame.scan.isin(list(without))]
        return cls(frame[np.hypot(frame.u, frame.v) >= min_baseline], **options)

    @classmethod
    def from_uvfits(
        cls, path: str | Path, *, systematic: float = 0.0, min_baseline: float = MIN_BASELINE, **options
    ) -> Self:
        """A released observation: rows averaged over scans; `systematic` x |V| added to the noise in quadrature.

        Needs ehtim (extra `eht`). Raises ValueError when it is missing or the file is no UVFITS with data.
        """
        return cls.from_table(read_uvfits(path, systematic), min_baseline=min_baseline, **options)

    # --- linear algebra ---

    @property
    def rank(self) -> int:
        return len(self.singular)

    @property
    def data(self) -> Tensor:
        """The measured visibilities of the table, whitened (1, 2 M)."""
        if "vis" not in self.table:
            raise ValueError("this interferometer has no measured visibilities; simulate some with observe(x, seed)")
        return self.whiten(torch.tensor(self.table.vis.to_numpy(np.complex128), device=self.sigma.device)[None])

    def _matrix_for(self, x: Tensor) -> Tensor:
        npix = x.shape[-1]
        if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] != npix or npix % self.npix:
            raise ValueError(
                f"image has shape {tuple(x.shape)}; (B, 1, {self.npix}, {self.npix}) or a whole multiple is needed"
            )
        if npix == self.npix:
            return self.matrix
        if npix not in self._finer:
            self._finer[npix] = self._whitened_matrix(self.u.cpu(), self.v.cpu(), self.sigma.cpu(), npix)
        return self._finer[npix].to(self.matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Noise-free whitened data (B, 2 M) of images (B, 1, H, H), H = npix or a multiple (a finer sky)."""
        return x.flatten(1) @ self._matrix_for(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        """Transpose of `forward`: (B, 2 M) to (B, 1, npix, npix)."""
        return (self._check_data(y) @ self.matrix).view(-1, 1, self.npix, self.npix)

    def prox(self, z: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """argmin_x |A x - y|^2 / 2 + rho |(x - z) / sqrt w|^2 / 2, exactly; z (B, 1, npix, npix), rho > 0 or (B,).

        z moves along the singular modes of A sqrt w only; what the array does not see keeps the value of z.
        """
        rho = torch.as_tensor(rho, dtype=z.dtype, device=z.device).reshape(-1, 1)
        if not bool((rho > 0).all()):
            raise ValueError("prox: rho must be positive")
        s = self.singular
        misfit = self._check_data(y) @ self.left - (z.flatten(1) @ self.seen) * s
        return z + (misfit * s / (s**2 + rho) @ self.moved.T).view_as(z)

    def descend(self, z: Tensor, y: Tensor) -> Tensor:
        """One gradient step on |A z - y|^2 / 2, of length 1 / |A|^2."""
        return z + self.adjoint(self.residual(z, y)) / self.norm2

    def start(self, y: Tensor) -> Tensor:
        """Where loops start: empty sky (B, 1, npix, npix), from which the first prox makes the Tikhonov image."""
        return self._check_data(y).new_zeros(len(y), 1, self.npix, self.npix)

    def observe(
        self, x: Tensor, seed: int, *, gains: Mapping[str, float] | None = None, phases: bool = False
    ) -> Tensor:
        """Whitened data (B, 2 M) of images (B, 1, H, H) with unit Gaussian noise, image k from stream (seed, k).

        `gains` gives stations a standard deviation of log gain, `phases` all of them uniform random phases, drawn anew
        for every scan and image: the data of an uncalibrated array.
        """
        clean = self(x)
        rngs = [np.random.default_rng([seed, k]) for k in range(len(x))]
        noise = torch.from_numpy(np.stack([rng.standard_normal(clean.shape[1]) for rng in rngs])).to(clean)
        if gains or phases:
            factors = torch.from_numpy(np.stack([self._station_errors(rng, gains or {}, phases) for rng in rngs]))
            clean = self.whiten(self.visibilities(clean) * factors.to(clean.device))
        return clean + noise

    def _station_errors(self, rng: np.random.Generator, gains: Mapping[str, float], phases: bool) -> np.ndarray:
        """Factors g_i conj(g_j) (M,), one g per station and scan."""
        t = self.table
        if missing := {"scan", "t1", "t2"} - set(t):
            raise ValueError(f"observe: station errors need the column(s) {sorted(missing)} in the table of baselines")
        keys = [*zip(t.scan, t.t1, strict=True), *zip(t.scan, t.t2, strict=True)]
        g = {
            key: np.exp(gains.get(key[1], 0.0) * rng.standard_normal() + 2j * np.pi * phases * rng.uniform())
            for key in sorted(set(keys))
        }
        first, second = np.array([g[k] for k in keys]).reshape(2, -1)
        return first * second.conj()

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Whitened residual y - A x (B, 2 M)."""
        return self._check_data(y) - self(x)

    def chi2(self, x: Tensor, y: Tensor) -> Tensor:
        """Reduced chi-square (B,): mean squared whitened residual."""
        return self.residual(x, y).square().mean(1)

    # --- units ---

    def whiten(self, vis: Tensor) -> Tensor:
        """Complex visibilities (B, M) [Jy] to whitened data (B, 2 M)."""
        return torch.cat([vis.real / self.sigma, vis.imag / self.sigma], 1).to(self.matrix.dtype)

    def visibilities(self, y: Tensor) -> Tensor:
        """Whitened data (B, 2 M) to complex visibilities (B, M) [Jy]."""
        re, im = self._check_data(y).chunk(2, 1)
        return torch.complex(re * self.sigma.to(re), im * self.sigma.to(im))

    def dirty_beam(self) -> Tensor:
        """Point-spread function (1, 1, npix, npix) with peak 1, weights 1 / sigma^2, centred between pixels."""
        weight = 1 / self.sigma**2
        beam = (
            (weight[:, None] * dft_matrix(self.u.cpu(), self.v.cpu(), self.npix, self.fov).to(self.u.device))
            .sum(0)
            .real
        )
        return (beam / beam.max()).view(1, 1, self.npix, self.npix).to(self.matrix.dtype)

    def dirty_image(self, y: Tensor) -> Tensor:
        """Back-projection (B, 1, npix, npix) of the data, weighted 1 / sigma^2, scaled to their noise-free flux.

        Scaled so that a point source of value 1 at the centre has a peak of 1 (Jy per beam over `S_REF`).
        """
        return self.adjoint(y) / (S_REF**2 * (1 / self.sigma**2).sum()).to(self.matrix.dtype)

    def _check_data(self, y: Tensor) -> Tensor:
        if y.ndim != 2 or y.shape[1] != len(self.matrix):
            raise ValueError(
                f"data y have shape {tuple(y.shape)}; (B, {len(self.matrix)}) is needed: whitened Re, then Im"
            )
        return y
