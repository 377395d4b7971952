"""Chapter 15: how our own priors were trained, from what their weights' files say of it, and what they learned."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from fusionlib import files, metrics
from fusionlib.interferometer import Interferometer
from fusionlib.paper.experiment import device
from fusionlib.pnp import hqs, schedule
from fusionlib.priors import NETWORKS, WEIGHTS, Bfloat16, Score, datasets, trained, zoo
from fusionlib.sky import FAMILIES, geometric, tori

BODIES = {"torus": ("torus", "local_torus"), "galaxies": ("unet_galaxies", "galaxies")}  # U-Net, three convolutions
SETTINGS = {"sigmas": schedule(0.2, 0.02, 16), "lam": 0.1}


def shipped() -> list[str]:
    """Our networks whose weights are here."""
    return [name for name in NETWORKS if (WEIGHTS / f"{name}.safetensors").exists()]


def facts(name: str) -> dict:
    """What the weights' file says of the training."""
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        return json.loads((file.metadata() or {}).get("training", "{}"))


def recipe_table() -> pd.DataFrame:
    """One row per network: what it was trained on and how long, and the SHA-256 of its weights."""
    rows = []
    for name in shipped():
        training = facts(name)
        losses = training.pop("losses", [(0, float("nan"))])
        count = sum(p.numel() for p in NETWORKS[name]().parameters())
        low, high = training.pop("sigma", (float("nan"),) * 2)
        rows.append(
            {
                "network": name,
                **{k: v for k, v in training.items() if k != "recipe"},
                "sigma_low": low,
                "sigma_high": high,
            }
            | {"parameters": count, "last_loss": losses[-1][1]}
            | {"sha256": files.sha256(WEIGHTS / f"{name}.safetensors")[:16]}
        )
    return pd.DataFrame(rows)


def loss_table() -> pd.DataFrame:
    """network, local, step, loss: the course of every training."""
    rows = [(name, is_local(name), *point) for name in shipped() for point in facts(name).get("losses", [])]
    return pd.DataFrame(rows, columns=["network", "local", "step", "loss"])


def is_local(name: str) -> bool:
    """Whether a network sees a few pixels around each alone."""
    return name in NETWORKS and getattr(NETWORKS[name](), "halo", None) is not None


def data_pictures(n: int = 6) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The first batch of each set of training images, as the networks see them, (sets, n, 64, 64); what is missing."""
    pictures, lacking = {}, {}
    rng = torch.Generator().manual_seed(0)
    for name in ("torus", "galaxies", "photographs", "faces", "digits"):
        try:
            images = tori(n, 11).image if name == "torus" else datasets.DATASETS[name]()
        except ValueError as error:
            lacking[name] = str(error)
            continue
        images = images[torch.randperm(len(images), generator=rng)[:n]]
        pictures[name] = (images / images.amax((1, 2, 3), keepdim=True))[:, 0]
    return {"image": torch.stack(list(pictures.values())).numpy(), "name": np.array(list(pictures))}, lacking


@torch.inference_mode()
def digit_samples(n: int = 8, steps: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """Images that the digit diffusion makes of noise alone: the probability flow from sigma = 20, Euler steps."""
    score = trained("digits")
    assert isinstance(score, Score)
    prior = zoo.load("digits").to(device())
    x = 20 * torch.randn(n, 1, 64, 64, generator=torch.Generator().manual_seed(seed)).to(device())
    sigmas = schedule(20.0, 0.01, steps)
    for now, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        x = x + (after - now) * (x - prior(x, now)) / now
    return {"image": x[:, 0].cpu().numpy()}


def family_table(n: int, seed: int = 505) -> pd.DataFrame:
    """prior, local, family, psnr: each prior inside the loop on geometric families, with the same settings for all."""
    array, data = _families(n, seed)
    rows = []
    for name in _priors():
        prior = zoo.load(name).to(device())
        for family, (truth, y) in data.items():
            image = hqs(y, array, prior, **SETTINGS).image  # type: ignore[arg-type]
            rows.append((name, is_local(name), family, float(metrics.psnr(image, truth).mean())))
    return pd.DataFrame(rows, columns=["prior", "local", "family", "psnr"])


def choice_table(families: pd.DataFrame) -> pd.DataFrame:
    """images, unet, local, bank: mean PSNR over the families with either body; which one stands in bank `main`."""
    mean = families.groupby("prior").psnr.mean()
    rows = [
        (name, mean[unet], mean[local], "unet" if unet == name else "local") for name, (unet, local) in BODIES.items()
    ]
    return pd.DataFrame(rows, columns=["images", "unet", "local", "bank"])


def precision_table(n: int, seed: int = 505) -> pd.DataFrame:
    """prior, float32, bfloat16, cost: PSNR over all families, either precision inside; time: of bfloat16 over that of
    float32 on this processor; who uses it."""
    array, data = _families(n, seed)
    rows = []
    for name in ("ffdnet", "torus", "digits", "sr", "galaxies"):
        prior = zoo.load(name).to(device())
        full = prior.prior if isinstance(prior, Bfloat16) else prior
        psnr, seconds = [], []
        for p in (full, Bfloat16(full)):
            runs = [(hqs(y, array, p, **SETTINGS), x) for x, y in data.values()]  # type: ignore[arg-type]
            psnr.append(float(torch.cat([metrics.psnr(run.image, x) for run, x in runs]).mean()))
            seconds.append(sum(run.seconds for run, _ in runs))
        used = Bfloat16 in zoo.OURS.get(name, ("", ()))[1]
        rows.append((name, *psnr, psnr[0] - psnr[1], seconds[1] / seconds[0], used))
    return pd.DataFrame(rows, columns=["prior", "float32", "bfloat16", "cost", "time", "reduced"])


def _families(n: int, seed: int) -> tuple[Interferometer, dict[str, tuple[Tensor, Tensor]]]:
    """The array, and truth and data of `n` skies of each geometric family."""
    array = Interferometer.eht2017(window=60).to(device())
    data: dict[str, tuple[Tensor, Tensor]] = {}
    for family in FAMILIES:
        sky = geometric(family, n, seed)
        data[family] = (sky.image.to(device()), array.observe(sky.fine.to(device()), seed))
    return array, data


def _priors() -> Sequence[str]:
    return [name for name in ("identity", *shipped()) if name in zoo.PRIORS]
