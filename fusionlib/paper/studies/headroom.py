"""Chapter 01: what the priors are, how they differ, and what fusing them could win."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib import metrics
from fusionlib import sky as skies
from fusionlib.gates import oracles
from fusionlib.paper.experiment import device
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import banks_of
from fusionlib.paper.tables import score_table
from fusionlib.priors import guard, zoo

LEVELS = (0.05, 0.1, 0.2, 0.4)
SHOWN = (0.05, 0.1, 0.4)
MIDDLE = 0.1


def card_table(names: Sequence[str]) -> pd.DataFrame:
    """One row per prior: its card, parameters, receptive field [px], milliseconds per image here."""
    rows = []
    for name in names:
        prior = zoo.load(name).to(device())
        rows.append(
            {"prior": name, **zoo.card(name)._asdict(), "parameters": sum(p.numel() for p in prior.parameters())}
            | {"receptive_field": receptive_field(prior), "ms_per_image": milliseconds(prior)}
        )
    return pd.DataFrame(rows)


def receptive_field(prior: nn.Module, sigma: float = 0.1, size: int = 64) -> int:
    """Side [px] of the square of output pixels that one input pixel moves by more than 1e-6; at most 2 `size` - 1."""
    x = 0.3 + 0.2 * torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    moved = x.clone()
    moved[0, 0, size // 2, size // 2] += 0.1
    with torch.inference_mode():
        change = prior(moved.to(device()), sigma) - prior(x.to(device()), sigma)
    seen = (change[0, 0].abs() > 1e-6).nonzero()
    return int((seen - size // 2).abs().max()) * 2 + 1 if len(seen) else 0


def milliseconds(prior: nn.Module, batch: int = 32) -> float:
    x = torch.rand(batch, 1, 64, 64, device=device())
    seconds = []
    with torch.inference_mode():
        for _ in range(3):
            began = time.perf_counter()
            prior(x, 0.1)
            seconds.append(time.perf_counter() - began)
    return round(min(seconds) / batch * 1e3, 2)


def _noisy(n: int, sigma: float, sky: str) -> tuple[Tensor, Tensor]:
    have = skies.split_sizes(len(skies.from_folder(sky).image) if sky else None)["dev"]
    x = skies.split("dev", min(n, have), source=sky).image
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(round(1e4 * sigma)))
    return x.to(device()), (x + sigma * noise).to(device())


def faults(names: Sequence[str], n: int, *, sky: str = "") -> dict[str, str]:
    """Priors that `priors.guard` names, and why, on `n` training images."""
    clean = skies.split("train", n, source=sky).image.to(device())
    return guard(zoo.bank(names).to(device()), clean, LEVELS)


def one_shot(names: Sequence[str], n: int, *, sky: str = "") -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """The first development image at three noise levels through each prior; mean PSNR over `n` of them, by level."""
    bank = zoo.bank(names).to(device())
    rows, images, scores = {}, [], []
    with torch.inference_mode():
        for sigma in LEVELS:
            x, z = _noisy(n, sigma, sky)
            outputs = bank(z, sigma)
            images_by_name = {"noisy": z, **dict(zip(names, outputs, strict=True)), "average": outputs.mean(0)}
            for name, cell, affine in (
                ("image", 64, False),
                ("affine", 64, True),
                ("8", 8, False),
                ("pixel", 1, False),
            ):
                w = oracles.Oracle(bank, x, cell, affine).weights(outputs)
                images_by_name[f"oracle:{name}"] = (w[:, :, None] * outputs).sum(0)
            psnr = {name: metrics.psnr(image, x) for name, image in images_by_name.items()}
            rows[f"sigma {sigma}"] = {name: float(value.mean()) for name, value in psnr.items()}
            if sigma in SHOWN:
                shown = ("noisy", *names)
                images.append(torch.stack([images_by_name[name][0, 0] for name in shown]))
                scores.append([float(psnr[name][0]) for name in shown])
    pictures = {"image": torch.stack(images).cpu().numpy(), "psnr": np.array(scores), "sigma": np.array(SHOWN)}
    table = pd.DataFrame(rows).rename_axis("method").reset_index()
    return pictures | {"name": np.array(["noisy", *names])}, table


def correlation(names: Sequence[str], n: int, *, sky: str = "") -> pd.DataFrame:
    """Error correlation, a row per pair of priors, at sigma = MIDDLE."""
    x, z = _noisy(n, MIDDLE, sky)
    with torch.inference_mode():
        c = oracles.error_correlation(zoo.bank(names).to(device())(z, MIDDLE), x).cpu().numpy()
    pairs = [(a, b, c[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)]
    return pd.DataFrame(pairs, columns=["prior", "other", "correlation"])


def winners(names: Sequence[str], n: int, *, sky: str = "") -> dict[str, np.ndarray]:
    """`truth` (n, H, W) and the number of the prior with the least squared error there, `winner` (n, H, W)."""
    x, z = _noisy(n, MIDDLE, sky)
    with torch.inference_mode():
        error = (zoo.bank(names).to(device())(z, MIDDLE) - x).square()[:, :, 0]
    winner = error.argmin(0).to(torch.uint8).cpu().numpy()
    return {"truth": x[:, 0].cpu().numpy(), "winner": winner, "name": np.array(list(names))}


def table(specs: Sequence[Spec], names: Sequence[str]) -> pd.DataFrame:
    """The rows of SCHEMA for each bank of `banks_of(names)`."""
    parts = []
    for bank in banks_of(names):
        mine = [s for s in specs if s.priors == bank or (set(s.priors) <= set(bank) and len(s.priors) < 2)]
        parts.append(score_table(mine, bank))
    return pd.concat(parts, ignore_index=True)


def gap_table(scored: pd.DataFrame) -> pd.DataFrame:
    """bank, coverage, method, gain, closed: the gain over the best single prior, in dB and as a share of what the
    in-domain ceiling gains over it; NaN if it gains nothing. Without a ceiling among the rows there are no rows."""
    parts = []
    for (bank, coverage), group in scored.groupby(["bank", "coverage"], sort=False):
        gain = group.set_index("method").delta_best_single.drop("best_single", errors="ignore")
        if "ceiling" in gain:
            closed = gain / gain["ceiling"] if gain["ceiling"] > 0 else gain * np.nan
            part = pd.DataFrame({"bank": bank, "coverage": coverage, "gain": gain, "closed": closed}).reset_index()
            parts.append(part.sort_values("closed", ascending=False))
    columns = ["bank", "coverage", "method", "gain", "closed"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
