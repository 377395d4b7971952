"""The tables of the paper, one schema, from stored per-image scores; and the data behind the example pictures."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fusionlib import files, metrics
from fusionlib.interferometer import COVERAGE, Interferometer, eht2017_table, read_observation
from fusionlib.metrics import THRESHOLD, Comparison, bootstrap, compare
from fusionlib.paper.experiment import (
    Record,
    arrays,
    observed,
    reconstructed,
    scores,
    settings_grid,
    settings_of,
)
from fusionlib.paper.methods import resolution
from fusionlib.paper.spec import Spec
from fusionlib.pnp import Reconstruction
from fusionlib.priors import BANKS

KEYS = ("method", "kind", "bank", "regime", "coverage", "resolution", "n_train", "seed", "n_test")
INTERVALS = ("psnr", "psnr_lo", "psnr_hi", "delta_best_single", "delta_lo", "delta_hi", "delta_worst")
SCHEMA = (*KEYS, *INTERVALS, "ssim", "psnr_blur", "nxcorr", "chi2_vis", "trainable", "prior_calls", "seconds")
DECIMALS = {"ssim": 4, "nxcorr": 4, "seconds": 4, "effect": 3, "lo": 3, "hi": 3, "p_holm": 6} | dict.fromkeys(
    (*INTERVALS, "psnr_train", "psnr_blur", "chi2_vis"), 3
)


def bank_name(priors: Sequence[str]) -> str:
    """The name of a bank, or its members joined by `+` where it has none; own priors without their folder."""
    joined = "+".join(Path(name).name for name in priors)
    return next((name for name, members in BANKS.items() if members == tuple(priors)), joined)


def score_table(specs: Sequence[Spec], bank: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of `specs` in SCHEMA, one per method and coverage, seeds together.

    Scores are means over images, scan lists and seeds. Intervals are 95 % bootstraps of images and seeds together;
    `delta_*` are paired differences to `best_single`: the single prior with the best PSNR on the training images, not
    on the images scored; `delta_worst` is the least of them over images and seeds. `seed` counts the seeds behind a
    row's mean. `seconds` are of one CPU core, NaN where only a GPU was used. A `best_single` row is added per coverage.
    """
    rows = []
    for coverage in dict.fromkeys(s.coverage for s in specs):
        group = grouped(specs, coverage)
        singles = {
            m: np.mean([float(r["psnr_train"]) for _, r in g]) for m, g in group.items() if m.startswith("single:")
        }
        best = max(singles, key=lambda m: singles[m], default=None)
        if best is not None:
            group["best_single"] = group[best]
        reference = per_image(group[best], "psnr") if best is not None else None
        for method, pairs in group.items():
            spec, psnr = pairs[0][0], per_image(pairs, "psnr")
            # rows off the headline have fewer seeds and images, the first ones
            same = None if reference is None else reference[: len(psnr), : psnr.shape[1]]
            delta = psnr - same if same is not None else np.full_like(psnr, np.nan)
            interval, gain = bootstrap(psnr), bootstrap(delta) if reference is not None else (np.nan,) * 3
            rows.append(
                {
                    "method": method,
                    "kind": "single" if method == "best_single" else str(pairs[0][1]["kind"]),
                    "bank": bank_name(bank or max((s.priors for s in specs), key=len)),
                    "regime": spec.regime,
                    "coverage": coverage,
                    "resolution": resolution(method if method != "best_single" else str(best)),
                    "n_train": spec.n_train,
                    "seed": len(pairs),
                    "n_test": spec.n_test,
                    **dict(zip(("psnr", "psnr_lo", "psnr_hi"), interval, strict=True)),
                    **dict(zip(("delta_best_single", "delta_lo", "delta_hi"), gain, strict=True)),
                    "delta_worst": delta.min(),
                    **{k: per_image(pairs, k).mean() for k in ("ssim", "psnr_blur", "nxcorr")},
                    "chi2_vis": per_image(pairs, "chi2_vis").mean() if "chi2_vis" in pairs[0][1] else np.nan,
                    "trainable": int(pairs[0][1]["trainable"]),
                    "prior_calls": int(pairs[0][1]["prior_calls"]),
                    "seconds": np.mean([float(r["seconds"]) for _, r in pairs if r["device"] == "cpu"] or [np.nan]),
                }
            )
    return pd.DataFrame(rows, columns=list(SCHEMA))


def grouped(specs: Sequence[Spec], coverage: float) -> dict[str, list[tuple[Spec, Record]]]:
    """Specs and records by method. Raises ValueError where two of a method differ in more than their seed."""
    group: dict[str, list[tuple[Spec, Record]]] = {}
    for s in specs:
        if s.coverage == coverage:
            group.setdefault(s.method, []).append((s, scores(s)))
    for method, pairs in group.items():
        if len({replace(s, seed=0) for s, _ in pairs}) > 1 or len({s.seed for s, _ in pairs}) < len(pairs):
            raise ValueError(
                f"{method} at coverage {coverage}: experiments of one table may differ in their seeds only"
            )
    return group


def per_image(pairs: list[tuple[Spec, Record]], name: str) -> np.ndarray:
    """Scores (seeds, images), scan lists averaged."""
    return np.stack([record[name].mean(0) for _, record in pairs])


def image_psnr(specs: Sequence[Spec]) -> np.ndarray:
    """PSNR of one method, (seeds, images)."""
    return per_image([(s, scores(s)) for s in specs], "psnr")


def difference(specs: Sequence[Spec], others: Sequence[Spec]) -> np.ndarray:
    """PSNR of one method less another's, (seeds, images), of the seeds and images that both have."""
    a, b = image_psnr(specs), image_psnr(others)
    seeds, images = min(len(a), len(b)), min(a.shape[1], b.shape[1])
    return a[:seeds, :images] - b[:seeds, :images]


def best_of(specs: Sequence[Spec]) -> list[Spec]:
    """Of several methods the one with the best PSNR on the labels, all its seeds."""
    by = {name: [s for s in specs if s.method == name] for name in dict.fromkeys(s.method for s in specs)}
    mean = {name: np.mean([float(scores(s)["psnr_train"]) for s in group]) for name, group in by.items()}
    return by[max(mean, key=lambda name: mean[name])]


def compared(
    rows: Sequence[tuple[tuple, np.ndarray | None]], columns: Sequence[str], threshold: float = THRESHOLD
) -> pd.DataFrame:
    """A table of paired differences, judged together by `metrics.compare`: each row's own `columns`, then `effect`,
    `lo`, `hi`, `p_holm`, `verdict`, which are missing where there is nothing to compare with."""
    judged = iter(compare([d for _, d in rows if d is not None], threshold))
    nothing = (np.nan,) * 4 + ("",)
    told = [(*own, *(next(judged) if d is not None else nothing)) for own, d in rows]
    return pd.DataFrame(told, columns=[*columns, *Comparison._fields])


def paired_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """method, minus, and their paired difference of PSNR at full coverage: every two methods."""
    group = grouped(specs, 1.0)
    psnr = {method: per_image(pairs, "psnr") for method, pairs in group.items()}
    return compared([((a, b), psnr[a] - psnr[b]) for a, b in itertools.combinations(psnr, 2)], ["method", "minus"])


def coverage_table() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The packaged lists of scans (a row each), and the baselines [Gλ] of the first list of each coverage.

    `rank` counts the singular modes kept, `rank_noise` those that an image of unit norm moves by more than the noise.
    """
    rows, points = [], []
    for coverage, lists in COVERAGE.items():
        for draw, scans in enumerate(lists):
            array = Interferometer.eht2017(coverage, draw)
            facts = {"coverage": coverage, "visibilities": len(array.table), "rank": array.rank}
            noise = {
                "rank_noise": int((array.singular > 1).sum()),
                "sigma_median_mjy": 1e3 * array.table.sigma.median(),
            }
            rows.append({"draw": draw, "scans": len(scans), **facts, **noise})
            if draw == 0:
                seen = array.table
                points.append(pd.DataFrame({"u": seen.u / 1e9, "v": seen.v / 1e9, "scan": seen.scan, **facts}))
    return pd.DataFrame(rows), pd.concat(points, ignore_index=True)


def compare_observation(path: str) -> dict[str, object]:
    """How the packaged coverage differs from a given observation of the same baselines; says so where it cannot."""
    if not path:
        return {"observation": "none given; set the parameter `observation` to the path of the file"}
    given = read_observation(path)
    facts: dict[str, object] = {"visibilities": len(given), "median sigma [mJy]": 1e3 * float(np.median(given.sigma))}
    keys = ["scan", "t1", "t2"]
    both = eht2017_table().merge(given, on=keys, suffixes=("", "_given")) if set(keys) <= set(given) else given[:0]
    if len(both) < len(given):
        return facts | {"comparison": "these are not the baselines of 11 April 2017"}
    error = np.hypot(both.u - both.u_given, both.v - both.v_given) / np.hypot(both.u_given, both.v_given)
    ratio = np.log(both.sigma / both.sigma_given)
    return facts | {
        "largest relative difference of u, v": float(error.max()),
        "median log ratio of sigma": float(np.median(ratio)),
        "its standard deviation": float(np.std(ratio)),
    }


def settings_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """The settings each method was given by tuning, with the number of settings tried."""
    rows = []
    for s in specs:
        r = scores(s)
        rows.append(
            {"method": s.method, "coverage": s.coverage, "seed": s.seed, "n_train": s.n_train}
            | {"settings_tried": len(settings_grid(s)), "psnr_train": float(r["psnr_train"])}
            | settings_of(r)
        )
    return pd.DataFrame(rows)


def examples(specs: Sequence[Spec], n: int) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """The first `n` development images at full coverage under every method of `specs`, first seed, settings as scored.

    Arrays `truth`, `dirty` (n, H, W; this one with peak 1), `image` (methods, n, H, W), `psnr` (methods, n), `method`;
    and, by method and iteration, the record of the loop averaged over the images.
    """
    chosen = {s.method: s for s in reversed(specs) if s.coverage == 1.0}
    chosen = {m: chosen[m] for m in dict.fromkeys(s.method for s in specs)}
    first = next(iter(chosen.values()))
    array = arrays(first)[0]
    truth, y = observed(first, "dev", n, 0, array)
    results = {m: reconstructed(s, array, y, truth) for m, s in chosen.items()}
    image = torch.stack([r.image for r in results.values()])
    assert isinstance(array, Interferometer)  # examples are calibrated
    dirty = array.dirty_image(y)
    pictures = {
        "truth": truth[:, 0],
        "dirty": (dirty / dirty.amax((2, 3), keepdim=True))[:, 0],
        "image": image[:, :, 0],
        "psnr": torch.stack([metrics.psnr(x, truth) for x in image]),
    }
    paths = [
        pd.DataFrame({"method": m, "iteration": range(1, len(r.record["chi2"]) + 1)} | _averaged(r))
        for m, r in results.items()
        if "step" in r.record
    ]
    return {k: v.cpu().numpy() for k, v in pictures.items()} | {"method": np.array(list(results))}, pd.concat(paths)


def _averaged(result: Reconstruction) -> dict[str, np.ndarray]:
    return {name: result.record[name].mean(1).cpu().numpy() for name in ("chi2", "step")}


def write_table(frame: pd.DataFrame, name: str, out: Path) -> Path:
    """`out/tables/<name>.csv`, columns rounded as DECIMALS says."""
    folder = out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with files.replacing(path) as aside:
        frame.round(DECIMALS).to_csv(aside, index=False)
    return path
