"""Losses for fitting gates by gradient descent: of the fused image, and of the weights themselves."""

from dataclasses import dataclass

import torch
from torch import Tensor


def focal(error: Tensor, gamma: float = 1.0) -> Tensor:
    """Squared error with pixels weighed by their own error: normalised weights |e / max e|^gamma without gradient.

    error (B, 1, H, W); gamma = 0 is the mean squared error.
    """
    size = error.detach().abs()
    weight = (size / size.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)) ** gamma
    return ((weight * error.square()).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-12)).mean()


def entropy(w: Tensor) -> Tensor:
    """Mean entropy of weights (N, B, h, w) on the simplex: H per image and place, then averaged."""
    return -(w * w.clamp(min=1e-12).log()).sum(0).mean()


def batch_entropy(w: Tensor) -> Tensor:
    """Entropy of the weights' mean over images and places: large when all priors are used by somebody."""
    mean = w.mean((1, 2, 3))
    return -(mean * mean.clamp(min=1e-12).log()).sum()


def similarity(outputs: Tensor, centred: bool = True) -> Tensor:
    """Cosines (B, N, N) of the outputs (N, B, 1, H, W), less their mean over the priors if `centred`."""
    o = outputs.flatten(2).transpose(0, 1)
    o = o - o.mean(1, keepdim=True) if centred else o
    o = o / o.norm(dim=2, keepdim=True).clamp(min=1e-12)
    return o @ o.mT


def diversity_literal(w: Tensor, outputs: Tensor) -> Tensor:
    """sum over i != j of w_i w_j sim_ij, as the seed has it: 0 for any one-hot w, so that it rewards collapse."""
    s = similarity(outputs, centred=False)
    s = s - torch.diag_embed(s.diagonal(dim1=1, dim2=2))
    return _quadratic(w, s)


def diversity(w: Tensor, outputs: Tensor) -> Tensor:
    """w' S w with its diagonal, S of the centred outputs: the fused error's own form, least where errors cancel."""
    return _quadratic(w, similarity(outputs))


def _quadratic(w: Tensor, s: Tensor) -> Tensor:
    flat = w.flatten(2)
    return torch.einsum("ibp,bij,jbp->bp", flat, s, flat).mean()


def importance(w: Tensor) -> Tensor:
    """Squared coefficient of variation of the priors' total weights (Shazeer et al. 2017)."""
    total = w.sum((1, 2, 3))
    return total.var(correction=0) / total.mean().square().clamp(min=1e-12)


def load(w: Tensor) -> Tensor:
    """N sum_i f_i p_i, f_i the share of places where prior i weighs most, p_i its mean weight (Switch, 2021); >= 1."""
    share = torch.nn.functional.one_hot(w.argmax(0).flatten(), len(w)).to(w).mean(0)
    return len(w) * (share * w.mean((1, 2, 3))).sum()


def collapse(w: Tensor) -> dict[str, float]:
    """How concentrated weights on the simplex are: both entropies over log N, and the mean greatest weight."""
    top = torch.log(torch.tensor(float(len(w))))
    return {
        "entropy": float(entropy(w) / top),
        "batch_entropy": float(batch_entropy(w) / top),
        "greatest": float(w.amax(0).mean()),
    }


MAIN = {"mse": lambda e: e.square().mean(), "l1": lambda e: e.abs().mean(), "focal": focal}


@dataclass(frozen=True)
class Objective:
    """Loss of a gradient fit: `main` mse, l1 or focal, plus weighted terms on the weights.

    `entropy` is the seed's form, weight times sum w log w (positive spreads the weights of each image), `batch_entropy`
    the same of the mean weights; `diversity` w' S w, `literal` its form without diagonal; `importance`, `load`.
    All but `diversity` need weights on the simplex; with others they raise ValueError.
    """

    main: str = "mse"
    entropy: float = 0.0
    batch_entropy: float = 0.0
    diversity: float = 0.0
    literal: float = 0.0
    importance: float = 0.0
    load: float = 0.0

    def __call__(self, fused: Tensor, truth: Tensor, w: Tensor, outputs: Tensor) -> Tensor:
        if self.main not in MAIN:
            raise ValueError(f"Objective: main must be one of {sorted(MAIN)}, got {self.main!r}")
        on_simplex = {
            "entropy": lambda: -entropy(w),
            "batch_entropy": lambda: -batch_entropy(w),
            "importance": lambda: importance(w),
            "load": lambda: load(w),
        }
        free = {"diversity": lambda: diversity(w, outputs), "literal": lambda: diversity_literal(w, outputs)}
        if any(getattr(self, name) for name in on_simplex) and bool((w < -1e-6).any()):
            raise ValueError(f"Objective: {', '.join(on_simplex)} need weights on the simplex, these are negative")
        total = MAIN[self.main](fused - truth)
        for name, term in (on_simplex | free).items():
            if getattr(self, name):
                total = total + getattr(self, name) * term()
        return total
