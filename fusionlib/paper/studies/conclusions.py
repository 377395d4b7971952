"""Chapter 13: the main table, the gap that labels close, and the essay's comparison of its strategies as measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from fusionlib.metrics import bootstrap
from fusionlib.paper.methods import HEADLINE, entry
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import banks_of, strategy_specs
from fusionlib.paper.studies.ablation_list import Arm
from fusionlib.paper.studies.ablations import arm_specs, label_specs, like, reference_specs
from fusionlib.paper.studies.claims import ESSAY, claims, frozen, sides, trained, whole
from fusionlib.paper.tables import bank_name, best_of, compared, difference
from fusionlib.priors import BANKS

STRIP = ("rml", "best_single", "a:pixel", "b:image", "c:image", "closed_form", "unet", "oracle:pixel")


def result_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """The headline and the single priors, with the bank and with the bank less the torus, at full coverage."""
    only = [m for m in HEADLINE if entry(m).grid == "learned"]
    specs = strategy_specs(profile, priors, only=only, sky=sky)
    return [s for s in specs if s.coverage == 1.0 and (s.method in HEADLINE or s.method.startswith("single:"))]


def _ceiling(profile: str, priors: Sequence[str]) -> list[Spec]:
    """The ceiling beside the sweep over labels, with its setting of the loop."""
    base, one = reference_specs(profile, priors, "")[0], profile_of("wide").grid["learned"]
    return [like(base, profile, "ceiling", (), grid=one)]


def conclusion_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """All experiments of chapter 13: the headline; the labels and both sides of every claim where they follow it."""
    rows = [*result_specs(profile, priors, sky=sky), *strip_specs(profile, priors, sky, singles=True)]
    if whole(profile, sky):
        rows += [*label_specs(profile, priors, sky), *_ceiling(profile, priors)]
        for claim in claims(profile, priors):
            rows += [s for pair in claim.pairs for side in sides(pair, profile, priors, sky) for s in side]
    return list(dict.fromkeys(rows))


def gap_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """bank, method, n_train, ceiling, closed, closed_lo, closed_hi, and the gain over the best single prior with n
    labels; `closed` is that gain as a share of the ceiling's, NaN where the ceiling's own interval contains zero."""
    specs, rows = label_specs(profile, priors, sky) if whole(profile, sky) else [], []
    for bank in banks_of(priors) if specs else ():
        best = best_of([s for s in specs if s.method.startswith("single:") and s.priors[0] in bank])
        top = difference(_ceiling(profile, priors), best)
        real = bootstrap(top).lo > 0
        for s in specs:
            if not s.method.startswith("single:") and s.priors in ((), bank):
                gain = difference([s], best)
                share = _share(gain, top) if real else (np.nan,) * 3
                rows.append(((bank_name(bank), s.method, s.n_train, top.mean(), *share), gain))
    return compared(rows, ["bank", "method", "n_train", "ceiling", "closed", "closed_lo", "closed_hi"])


def _share(gain: np.ndarray, top: np.ndarray, draws: int = 4000) -> tuple[float, float, float]:
    """Mean gain over mean gain of the ceiling, images (1, n) resampled together."""
    drawn = np.random.default_rng(0).integers(gain.shape[1], size=(draws, gain.shape[1]))
    ratio = gain[0][drawn].mean(1) / top[0][drawn].mean(1)
    return gain.mean() / top.mean(), *np.quantile(ratio, (0.025, 0.975))


def essay_table(profile: str, priors: Sequence[str], results: pd.DataFrame, sky: str = "") -> pd.DataFrame:
    """The essay's table 1, measured: what it compares, as it has it, A, B, C, where from.

    Gains over the best single prior, from the rows of `results`.
    """
    count, (main, *far) = frozen(priors), [bank_name(bank) for bank in banks_of(priors)]
    rows = {(str(r["bank"]), str(r["method"])): r for r in results[results.coverage == 1.0].to_dict("records")}
    labels = gap_table(profile, priors, sky).query("bank == @main").to_dict("records")

    def gain(bank: str, method: str) -> str:
        r = rows[bank, method]
        return f"{r['delta_best_single']:+.2f} dB ({r['delta_lo']:+.2f} to {r['delta_hi']:+.2f})"

    def size(method: str) -> str:
        own = trained(arm_specs(profile, priors, Arm("", method), sky)[0])
        return f"{own:,} numbers, {own / max(count, 1):.2%} of the frozen"

    def by_labels(method: str) -> str:
        told = [f"{r['effect']:+.2f} dB at n = {r['n_train']}" for r in labels if r["method"] == method]
        return ", ".join(told) or "not run"

    def cost(method: str) -> str:
        r = rows[main, method]
        return f"{1e3 * r['seconds']:.0f} ms per image, {r['prior_calls']} prior calls"

    told = [
        ("trained parts", "the gate; adapters and the gate; the vote", size, "tab04_sizes"),
        ("data efficiency", "very high; high; good", by_labels, "fig13_efficiency"),
        ("cost", "", cost, "tab13_results"),
        (f"gain in {main}", "clearest; aligns features; robust", lambda m: gain(main, m), "fig13_results"),
        *((f"gain in {bank}", "", lambda m, bank=bank: gain(bank, m), "fig13_results") for bank in far),
        (
            "risk: worst image",
            "extreme heterogeneity; design of adapters; many inputs",
            lambda m: f"{rows[main, m]['delta_worst']:+.2f} dB",
            "tab13_results",
        ),
    ]
    table = [
        {"trait": trait, "the essay (A; B; C)": said}
        | {name: str(measure(m)) for name, m in ESSAY.items()}
        | {"from": source}
        for trait, said, measure, source in told
    ]
    return pd.DataFrame(table)


def strip_specs(profile: str, priors: Sequence[str], sky: str = "", *, singles: bool = False) -> list[Spec]:
    """What the strip of pictures shows, in its order, first seed; `singles`: with every single prior."""
    base, specs = reference_specs(profile, priors, sky)[0], []
    for method in STRIP if profile != "smoke" else STRIP[:2]:
        if method == "best_single":
            alone = [like(base, profile, f"single:{name}", (name,)) for name in priors]
            specs += alone if singles else best_of(alone)
        elif method == "rml":
            specs.append(replace(base, method="rml", priors=(), **_rml(profile)))
        else:
            specs.append(like(base, profile, method, tuple(priors)))
    return specs


def _rml(profile: str) -> dict[str, Any]:
    p = profile_of(profile)
    return {"steps": p.steps["rml"], "grid": p.grid["rml"]}
