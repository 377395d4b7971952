"""Other uses of a network from the data to the image, beside a prior in the bank: a start, a switch, the last word."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import metrics
from fusionlib.fitting import fit_closed_form
from fusionlib.fusion import FusedPrior
from fusionlib.gates import ALL, RESIDUALS
from fusionlib.paper.methods.closed_form import closed, solved
from fusionlib.paper.methods.method import (
    NO_IMAGES,
    Array,
    Data,
    Fitted,
    Images,
    Method,
    Settings,
    frozen,
    is_network,
    plugged,
    sigmas_of,
)
from fusionlib.pnp import Reconstruction, hqs
from fusionlib.priors import Fixed, PriorBank

FEATURES, CLOSED = (*ALL, *RESIDUALS), closed(more=RESIDUALS)


def _image(images: Images) -> Tensor:
    """The network's image. Raises ValueError unless there is exactly one."""
    if len(images) != 1:
        raise ValueError(f"priors: one network such as unet:4000 is needed among them, got {sorted(images)}")
    (image,) = images.values()
    return image


def _without_network(priors: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in priors if not is_network(name))


def _fitted(loop: Method, s: Settings, data: Data) -> tuple[Fitted, list[Tensor]]:
    """The loop's fit without networks, and what it makes of each half of the labelled images, (n, 1, H, W) for each
    entry of the data, when fitted to the other."""
    assert loop.fit is not None
    plain = [d._replace(images=NO_IMAGES) for d in data]
    images = [torch.empty_like(d.truth) for d in data]
    for half in (0, 1):
        there = [d.part(d.fold == half) for d in plain]
        fitted = loop.fit(s, [d for d in there if len(d.truth)])
        for d, image in zip(plain, images, strict=True):
            if bool((d.fold != half).any()):
                other = d.part(d.fold != half)
                image[d.fold != half] = loop.run(s, fitted, other.array, other.y).image
    return loop.fit(s, plain), images


def started(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The closed form over the bank in a loop that starts from the network's image, and is fitted along it."""
    bank, (_, gate) = frozen(priors, device), CLOSED

    def fit(s: Settings, data: Data) -> Fitted:
        starts = [_image(d.images) for d in data]
        return fit_closed_form(bank, data, sigmas_of(s, steps), s["lam"], features=FEATURES, start=starts)

    def prior(s: Settings, fitted: Fitted, images: Images = NO_IMAGES) -> nn.Module:
        return FusedPrior(bank, gate(sigmas_of(s, steps), fitted)).to(device)

    loop = plugged(prior, steps, "fused", len(bank), fit)

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        return loop.run(s, fitted, array, y, _image(images))

    return replace(loop, run=run, prior=None)


def switched(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The network's image where its chi-square is below a threshold, elsewhere the closed form over the bank."""
    loop = solved(CLOSED, "fused", "pixel", _without_network(priors), steps, device)

    def fit(s: Settings, data: Data) -> Fitted:
        (fitted, others), rows = _fitted(loop, s, data), []
        for d, other in zip(data, others, strict=True):
            image = _image(d.images)
            rows.append(torch.stack([d.array.chi2(image, d.y), _gain(image, other, d.truth)]))
        chi2, gain = torch.cat(rows, 1)
        order = chi2.argsort()
        total = torch.cat([gain.new_zeros(1), gain[order].cumsum(0)])  # of switching for the k smallest chi-squares
        edges = torch.cat([chi2.new_zeros(1), chi2[order]])
        return fitted | {"threshold": edges[total.argmax()].cpu()}

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        result, image = loop.run(s, fitted, array, y, start), _image(images)
        trusted = array.chi2(image, y) <= fitted["threshold"].to(image)
        return result._replace(image=torch.where(trusted[:, None, None, None], image, result.image))

    return Method(run, "fused", loop.calls, fit)


def _gain(image: Tensor, other: Tensor, truth: Tensor) -> Tensor:
    """PSNR [dB] of one image over another, (B,)."""
    return metrics.psnr(image, truth) - metrics.psnr(other, truth)


def stacked(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The closed form over the bank and, after its loop, the same gate over two images: the loop's and the network's,
    told apart by what the data say against each."""
    loop = solved(CLOSED, "fused", "pixel", _without_network(priors), steps, device)
    last, gate = CLOSED

    def both(loop_image: Tensor, images: Images) -> dict[str, Tensor]:
        return {"loop": loop_image, "network": _image(images)}

    def fit(s: Settings, data: Data) -> Fitted:
        fitted, others = _fitted(loop, s, data)
        seen = [d._replace(images=both(image, d.images)) for d, image in zip(data, others, strict=True)]
        banks = [PriorBank({name: Fixed(image) for name, image in d.images.items()}) for d in seen]
        more = last(banks, seen, [s["sigma_min"]], s["lam"])
        return fitted | {f"last.{name}": value for name, value in more.items()}

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        began = time.perf_counter()
        first = loop.run(s, fitted, array, y, start)
        bank = PriorBank({name: Fixed(image) for name, image in both(first.image, images).items()})
        own = {name.removeprefix("last."): v for name, v in fitted.items() if name.startswith("last.")}
        prior = FusedPrior(bank, gate([s["sigma_min"]], own)).to(device)
        result = hqs(y, array, prior, sigmas=[s["sigma_min"]], lam=s["lam"], start=first.image)
        return result._replace(seconds=time.perf_counter() - began)

    return Method(run, "fused", loop.calls, fit)
