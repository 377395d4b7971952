"""One experiment: a method, tuned on its n labels, scored on held-out images; computed once and found again."""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fusionlib import files, metrics, sky, zoo
from fusionlib.baselines import COVERAGE, read_observation
from fusionlib.fusion import FusedPrior
from fusionlib.gates import average
from fusionlib.interferometer import MIN_BASELINE, Interferometer
from fusionlib.pnp import Reconstruction, hqs, schedule

BANKS = {"main": ("identity", "tv", "ffdnet")}
SCORES = ("psnr", "ssim", "psnr_blur", "nxcorr", "chi2_vis")
BATCH = 32
_CODE = files.code_hash("paper.experiment")  # now, so that it is the code in memory that names results


@dataclass(frozen=True)
class Spec:
    """What is computed. A score is named by this, the code, and the content of the files given here.

    `method` is `single:<prior>` or `average`; `priors` the bank; `n_train` labels tune the PnP settings, over the grid
    `sigma_max` x `sigma_min` x `lam`; `n_test` images of `split` are scored. `sky` is a folder of images instead of the
    simulator, `observation` a UVFITS or CSV file instead of the packaged 2017 coverage.
    """

    method: str
    priors: tuple[str, ...]
    coverage: float
    n_train: int
    n_test: int
    split: str
    seed: int = 0
    regime: str = "calibrated"
    resolution: str = "image"
    steps: int = 16
    sigma_max: tuple[float, ...] = (0.1, 0.2, 0.4)
    sigma_min: tuple[float, ...] = (0.01, 0.02)
    lam: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    sky: str = ""
    observation: str = ""

    def __post_init__(self) -> None:
        kind, _, name = self.method.partition(":")
        if kind not in ("single", "average") or (kind == "single" and name not in self.priors):
            raise ValueError(f"Spec: unknown method {self.method!r} for the priors {self.priors}")
        if self.regime != "calibrated":
            raise ValueError(f"Spec: regime must be 'calibrated', got {self.regime!r}")
        if self.resolution != "image":
            raise ValueError(f"Spec: resolution must be 'image', got {self.resolution!r}")
        if self.coverage not in COVERAGE:
            raise ValueError(f"Spec: coverage must be one of {sorted(COVERAGE)}, got {self.coverage}")
        if self.observation and self.coverage != 1.0:
            raise ValueError(
                "Spec: coverage must be 1.0 with an observation; the lists of scans are the packaged one's"
            )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From JSON, lists as tuples. Raises ValueError for unknown or missing fields."""
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"Spec: {error}") from None

    @property
    def key(self) -> str:
        """Name of the stored record."""
        return record_key(self)


def record_key(spec: Spec) -> str:
    inputs = {name: content(getattr(spec, name)) for name in ("sky", "observation")}
    return files.digest([asdict(spec) | inputs, _CODE])


def content(path: str) -> str:
    """Hash of the file or folder at `path`, so that moving it changes nothing and editing it does; "" for none."""
    if not path:
        return ""
    found = sorted(Path(path).glob("*")) if Path(path).is_dir() else [Path(path)]
    try:
        return _hash_files(tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in found if not f.is_dir()))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None


@cache
def _hash_files(stamped: tuple[tuple[str, int, int], ...]) -> str:
    return files.digest([files.sha256(Path(name)) for name, *_ in stamped])


# --- the pieces ---


def device() -> torch.device:
    """Where experiments run: FUSIONLIB_DEVICE, by default `auto`: the GPU if there is one, else the CPU."""
    torch.backends.cudnn.allow_tf32 = False  # full float32 on a GPU too
    name = os.environ.get("FUSIONLIB_DEVICE", "auto")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def arrays(spec: Spec) -> list[Interferometer]:
    """The interferometers of a coverage: one, or three lists of scans whose scores are averaged."""
    if spec.observation:
        table = read_observation(spec.observation)
        return [Interferometer.from_table(table, min_baseline=MIN_BASELINE).to(device())]
    return [Interferometer.eht2017(spec.coverage, draw).to(device()) for draw in range(len(COVERAGE[spec.coverage]))]


def prior_of(spec: Spec) -> nn.Module:
    """The prior that a method plugs in."""
    kind, _, name = spec.method.partition(":")
    prior = zoo.load(name) if kind == "single" else FusedPrior(zoo.bank(spec.priors), average(len(spec.priors)))
    return prior.to(device())


def observed(
    spec: Spec, split: str, n: int, draw: int, array: Interferometer, index: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Truth (n, 1, 64, 64) and whitened data (n, 2 M) of a split; noise from (split, seed, draw, image)."""
    images = sky.split(split, n, seed=spec.seed, source=spec.sky)
    y = array.observe(images.fine.to(device()), sky.SEEDS[split] * 10_000 + spec.seed * 10 + draw)
    return images.image.to(device())[index], y[index]


Settings = dict[str, float]


def reconstruct(spec: Spec, settings: Settings, prior: nn.Module, array: Interferometer, y: Tensor) -> Reconstruction:
    """The method of `spec` on data y (B, 2 M), with PnP settings sigma_max, sigma_min, lam."""
    sigmas = schedule(settings["sigma_max"], settings["sigma_min"], spec.steps)
    return hqs(y, array, prior, sigmas=sigmas, lam=settings["lam"])


def settings_grid(spec: Spec) -> list[Settings]:
    names = ("sigma_max", "sigma_min", "lam")
    return [dict(zip(names, v, strict=True)) for v in itertools.product(spec.sigma_max, spec.sigma_min, spec.lam)]


def tune(spec: Spec) -> tuple[Settings, float]:
    """Settings with the best mean PSNR on the n training images inside PnP, and that PSNR.

    Every method gets the same budget: the whole grid on a quarter of the images, the best quarter on all of them.
    Image k is observed with scan list k mod 3 where a coverage has three.
    """
    prior, lists = prior_of(spec), arrays(spec)
    data = [observed(spec, "train", spec.n_train, d, a, slice(d, None, len(lists))) for d, a in enumerate(lists)]
    candidates, psnr = settings_grid(spec), np.zeros(0)
    for share in (4, 1):
        rows = []
        for settings in candidates:
            found = [
                metrics.psnr(
                    reconstruct(spec, settings, prior, a, y[: -(-len(y) // share)]).image, x[: -(-len(y) // share)]
                )
                for a, (x, y) in zip(lists, data, strict=True)
                if len(y)
            ]
            rows.append(float(torch.cat(found).mean()))
        psnr, order = np.array(rows), np.argsort(rows)[::-1]
        if share > 1:
            candidates = [candidates[k] for k in order[: -(-len(candidates) // share)]]
    best = int(psnr.argmax())
    return candidates[best], float(psnr[best])


# --- computed, or found ---

Record = dict[str, np.ndarray]


def store_paths(key: str) -> list[Path]:
    """Where a record may lie: this machine's store first, then the published one."""
    return [files.home() / "build" / "scores" / f"{key}.npz", files.home() / "figures" / "scores" / f"{key}.npz"]


def stored(key: str, compute: Callable[[], Record]) -> Record:
    """The record named `key`, from a store if it is there, else computed and stored."""
    for path in store_paths(key):
        if path.exists():
            with np.load(path) as z:
                return dict(z)
    path = files.folder("build", "scores") / f"{key}.npz"
    record = compute()
    with files.replacing(path) as aside, open(aside, "wb") as out:
        np.savez_compressed(out, **record)  # type: ignore[arg-type]
    return record


def tuned(spec: Spec) -> tuple[Settings, float]:
    """`tune(spec)`, stored; does not depend on the test images."""
    blind = replace(spec, n_test=0, split="dev")

    def compute() -> Record:
        settings, psnr = tune(blind)
        return {k: np.array(v) for k, v in settings.items()} | {"psnr_train": np.array(psnr)}

    record = stored(blind.key, compute)
    return settings_of(record), float(record["psnr_train"])


def settings_of(record: Record) -> Settings:
    return {k: float(record[k]) for k in ("sigma_max", "sigma_min", "lam")}


def scores(spec: Spec) -> Record:
    """Per-image scores, each (draws, n_test), of one experiment; with its settings, cost and seconds per image."""
    return stored(spec.key, lambda: _scores(spec))


def _scores(spec: Spec) -> Record:
    began, seconds = time.perf_counter(), 0.0
    settings, psnr_train = tuned(spec)
    prior = prior_of(spec)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
    for draw, array in enumerate(arrays(spec)):
        truth, y = observed(spec, spec.split, spec.n_test, draw, array)
        parts = []
        for b in range(0, len(y), BATCH):
            result = reconstruct(spec, settings, prior, array, y[b : b + BATCH])
            seconds += result.seconds
            parts.append(metrics.scores(result.image, truth[b : b + BATCH], array, y[b : b + BATCH]))
        for name in SCORES:
            rows[name].append(torch.cat([p[name] for p in parts]).cpu().numpy())
    draws = len(rows["psnr"])
    calls = spec.steps * (len(spec.priors) if spec.method == "average" else 1)
    return {name: np.stack(v) for name, v in rows.items()} | {
        **{k: np.array(v) for k, v in settings.items()},
        "psnr_train": np.array(psnr_train),
        "prior_calls": np.array(calls),
        "seconds": np.array(seconds / (draws * spec.n_test)),
        "job_seconds": np.array(time.perf_counter() - began),
        "device": np.array(str(device())),
        "torch": np.array(torch.__version__),
    }
