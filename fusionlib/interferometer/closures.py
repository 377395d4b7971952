"""Data that survive uncalibrated stations: closure phases, log closure amplitudes, amplitudes with a gain budget, flux.

A station with unknown complex gain g multiplies every visibility it takes part in: V_ij -> g_i conj(g_j) V_ij. The
phase around a triangle and the ratio of amplitudes around a quadrangle do not change.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib.interferometer.array import S_REF, Interferometer, round_gaussian, wide_svd, window_root
from fusionlib.sky import NPIX


def closure_matrices(table: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Minimal sets of closures of baselines with columns `scan`, `t1`, `t2`, as float64 matrices of entries 0, 1, -1.

    Closures are of rows that were observed together: where a scan has several rows of a baseline, of one time `ut`, and
    without that of the first rows of each baseline, of the second, and so on. The first (C, M) turns visibility phases
    into closure phases of triangles, the second (K, M) log amplitudes into log closure amplitudes of quadrangles. Among
    rows observed together they are chosen greedily, in order, as long as they are linearly independent; k stations that
    all see each other give (k - 1)(k - 2) / 2 and k (k - 3) / 2 of them.
    """
    phases, amplitudes = [], []
    for _, rows in _together(table.reset_index(drop=True)):
        signed = {}
        for index, a, b in zip(rows.index, rows.t1, rows.t2, strict=True):
            signed[a, b], signed[b, a] = (index, 1.0), (index, -1.0)
        stations = sorted({a for a, _ in signed})
        cycles = [((a, b), (b, c), (c, a)) for a, b, c in itertools.combinations(stations, 3)]
        squares = [
            ((a, b), (c, d), (a, d), (b, c))
            for p, q, r, s in itertools.combinations(stations, 4)
            for a, b, c, d in ((p, q, r, s), (p, q, s, r), (p, r, q, s))
        ]
        phases += _independent([[signed[e] for e in c] for c in cycles if all(e in signed for e in c)], len(table))
        signs = (1.0, 1.0, -1.0, -1.0)
        complete = [
            [(signed[e][0], s) for e, s in zip(q, signs, strict=True)] for q in squares if all(e in signed for e in q)
        ]
        amplitudes += _independent(complete, len(table))
    empty = torch.zeros(0, len(table), dtype=torch.float64)
    return torch.stack(phases) if phases else empty, torch.stack(amplitudes) if amplitudes else empty


def _together(table: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows that were observed together, at most one of a baseline: a scan, or where a scan has several rows of a
    baseline those of one time (to a second)."""
    pair = [" ".join(sorted(map(str, p))) for p in zip(table.t1, table.t2, strict=True)]
    table = table.assign(_pair=pair, _time=(table.ut * 3600).round() if "ut" in table else 0.0)
    for _, rows in table.groupby("scan"):
        if rows._pair.is_unique:
            yield None, rows
        else:
            yield from rows.groupby([rows._time, rows.groupby(["_time", "_pair"]).cumcount()])


def _independent(candidates: list[list[tuple[int, float]]], width: int) -> list[Tensor]:
    """Rows (width,) with the given (index, sign) entries, those that add to the span of the ones before."""
    kept: list[Tensor] = []
    basis: list[Tensor] = []
    for entries in candidates:
        row = torch.zeros(width, dtype=torch.float64)
        for index, sign in entries:
            row[index] = sign
        rest = row.clone()
        for b in basis:
            rest = rest - (rest @ b) * b
        if rest.norm() > 1e-6:
            kept.append(row)
            basis.append(rest / rest.norm())
    return kept


class PerImage:
    """A dataclass whose fields all count images first: sliced together."""

    def __getitem__(self, index: slice | Tensor) -> Self:
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClosureData(PerImage):
    """What is measured without calibration, per image; each value beside its standard deviation.

    Closure phases (B, C) [rad], log closure amplitudes (B, K), amplitudes (B, M) [Jy], total flux (B, 1) [Jy]; and the
    visibilities (B, M) [Jy] that they are made of, of unknown gains.
    """

    cphase: Tensor
    sigma_cphase: Tensor
    logcamp: Tensor
    sigma_logcamp: Tensor
    amp: Tensor
    sigma_amp: Tensor
    flux: Tensor
    sigma_flux: Tensor
    vis: Tensor


# A-priori station gain errors (one standard deviation of |g|), from the SEFD budget of EHTC 2019 Paper III:
# sqrt(1 + budget) - 1, and 0.15 more for the LMT
GAIN_ERROR = {"AA": 0.049, "AP": 0.054, "AZ": 0.034, "JC": 0.068, "LM": 0.183, "PV": 0.049, "SM": 0.072}
FLUX_ERROR = 0.02  # Jy
START_FWHM = 40.0  # microarcseconds
DARK = 1e-9  # Jy; of fainter model visibilities neither phase nor logarithm means anything
KINDS = ("cphase", "logcamp", "amp", "flux")


class Uncalibrated(nn.Module):
    """The same baselines without calibration: data are `ClosureData`, and `prox` is a damped Gauss-Newton minimisation.

    It has the calls of an `Interferometer` that Plug-and-Play uses. Only the image modes that the baselines and the
    total flux see can move, a few hundred, so that a data step is a small dense least-squares problem for the whole
    batch. `use` names the data terms that are fitted; `chi2s` reports all. `systematic` x |V| is added in quadrature to
    the noise with which measured data are weighed (the EHT's own analyses take a few percent), not to simulated noise.
    `window` as for an Interferometer: without it, ghosts of the source at the sidelobes of the beam fit just as well.
    Raises ValueError for an unknown term, or a table of baselines without scans and stations.
    """

    rows: Tensor
    basis: Tensor
    reduced: Tensor
    psi: Tensor
    lam: Tensor
    sigma: Tensor
    budget: Tensor

    def __init__(
        self,
        array: Interferometer,
        use: tuple[str, ...] = KINDS,
        *,
        systematic: float = 0.0,
        window: float = math.inf,
    ):
        super().__init__()
        if not use or not set(use) <= set(KINDS):
            raise ValueError(f"Uncalibrated: unknown data term or none in {use}; known are {KINDS}")
        missing = {"scan", "t1", "t2"} - set(array.table.columns)
        if missing:
            raise ValueError(f"Uncalibrated: closures need the column(s) {sorted(missing)} in the table of baselines")
        self.array, self.use, self.systematic, self.npix = array, use, systematic, array.npix
        psi, lam = closure_matrices(array.table)
        vis = array.matrix.double() * array.sigma.repeat(2)[:, None]
        flux = torch.full((1, array.npix**2), self._flux_per_value(), dtype=torch.float64, device=vis.device)
        root = window_root(array.npix, array.fov, window).to(vis)
        _, s, v = wide_svd(torch.cat([array.matrix.double(), flux / FLUX_ERROR]) * root)
        basis = root[:, None] * v[s > 1e-2].T  # weaker modes stay where the prior puts them
        first, second = (array.table[t].map(lambda site: GAIN_ERROR.get(site, 0.1)) for t in ("t1", "t2"))
        rows = torch.cat([vis, flux])
        for name, value in {
            "rows": rows,  # real parts, imaginary parts, total flux [Jy]
            "basis": basis,
            "reduced": rows @ basis,
            "psi": psi,
            "lam": lam,
            "sigma": array.sigma,
            "budget": torch.from_numpy(np.hypot(first.to_numpy(), second.to_numpy())),
        }.items():
            self.register_buffer(name, value.to(array.matrix), persistent=False)

    def measure(self, vis: Tensor, flux: Tensor) -> ClosureData:
        """Closures and amplitudes of complex visibilities (B, M) [Jy] with total flux (B,) [Jy].

        Noise by linear propagation from the measured amplitudes, which are debiased (EHTC 2019 Paper III, IV):
        sigma of a closure is the root sum square of sigma / |V| over its baselines.
        """
        if not torch.isfinite(vis).all() or not torch.isfinite(flux).all():
            raise ValueError("measure: visibilities or flux have NaN or infinite entries; drop those rows")
        vis = vis.to(torch.complex128 if self.psi.dtype == torch.float64 else torch.complex64)
        amp = (vis.abs().square() - self.sigma**2).clamp(min=0).sqrt().clamp(min=0.1 * self.sigma)
        variance = (self.sigma / amp) ** 2 + self.systematic**2  # of log V, per part
        flux = flux.view(-1, 1).to(amp)
        return ClosureData(
            cphase=_wrap(vis.angle() @ self.psi.T),
            sigma_cphase=(variance @ self.psi.abs().T).sqrt(),
            logcamp=amp.log() @ self.lam.T,
            sigma_logcamp=(variance @ self.lam.abs().T).sqrt(),
            amp=amp,
            sigma_amp=amp * (variance + self.budget**2).sqrt(),
            flux=flux,
            sigma_flux=torch.full_like(flux, FLUX_ERROR),
            vis=vis,
        )

    def observe(self, x: Tensor, seed: int, gains: float = 1.0, phases: bool = True) -> ClosureData:
        """Data of images (B, 1, H, H) with thermal noise, random station phases, and gains of `gains` x the budget.

        Image k depends on (seed, k) alone.
        """
        vis = self.array.visibilities(
            self.array.observe(x, seed, gains={k: gains * v for k, v in GAIN_ERROR.items()}, phases=phases)
        )
        flux = x.sum((1, 2, 3)) * S_REF * (NPIX / x.shape[-1]) ** 2
        noise = [np.random.default_rng([seed, k, 1]).standard_normal() for k in range(len(x))]  # its own stream
        return self.measure(vis, flux + FLUX_ERROR * torch.tensor(noise).to(flux))

    def _residuals(self, v: Tensor, y: ClosureData) -> dict[str, Tensor]:
        """Whitened residuals (B, .) by term, for v (B, 2 M + 1): model visibilities, real, imaginary, and flux [Jy]."""
        m = len(self.sigma)
        log = torch.complex(v[:, :m], v[:, m : 2 * m]).log()
        size = log.real.clamp(min=math.log(DARK))
        return {
            "cphase": 2 * torch.sin((log.imag @ self.psi.T - y.cphase) / 2) / y.sigma_cphase,
            "logcamp": (size @ self.lam.T - y.logcamp) / y.sigma_logcamp,
            "amp": (size.exp() - y.amp) / y.sigma_amp,
            "flux": (v[:, 2 * m :] - y.flux) / y.sigma_flux,
        }

    def chi2s(self, x: Tensor, y: ClosureData) -> dict[str, Tensor]:
        """Reduced chi-square (B,) of every data term; for closure phases 2 <1 - cos d> / sigma^2 (Paper IV, eq. 20)."""
        residuals = self._residuals(x.flatten(1) @ self.rows.T, y)
        return {kind: r.square().mean(1) for kind, r in residuals.items()}

    def chi2(self, x: Tensor, y: ClosureData) -> Tensor:
        """Reduced chi-square (B,) of all fitted terms together."""
        residuals = self._residuals(x.flatten(1) @ self.rows.T, y)
        return torch.cat([residuals[kind] for kind in self.use], 1).square().mean(1)

    def start(self, y: ClosureData) -> Tensor:
        """Where loops start: a round Gaussian of 40 microarcseconds with the measured flux (B, 1, npix, npix)."""
        blob = round_gaussian(self.npix, self.array.fov, START_FWHM).to(y.flux)
        return blob / blob.sum() * (y.flux / self._flux_per_value())[:, :, None, None]

    def _flux_per_value(self) -> float:
        return S_REF * (NPIX / self.npix) ** 2

    def _lit(self, z: Tensor, y: ClosureData) -> tuple[Tensor, Tensor]:
        """Images z, with the usual start for those without light, of which closures say nothing; and their model
        visibilities and flux (B, 2 M + 1)."""
        v = z.flatten(1) @ self.rows.T
        dark = v.abs().amax(1) < DARK
        if not bool(dark.any()):
            return z, v
        z = torch.where(dark[:, None, None, None], self.start(y), z)
        return z, z.flatten(1) @ self.rows.T

    def descend(self, z: Tensor, y: ClosureData, *, halvings: int = 30) -> Tensor:
        """One gradient step on the fitted terms, never uphill: its length is halved, per image, until it descends."""
        z, start = self._lit(z, y)
        c, rho = z.new_zeros(len(z), self.basis.shape[1]), z.new_zeros(len(z), 1)
        r, j = self._linearise(start, y)
        gradient = torch.einsum("bnr,bn->br", j, r)
        length = 4 / j.square().sum((1, 2))[:, None].clamp(min=1e-12) * j.shape[2]
        value = self._objective(start, y, c, rho)
        for _ in range(halvings):
            worse = self._objective(start, y, -length * gradient, rho) > value
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        else:
            length = torch.where(worse, 0.0, length)
        return z - (length * gradient @ self.basis.T).view_as(z)

    def prox(
        self, z: Tensor, y: ClosureData, rho: float | Tensor, *, iterations: int = 12, tolerance: float = 1e-3
    ) -> Tensor:
        """A minimiser near z of (sum of squared residuals + rho |(x - z) / sqrt w|^2) / 2, by Levenberg-Marquardt.

        Never above the value at z; an image stops once a step gains less than `tolerance` of its objective. Not convex:
        a minimum, not the minimum.
        """
        rho = torch.as_tensor(rho, dtype=z.dtype, device=z.device).reshape(-1, 1).expand(len(z), 1)
        z, start = self._lit(z, y)
        c = z.new_zeros(len(z), self.basis.shape[1])
        damping = torch.full_like(rho, 1e-2)
        value = self._objective(start, y, c, rho)
        active = torch.ones_like(rho, dtype=torch.bool)
        eye = torch.eye(c.shape[1], dtype=z.dtype, device=z.device)
        for _ in range(iterations):
            r, j = self._linearise(start + c @ self.reduced.T, y)
            gradient = torch.einsum("bnr,bn->br", j, r) + rho * c
            curvature = j.mT @ j
            scale = curvature.diagonal(dim1=1, dim2=2)[:, None] * eye
            hessian = curvature + rho[:, :, None] * eye + damping[:, :, None] * scale
            factor, failed = torch.linalg.cholesky_ex(hessian)
            step = -torch.cholesky_solve(gradient[:, :, None], factor)[:, :, 0]
            step = torch.where(failed[:, None] == 0, step, 0.0)  # singular to rounding: damped more, tried again
            trial = self._objective(start, y, c + step, rho)
            better = active & (trial < value)
            c = torch.where(better, c + step, c)
            gained = value - trial
            value = torch.where(better, trial, value)
            damping = torch.where(better, damping / 5, damping * 5)
            active = active & ~(better & (gained < tolerance * value)) & (damping < 1e6)
            if not bool(active.any()):
                break
        return z + (c @ self.basis.T).view_as(z)

    def _objective(self, start: Tensor, y: ClosureData, c: Tensor, rho: Tensor) -> Tensor:
        residuals = self._residuals(start + c @ self.reduced.T, y)
        fit = sum((residuals[kind].square().sum(1, keepdim=True) for kind in self.use), torch.zeros_like(rho))
        return (fit + rho * c.square().sum(1, keepdim=True)) / 2

    def _linearise(self, v: Tensor, y: ClosureData) -> tuple[Tensor, Tensor]:
        """Residuals (B, n) of the fitted terms and their derivatives (B, n, r) by the image modes."""
        m = len(self.sigma)
        vis = torch.complex(v[:, :m], v[:, m : 2 * m])
        small = vis.abs() < 1e-6
        dlog = torch.complex(self.reduced[:m], self.reduced[m : 2 * m]) / torch.where(small, 1e-6, vis)[:, :, None]
        phase = (vis.angle() @ self.psi.T - y.cphase) / 2
        residuals, derivative = (
            self._residuals(v, y),
            {
                "cphase": lambda: (phase.cos() / y.sigma_cphase)[:, :, None] * (self.psi @ dlog.imag),
                "logcamp": lambda: (self.lam @ dlog.real) / y.sigma_logcamp[:, :, None],
                "amp": lambda: dlog.real * (vis.abs() / y.sigma_amp)[:, :, None],
                "flux": lambda: self.reduced[2 * m :] / y.sigma_flux[:, :, None],
            },
        )
        return torch.cat([residuals[k] for k in self.use], 1), torch.cat([derivative[k]() for k in self.use], 1)


def _wrap(phase: Tensor) -> Tensor:
    """Angles into (-pi, pi]."""
    return torch.atan2(phase.sin(), phase.cos())
