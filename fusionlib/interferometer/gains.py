"""Self-calibration: the complex gains of stations solved against a picture, and the data step that this allows.

Station i in scan s multiplies what it sees by g = exp(a + i p): V_ij -> g_i conj(g_j) V_ij, one g per station and scan.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusionlib.interferometer.closures import FLUX_ERROR, GAIN_ERROR, ClosureData, PerImage, Uncalibrated

TAIL = 3.0  # of the prior of log amplitudes, in budgets: beyond it large gains cost little more
WIDE = 5.0  # how many times the budget a solution allows at first
FREEDOM = 0.2  # how far phases may be off after a solution [rad]: a picture is not the truth


class Gains(NamedTuple):
    """Log amplitudes and phases [rad] (B, G) of every station in every scan, in the order of
    `SelfCalibrated.stations`; the first station of a scan has phase 0."""

    log_amplitude: Tensor
    phase: Tensor


@dataclass(frozen=True)
class CalibratedData(PerImage):
    """Visibilities calibrated against a picture, and the total flux: per image the gains, whitened data (B, n), the
    whitener (B, n, n) of real parts, imaginary parts and flux, and the singular value decomposition of the whitened
    operator on the image modes: `modes` (B, n, r) are left vectors times values, `values` (B, r), `axes` (B, r, r)."""

    log_amplitude: Tensor
    phase: Tensor
    white: Tensor
    whitener: Tensor
    modes: Tensor
    values: Tensor
    axes: Tensor


class SelfCalibrated(nn.Module):
    """An uncalibrated array whose gains are solved against a picture: a linear instrument with data of its own.

    `calibrate` makes of `ClosureData` and pictures `CalibratedData`, with which loops use this as they use an
    Interferometer. Log amplitudes are known to the budget of the station, with a heavy tail from `tail` budgets on;
    after a solution they stay free within that budget and phases within `freedom` [rad], to first order, which widens
    the noise of the calibrated visibilities along what gains can change. Raises ValueError for a negative `freedom`.
    """

    budget: Tensor
    ends: Tensor
    ring: Tensor
    first: Tensor

    def __init__(self, physics: Uncalibrated, *, freedom: float = FREEDOM, tail: float = TAIL):
        super().__init__()
        if freedom < 0 or tail <= 0:
            raise ValueError(f"SelfCalibrated: freedom >= 0 and tail > 0 are needed, got {freedom}, {tail}")
        self.physics, self.freedom, self.tail, self.npix = physics, freedom, tail, physics.npix
        t = physics.array.table
        self.stations = sorted({*zip(t.scan, t.t1, strict=True), *zip(t.scan, t.t2, strict=True)})
        number = {key: k for k, key in enumerate(self.stations)}
        i, j = ([number[key] for key in zip(t.scan, t[name], strict=True)] for name in ("t1", "t2"))
        plus, minus = (torch.eye(len(number), dtype=torch.float64)[k] for k in (i, j))
        scans = [scan for scan, _ in self.stations]
        for name, value in {
            "budget": torch.tensor([GAIN_ERROR.get(site, 0.1) for _, site in self.stations], dtype=torch.float64),
            "ends": plus + minus,  # (M, G): log amplitudes of stations to those of visibilities
            "ring": plus - minus,  # the same for phases
            "first": torch.tensor([scans.index(scan) for scan in scans]),
        }.items():
            self.register_buffer(name, value.to(physics.sigma.device), persistent=False)

    def centred(self, x: Tensor) -> Tensor:
        """Pictures (B, 1, H, H) moved by whole pixels so that their centre of light is in the middle: data without
        phases do not know where the source is."""
        light = x.clamp(min=0)
        total = light.sum((1, 2, 3)).clamp(min=1e-12)
        at = torch.arange(self.npix).to(x) - (self.npix - 1) / 2
        moves = [-((light.sum((1, d)) * at).sum(1) / total).round().long() for d in (3, 2)]
        return torch.stack([image.roll((int(r), int(c)), (1, 2)) for image, r, c in zip(x, *moves, strict=True)])

    def model(self, x: Tensor) -> Tensor:
        """Visibilities (B, M) [Jy] of pictures (B, 1, H, H), complex128."""
        v = (x.flatten(1) @ self.physics.rows.T).double()
        m = len(self.physics.sigma)
        return torch.complex(v[:, :m], v[:, m : 2 * m])

    def solve(self, x: Tensor, y: ClosureData, *, iterations: int = 12) -> Gains:
        """The most probable gains (B, G) given pictures: phases by angular synchronisation, then both by
        Levenberg-Marquardt. A picture without light leaves the gains at 1."""
        model, vis, weight = self.model(x), y.vis.to(torch.complex128), self._weight(y)
        phase = self._synchronised(vis * model.conj() * weight)
        log_amplitude = torch.zeros_like(phase)
        for budget in (WIDE * self.budget, self.budget):  # wide first: with a heavy tail there may be two minima
            damping = torch.full_like(phase[:, :1], 1e-3)
            value = self._objective(log_amplitude, phase, model, vis, weight, budget)
            for _ in range(iterations):
                m = model * self._factors(log_amplitude, phase)
                pull, size = m.conj() * (vis - m) * weight, m.abs().square() * weight
                prior = 1 / (budget.square() + (log_amplitude / self.tail).square())
                da = self._step(self.ends, pull.real, size, damping, prior, prior * log_amplitude)
                dp = self._step(self.ring, pull.imag, size, damping)
                trial = self._objective(log_amplitude + da, phase + dp, model, vis, weight, budget)
                better = trial < value
                log_amplitude = torch.where(better, log_amplitude + da, log_amplitude)
                phase = torch.where(better, phase + dp, phase)
                damping = torch.where(better, damping / 5, damping * 5).clamp(1e-9, 1e9)
                value = torch.minimum(value, trial)
        phase = phase - phase[:, self.first]
        return Gains(log_amplitude.to(x), torch.atan2(phase.sin(), phase.cos()).to(x))

    def _weight(self, y: ClosureData) -> Tensor:
        """1 / variance (B, M) of the visibilities, per part."""
        return 1 / (self.physics.sigma.double() ** 2 + (self.physics.systematic * y.amp.double()) ** 2)

    def _factors(self, log_amplitude: Tensor, phase: Tensor) -> Tensor:
        return torch.polar((log_amplitude @ self.ends.T).exp(), phase @ self.ring.T)

    def _objective(self, a: Tensor, p: Tensor, model: Tensor, vis: Tensor, weight: Tensor, budget: Tensor) -> Tensor:
        """Minus twice the log posterior (B, 1) of gains: chi-square, and the prior of the log amplitudes."""
        fit = (vis - model * self._factors(a, p)).abs().square() * weight
        known = self.tail**2 * torch.log1p((a / (self.tail * budget)).square())
        return fit.sum(1, keepdim=True) + known.sum(1, keepdim=True)

    def _synchronised(self, products: Tensor) -> Tensor:
        """Phases (B, G) that best turn model into data, from weighted V conj(model) (B, M): of the leading
        eigenvectors, scan by scan, of their Hermitian matrix (Singer 2011), by power iteration."""
        plus, minus = ((self.ends + s * self.ring) / 2 for s in (1, -1))
        h = torch.einsum("bm,mi,mj->bij", products, plus.to(products), minus.to(products))
        h = h + h.mH
        scale = h.abs().sum(2).clamp(min=1e-30).rsqrt()
        h = h * scale[:, :, None] * scale[:, None, :]
        v = torch.ones_like(h[:, :, :1])
        for _ in range(60):
            v = h @ v + v
            v = v / v.abs().amax(1, keepdim=True)
        return v[:, :, 0].angle()

    def _step(
        self,
        ends: Tensor,
        pull: Tensor,
        size: Tensor,
        damping: Tensor,
        prior: Tensor | float = 0.0,
        known: Tensor | float = 0.0,
    ) -> Tensor:
        """A damped Gauss-Newton step (B, G) of log amplitudes, or of phases: the two do not mix."""
        hessian = torch.einsum("mi,bm,mj->bij", ends, size, ends)
        diagonal = hessian.diagonal(dim1=1, dim2=2) + prior
        h = hessian + torch.diag_embed(prior + damping * diagonal + 1e-12)
        return torch.linalg.solve(h, pull @ ends - known)

    def calibrate(self, x: Tensor, y: ClosureData, gains: Gains | None = None) -> CalibratedData:
        """Data calibrated against pictures (B, 1, H, H), or with `gains` that are known."""
        gains = self.solve(x, y) if gains is None else gains
        a, p = (g.double() for g in gains)
        model, factors = self.model(x), self._factors(a, p)
        # V / g = A x + (da + i dp) A x: log amplitudes lie about -a of the solution, within the budget
        moved = y.vis.to(model) / factors + model * (a @ self.ends.T)
        widths = torch.cat(
            [(self.budget.square() + (a / self.tail).square()).sqrt(), torch.full_like(a, self.freedom)], 1
        )
        changes = torch.cat([model[:, :, None] * self.ends, 1j * model[:, :, None] * self.ring], 2) * widths[:, None]
        changes = torch.cat([changes.real, changes.imag], 1)
        variance = (1 / self._weight(y) / factors.abs().square()).repeat(1, 2)
        covariance = torch.diag_embed(variance) + changes @ changes.mT
        root = torch.linalg.cholesky(covariance)
        n = root.shape[1]
        whitener = root.new_zeros(len(x), n + 1, n + 1)
        whitener[:, :n, :n] = torch.linalg.solve_triangular(root, torch.eye(n).to(root).expand_as(root), upper=False)
        whitener[:, n, n] = 1 / FLUX_ERROR
        data = torch.cat([moved.real, moved.imag, y.flux.double()], 1)
        operator = whitener @ self.physics.reduced.double()
        square, axes = torch.linalg.eigh(operator.mT @ operator)
        values = square.clamp(min=0).sqrt()
        parts = (torch.einsum("bnm,bm->bn", whitener, data), whitener, operator @ axes, values, axes)
        return CalibratedData(*gains, *(part.to(x) for part in parts))

    def residual(self, x: Tensor, y: CalibratedData) -> Tensor:
        """Whitened residuals (B, n)."""
        return y.white - torch.einsum("bnm,bm->bn", y.whitener, x.flatten(1) @ self.physics.rows.T)

    def chi2(self, x: Tensor, y: CalibratedData) -> Tensor:
        """Reduced chi-square (B,), gains free within their budget."""
        return self.residual(x, y).square().mean(1)

    def prox(self, z: Tensor, y: CalibratedData, rho: float | Tensor) -> Tensor:
        """argmin_x |residual|^2 / 2 + rho |(x - z) / sqrt w|^2 / 2, over the modes that the array sees."""
        rho = torch.as_tensor(rho, dtype=z.dtype, device=z.device).reshape(-1, 1)
        return self._moved(z, y, lambda g: g / (y.values**2 + rho))

    def descend(self, z: Tensor, y: CalibratedData) -> Tensor:
        """One gradient step on |residual|^2 / 2, of length 1 / largest curvature."""
        return self._moved(z, y, lambda g: g / y.values.amax(1, keepdim=True) ** 2)

    def _moved(self, z: Tensor, y: CalibratedData, scaled: Callable[[Tensor], Tensor]) -> Tensor:
        gradient = torch.einsum("bnr,bn->br", y.modes, self.residual(z, y))
        c = torch.einsum("brk,bk->br", y.axes, scaled(gradient))
        return z + (c @ self.physics.basis.T).view_as(z)

    def start(self, y: CalibratedData) -> Tensor:
        """Where loops start: empty sky (B, 1, npix, npix)."""
        return y.white.new_zeros(len(y), 1, self.npix, self.npix)
