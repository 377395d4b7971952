"""What a method of the paper is, and what several of them share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fusionlib.interferometer import Interferometer, Uncalibrated
from fusionlib.pnp import Reconstruction, hqs, schedule
from fusionlib.priors import Fixed, PriorBank, zoo

Array = Interferometer | Uncalibrated
Settings = dict[str, float]
Fitted = dict[str, Tensor]
Images = Mapping[str, Tensor]  # what networks from the data to the image make of a batch, by their names as priors
NO_IMAGES: Images = {}


class Labelled(NamedTuple):
    """Labelled images (B, 1, H, W) as an instrument sees them. `fold` (B,): 0 or 1, the same for an image wherever it
    is seen; `images` of networks that were not fitted to it."""

    array: Array
    truth: Tensor
    y: Any
    fold: Tensor
    images: Images = NO_IMAGES

    @classmethod
    def numbered(cls, array: Array, truth: Tensor, y: Any, first: int = 0, every: int = 1) -> "Labelled":
        """Their numbers are `first`, `first + every`, ..."""
        number = first + every * torch.arange(len(truth), device=truth.device)
        return cls(array, truth, y, number % 2)

    def part(self, index: slice | Tensor) -> "Labelled":
        images = {name: image[index] for name, image in self.images.items()}
        return Labelled(self.array, self.truth[index], self.y[index], self.fold[index], images)


Data = Sequence[Labelled]


class Run(Protocol):
    def __call__(
        self,
        settings: Settings,
        fitted: Fitted,
        array: Array,
        y: Any,
        start: Tensor | None = None,
        images: Images = NO_IMAGES,
        /,
    ) -> Reconstruction: ...


@dataclass(frozen=True)
class Method:
    """`run(settings, fitted, array, y, start, images)` reconstructs; `fit(settings, data)`, if any, learns from labels.

    `calls`: of priors, per image and iteration. `kind` as in the tables. Methods that are a prior plugged into the loop
    give it by `prior(settings, fitted, images)`: for those images alone if there are any.
    """

    run: Run
    kind: str
    calls: int
    fit: Callable[[Settings, Data], Fitted] | None = None
    prior: Callable[..., nn.Module] | None = None


@dataclass(frozen=True)
class OracleMethod:
    """A method that looks at the truth: it can be run once it is told, `seeing(truth)`."""

    seeing: Callable[[Tensor], Method]
    kind: str
    calls: int
    fit: None = None
    prior: None = None


def with_truth(method: Method | OracleMethod, truth: Tensor | None = None) -> Method:
    """The method to be run on data of `truth`, which oracles alone are handed. Raises ValueError for one without."""
    if not isinstance(method, OracleMethod):
        return method
    if truth is None:
        raise ValueError("an oracle needs the truth: there is none for measured data")
    return method.seeing(truth)


HQS_SETTINGS = ("sigma_max", "sigma_min", "lam")


class Entry(NamedTuple):
    """A line of the table of methods: `make(argument, priors, steps, device)`, and what the paper says of the method.

    In `label` braces stand for the argument in words. `grid`: which of a profile's grids tunes it; `resolution` of its
    weights, or `argument`; `priors` it needs: a `bank`, `none`, another one beside the identity (`two`), or a `network`
    among them; `seconds` it learns for, beside prior calls. Raise `version` when its scores change: its records, and
    no others, are computed anew.
    """

    make: Callable[[str, tuple[str, ...], int, torch.device], Method | OracleMethod]
    label: str
    color: str = "#444444"  # colour-blind safe (Okabe & Ito)
    grid: str = "hqs"
    resolution: str = "image"
    priors: str = "bank"
    seconds: float = 0.0
    short: str = ""
    version: int = 1
    settings: tuple[str, ...] = HQS_SETTINGS


def sigmas_of(s: Settings, steps: int) -> list[float]:
    """Noise levels of a loop."""
    return schedule(s["sigma_max"], s["sigma_min"], steps)


def plugged(
    prior: Callable[..., nn.Module],
    steps: int,
    kind: str,
    calls: int,
    fit: Callable[[Settings, Data], Fitted] | None = None,
) -> Method:
    """The method that plugs `prior(settings, fitted, images)` into `pnp.hqs`."""

    def run(
        s: Settings, fitted: Fitted, array: Array, y: Any, start: Tensor | None = None, images: Images = NO_IMAGES
    ) -> Reconstruction:
        return hqs(y, array, prior(s, fitted, images), sigmas=sigmas_of(s, steps), lam=s["lam"], start=start)

    return Method(run, kind, calls, fit, prior)


def always(prior: nn.Module, steps: int, kind: str, calls: int) -> Method:
    """The same for a prior that nothing is learned for."""
    return plugged(lambda s, fitted, images=NO_IMAGES: prior, steps, kind, calls)


def is_network(name: str) -> bool:
    """Whether a prior of an experiment is a network from the data to the image: `unet:steps`, trained on the same
    labels, or `unet:steps/home`, on these as the packaged array sees them. They come last in a bank."""
    return name.startswith("unet:")


def frozen(priors: Sequence[str], device: torch.device) -> PriorBank:
    """The bank without such networks."""
    return zoo.bank([name for name in priors if not is_network(name)]).to(device)


def joined(bank: PriorBank, images: Images) -> PriorBank:
    """A bank and, as priors that ignore their input, what networks made of the data; for those data alone."""
    if not images:
        return bank
    members = dict(zip(bank.names, bank.priors, strict=True))
    return PriorBank({**members, **{name: Fixed(image) for name, image in images.items()}})


def all_joined(bank: PriorBank, data: Data) -> PriorBank | list[PriorBank]:
    """The bank of a fit; one for each entry of the data where networks are in it."""
    return [joined(bank, d.images) for d in data] if any(d.images for d in data) else bank


def cell(argument: str) -> int | None:
    """Pixels that share a weight, from the resolution in a method's name; None for the whole image."""
    if argument == "image":
        return None
    if argument != "pixel" and not argument.isdigit():
        raise ValueError(f"resolution must be image, pixel or a number of pixels, got {argument!r}")
    return 1 if argument == "pixel" else int(argument)


def patches(argument: str) -> tuple[int, int]:
    """Side of a patch in pixels, and a number of patches, from `side/number` in a method's name."""
    side, _, number = argument.partition("/")
    if not (side.isdigit() and number.isdigit()):
        raise ValueError(f"patches must be given as side/number, such as 8/16, got {argument!r}")
    return int(side), int(number)
