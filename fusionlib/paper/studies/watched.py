"""Chapter 08: a reconstruction watched from inside."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionlib.fusion import FusedPrior, spread
from fusionlib.paper.experiment import arrays, observed, prior_of
from fusionlib.paper.methods.method import sigmas_of
from fusionlib.paper.spec import Spec
from fusionlib.pnp import Reconstruction, hqs


class Seen(NamedTuple):
    """A reconstruction of `truth` (B, 1, H, W) watched from inside: the image each iteration gave to the priors `x`
    (K, B, 1, H, W), what they returned `outputs` (K, N, B, 1, H, W), their `weights` (K, N, B, h, w), and the `fused`
    images (K, B, 1, H, W)."""

    spec: Spec
    sigmas: list[float]
    truth: Tensor
    x: Tensor
    outputs: Tensor
    weights: Tensor
    fused: Tensor


def fused_prior(spec: Spec) -> tuple[FusedPrior, dict[str, float]]:
    """As `prior_of`. Raises ValueError where what is fitted is not a fused prior."""
    prior, settings = prior_of(spec)
    if not isinstance(prior, FusedPrior):
        raise ValueError(f"fused_prior: {spec.method} has no weights to analyse")
    return prior, settings


def loop(spec: Spec, prior: FusedPrior, settings: dict[str, float], array: Any, y: Any) -> Reconstruction:
    """An experiment's `hqs` with its prior, which may be changed."""
    return hqs(y, array, prior, sigmas=sigmas_of(settings, spec.steps), lam=settings["lam"])


@torch.inference_mode()
def watch(spec: Spec, n: int) -> Seen:
    """An experiment's reconstruction of `n` development images."""
    (prior, settings), array = fused_prior(spec), arrays(spec)[0]
    truth, y = observed(spec, "dev", n, 0, array)
    given, outputs, fused = [], [], []

    def note(module: Any, args: Any, out: Any) -> None:
        given.append(args[0])
        outputs.append(out)

    watched = prior.adapters if prior.adapters is not None else prior.bank
    hooks = [prior.bank.register_forward_hook(note)]
    if prior.adapters is not None:
        hooks.append(watched.register_forward_hook(lambda module, args, out: fused.append(out)))
    result = loop(spec, prior, settings, array, y)
    for hook in hooks:
        hook.remove()
    adapted = fused or outputs
    weights = result.record["weights"]
    images = [(spread(w, *truth.shape[2:]) * o).sum(0) for w, o in zip(weights, adapted, strict=True)]
    sigmas = sigmas_of(settings, spec.steps)
    return Seen(spec, sigmas, truth, torch.stack(given), torch.stack(adapted), weights, torch.stack(images))


def flat(images: Tensor, n: int) -> np.ndarray:
    """The first n of images (B, 1, H, W) as (n, H, W)."""
    return images[:n, 0].cpu().numpy()
