"""One experiment: a method, tuned on its n labels, scored on held-out images; computed once and found again."""

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fusionlib import metrics, sky
from fusionlib.fitting import out_of_fold, starts
from fusionlib.fusion import FusedPrior
from fusionlib.gates import average
from fusionlib.interferometer import COVERAGE, MIN_BASELINE, Interferometer, Uncalibrated, read_observation
from fusionlib.metrics import rings
from fusionlib.paper import conditions, methods
from fusionlib.paper.methods import NOT_TRAINED
from fusionlib.paper.methods.gradient import network
from fusionlib.paper.methods.method import (
    Array,
    Data,
    Fitted,
    Images,
    Labelled,
    Method,
    OracleMethod,
    Settings,
    frozen,
    with_truth,
)
from fusionlib.paper.spec import CHI2, Spec, content
from fusionlib.paper.store import FIT, SETTING, Facts, Record, stored
from fusionlib.pnp import Reconstruction
from fusionlib.priors import BANKS
from fusionlib.selfcal import calibrating, first_picture

SCORES = ("psnr", "ssim", "psnr_blur", "nxcorr")
SYSTEMATIC = 0.03  # added noise of uncalibrated data, a fraction of the amplitude
WINDOW = methods.RML_PRIOR[1]  # the source is compact: RML is told by its prior image, all others by the data step
BATCH = 32


# --- the pieces ---


def device() -> torch.device:
    """Where experiments run: FUSIONLIB_DEVICE, by default `auto`: the GPU if there is one, else the CPU."""
    torch.backends.cudnn.allow_tf32 = False  # full float32 on a GPU too
    name = os.environ.get("FUSIONLIB_DEVICE", "auto")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def arrays(spec: Spec) -> list[Array]:
    """The instruments of a coverage: one, or three lists of scans whose scores are averaged. They are shared."""
    known = content(spec.observation), device()
    return [
        _array(spec.observation, spec.array, spec.coverage, draw, spec.regime != "calibrated", *known)
        for draw in range(1 if spec.observation or spec.array else len(COVERAGE[spec.coverage]))
    ]


@lru_cache(maxsize=6)
def _array(
    path: str, name: str, coverage: float, draw: int, uncalibrated: bool, sha: str, device: torch.device
) -> Array:
    """`sha`, of the file's content, names what is remembered."""
    if path or name:
        table = read_observation(path) if path else conditions.ARRAYS[name].table()
        array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW)
    else:
        array = Interferometer.eht2017(coverage, draw, window=WINDOW)
    return (Uncalibrated(array, systematic=SYSTEMATIC, window=WINDOW) if uncalibrated else array).to(device)


def method_of(spec: Spec) -> Method | OracleMethod:
    """The method over its bank, with what has been replaced in that."""
    other = conditions.REPLACED[spec.replaced]
    kind, colon, argument = spec.method.partition(":")
    priors = tuple(other.get(name, name) for name in spec.priors)
    return methods.make(kind + colon + other.get(argument, argument), priors, spec.steps, device())


def prior_of(spec: Spec) -> tuple[nn.Module, Settings]:
    """The prior of an experiment as it was fitted, usable wherever a single one is, and the settings of its loop.

    From the store, or fitted now. Raises ValueError for methods that are more than a prior in the loop.
    """
    method = method_of(spec)
    if method.prior is None:
        raise ValueError(f"prior_of: {spec.method} is no prior plugged into the loop")
    settings, _, fitted = tuned(spec)
    return method.prior(settings, fitted), settings


def observed(spec: Spec, split: str, n: int, draw: int, array: Array, index: slice = slice(None)) -> tuple[Tensor, Any]:
    """Truth (n, 1, 64, 64) and data of a split, as `array` measures them; noise from (split, seed, draw, image)."""
    seed = sky.SEEDS[split]
    there = split == spec.split
    if spec.family and there:
        images = conditions.objects(spec.family, n, seed)
    else:
        images = sky.split(split, n, seed=spec.seed, source=spec.sky)
    gains = conditions.station_gains(spec.array) if there else {}
    options: dict[str, Any] = {"gains": gains} if gains else {}
    y = array.observe(images.fine.to(device()), seed * 10_000 + spec.seed * 10 + draw, **options)
    return images.image.to(device())[index], y[index]


def reconstructed(spec: Spec, array: Array, y: Any, truth: Tensor | None = None) -> Reconstruction:
    """What the method of an experiment, as it was tuned and fitted, makes of data; only an oracle sees the truth.

    In the regime `self-calibrated` it was fitted to calibrated data, and runs in rounds of calibration that begin with
    the plain average of the bank `main`, for every method the same.
    """
    (settings, _, fitted), method = tuned(spec), with_truth(method_of(spec), truth)

    def run(data: Any, instrument: Any) -> Reconstruction:
        return method.run(settings, fitted, instrument, data, None, images_of(spec, instrument, data))

    if not isinstance(array, Uncalibrated) or spec.regime != "self-calibrated":
        return run(y, array)
    bank = frozen(BANKS["main"], device())
    return calibrating(y, array, run, first_picture(y, array, FusedPrior(bank, average(len(bank)))))


def comparable(spec: Spec, image: Tensor, truth: Tensor) -> Tensor:
    """The image as it is scored: uncalibrated data do not know where the source is, so after the best shift."""
    return image if spec.regime == "calibrated" else metrics.best_shift(image, truth)


def settings_grid(spec: Spec) -> list[Settings]:
    names = [name for name, _ in spec.grid]
    return [dict(zip(names, v, strict=True)) for v in itertools.product(*(values for _, values in spec.grid))]


def tune(spec: Spec) -> tuple[Settings, float, Fitted]:
    """Settings with the best mean PSNR on the n training images, that PSNR, and what the method learns with them.

    Every method gets the same budget: the whole grid on a quarter of the images, the best quarter on all of them. A
    method that learns is judged by two-fold cross-validation inside these images, then fitted on all of them; with one
    setting in the grid there is nothing to judge, and its PSNR is NaN. Image k is observed with scan list k mod 3 where
    a coverage has three.
    """
    method, data = method_of(spec), labelled(spec)
    candidates, psnr = settings_grid(spec), np.array([np.nan])
    rounds = (4, 1) if len(candidates) > 1 else (1,) if method.fit is None else ()
    for share in rounds:
        used = [d.part(slice(-(-len(d.truth) // share))) for d in data]
        psnr = np.array([_judge(spec, method, settings, used) for settings in candidates])
        if share > 1:
            candidates = [candidates[k] for k in np.argsort(psnr)[::-1][: -(-len(candidates) // share)]]
    best = int(psnr.argmax())
    fitted = method.fit(candidates[best], data) if method.fit else {}
    return candidates[best], float(psnr[best]), fitted


def labelled(spec: Spec) -> list[Labelled]:
    """The labelled images of an experiment with their data, by instrument; of a `mixed` fit also, as `conditions` draws
    them, every label once more through one of several other arrays, and simulated objects through all of these.

    Where networks are among the priors, with what those make of them that have seen neither the label nor, of simulated
    objects, any of their kind: all of a kind are in one fold.
    """
    lists = arrays(spec)
    data: list[Labelled] = []
    for draw, array in enumerate(lists):
        x, y = observed(spec, "train", spec.n_train, draw, array, slice(draw, None, len(lists)))
        if len(x):
            data.append(Labelled.numbered(array, x, y, draw, len(lists)))
    if spec.fit:
        data += _mixed(spec)
    folds = [d.fold for d in data]
    seen = {name: out_of_fold(data, folds, networks(spec, name, (":0", ":1"))) for name in spec.networks}
    return [d._replace(images={name: seen[name][k] for name in seen}) for k, d in enumerate(data)]


def _mixed(spec: Spec) -> list[Labelled]:
    """What a mixed fit sees beside the labels at home."""
    groups = [group for group in conditions.ALIKE if not spec.fit.endswith(f"less {group[0]}")]
    families = [name for group in groups for name in group]
    labels = sky.split("train", spec.n_train, seed=spec.seed, source=spec.sky)
    free = max(2, round(conditions.FREE * spec.n_train))
    skies = [labels, *(conditions.objects(name, free, sky.SEEDS["train"] + spec.seed) for name in families)]
    kinds = [torch.full((free,), conditions.group_of(name)) for name in families]
    folds, data = [torch.arange(len(labels.image)) % 2, *kinds], []
    for k in range(min(conditions.DRAWN, max(spec.n_train, free))):
        table, part = conditions.drawn_table(spec.seed, k), slice(k, None, conditions.DRAWN)
        array = Interferometer.from_table(table, min_baseline=MIN_BASELINE, window=WINDOW).to(device())
        image, fine, fold = (
            torch.cat([v[part] for v in values]).to(device())
            for values in ([s.image for s in skies], [s.fine for s in skies], folds)
        )
        data.append(Labelled(array, image, array.observe(fine, 8_000_000 + 100 * spec.seed + k), fold))
    return data


def networks(spec: Spec, name: str, which: Sequence[str] = ("",)) -> list[nn.Module]:
    """The network that is the prior `name` of an experiment, trained on its labels; or those without a fold of them."""
    return [network(tuned(_of_network(spec, name, k))[2], device()) for k in which]


def rests_on(spec: Spec) -> list[Spec]:
    """The fits that an experiment needs before it can be computed: its own, and those of networks among its priors."""
    own = [tuning(spec)] if spec.n_test else []
    which = ("",) if spec.n_test else (":0", ":1")
    return own + [_of_network(spec, name, k) for name in spec.networks for k in which]


def _of_network(spec: Spec, name: str, which: str) -> Spec:
    steps, _, home = name.partition(":")[2].partition("/")
    grid, fit = (("steps", (float(steps),)),), "" if home else spec.fit
    return replace(tuning(spec), method=f"unet{which}", priors=(), grid=grid, fit=fit, steps=Spec.steps)


def images_of(spec: Spec, array: Array, y: Any) -> Images:
    """What the networks among the priors of an experiment make of data."""
    nets = {name: networks(spec, name)[0] for name in spec.networks}
    with torch.inference_mode():
        return {name: net(starts(array, y)) for name, net in nets.items()}


def _judge(spec: Spec, method: Method | OracleMethod, settings: Settings, data: Data) -> float:
    """Mean PSNR of a method on labelled images, those it learns from not among those it is judged by.

    The halves are the folds of the images. Raises ValueError when there are no two halves.
    """
    if method.fit and sum(len(d.truth) for d in data) < 2:
        raise ValueError(f"n_train: {spec.method} needs more than {spec.n_train} labelled images to be judged")
    psnr = []
    for half in (0, 1) if method.fit else (0,):
        fitted: Fitted = {}
        if method.fit:
            seen = [d.part(d.fold == half) for d in data]
            fitted = method.fit(settings, [d for d in seen if len(d.truth)])
        for d in data:
            array, x, y, *_, images = d.part(d.fold != half) if method.fit else d
            if len(x):
                image = with_truth(method, x).run(settings, fitted, array, y, None, images).image
                psnr.append(metrics.psnr(comparable(spec, image, x), x))
    return float(torch.cat(psnr).mean())


# --- computed, or found ---


def tuning(spec: Spec) -> Spec:
    """The part of an experiment that does not depend on the test images."""
    regime = "calibrated" if spec.regime == "self-calibrated" else spec.regime
    return replace(spec, n_test=0, split="train", family="", array="", replaced="", regime=regime)


def tuned(spec: Spec) -> tuple[Settings, float, Fitted]:
    """`tune(spec)`, stored."""
    record = scores(tuning(spec))
    fitted = {k.removeprefix(FIT): torch.from_numpy(v) for k, v in record.items() if k.startswith(FIT)}
    return settings_of(record), float(record["psnr_train"]), fitted


def settings_of(record: Record) -> Settings:
    return {k.removeprefix(SETTING): float(v) for k, v in record.items() if k.startswith(SETTING)}


def scores(spec: Spec) -> Record:
    """Per-image scores, each (draws, n_test), of one experiment; with its settings, cost and seconds per image.

    `psnr_ended` and `chi2_ended` are of the image after one more data step, where the loop has calibrated data.
    """
    return stored(spec.key, lambda: _scores(spec) if spec.n_test else _tuning(spec), lambda: facts_of(spec))


def facts_of(spec: Spec) -> Facts:
    """What the index says of a record: regime and seed too where they are at their defaults."""
    return {"asked": {"regime": spec.regime, "seed": spec.seed} | spec.asked(), "versions": spec.versions()}


def _tuning(spec: Spec) -> Record:
    began = time.perf_counter()
    settings, psnr, fitted = tune(spec)
    return {f"{SETTING}{k}": np.array(v) for k, v in settings.items()} | {
        **{f"{FIT}{k}": v.cpu().numpy() for k, v in fitted.items()},
        "psnr_train": np.array(psnr),
        "job_seconds": np.array(time.perf_counter() - began),
    }


def _scores(spec: Spec) -> Record:
    seconds, (settings, psnr_train, fitted), method = 0.0, tuned(spec), method_of(spec)
    began = time.perf_counter()
    rows: dict[str, list[np.ndarray]] = {}
    for draw, array in enumerate(arrays(spec)):
        truth, y = observed(spec, spec.split, spec.n_test, draw, array)
        parts = []
        for b in range(0, len(truth), BATCH):
            part = slice(b, b + BATCH)
            result = reconstructed(spec, array, y[part], truth[part])
            seconds += result.seconds
            parts.append(_score(spec, result.image, truth[part], array, y[part]))
            if "lam" in settings and isinstance(array, Interferometer):
                ended = array.prox(result.image, y[part], settings["lam"] / settings["sigma_min"] ** 2)
                parts[-1] |= {"psnr_ended": metrics.psnr(ended, truth[part]), "chi2_ended": array.chi2(ended, y[part])}
        for name in parts[0]:
            rows.setdefault(name, []).append(torch.cat([p[name] for p in parts]).cpu().numpy())
    draws = len(rows["psnr"])
    return {name: np.stack(v) for name, v in rows.items()} | {
        **{f"{SETTING}{k}": np.array(v) for k, v in settings.items()},
        "psnr_train": np.array(psnr_train),
        "prior_calls": np.array(method.calls * spec.steps),
        "trainable": np.array(sum(v.numel() for k, v in fitted.items() if k not in NOT_TRAINED)),
        "kind": np.array(method.kind),
        "seconds": np.array(seconds / (draws * spec.n_test)),
        "job_seconds": np.array(time.perf_counter() - began),
        "device": np.array(str(device())),
        "torch": np.array(torch.__version__),
    }


def _score(spec: Spec, image: Tensor, truth: Tensor, array: Array, y: Any) -> dict[str, Tensor]:
    """SCORES, the chi-squares of the regime, and whether image and truth show a ring, (B,) each."""
    moved = comparable(spec, image, truth)
    values = {name: getattr(metrics, name)(moved, truth) for name in SCORES}
    if isinstance(array, Uncalibrated):
        values |= {f"chi2_{k}": v for k, v in array.chi2s(image, y).items() if f"chi2_{k}" in CHI2[spec.regime]}
        values |= {"ring": rings.measure(image).is_ring, "ring_truth": rings.measure(truth).is_ring}
    else:
        values |= {"chi2_vis": array.chi2(image, y)}
    return values
