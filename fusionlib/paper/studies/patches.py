"""Chapter 06: what weights by patch are worth, what skipping priors costs and saves, and who is trusted where."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor

from fusionlib import metrics
from fusionlib.fusion import FusedPrior
from fusionlib.paper.experiment import arrays, device, method_of, observed, settings_grid, tuned
from fusionlib.paper.methods.method import with_truth
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import patch_specs
from fusionlib.paper.studies.strategies import Run
from fusionlib.paper.tables import bank_name, compared, difference, score_table
from fusionlib.paper.tasks import Task, recorded
from fusionlib.pnp import Reconstruction
from fusionlib.priors import in_patches, patch_share, zoo
from fusionlib.sky import NPIX

BRIGHT = 0.25  # of an image's peak: what is the ring
REGIONS = ("ring", "core", "empty sky")
SIDES = {"image": NPIX, "16": 16, "8": 8, "4": 4, "pixel": 1}
CLOSED = ["closed_form", *(f"closed_form:{v}" for v in SIDES)]


def resolution_table(specs: Sequence[Spec], banks: Sequence[Sequence[str]], costs: pd.DataFrame) -> pd.DataFrame:
    """SCHEMA, and `choice` (token, expert), `l` patches per prior, `p`; `flops` per image, `ms` where measured."""
    parts = []
    for bank in banks:
        mine = [s for s in specs if s.priors == tuple(bank)]
        there = {s.coverage for s in mine if len(s.priors) > 1}
        mine += [s for s in specs if len(s.priors) == 1 and s.priors[0] in bank and s.coverage in there]
        parts.append(score_table(list(dict.fromkeys(mine)), bank))
    table = pd.concat(parts, ignore_index=True)
    tried = {s.method: len(settings_grid(s)) for s in specs}
    table["settings_tried"] = [tried.get(m) for m in table.method]
    extra = [choice_of(m) for m in table.method]
    table = table.assign(choice=[e[0] for e in extra], l=[e[1] for e in extra], p=[e[2] for e in extra])
    alone = costs[costs.method.str.startswith("single:")]  # whose bank is the prior itself: they stand in every bank
    costs = pd.concat([costs, *(alone.assign(bank=name) for name in table.bank.unique())])
    costs = costs[["method", "bank", "coverage", "flops", "ms"]].drop_duplicates(["method", "bank", "coverage"])
    return table.merge(costs, how="left", on=["method", "bank", "coverage"])


def choice_of(method: str) -> tuple[str, float, float]:
    """Who chooses, the number of patches per prior, and p, from a method's name."""
    kind, _, argument = method.partition(":")
    number = argument.partition("/")[2]
    if kind in ("expert", "closed_expert"):
        return "expert", float(number), np.nan
    return "token", np.nan, float(number) if kind == "top_p" else np.nan


@recorded(version=1)
def cost_table(specs: Sequence[Spec], n: int, repeats: int = 3) -> pd.DataFrame:
    """method, bank, coverage, psnr, flops (of the priors, per image, whole loop), ms (per image, whole loop).

    `n` development images as one batch; the least of `repeats` times, methods taken in turn.
    """
    prepared: list[Any] = []
    best: dict[Spec, tuple[float, Reconstruction]] = {}
    for s in specs:
        array = arrays(s)[0]
        truth, y = observed(s, "dev", n, 0, array)
        prepared.append((s, with_truth(method_of(s)), tuned(s), array, truth, y))
    for _ in range(repeats):
        for s, method, (settings, _, fitted), array, _, y in prepared:
            began = _now()
            result = method.run(settings, fitted, array, y, None)
            seconds = _now() - began
            best[s] = min(best.get(s, (np.inf, result)), (seconds, result), key=lambda timed_run: timed_run[0])
    rows = []
    for s, method, (settings, _, fitted), _, truth, _ in prepared:
        seconds, result = best[s]
        prior = method.prior(settings, fitted) if method.prior else None
        rows.append(
            {"method": s.method, "bank": bank_name(s.priors), "coverage": s.coverage}
            | {"psnr": float(metrics.psnr(result.image, truth).mean())}
            | {"flops": operations(prior, result, s.priors) / n, "ms": 1e3 * seconds / n}
        )
    return pd.DataFrame(rows)


DENSE = ("closed_form", "a:image", "average")  # gates that call every prior differ in little else: these stand for all


def timed(specs: Sequence[Spec], profile: str) -> Task:
    """The `cost_table` of chapter 06: the first seed at full coverage; what skips priors, and DENSE."""
    full = [s for s in specs if s.coverage == 1.0 and s.seed == specs[0].seed]
    skips = ("single", "cost_pruned", "top_p", "expert")
    some = [s for s in full if s.method in DENSE or s.method.partition(":")[0] in skips]
    return cost_table.task(some, *((2, 1) if profile == "smoke" else (32, 2)))


def tasks(profile: str, priors: Sequence[str], sky: str = "", **_: Any) -> list[Task]:
    return [timed(patch_specs(profile, priors, sky=sky), profile)]


def _now() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def operations(prior: torch.nn.Module | None, result: Reconstruction, names: Sequence[str]) -> float:
    """Floating-point operations of the priors over a loop, all images: of what was called, or computed by patch."""
    each = torch.tensor([float(zoo.flops(zoo.load(name))) for name in names])
    if "kept" not in result.record:  # one prior
        return float(each.sum()) * len(result.record["chi2"]) * len(result.image)
    if not isinstance(prior, FusedPrior) or not (prior.gate.skips or getattr(prior.gate, "calls", None)):
        steps, _, images = result.record["kept"].shape
        return float(each.sum()) * steps * images
    calls = result.record["kept"].float().sum(2)  # (K, N)
    if getattr(prior.gate, "sharp", False) and prior.gate.skips:
        some = result.record["weights"] != 0  # (K, N, B, h, w)
        for i, one in enumerate(prior.bank.priors):
            if getattr(one, "halo", None) is not None:
                share = [patch_share(one, keep, result.image.shape[2:]).sum() for keep in some[:, i]]
                calls[:, i] = torch.stack(share)
    return float((calls.cpu() * each).sum())


def side_table(scored: pd.DataFrame) -> pd.DataFrame:
    """family, bank, coverage, side [px], gain, lo, hi: the rows of token choice whose resolution alone differs."""
    rows = scored[scored.method.isin([f"{k}:{v}" for k in "abc" for v in SIDES] + CLOSED)]
    return pd.DataFrame(
        {
            "family": rows.method.str.partition(":")[0],
            "bank": rows.bank,
            "coverage": rows.coverage,
            "side": [SIDES[str(v)] for v in rows.resolution],
            "gain": rows.delta_best_single,
            "lo": rows.delta_lo,
            "hi": rows.delta_hi,
        }
    )[rows.bank.to_numpy() != "local"]


def saving_table(costs: pd.DataFrame) -> pd.DataFrame:
    """method, bank, against, flops and ms saved (shares), and PSNR given up, of what skips, by the dense gate."""
    rows = []
    for row in costs.itertuples():
        dense = {"cost_pruned": "closed_form", "top_p": "a:image"}.get(str(row.method).partition(":")[0])
        base = costs[(costs.bank == row.bank) & (costs.method == dense) & (costs.coverage == row.coverage)]
        if len(base):
            b = base.iloc[0]
            rows.append((row.method, row.bank, dense, 1 - row.flops / b.flops, 1 - row.ms / b.ms, b.psnr - row.psnr))
    return pd.DataFrame(rows, columns=["method", "bank", "against", "flops_saved", "time_saved", "psnr_lost"])


def window_table(n: int, sides: Sequence[int] = (16, 32), repeats: int = 5) -> pd.DataFrame:
    """prior, side, patches, flops, time: of the networks of bank `local` on some patches of `n` images, over the same
    on whole images; operations as counted from the windows, time as measured."""
    rows = []
    x = torch.rand(n, 1, NPIX, NPIX, generator=torch.Generator().manual_seed(0)).to(device())
    sigma = torch.full((n,), 0.1, device=x.device)
    for name in zoo.BANKS["local"]:
        prior = zoo.load(name).to(device())
        if not zoo.flops(prior):
            continue
        for side in sides:
            for count in (1, 2, 4):
                keep = torch.zeros(n, NPIX // side, NPIX // side, dtype=torch.bool, device=x.device)
                keep.view(n, -1)[:, :count] = True
                whole, some = np.inf, np.inf
                with torch.inference_mode():
                    for _ in range(repeats):
                        began = _now()
                        prior(x, sigma)
                        between = _now()
                        in_patches(prior, x, sigma, keep, name)
                        whole, some = min(whole, between - began), min(some, _now() - between)
                share = float(patch_share(prior, keep, x.shape[2:]).mean())
                if share < 1:
                    rows.append((name, side, count, share, some / whole))
    return pd.DataFrame(rows, columns=["prior", "side", "patches", "flops", "time"])


def paired_gains(specs: Sequence[Spec], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """method, minus, bank, coverage, and their paired difference, of the images and seeds that both have."""
    rows = []
    for priors, coverage in dict.fromkeys((s.priors, s.coverage) for s in specs):
        group = [s for s in specs if (s.priors, s.coverage) == (priors, coverage)]
        for pair in pairs:
            one, other = ([s for s in group if s.method == method] for method in pair)
            if one and other:
                rows.append(((*pair, bank_name(priors), coverage), difference(one, other)))
    return compared(rows, ["method", "minus", "bank", "coverage"])


def regions(truth: Tensor) -> Tensor:
    """Ring, core and empty sky of each image, bool (3, B, H, W): what is brighter than a quarter of the peak after a
    blur, what that encloses, and the rest."""
    smooth = metrics.smooth(truth, 1.0)[:, 0]
    bright = smooth > BRIGHT * smooth.amax((1, 2), keepdim=True)
    filled = torch.from_numpy(np.stack([ndimage.binary_fill_holes(b) for b in bright.cpu().numpy()])).to(bright)
    return torch.stack([bright, filled & ~bright, ~filled])


def region_table(runs: Sequence[Run]) -> pd.DataFrame:
    """method, prior, region, iteration, weight, lo, hi: means per development image, and the middle 80 % of these."""
    rows = []
    for run in runs:
        if run.images != "development":
            continue
        parts, (steps, _, _, h, _) = regions(run.truth), run.weights.shape
        wide = run.weights.repeat_interleave(run.truth.shape[-1] // h, 3).repeat_interleave(run.truth.shape[-1] // h, 4)
        for name, part in zip(REGIONS, parts, strict=True):
            there = part.flatten(1).any(1)
            inside = part[there].float()
            mean = (wide[:, :, there] * inside).sum((3, 4)) / inside.sum((1, 2))  # (K, N, B)
            low, high = mean.quantile(0.1, 2), mean.quantile(0.9, 2)
            rows += [
                (run.spec.method, prior, name, k + 1, float(mean[k, i].mean()), float(low[k, i]), float(high[k, i]))
                for k in range(steps)
                for i, prior in enumerate(run.spec.priors)
            ]
    return pd.DataFrame(rows, columns=["method", "prior", "region", "iteration", "weight", "lo", "hi"])


def weight_maps(run: Run, n: int) -> dict[str, np.ndarray]:
    """`truth` (n, H, W), `weights` (n, N, H, W) in the middle of the loop, `name` (N,)."""
    w = run.weights[len(run.weights) // 2, :, :n].transpose(0, 1)
    side = run.truth.shape[-1] // w.shape[-1]
    wide = w.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return {"truth": run.truth[:n, 0].cpu().numpy(), "weights": wide.cpu().numpy(), "name": np.array(run.spec.priors)}
