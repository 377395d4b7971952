"""Chapters 03 to 05: the data behind the figures of the learned strategies."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib import metrics
from fusionlib.fitting import collapse
from fusionlib.paper import store
from fusionlib.paper.experiment import arrays, method_of, observed, scores, tuned
from fusionlib.paper.methods.method import Array, with_truth
from fusionlib.paper.profiles import PROFILES
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import banks_of
from fusionlib.paper.tables import bank_name, compared, difference, examples
from fusionlib.paper.tasks import Task, recorded
from fusionlib.priors import zoo

WATCHED = {  # whose weights and fit the chapters show
    "03": ("a:image", "a:8", "a:pixel", "a_meta:image", "mgpf:image", "gradient:pixel", "closed_form"),
    "04": ("b:image", "b_meta:image"),
    "05": ("c:image", "consensus:image", "csnet"),
}


def of(specs: Sequence[Spec], methods: Sequence[str], bank: Sequence[str]) -> list[Spec]:
    """The experiments of `methods` with the whole bank, first seed, in that order."""
    by_method = {s.method: s for s in reversed(specs) if s.priors in (tuple(bank), (), (s.method.partition(":")[2],))}
    return [by_method[m] for m in methods if m in by_method]


REFERENCES = ("best_single", "average", "static_affine", "closed_form", "closed_levels", "unet", "ceiling")


def beside_references(table: pd.DataFrame, own: Sequence[str]) -> pd.DataFrame:
    """The rows of `own` methods and of REFERENCES; all others are in chapter 03."""
    return table[table.method.isin([*own, *REFERENCES])].reset_index(drop=True)


def known(specs: Sequence[Spec]) -> list[Spec]:
    """Those whose scores are stored, here or with the project; none unless all single priors, the reference, are."""
    stored = [s for s in specs if store.has(s.key)]
    lacking = [s for s in specs if s.method.startswith("single:") and s not in stored]
    return [] if lacking else stored


class Run(NamedTuple):
    """Some reconstructions of an experiment: truth (B, 1, H, W), the image after every iteration (K, B, 1, H, W), and
    the weights (K, N, B, h, w)."""

    spec: Spec
    images: str
    truth: Tensor
    iterates: Tensor
    weights: Tensor


class _Watched:
    """An instrument that keeps what is handed to its data step, first of all at each penalty: the loop's images."""

    def __init__(self, array: Array):
        self.array = array
        self.seen: dict[float, Tensor] = {}

    def prox(self, z: Tensor, y: Any, rho: float) -> Tensor:
        self.seen.setdefault(rho, z)
        return self.array.prox(z, y, rho)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.array, name)


def runs(specs: Sequence[Spec], n: int) -> list[Run]:
    """Every experiment on `n` of the images its method was fitted to, and on `n` development images."""
    watched_runs = []
    for s in specs:
        settings, _, fitted = tuned(s)
        for split, images in (("train", "labelled"), ("dev", "development")):
            array = arrays(s)[0]
            truth, y = observed(s, split, min(n, s.n_train) if split == "train" else n, 0, array)
            watched = _Watched(array)
            done = with_truth(method_of(s), truth).run(settings, fitted, watched, y, None)  # type: ignore[arg-type]
            iterates = torch.stack([*list(watched.seen.values())[1:], done.image])
            watched_runs.append(Run(s, images, truth, iterates, done.record["weights"].float()))
    return watched_runs


@recorded(version=1)
def stages(spec: Spec, n: int) -> dict[str, pd.DataFrame]:
    """An experiment iteration by iteration, of `runs`: `weights`, `curves` and `collapse`, as the tables below."""
    watched = runs([spec], n)
    return {"weights": weight_table(watched), "curves": curve_table(watched), "collapse": collapse_table(watched)}


def joined(results: Iterable[dict[str, Any]], name: str) -> pd.DataFrame:
    """One of the tables of several experiments, of those that have it."""
    parts = [one[name] for one in results if name in one and len(one[name])]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def stage_tasks(
    methods: Sequence[str], specs: Callable[..., list[Spec]], profile: str, priors: Sequence[str], **options: Any
) -> list[Task]:
    """`stages` of some methods out of the experiments of a chapter."""
    mine = of(specs(profile, priors, **options), methods, priors) if profile in PROFILES and profile != "wide" else []
    return [stages.task(s, 4 * PROFILES[profile].n_show) for s in mine]


def weight_table(watched: Sequence[Run]) -> pd.DataFrame:
    """method, prior, iteration, weight, lo, hi: mean and middle 80 % over development images and all places."""
    rows = []
    for s, images, _, _, weights in watched:
        if not torch.allclose(weights.sum(1), torch.ones(1, device=weights.device), atol=1e-3):
            raise ValueError(f"weights of {s.method} do not sum to one")
        w = weights.flatten(2)  # (K, N, places)
        places = np.quantile(w.cpu().numpy(), (0.1, 0.9), axis=2)
        for k, iteration in enumerate(w if images == "development" else ()):
            for i, name in enumerate(s.priors):
                rows.append((s.method, name, k + 1, float(iteration[i].mean()), places[0, k, i], places[1, k, i]))
    return pd.DataFrame(rows, columns=["method", "prior", "iteration", "weight", "lo", "hi"])


def curve_table(watched: Sequence[Run]) -> pd.DataFrame:
    """method, images, iteration, psnr: the fit, stage by stage, on what it was fitted to and on what it was not."""
    rows = [
        (s.method, images, k + 1, float(metrics.psnr(image, truth).mean()))
        for s, images, truth, iterates, _ in watched
        for k, image in enumerate(iterates)
    ]
    return pd.DataFrame(rows, columns=["method", "images", "iteration", "psnr"])


def collapse_table(watched: Sequence[Run]) -> pd.DataFrame:
    """`losses.collapse` of the weights on development images at the first, middle and last iteration.

    Affine weights are left out: entropies need the simplex.
    """
    rows = []
    for s, images, _, _, weights in watched:
        if images == "development" and bool((weights >= 0).all()):
            for k in (0, len(weights) // 2, len(weights) - 1):
                rows.append({"method": s.method, "iteration": k + 1, **collapse(weights[k])})
    return pd.DataFrame(rows)


def size_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """What each method learns over all its iterations, beside what is frozen, by count; the essay says a thousandth."""
    rows = []
    for s in specs:
        frozen = sum(p.numel() for name in s.priors for p in zoo.load(name).parameters())
        trainable = int(scores(s)["trainable"])
        rows.append((s.method, s.steps, trainable, frozen, trainable / frozen, trainable / s.steps / frozen))
    columns = ["method", "iterations", "trainable", "frozen", "ratio", "ratio_per_iteration"]
    return pd.DataFrame(rows, columns=columns)


def lead_table(specs: Sequence[Spec], priors: Sequence[str]) -> pd.DataFrame:
    """n_train, bank, method, minus, and their paired difference at full coverage: the best fused row of each bank less
    every other row."""
    rows = []
    for bank in banks_of(priors):
        by_method: dict[str, list[Spec]] = {}
        for s in specs:
            alone = s.method.startswith("single:") and s.priors[0] in bank
            if s.coverage == 1.0 and (alone or s.priors in ((), bank)):
                by_method.setdefault(s.method, []).append(s)
        fused = [m for m, some in by_method.items() if str(scores(some[0])["kind"]) == "fused"]
        if fused:
            best = max(fused, key=lambda m: np.mean([scores(s)["psnr"].mean() for s in by_method[m]]))
            for method in by_method.keys() - {best}:
                own = (by_method[best][0].n_train, bank_name(bank), best, method)
                rows.append((own, difference(by_method[best], by_method[method])))
    table = compared(rows, ["n_train", "bank", "method", "minus"])
    return table.sort_values(["bank", "effect", "minus"], ignore_index=True)


def pictures(specs: Sequence[Spec], n: int) -> dict[str, np.ndarray]:
    """What `plots.mosaic` shows: the first development images under each method."""
    return examples(specs, n)[0]


def shapes(module: nn.Module, *inputs: Tensor) -> pd.DataFrame:
    """The diagram of a module, from the module itself: its layers in the order they run, output shapes, parameters."""
    rows: list[tuple[str, str, str, int]] = []
    hooks = []
    for name, layer in module.named_modules():
        if not list(layer.children()):
            count = sum(p.numel() for p in layer.parameters())

            def note(_: nn.Module, __: object, out: object, name: str = name, layer: nn.Module = layer, n: int = count):
                shape = tuple(out.shape) if isinstance(out, Tensor) else ""
                rows.append((name, type(layer).__name__, str(shape), n))

            hooks.append(layer.register_forward_hook(note))
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows, columns=["layer", "kind", "output", "parameters"])
