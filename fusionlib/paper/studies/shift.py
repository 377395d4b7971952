"""Chapter 11: methods where conditions change: the map, the headline set, and the aims set beforehand."""

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from fusionlib import metrics
from fusionlib.interferometer import Interferometer
from fusionlib.metrics import bootstrap
from fusionlib.paper import conditions
from fusionlib.paper.conditions import Condition
from fusionlib.paper.experiment import arrays, images_of, observed, reconstructed, scores
from fusionlib.paper.methods import entry, label
from fusionlib.paper.methods.method import is_network
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.shift_specs import choice_specs, is_swept, picking_specs, safe, shift_rows, shift_specs
from fusionlib.paper.spec import Spec
from fusionlib.paper.tables import bank_name, compared
from fusionlib.paper.tasks import Task, recorded
from fusionlib.priors import BANKS
from fusionlib.sky import MANY

BOUNDS = ("ceiling", "oracle")  # kinds of rows that no method has to reach


class Row(NamedTuple):
    """What a row of the map is, beside its condition and its seeds."""

    method: str
    bank: str
    fit: str
    n_train: int

    @property
    def words(self) -> str:
        """The row in words: method, what it was fitted to, and the networks among its priors."""
        networks = self.bank.count("network")
        beside = {0: "", 1: " + network", 2: " + two networks"}[networks]
        fit = f"{self.fit}, {self.n_train} labels" if self.n_train == MANY else self.fit
        return label(self.method) + beside + (f" ({fit})" if fit else "")


def row_of(spec: Spec) -> Row:
    """`fit` is empty for a method that learns nothing but its settings."""
    return Row(spec.method, bank_of(spec), (spec.fit or "home") if learns(spec) else "", spec.n_train)


def learns(spec: Spec) -> bool:
    """Whether a row learns more from labels than its settings."""
    return entry(spec.method).grid not in ("hqs", "rml") and not spec.method.startswith("oracle")


def kind_of(spec: Spec) -> str:
    """The kind of a row; with more labels than the training set has it is a ceiling."""
    return "ceiling" if spec.n_train == MANY else str(scores(spec)["kind"])


def bank_of(spec: Spec) -> str:
    """The name of a bank, with `network` for every network from the data to the image in it."""
    names = [bank_name([p for p in spec.priors if not is_network(p)])]
    names += ["home network" if p.endswith("/home") else "network" for p in spec.priors if is_network(p)]
    return " + ".join(names)


def condition_of(spec: Spec) -> Condition:
    return Condition(spec.array, spec.family, spec.replaced)


def map_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """A line for every row in every cell: `condition, object, array, bank, method, kind, fit, n_train, seed, n_test,
    psnr, psnr_lo, psnr_hi, regret, chi2`.

    PSNR [dB] as a mean over images and seeds with its 95 % interval, `seed` their number; `regret` [dB] to the best row
    of the cell, ceilings and oracles aside; `chi2` the median over images of the reduced chi-square.
    """
    groups: dict[tuple[Condition, Row], list[Spec]] = {}
    for s in specs:
        groups.setdefault((condition_of(s), row_of(s)), []).append(s)
    rows = []
    for (cell, row), group in groups.items():
        records = [scores(s) for s in group]
        psnr, chi2 = (np.stack([r[name].mean(0) for r in records]) for name in ("psnr", "chi2_vis"))
        what = {"condition": cell.name, "object": cell.family or "sky", "array": cell.array or "as fitted"}
        kind = {"kind": kind_of(group[0]), "fit": row.fit, "n_train": row.n_train}
        count = {"seed": len(group), "n_test": group[0].n_test}
        interval = dict(zip(("psnr", "psnr_lo", "psnr_hi"), bootstrap(psnr), strict=True))
        rows.append(what | {"bank": row.bank, "method": row.method} | kind | count | interval | _median(chi2))
    table = pd.DataFrame(rows)
    best = table[~table.kind.isin(BOUNDS)].groupby("condition").psnr.max()
    table["regret"] = table.condition.map(best) - table.psnr
    return table[[*(c for c in table if c != "chi2"), "chi2"]]


def _median(chi2: np.ndarray) -> dict[str, float]:
    return {"chi2": float(np.median(chi2))}


def choice_table(profile: str, priors: Sequence[str] = BANKS["main"]) -> pd.DataFrame:
    """method, steps of training, fit, condition, psnr [dB], chi2 (median) of `choice_specs`."""
    rows = []
    for s in choice_specs(profile, priors):
        record, steps = scores(s), dict(s.grid).get("steps", (np.nan,))[0]
        found = {"psnr": record["psnr"].mean()} | _median(record["chi2_vis"])
        rows.append({"method": s.method, "steps": steps, "fit": s.fit, "condition": condition_of(s).name} | found)
    return pd.DataFrame(rows)


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """method, bank, fit, n_train, home (PSNR as fitted), regret (mean over the cells), worst, worst_cell, and chi2, the
    largest median of the cells without unmodelled gain errors. Best mean regret first."""
    rows = []
    for key, part in table.groupby(["method", "bank", "fit", "n_train", "kind"], sort=False):
        worst, fair = part.iloc[int(part.regret.to_numpy().argmax())], part[~part.array.str.startswith("gains")]
        home = part[part.condition == "as fitted"].psnr
        told = dict(zip(("method", "bank", "fit", "n_train", "kind"), key, strict=True))
        found = {"home": home.iloc[0] if len(home) else np.nan, "regret": part.regret.mean()}
        rows.append(told | found | {"worst": worst.regret, "worst_cell": worst.condition, "chi2": fair.chi2.max()})
    return pd.DataFrame(rows).sort_values("regret", ignore_index=True)


def ended_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """method, bank, fit, n_train, and what one more data step at the end changes in PSNR [dB]: `gain`, the mean over
    the cells, and `least`, the lowest; `chi2`, `chi2_ended`: medians over images, the largest of the cells without
    unmodelled gain errors. Methods without a data step, and bounds, are left out."""
    groups: dict[Row, list[Spec]] = {}
    for s in specs:
        if "psnr_ended" in scores(s) and kind_of(s) not in BOUNDS:
            groups.setdefault(row_of(s), []).append(s)
    rows = []
    for row, group in groups.items():
        gains = [float((scores(s)["psnr_ended"] - scores(s)["psnr"]).mean()) for s in group]
        fair = [scores(s) for s in group if not s.array.startswith("gains")]
        before, after = (max(float(np.median(r[name])) for r in fair) for name in ("chi2_vis", "chi2_ended"))
        rows.append(row._asdict() | {"gain": np.mean(gains), "least": min(gains), "chi2": before, "chi2_ended": after})
    return pd.DataFrame(rows).sort_values("least", ignore_index=True)


def mixed_scores(specs: Sequence[Spec], name: str = "psnr") -> dict[Row, np.ndarray]:
    """Scores of the headline set (seeds, images), its conditions one after the other, by row."""
    groups: dict[Row, dict[int, dict[Condition, np.ndarray]]] = {}
    for s in specs:
        groups.setdefault(row_of(s), {}).setdefault(s.seed, {})[condition_of(s)] = scores(s)[name].mean(0)
    order = list(dict.fromkeys(map(condition_of, specs)))
    return {row: np.stack([np.concatenate([by[c] for c in order]) for by in g.values()]) for row, g in groups.items()}


def mixed_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """Rows of the headline set: method, kind, bank, fit, n_train, seed, n_test, PSNR with its interval, the paired gain
    over the prior that is best there, `chi2` (median), and PSNR over kinds seen in fits and kinds unseen."""
    psnr, chi2 = mixed_scores(specs), mixed_scores(specs, "chi2_vis")
    kinds = {row_of(s): kind_of(s) for s in specs}
    singles = {row: v.mean() for row, v in psnr.items() if row.method.startswith("single:")}
    best = psnr[max(singles, key=lambda row: singles[row])]
    order = dict.fromkeys(map(condition_of, specs))
    unseen = np.repeat([c.family in conditions.HELD_OUT for c in order], specs[0].n_test)
    rows = []
    for row, v in psnr.items():
        gain = v[: len(best)] - best[: len(v)]
        interval = zip(("psnr", "psnr_lo", "psnr_hi"), bootstrap(v), strict=True)
        gains = zip(("delta_best_single", "delta_lo", "delta_hi"), bootstrap(gain), strict=True)
        what = {"method": row.method, "kind": kinds[row], "bank": row.bank, "fit": row.fit, "n_train": row.n_train}
        parts = {"seen": v[:, ~unseen].mean(), "unseen": v[:, unseen].mean()}
        count = {"seed": len(v), "n_test": v.shape[1]}
        rows.append(what | count | dict(interval) | dict(gains) | _median(chi2[row]) | parts)
    return pd.DataFrame(rows)


def picking_table(profile: str, priors: Sequence[str] = BANKS["main"]) -> pd.DataFrame:
    """pick, psnr [dB], n_test, gain [dB] over the prior that is best on the whole set: the best prior of each condition
    and of each image, and oracles, which pick in every iteration, on development images."""
    specs = picking_specs(profile, priors)
    psnr = {row.method: v[0] for row, v in mixed_scores(specs).items()}
    singles = np.stack([v for name, v in psnr.items() if name.startswith("single")])
    cells = singles.reshape(len(singles), -1, specs[0].n_test)
    of_condition = np.take_along_axis(cells, cells.mean(2).argmax(0)[None, :, None], 0)
    picks = {"one for all": singles[singles.mean(1).argmax()], "average": psnr["average"]}
    picks |= {"one for each condition": of_condition.ravel(), "one for each image": singles.max(0)}
    picks |= {label(name): v for name, v in psnr.items() if name.startswith("oracle")}
    table = pd.DataFrame([{"pick": name, "psnr": v.mean(), "n_test": len(v)} for name, v in picks.items()])
    return table.assign(gain=table.psnr - table.psnr[0])


def against(specs: Sequence[Spec], rule: Row) -> pd.DataFrame:
    """method, bank, fit, n_train: the paired gain of a rule over every other row of the headline, judged together."""
    psnr = mixed_scores(specs)
    mine = psnr[rule]
    others = {row: v for row, v in psnr.items() if row != rule}
    rows = [(tuple(r), mine[: len(v)] - v[: len(mine)]) for r, v in others.items()]
    return compared(rows, Row._fields)


def map_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, objects: str = "") -> list[Spec]:
    """The experiments of the map alone, with a folder of images as one more cell."""
    n = shift_rows(profile, priors)[0].n_train
    specs = [s for s in shift_specs(profile, priors, objects=objects) if not is_drawn(s)]
    return [s for s in specs if s.n_train in (n, MANY) and s.seed == specs[0].seed]


def headline_specs(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Those of the headline set alone, with all seeds and numbers of labels."""
    return [s for s in shift_specs(profile, priors) if is_drawn(s)]


def is_drawn(spec: Spec) -> bool:
    """Whether an experiment is of the headline set."""
    return (spec.array, spec.family) in conditions.MIXED


def labels_table(profile: str, priors: Sequence[str] = BANKS["main"]) -> pd.DataFrame:
    """name, method, fit, n_train, part (`home` or `headline set`), n_test, psnr, psnr_lo, psnr_hi [dB]: rows by the
    number of labels, of the first seed."""
    seed, rows = profile_of(profile).seeds[0], []
    specs = [s for s in shift_specs(profile, priors) if s.seed == seed and is_swept(s)]
    for part, some in (
        ("home", [s for s in specs if condition_of(s) == Condition()]),
        ("headline set", [s for s in specs if is_drawn(s)]),
    ):
        for row, v in mixed_scores(some).items():
            told = {"name": row.words, "method": row.method, "fit": row.fit, "n_train": row.n_train, "part": part}
            interval = dict(zip(("psnr", "psnr_lo", "psnr_hi"), bootstrap(v), strict=True))
            rows.append(told | {"n_test": v.shape[1]} | interval)
    return pd.DataFrame(rows).sort_values(["part", "name", "n_train"], ascending=[False, True, True], ignore_index=True)


TELLING = ("as fitted", "turned 40", "disc", "double", "declination -29, gaussian")


def pictures(rows: Sequence[Spec]) -> dict[str, Any]:
    """For telling cells the first development image: `truth`, `dirty` (K, H, W), `image` (rows, K, H, W), `psnr`,
    `chi2` (rows, K), `name` (rows,), `condition` (K,)."""
    cells = [c for c in conditions.CONDITIONS if c.name in TELLING]
    parts: dict[str, list[Any]] = {name: [] for name in ("truth", "dirty", "image", "psnr", "chi2")}
    for cell in cells:
        truth, dirty, image, psnr, chi2 = None, None, [], [], []
        for row in rows:
            s = replace(row, **cell._asdict(), split="dev", n_test=1)
            array = arrays(s)[0]
            truth, y = observed(s, "dev", 1, 0, array)
            shown = reconstructed(s, array, y, truth).image
            image.append(shown[0, 0])
            psnr.append(metrics.psnr(shown, truth)[0])
            chi2.append(array.chi2(shown, y)[0])
            assert isinstance(array, Interferometer)  # conditions are calibrated
            dirty = array.dirty_image(y)[0, 0]
        assert truth is not None and dirty is not None
        for name, value in zip(
            parts, (truth[0, 0], dirty / dirty.max(), *map(torch.stack, (image, psnr, chi2))), strict=True
        ):
            parts[name].append(value)
    axis = {"truth": 0, "dirty": 0, "image": 1, "psnr": 1, "chi2": 1}
    made = {name: torch.stack(v, axis[name]).cpu().numpy() for name, v in parts.items()}
    return made | {"name": np.array([row_of(s).words for s in rows]), "condition": np.array([c.name for c in cells])}


@recorded(version=1)
def trust(spec: Spec, n: int) -> pd.DataFrame:
    """condition, image, chi2 of the network's own image, and its weight in the fused rule `spec`, the mean over pixels
    and iterations: `n` development images of each of the telling cells."""
    rows = []
    for cell in (c for c in conditions.CONDITIONS if c.name in TELLING):
        s = replace(spec, **cell._asdict(), split="dev", n_test=n)
        array, name = arrays(s)[0], s.networks[0]
        truth, y = observed(s, "dev", n, 0, array)
        weights = reconstructed(s, array, y, truth).record["weights"]
        chi2 = array.chi2(images_of(s, array, y)[name], y)
        mean = weights[:, s.priors.index(name)].mean((0, 2, 3))
        values = zip(chi2.tolist(), mean.tolist(), strict=True)
        rows += [{"condition": cell.name, "image": k, "chi2": c, "weight": w} for k, (c, w) in enumerate(values)]
    return pd.DataFrame(rows)


def trust_tasks(profile: str, priors: Sequence[str] = BANKS["main"], **_: Any) -> list[Task]:
    """`trust` of the safe rule."""
    return [trust.task(safe(profile, priors), 4 * profile_of(profile).n_show)]


def named(table: pd.DataFrame) -> pd.DataFrame:
    """A table of rows with their names in words."""
    words = [Row(*v).words for v in table[list(Row._fields)].itertuples(index=False)]
    return table.assign(name=words)


RIVALS = ("single:", "average", "unet", "a:", "b:", "c:")  # methods that the rule has to beat on the headline set


def aims_table(table: pd.DataFrame, headline: Sequence[Spec], rule: Row) -> pd.DataFrame:
    """aim, value, wanted, met: the four aims that were set before anything was computed; and `network`, the value of
    the network that is fitted to the same."""
    summary = summary_table(table)
    others = summary.method.eq("unet") & summary.fit.eq(rule.fit) & summary.n_train.eq(rule.n_train)
    rival = Row(*summary.loc[others, list(Row._fields)].iloc[0])
    networks = summary[summary.method.eq("unet") & summary.n_train.eq(rule.n_train)].home.max()

    def values(row: Row) -> list[float]:
        mine = summary[(summary[list(Row._fields)] == list(row)).all(axis=1)].iloc[0]
        found = [mine.home - networks, mine.regret, mine.worst, mine.chi2]
        if headline:
            gains = against(headline, row)
            told = gains.method.str.startswith(RIVALS) & ~gains.bank.str.contains("network")
            gains = gains[told & gains.n_train.eq(row.n_train)]
            found += [gains[gains.method.str.startswith("single:")].effect.min(), gains.lo.min()]
        return found

    aims = (
        ("home, less the best network [dB]", ">", -0.05),
        ("mean regret over the map [dB]", "<=", 0.15),
        ("worst regret over the map [dB]", "<=", 0.5),
        ("largest median chi-square", "<", 3.0),
        ("headline set, gain over the best single prior [dB]", ">=", 1.0),
        ("headline set, lowest bound of the gains over single priors, average, networks, A, B, C [dB]", ">", 0.0),
    )
    is_met = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
    rows = [
        {"aim": aim, "value": v, "wanted": f"{sign} {bound:g}", "met": is_met[sign](v, bound), "network": n}
        for (aim, sign, bound), v, n in zip(aims, values(rule), values(rival), strict=False)
    ]
    return pd.DataFrame(rows)


def shown(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """The rows that are shown in pictures."""
    rows = [s for s in shift_rows(profile, priors) if s.n_train != MANY]
    plain = [s for s in rows if (s.method, s.fit) in (("average", ""), ("unet", ""), ("unet", "mixed"))]
    fused = [s for s in rows if s.method == "closed_form" and s.fit == "mixed" and not s.networks]
    return [*plain, *fused, safe(profile, priors)]
