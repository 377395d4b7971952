"""Chapter 08: who is trusted when and where, and what a weight means."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.ndimage import gaussian_gradient_magnitude
from torch import Tensor

from fusionlib import metrics
from fusionlib.fusion import spread
from fusionlib.gates import Oracle, Router, error_correlation, simplex_weights
from fusionlib.interferometer import released_data
from fusionlib.metrics import bootstrap, holm
from fusionlib.paper.experiment import arrays, observed
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import weight_specs
from fusionlib.paper.studies import strategies
from fusionlib.paper.studies.disagreement import alone, calibration_table, disagreement_arrays, error_map_table
from fusionlib.paper.studies.m87 import sources, task_of
from fusionlib.paper.studies.patches import regions
from fusionlib.paper.studies.watched import Seen, flat, fused_prior, loop, watch
from fusionlib.paper.tasks import Task, recorded
from fusionlib.pnp import data_step

CLASSES = ("bright core", "photon ring", "strong edge", "shadow", "spiral arms", "flat sky")
ORACLES = {"image": 64, "8 px": 8, "pixel": 1}


def weight_table(seen: Sequence[Seen]) -> pd.DataFrame:
    """`strategies.weight_table` with the noise level, `sigma`."""
    weights = strategies.weight_table([run_of(s) for s in seen])
    sigmas = {(s.spec.method, k + 1): sigma for s in seen for k, sigma in enumerate(s.sigmas)}
    return weights.assign(sigma=[sigmas[key] for key in zip(weights.method, weights.iteration, strict=True)])


def run_of(s: Seen) -> strategies.Run:
    """The same for the tables of chapters 03 to 05."""
    return strategies.Run(s.spec, "development", s.truth, s.fused, s.weights)


IMAGES = {"smoke": 6, "quick": 16, "paper": 100}
SHOWN = 3  # images of a map


@recorded(version=1)
def analysis(spec: Spec, singles: tuple[Spec, ...], n: int) -> dict[str, Any]:
    """Everything below that is asked of one method: tables `weights`, `structure` (where weights are local),
    `collapse`, `regret`, `guesses`, `calibration`; of B `alignment`; maps `regret_...` and `apart_...`, and of A
    `embedding_...`."""
    s, disagreement = watch(spec, n), alone(singles, n)["disagreement"]
    results: dict[str, Any] = {
        "weights": weight_table([s]),
        "collapse": strategies.collapse_table([run_of(s)]),
        "regret": regret_table([s]),
        "guesses": error_map_table([s], disagreement),
        "calibration": calibration_table([s], disagreement),
    }
    maps = {"regret": regret_arrays(s, SHOWN), "apart": disagreement_arrays(s, disagreement, SHOWN)}
    if s.weights.shape[-1] > 1:
        results["structure"] = structure_table([s])
    if spec.method == "b:image":
        results["alignment"] = alignment_table(spec, s)
    if spec.method == "a:image":
        maps["embedding"] = embedding_arrays(spec, s)
    return results | {f"{kind}_{name}": v for kind, arrays in maps.items() for name, v in arrays.items()}


def part(results: dict[str, Any], kind: str) -> dict[str, np.ndarray]:
    """The arrays of one map of an `analysis`."""
    return {k.removeprefix(f"{kind}_"): v for k, v in results.items() if k.startswith(f"{kind}_")}


OCCLUDED = ("a:image", "closed_form")


def occluded(specs: Sequence[Spec]) -> list[Spec]:
    """Those whose priors are taken away one by one."""
    return [s for method in OCCLUDED for s in specs if s.method == method]


def analysed(specs: Sequence[Spec]) -> tuple[list[Spec], tuple[Spec, ...], list[Spec]]:
    """Of the experiments of chapter 08: those analysed, every prior by itself, and those on uncalibrated data."""
    specs = [s for s in specs if s.seed == 0]
    calibrated = [s for s in specs if s.regime == "calibrated"]
    single = tuple(s for s in calibrated if s.method.startswith("single:"))
    return (
        [s for s in calibrated if s not in single],
        single,
        [s for s in specs if s.regime == "uncalibrated"],
    )


def tasks(profile: str, priors: Sequence[str], sky: str = "", observation: str = "", **_: Any) -> list[Task]:
    """All that chapter 08 computes beside scores."""
    specs, singles, uncalibrated = analysed(weight_specs(profile, priors, sky=sky))
    n, observed_sources = IMAGES[profile], sources(observation or next(map(str, released_data()), ""))[0]
    return [
        alone.task(singles, n),
        *(analysis.task(s, singles, n) for s in specs),
        *(occlusion_table.task(s, n) for s in occluded(specs)),
        *(task_of(s, source) for source in observed_sources for s in uncalibrated),
    ]


# --- by structure ---


def classes(truth: Tensor) -> Tensor:
    """CLASSES of each image, bool (6, B, H, W), no pixel in two: where it is brighter than 0.7 of its peak; the rest of
    the ring (a quarter of the peak); of what is left the tenth with the steepest gradient; what the ring encloses;
    arms, brighter than 0.03 of the peak; and the sky."""
    ring, core, sky = regions(truth)
    image = truth[:, 0] / truth[:, 0].amax((1, 2), keepdim=True)
    slope = torch.from_numpy(np.stack([gaussian_gradient_magnitude(u, 1.0) for u in image.cpu().numpy()])).to(truth)
    bright = image > 0.7
    rest = ~(ring | bright)
    steep = torch.stack([s >= s[r].quantile(0.9) for s, r in zip(slope, rest, strict=True)]) & rest
    rest &= ~steep
    return torch.stack(
        [bright, ring & ~bright, steep, core & rest, sky & rest & (image > 0.03), sky & rest & (image <= 0.03)]
    )


def structure_table(seen: Sequence[Seen]) -> pd.DataFrame:
    """method, prior, structure, weight, more, lo, hi, p, p_holm, simplex.

    `weight` in a class of pixels, over iterations and images; `more` than in the whole image, paired by image, with its
    95 % interval, the p value of Wilcoxon's signed-rank test, and the same after Holm over all rows of the method.
    `simplex`: the weights without sign that come nearest to the fused images there, which unlike affine ones
    say how much of each prior is in them.
    """
    parts = []
    for s in seen:
        rows = []
        wide = spread(s.weights.flatten(0, 1), *s.truth.shape[2:])[:, :, 0].unflatten(0, s.weights.shape[:2]).mean(0)
        for name, where in zip(CLASSES, classes(s.truth), strict=True):
            there = where.flatten(1).any(1)
            inside = where[there].float()
            mean = (wide[:, there] * inside).sum((2, 3)) / inside.sum((1, 2))  # (N, images)
            more = (mean - wide[:, there].mean((2, 3))).cpu().numpy()
            alone = _nearest(s, where)
            for i, prior in enumerate(s.spec.priors):
                told = bootstrap(more[i])
                p = stats.wilcoxon(more[i]).pvalue if np.ptp(more[i]) > 0 else 1.0
                rows.append((s.spec.method, prior, name, float(mean[i].mean()), *told, p, float(alone[i])))
        columns = ["method", "prior", "structure", "weight", "more", "lo", "hi", "p", "simplex"]
        part = pd.DataFrame(rows, columns=columns)
        parts.append(part.assign(p_holm=holm(part.p.to_numpy())))
    return pd.concat(parts, ignore_index=True)


def _nearest(s: Seen, where: Tensor) -> Tensor:
    """Simplex weights (N,) of the outputs that come nearest to the fused images at the pixels `where`."""
    apart = (s.outputs - s.fused[:, None])[:, :, :, 0]  # (K, N, B, H, W)
    columns = apart.transpose(0, 1)[:, :, where].flatten(1)
    return simplex_weights(columns @ columns.T)


@recorded(version=1)
@torch.inference_mode()
def occlusion_table(spec: Spec, n: int) -> pd.DataFrame:
    """prior, loss, lo, hi: PSNR lost when a prior's output is replaced by the others' mean, all else as fitted."""
    (prior, settings), array = fused_prior(spec), arrays(spec)[0]
    truth, y = observed(spec, "dev", n, 0, array)
    whole = metrics.psnr(loop(spec, prior, settings, array, y).image, truth)
    rows = []
    for i, name in enumerate(spec.priors):
        hook = prior.bank.register_forward_hook(_without(i))
        image = loop(spec, prior, settings, array, y).image
        hook.remove()
        rows.append((name, *bootstrap((whole - metrics.psnr(image, truth)).cpu().numpy())))
    return pd.DataFrame(rows, columns=["prior", "loss", "lo", "hi"])


def _without(i: int) -> Callable[..., Tensor]:
    def replaced(module: Any, args: Any, out: Tensor) -> Tensor:
        others = (out.sum(0) - out[i]) / (len(out) - 1)
        return torch.cat([out[:i], others[None], out[i + 1 :]])

    return replaced


# --- what was learned ---


def embedding_arrays(spec: Spec, s: Seen) -> dict[str, np.ndarray]:
    """`prior` (K', N, 2) and `image` (K', B, 2): cosine routing's embeddings and its view of the images, as unit
    vectors on their first two principal axes, at the first, middle and last iteration; `share` of the variance."""
    gates = cast(Any, fused_prior(spec)[0].gate).parts
    arrays_by_name: dict[str, list[np.ndarray]] = {"prior": [], "image": [], "share": []}
    chosen = (0, len(gates) // 2, len(gates) - 1)
    array = arrays(spec)[0]
    _, y = observed(spec, "dev", len(s.truth), 0, array)
    _, settings = fused_prior(spec)
    for k in chosen:
        router, sigma = gates[k], s.sigmas[k]
        assert isinstance(router, Router)
        head = cast(Any, router.head)
        step = data_step(array, y, settings["lam"] / sigma**2)
        with torch.inference_mode():
            h = head.project(router.encoder(router.look(s.x[k], sigma, None, step)))
        unit = torch.cat([torch.nn.functional.normalize(v, dim=1) for v in (head.embeddings, h.mean((2, 3)))])
        unit = unit.detach().double().cpu()
        _, singular, axes = torch.linalg.svd(unit - unit.mean(0), full_matrices=False)
        flat = ((unit - unit.mean(0)) @ axes[:2].T).numpy()
        n = len(head.embeddings)
        arrays_by_name["prior"].append(flat[:n])
        arrays_by_name["image"].append(flat[n:])
        arrays_by_name["share"].append(np.array(float((singular[:2] ** 2).sum() / (singular**2).sum())))
    names = {"name": np.array(spec.priors), "iteration": np.array([k + 1 for k in chosen])}
    return {k: np.stack(v) for k, v in arrays_by_name.items()} | names


def cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of features a (B, P), b (B, Q) of the same B images (Kornblith et al. 2019)."""
    ga, gb = (u @ u.T for u in (a - a.mean(0), b - b.mean(0)))
    return float((ga * gb).sum() / (ga.norm() * gb.norm()).clamp(min=1e-12))


@torch.inference_mode()
def alignment_table(spec: Spec, s: Seen) -> pd.DataFrame:
    """iteration, prior, other, cka_before, cka_after, correlation_before, correlation_after: outputs, and their errors,
    of two priors before and after strategy B's adapters, at the first, middle and last iteration."""
    prior, _ = fused_prior(spec)
    adapters, rows = cast(Any, prior.adapters), []
    for k in (0, len(s.sigmas) // 2, len(s.sigmas) - 1):
        bare = prior.bank(s.x[k], s.sigmas[k])
        both = (bare, adapters(bare, s.sigmas[k]))
        errors = [error_correlation(o, s.truth) for o in both]
        for i, name in enumerate(spec.priors):
            for j in range(i):
                alike = [cka(o[i].flatten(1), o[j].flatten(1)) for o in both]
                rows.append((k + 1, name, spec.priors[j], *alike, *(float(e[i, j]) for e in errors)))
    columns = ["iteration", "prior", "other", "cka_before", "cka_after", "correlation_before", "correlation_after"]
    return pd.DataFrame(rows, columns=columns)


# --- what is left ---


def regret_table(seen: Sequence[Seen]) -> pd.DataFrame:
    """method, oracle, iteration, regret: how much nearer to the truth [dB] the best pick of the same outputs is, one
    pick per image, patch or pixel."""
    rows = []
    for s in seen:
        for k in range(len(s.sigmas)):
            for name, cell in ORACLES.items():
                best = _picked(s, k, cell)
                regret = metrics.psnr(best, s.truth) - metrics.psnr(s.fused[k], s.truth)
                rows.append((s.spec.method, name, k + 1, float(regret.mean())))
    return pd.DataFrame(rows, columns=["method", "oracle", "iteration", "regret"])


def _picked(s: Seen, k: int, cell: int) -> Tensor:
    oracle = Oracle(cast(Any, None), s.truth, cell)
    return (oracle.weights(s.outputs[k])[:, :, None] * s.outputs[k]).sum(0)


def regret_arrays(s: Seen, n: int) -> dict[str, np.ndarray]:
    """`truth`, `fused`, `regret` (n, H, W) at the last iteration: squared error of the fused image less that of the
    best pick per patch of 8 pixels, as signed square roots."""
    k = len(s.sigmas) - 1
    apart = (s.fused[k] - s.truth).square() - (_picked(s, k, 8) - s.truth).square()
    regret = apart.sign() * apart.abs().sqrt()
    return {"truth": flat(s.truth, n), "fused": flat(s.fused[k], n), "regret": flat(regret, n)}
