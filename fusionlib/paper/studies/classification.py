"""Chapter 09: pMoE trained and tested, cell by cell; a cell is computed once and found again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from fusionlib import files, metrics, pmoe
from fusionlib.paper.store import Record, stored
from fusionlib.paper.tables import compared
from fusionlib.pmoe import Arm, Samples
from fusionlib.priors.downloads import MNIST_5K, fetch

RATES = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
TUNING = 4  # trials, on samples of their own
TEST = 1000
SUCCESS = 0.95


@dataclass(frozen=True)
class Cell:
    """One arm, on `data` (`digits`, `mnist` or `theory`) of n patches, trained on N samples, `trials` times."""

    arm: Arm
    data: str = "digits"
    N: int = 100
    n: int = 16
    trials: int = 20
    epochs: int = 150


VERSION = 1  # of what a cell computes


@dataclass(frozen=True)
class Size:
    """Sizes of the chapter in a profile."""

    trials: int
    epochs: int
    samples: tuple[int, ...]
    few: tuple[int, ...]
    chosen: tuple[int, ...]
    neurons: tuple[int, ...]
    patches: tuple[int, ...]
    data: tuple[str, ...]


FULL = Size(
    20,
    150,
    (20, 40, 80, 160, 320),
    (20, 40, 80, 160),
    (1, 2, 4, 8, 16),
    (8, 40, 160),
    (4, 9, 16, 36),
    ("digits", "mnist", "theory"),
)
SMOKE = Size(2, 3, (20, 40), (20,), (1, 2, 16), (8, 16), (4, 9), ("digits", "theory"))
SIZES = {"smoke": SMOKE, "quick": FULL, "paper": FULL}


def arms(n: int = 16, m: int = 40) -> list[Arm]:
    """The four: a CNN, pMoE trained in two ways with the l of the paper, a mixture that routes whole samples."""
    k = min(8, m)
    return [Arm("cnn", m=m), Arm("separate", 2, min(2, n), m), Arm("joint", k, min(6, n), m), Arm("image", 4, 0, m)]


@cache
def _images(data: str) -> tuple[torch.Tensor, torch.Tensor]:
    if data == "mnist":
        table = torch.from_numpy(pd.read_csv(fetch(MNIST_5K), header=None).to_numpy(np.float32))
        return F.avg_pool2d(table[:, :784].view(-1, 1, 28, 28), 2), table[:, 784].long()
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(v) for v in load_digits(return_X_y=True))
    return images.float(), labels.long()


def _samples(cell: Cell, purpose: str, trials: int, count: int) -> Samples:
    """For `train`, `test`, and to choose the rate `tune` and `judge`.

    A trial has its own split of the digits, or its own patterns: none of the digits it is trained on are in its test.
    """
    split = ("train", "test", "tune", "judge").index(purpose)
    if cell.data == "theory":
        return pmoe.theory(trials, count, cell.n, seed=1 + (split > 1), split=split)
    pools = [pmoe.prepared(*_images(cell.data), seed=trial)[purpose == "test"] for trial in range(trials)]
    return pmoe.composed(pools, count, cell.n, seed=10 + split)


def rate_of(cell: Cell) -> float:
    """The learning rate that does best on samples of its own, as many as the cell has, over `TUNING` trials."""
    train, judge = _samples(cell, "tune", TUNING, cell.N), _samples(cell, "judge", TUNING, 400)
    models = [pmoe.fit(train.x, train.y, cell.arm, rate=rate, epochs=cell.epochs) for rate in RATES]
    return RATES[int(np.argmax([float(pmoe.accuracy(m, judge.x, judge.y, cell.arm).mean()) for m in models]))]


def result(cell: Cell) -> Record:
    """accuracy, hit (trials,): on 1,000 test samples; rate, flops of a sample, bytes and seconds of training."""
    facts = lambda: {"asked": _asked(cell), "versions": {"pmoe": VERSION}}  # noqa: E731
    return stored(key_of(cell), lambda: _result(cell), facts)


def key_of(cell: Cell) -> str:
    """Name of a cell's record."""
    return files.digest([_asked(cell), {"pmoe": VERSION}])


def _asked(cell: Cell) -> dict[str, Any]:
    """What is not at its default, for JSON."""
    parts = {f.name: (f.default, getattr(of, f.name)) for of in (cell.arm, cell) for f in fields(of) if f.name != "arm"}
    return {"method": "pmoe"} | {name: value for name, (default, value) in parts.items() if value != default}


def _result(cell: Cell) -> Record:
    train, test, rate = (
        _samples(cell, "train", cell.trials, cell.N),
        _samples(cell, "test", cell.trials, TEST),
        rate_of(cell),
    )
    began = perf_counter()
    model = pmoe.fit(train.x, train.y, cell.arm, rate=rate, epochs=cell.epochs)
    seconds = (perf_counter() - began) / cell.trials
    one = slice(0, 1), slice(0, 20)
    result = {
        "accuracy": pmoe.accuracy(model, test.x, test.y, cell.arm).numpy(),
        "hit": pmoe.router_hit(model, test.x, test.y, test.where, cell.arm).numpy(),
        "rate": rate,
        "flops": pmoe.flops(cell.arm, cell.n, train.x.shape[3]),
        "bytes": pmoe.saved_bytes(cell.arm, train.x[one].clone(), train.y[one]),
        "seconds": seconds,
    }
    return {k: np.asarray(v) for k, v in result.items()}


def table(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per cell: mean accuracy over the trials with its 95 % bootstrap interval, and what it costs."""
    rows = []
    for cell in dict.fromkeys(cells):
        r, arm = result(cell), cell.arm
        mean, lo, hi = metrics.bootstrap(r["accuracy"])
        rows.append(
            {"arm": arm.kind, "data": cell.data, "N": cell.N, "l": arm.l or cell.n, "k": arm.k, "m": arm.m, "n": cell.n}
            | {"coarse": arm.coarse, "trials": cell.trials, "accuracy": mean, "lo": lo, "hi": hi}
            | {"success": float((r["accuracy"] >= SUCCESS).mean()), "router_hit": float(r["hit"].mean())}
            | {
                "rate": float(r["rate"]),
                "flops": int(r["flops"]),
                "bytes": int(r["bytes"]),
                "seconds": float(r["seconds"]),
            }
        )
    return pd.DataFrame(rows)


def trend_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Rank correlation (Spearman) of accuracy with l, over l >= 2, per arm and N, intervals over the trials."""
    rows = []
    for kind, samples in dict.fromkeys((c.arm.kind, c.N) for c in cells):
        accuracy = {
            c.arm.l: result(c)["accuracy"] for c in cells if (c.arm.kind, c.N) == (kind, samples) and c.arm.l >= 2
        }
        if len(accuracy) > 1:
            each = np.stack(list(accuracy.values()), 1)  # the same training samples for every l of a trial
            ranks = [spearmanr(list(accuracy), trial).statistic if np.ptp(trial) else 0.0 for trial in each]
            rows.append((kind, samples, *metrics.bootstrap(np.array(ranks))))
    return pd.DataFrame(rows, columns=["arm", "N", "trend", "lo", "hi"])


def gain_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Accuracy of each arm less the CNN's of equal neurons, trial by trial, same training and test samples; a
    difference of a point counts."""
    like = lambda c: (c.data, c.N, c.n, c.arm.m)  # noqa: E731
    plain, rows = {like(c): result(c)["accuracy"] for c in cells if c.arm.kind == "cnn"}, []
    for cell in cells:
        if cell.arm.kind != "cnn" and like(cell) in plain:
            rows.append(((cell.arm.kind, *like(cell)), result(cell)["accuracy"] - plain[like(cell)]))
    return compared(rows, ["arm", "data", "N", "n", "m"], threshold=0.01)


QUOTED = {"training": "about 20 % less", "inference": "about 50 % less"}  # the second seed


def cost_table(ls: Sequence[int], *, n: int = 16, samples: int = 80, epochs: int = 5, repeats: int = 3) -> pd.DataFrame:
    """arm, l, k: operations of a sample, memory and time of training over those of the CNN with as many neurons, as
    measured here; and what is quoted.

    All arms are trained in turn for a few epochs, routers included where they go first; the least of `repeats` times.
    """
    arms = [Arm("cnn"), *(Arm("separate", 2, l) for l in ls), *(Arm("joint", 8, l) for l in ls)]
    data = _samples(Cell(arms[0], n=n), "train", 4, samples)
    best = dict.fromkeys(arms, np.inf)
    for _ in range(repeats):
        for arm in arms:
            began = perf_counter()
            pmoe.fit(data.x, data.y, arm, rate=1.0, epochs=epochs)
            best[arm] = min(best[arm], perf_counter() - began)
    one, d = slice(0, 1), data.x.shape[3]
    kept = {arm: pmoe.saved_bytes(arm, data.x[one, :20].clone(), data.y[one, :20]) for arm in arms}
    base, rows = arms[0], []
    for arm in arms[1:]:
        rows.append(
            {"arm": arm.kind, "l": arm.l, "k": arm.k, "flops": pmoe.flops(arm, n, d) / pmoe.flops(base, n, d)}
            | {"bytes": kept[arm] / kept[base], "seconds": best[arm] / best[base]}
            | {f"quoted_{name}": value for name, value in QUOTED.items()}
        )
    return pd.DataFrame(rows)


def verdict_table(gains: pd.DataFrame, trends: pd.DataFrame, lengths: pd.DataFrame) -> pd.DataFrame:
    """claim, arm, value, lo, hi, holds: what the theory says, and whether it is so here."""
    rows: list[tuple] = []
    few = gains[(gains.data == "digits") & (gains.N == 100) & (gains.n == 16)]
    for row in few[few.arm.isin(["separate", "joint"])].to_dict("records"):
        gain, lo, hi = (row[k] for k in ("effect", "lo", "hi"))
        rows.append(("at least 8 points above the CNN at N = 100", row["arm"], gain, lo, hi, gain >= 0.08))
    for arm, part in trends.groupby("arm", sort=False):
        worst = max(part.to_dict("records"), key=lambda row: row["hi"])
        trend, lo, hi = (worst[k] for k in ("trend", "lo", "hi"))
        rows.append(("accuracy falls with l, from l = 2 on, at every N", arm, trend, lo, hi, hi < 0))
    for arm, part in lengths.groupby("arm", sort=False):
        accuracy = {row["l"]: row["accuracy"] for row in part.to_dict("records") if row["N"] == part["N"].max()}
        if {1, 2} <= set(accuracy):
            lost = accuracy[2] - accuracy[1]
            rows.append(("one patch per expert is too few: accuracy lost", arm, lost, np.nan, np.nan, lost > 0.05))
    return pd.DataFrame(rows, columns=["claim", "arm", "value", "lo", "hi", "holds"])


# --- what the chapter asks ---


def by_samples(profile: str) -> list[Cell]:
    """The four arms over N, and on the other data."""
    s = SIZES[profile]
    cells = [Cell(arm, N=N, trials=s.trials, epochs=s.epochs) for N in sorted({*s.samples, 100}) for arm in arms()]
    return cells + [Cell(arm, data, 100, trials=s.trials, epochs=s.epochs) for data in s.data[1:] for arm in arms()]


def by_chosen(profile: str) -> list[Cell]:
    """Over l: separate training at every N, joint training (slower) at a few."""
    s = SIZES[profile]
    separate = [Cell(Arm("separate", 2, l), N=N, trials=s.trials, epochs=s.epochs) for N in s.samples for l in s.chosen]
    return separate + [Cell(Arm("joint", 8, l), N=N, trials=s.trials, epochs=s.epochs) for N in s.few for l in s.chosen]


def by_experts(profile: str) -> list[Cell]:
    """Joint training over k."""
    s = SIZES[profile]
    return [Cell(Arm("joint", k, 6), N=N, trials=s.trials, epochs=s.epochs) for N in s.few for k in (2, 4, 8)]


def by_neurons(profile: str) -> list[Cell]:
    s = SIZES[profile]
    return [Cell(arm, trials=s.trials, epochs=s.epochs) for m in s.neurons for arm in arms(m=m)]


def by_patches(profile: str) -> list[Cell]:
    """Over the number of irrelevant patches, n - 1."""
    s = SIZES[profile]
    return [Cell(arm, n=n, trials=s.trials, epochs=s.epochs) for n in s.patches for arm in arms(n=n)]


def by_levels(profile: str) -> list[Cell]:
    """One level of routing, and two: the best 1, 2 or 3 of four blocks first."""
    s = SIZES[profile]
    return [
        Cell(Arm("separate", 2, 2, coarse=c), N=N, trials=s.trials, epochs=s.epochs)
        for N in s.few
        for c in (0, 1, 2, 3)
    ]


def cells(profile: str) -> dict[str, Cell]:
    """All cells of the chapter, by the names of their records."""
    parts = (by_samples, by_chosen, by_experts, by_neurons, by_patches, by_levels)
    return {key_of(cell): cell for part in parts if profile in SIZES for cell in part(profile)}
