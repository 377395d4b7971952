"""Gates in closed form: weights linear in local features, found by ridge regression, one noise level at a time.

y = sum_i s_i x_i + sum_i d_i (x_i - m), s the best static weights, m the mean output, d_i(q) = sum_f theta_if phi_f(q)
at pixel q: linear in theta, so that the least squares fit to labelled images needs no iterations, and whatever d is,
the weights of the x_i sum to one. The ridge draws them to s.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.gates.gate import DataStep, given, nearest
from fusionlib.metrics import smooth

Features = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Cell = int | None | tuple[int | None, ...]  # pixels that share a weight, None: all; several, from coarse to fine
SPREAD = 5.0  # features in units of sigma are cut off here


def constant(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """One weight for the whole image: 1, (B, 1, H, W)."""
    return torch.ones_like(x)


def context(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """What the data step would change in the mean output, over sigma, and the local mean of its size."""
    return torch.cat([smooth(change.abs(), 1.5), change], 1).div(sigma).clamp(-SPREAD, SPREAD)


def spread(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """Local disagreement of the priors, and what they change on the mean, over sigma."""
    m = outputs.mean(0)
    apart = ((outputs - m).square().sum(0) / max(len(outputs) - 1, 1)).clamp(min=1e-12).sqrt()
    away = (x - m).abs()
    return torch.cat([smooth(apart, 1.5), smooth(away, 1.5)], 1).div(sigma).clamp(max=SPREAD)


def brightness(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """The mean output at three scales, over the brightness of the image."""
    m = outputs.mean(0)
    return torch.cat([smooth(m, s) for s in (1.0, 2.5, 6.0)], 1) / _peak(m)


def structure(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """Ridges, valleys and edges of the mean output: both curvatures and the gradient at three scales."""
    m, maps = outputs.mean(0), []
    for scale in (1.0, 2.0, 4.0):
        g = smooth(m, scale) / _peak(m)
        gy, gx = torch.gradient(g, dim=(2, 3))
        (gyy, _), (gxy, gxx) = torch.gradient(gy, dim=(2, 3)), torch.gradient(gx, dim=(2, 3))
        half, apart = (gxx + gyy) / 2, ((gxx - gyy) ** 2 / 4 + gxy**2).sqrt()
        maps += [4 * scale**2 * (half + apart), 4 * scale**2 * (half - apart), 2 * scale * (gx**2 + gy**2).sqrt()]
    return torch.cat(maps, 1)


def residuals(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """What the data say against each prior, (B, 2 N, H, W): the size of what the data step would change in its output,
    as a local mean and of the whole image, relative to the mean of the priors; -1 .. 3."""
    local = torch.stack([smooth(c.abs(), 1.5) for c in change])
    whole = change.square().mean((3, 4), keepdim=True).sqrt().expand_as(local)
    relative = [size / (size.mean(0) + 1e-3 * sigma) for size in (local, whole)]
    return torch.cat(relative)[:, :, 0].transpose(0, 1).clamp(max=4) - 1


def bright_residuals(x: Tensor, outputs: Tensor, change: Tensor, sigma: Tensor) -> Tensor:
    """`residuals` times the mean output at the middle scale of `brightness`: where there is something to be wrong."""
    return residuals(x, outputs, change, sigma) * brightness(x, outputs, change, sigma)[:, 1:2]


# they are given what changes in each output, not in their mean
residuals.each = bright_residuals.each = True  # type: ignore[attr-defined]
ALL: tuple[Features, ...] = (constant, context, spread, brightness, structure)
RESIDUALS: tuple[Features, ...] = (residuals, bright_residuals)


def _peak(m: Tensor) -> Tensor:
    return smooth(m, 4.0).amax((2, 3), keepdim=True).clamp(min=0.05)


def whitening(phi: Sequence[Tensor]) -> Tensor:
    """E (F, F) such that |E phi|^2 is 1 in the mean over pixels and over images with features (F, P)."""
    moment = torch.stack([(p @ p.T).double() / p.shape[1] for p in phi]).mean(0)
    moment = moment + torch.diag(1e-4 * moment.diagonal() + 1e-9)
    inverse = torch.linalg.inv(torch.linalg.cholesky(moment))
    return (inverse / len(moment) ** 0.5).to(phi[0])


def clip_leverage(phi: Tensor, e: Tensor) -> Tensor:
    """Features (B, F, ...) drawn back to |E phi| <= 1, E (F, F) or one per image: of pixels with more leverage than the
    mean pixel of the fit only the direction counts, so that weights stay bounded on images unlike those of the fit."""
    size = (e @ phi.flatten(2)).norm(dim=1).view(len(phi), 1, *phi.shape[2:])
    return phi / size.clamp(min=1)


class ClosedForm(nn.Module):
    """The gate: for each of K noise levels coefficients `theta` (K, N, F) of N priors and F features.

    They count from `static_weights` (K, N). `whitening` (K, F, F) bounds the features (`clip_leverage`), and with them
    the weights, on images unlike those of the fit. Between one and two steps outside the levels the weights go back to
    the static ones. `cell` pixels share a weight (`Cell`). `kept`, bool (K, N): the priors there are
    at each level, the others are not called; all of them by default.
    """

    reads_outputs, skips = True, False
    levels: Tensor
    theta: Tensor
    static_weights: Tensor
    whitening: Tensor
    kept: Tensor

    def __init__(
        self,
        sigmas: Tensor,
        theta: Tensor,
        static_weights: Tensor,
        whitening: Tensor,
        features: Sequence[Features] = ALL,
        cell: Cell = 1,
        kept: Tensor | None = None,
    ):
        super().__init__()
        levels, (n, width) = len(sigmas), theta.shape[-2:]
        given = {"theta": theta, "static_weights": static_weights, "whitening": whitening}
        needed = {"theta": (levels, n, width), "static_weights": (levels, n), "whitening": (levels, width, width)}
        if wrong := [name for name, v in given.items() if v.shape != needed[name]]:
            shapes = {name: tuple(given[name].shape) for name in wrong}
            raise ValueError(f"ClosedForm: {shapes} given, { ({name: needed[name] for name in wrong}) } needed")
        kept = torch.ones(theta.shape[:2], dtype=torch.bool) if kept is None else kept
        if kept.shape != theta.shape[:2] or kept.dtype != torch.bool or not bool(kept.any(1).all()):
            raise ValueError(f"ClosedForm: kept is bool {tuple(theta.shape[:2])}, some prior kept at every level")
        self.features, self.cell, self.whole = tuple(features), cell, bool(kept.all())
        for name, value in {"levels": sigmas.log(), **given}.items():
            self.register_buffer(name, value.float())
        self.register_buffer("kept", kept)

    def calls(self, sigma: float | Tensor, batch: int) -> Tensor | None:
        """Which priors are to be called for which of `batch` images, bool (N, B); None: all of them."""
        return None if self.whole else self.kept[nearest(self.levels, sigma, batch)[0]].T

    def forward(
        self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step: DataStep | None = None
    ) -> Tensor:
        o = given(outputs)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        stage, away = nearest(self.levels, s, len(x))
        if self.whole:
            return self._weigh(x, s, o, data_step, stage, away, slice(None))
        parts = []
        for k in stage.unique():  # inside a loop there is one
            part, there = (stage == k).nonzero()[:, 0], self.kept[k].nonzero()[:, 0]
            step = data_step if len(part) == len(x) else None
            some = self._weigh(x[part], s[part], o[there][:, part], step, stage[part], away[part], there)
            parts.append((part, some.new_zeros(len(o), *some.shape[1:]).index_copy(0, there, some)))
        w = torch.cat([some for _, some in parts], 1)
        return torch.empty_like(w).index_copy(1, torch.cat([part for part, _ in parts]), w)

    def _weigh(
        self,
        x: Tensor,
        s: Tensor,
        o: Tensor,
        data_step: DataStep | None,
        stage: Tensor,
        away: Tensor,
        there: Tensor | slice,
    ) -> Tensor:
        phi = self.seen(x, s, o, data_step, stage, away)
        moved = torch.einsum("bnf,bfhw->nbhw", self.theta[:, there][stage], phi)
        return self.static_weights[:, there][stage].T[:, :, None, None] + moved - moved.mean(0)

    def seen(self, x: Tensor, s: Tensor, o: Tensor, data_step: DataStep | None, stage: Tensor, away: Tensor) -> Tensor:
        """The features (B, F, h, w), bounded, and fading where sigma is not what was fitted."""
        phi = clip_leverage(maps(self.features, x, o, s, data_step, self.cell), self.whitening[stage])
        gap = self.levels.diff().abs().max() if len(self.levels) > 1 else torch.tensor(0.1).to(s)
        return phi * (2 - away / gap).clamp(0, 1)[:, None, None, None]


def maps(
    features: Sequence[Features],
    x: Tensor,
    outputs: Tensor,
    sigma: Tensor,
    data_step: DataStep | None,
    cell: Cell = 1,
) -> Tensor:
    """The features (B, F, h, w) of images x (B, 1, H, W), outputs (N, B, 1, H, W), sigma (B,): means over each `cell`
    pixels square, or over the image; for several cells all of them, on the grid of the last and finest."""

    def change(m: Tensor) -> Tensor:
        return data_step(m) - m if data_step is not None else torch.zeros_like(m)

    s, apart = sigma.view(-1, 1, 1, 1), [getattr(f, "each", False) for f in features]
    mean, each = change(outputs.mean(0)), torch.stack([*map(change, outputs)]) if any(apart) else None
    phi = torch.cat([f(x, outputs, each if a else mean, s) for f, a in zip(features, apart, strict=True)], 1)  # type: ignore[arg-type]
    if isinstance(cell, tuple):
        scales = [_pooled(phi, c) for c in cell]
        return torch.cat([F.interpolate(p, scales[-1].shape[2:], mode="bilinear") for p in scales], 1)
    return _pooled(phi, cell)


def _pooled(phi: Tensor, cell: int | None) -> Tensor:
    if cell is None:
        return phi.mean((2, 3), keepdim=True)
    return phi if cell == 1 else F.avg_pool2d(phi, cell)


class NormalEquations:
    """Normal equations of the fit, kept apart for each of `folds`, so that the ridge can be cross-validated."""

    def __init__(self, folds: int):
        self.gram: list[Tensor | float] = [0.0] * folds
        self.cross: list[Tensor | float] = [0.0] * folds
        self.square = [0.0] * folds

    def add(self, fold: int, columns: Tensor, target: Tensor) -> None:
        """One image: columns (D, P), target (P,)."""
        self.gram[fold] = self.gram[fold] + (columns @ columns.T).double()
        self.cross[fold] = self.cross[fold] + (columns @ target).double()
        self.square[fold] += float(target.square().sum())

    def solve(self, ridges: Sequence[float], among: Tensor | None = None) -> tuple[Tensor, float, float]:
        """Coefficients (D,) with the ridge, relative to the columns' own squares, that is best on the other folds, that
        ridge, and the squared error left there. With `among` (D',) those columns alone."""
        gram, cross = torch.stack(self.gram), torch.stack(self.cross)  # type: ignore[arg-type]
        if among is not None:
            gram, cross = gram[:, among][:, :, among], cross[:, among]
        size = gram.sum(0).diagonal().sqrt().clamp(min=1e-12)
        gram, cross = gram / size / size[:, None], cross / size
        eye = torch.eye(len(size)).to(gram)
        best, chosen = float("inf"), ridges[0]
        for ridge in ridges if len(gram) > 1 else ():
            error = 0.0
            for k in range(len(gram)):
                theta = torch.linalg.solve(gram.sum(0) - gram[k] + ridge * eye, cross.sum(0) - cross[k])
                error += float(theta @ gram[k] @ theta - 2 * theta @ cross[k]) + self.square[k]
            if error < best:
                best, chosen = error, ridge
        return torch.linalg.solve(gram.sum(0) + chosen * eye, cross.sum(0)) / size, chosen, best
