"""Which experiments each chapter needs, in a profile, with a bank."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fusionlib import sky as skies
from fusionlib.paper.methods import HEADLINE, entry
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.spec import Spec
from fusionlib.priors import BANKS


def baseline_specs(
    profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", observation: str = ""
) -> list[Spec]:
    """Chapter 02: every prior alone, their average, and RML, at every coverage and seed of the profile."""
    p, bank = profile_of(profile), tuple(priors)
    have = skies.split_sizes(len(skies.from_folder(sky).image) if sky else None)
    n_train, n_test = min(p.n_train, have["train"]), min(p.n_test, have[p.split])
    if min(n_train, n_test) < 1:
        raise ValueError(
            f"sky: {sky} has too few images; 10 are the least, {p.n_test} {p.split} images are used if there"
        )
    return [
        Spec(
            method,
            members,
            coverage,
            n_train,
            n_test if coverage == 1.0 else min(n_test, p.n_partial),
            p.split,
            seed,
            steps=p.steps[kind],
            grid=p.grid[kind],
            sky=sky,
            observation=observation,
        )
        for coverage in ((1.0,) if observation else p.coverages)
        for method, members in methods(bank)
        for kind in ("rml" if method == "rml" else "hqs",)
        for seed in (p.seeds if coverage == 1.0 else p.seeds[:1])
    ]


def methods(bank: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Every prior of a bank alone, their average, and regularised maximum likelihood, each with the priors it needs."""
    return [(f"single:{name}", (name,)) for name in bank] + [("average", bank)] * (len(bank) > 1) + [("rml", ())]


FITTED = ("static_simplex", "static_affine", "single_identity", "noise_levels")
CONTROLS = ("closed_single", "closed_levels")
ORACLES = ("oracle:image", "oracle:affine", "oracle:8", "oracle:pixel")


def possible(method: str, bank: Sequence[str]) -> bool:
    """Whether a bank has the priors that a method needs."""
    others = [name for name in bank if name != "identity"]
    needed = {"two": others, "network": [name for name in others if name != "tv"]}
    return bool(needed.get(entry(method).priors, True))


def under(s: Spec, method: str, profile: str, priors: tuple[str, ...] | None = None) -> Spec:
    """The same experiment under another method, with the grid that tunes it, and without priors where it uses none."""
    told, bank = entry(method), s.priors if priors is None else priors
    grid = profile_of(profile).grid[told.grid]
    return replace(s, method=method, grid=grid, priors=() if told.priors == "none" else bank)


def of_headline(spec: Spec) -> bool:
    """Whether an experiment at full coverage is scored on all images, and with all seeds, of the profile."""
    return spec.method in HEADLINE or spec.method.startswith("single:")


def _sized(specs: Sequence[Spec], profile: str) -> list[Spec]:
    """Each once; those that are not of the headline with fewer images and one seed."""
    p, sized = profile_of(profile), []
    for s in specs:
        if s.coverage < 1 or of_headline(s):
            sized.append(s)
        elif s.seed == p.seeds[0]:
            sized.append(replace(s, n_test=min(s.n_test, p.n_other)))
    return list(dict.fromkeys(sized))


def headroom_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """Chapter 01: single priors, simple weights, controls, oracles; with the bank, and with the bank less the torus."""
    p = profile_of(profile)
    rows = [s for s in baseline_specs(profile, priors, sky=sky) if s.coverage in p.headroom]
    if not sky:  # the ceiling has seen our simulator's sky, and no other
        rows += [replace(s, method="ceiling", priors=()) for s in rows if s.method == f"single:{priors[0]}"]
    for bank in banks_of(priors):
        baselines = [s for s in baseline_specs(profile, bank, sky=sky) if s.coverage in p.headroom]
        rows += [s for s in baselines if s.method == "average"]
        like = [s for s in baselines if s.method == f"single:{bank[0]}"]
        rows += [
            replace(s, method=method, priors=bank, grid=p.grid["fitted"])
            for s in like
            for method in (*FITTED, *ORACLES)
            if possible(method, bank)
        ]
    return _sized(rows, profile)


SIMPLE = ("consensus:image", "mace", "csnet", "top:1", "top:2", "heldout", "lora")
SUPERVISED = ("denoiser", "finetuned", "unet")
OURS = ("closed_form", "closed_union", "unrolled", "gradient:pixel")
PARTIAL = (*CONTROLS, "closed_form", "unet")
# endings of what smoke leaves out
SLOW = (":8", ":pixel", "heldout", "lora", "_meta:image", "unrolled")


def strategy_specs(
    profile: str,
    priors: Sequence[str] = BANKS["main"],
    *,
    only: Sequence[str] = (
        "a:image",
        "a:8",
        "a:pixel",
        "a_meta:image",
        "mgpf:image",
        "b:image",
        "b_meta:image",
        "c:image",
    ),
    all_coverages: bool = False,
    sky: str = "",
    **_: Any,
) -> list[Spec]:
    """Chapters 03 to 05: the strategies `only`, and the rows beside which they stand, at full coverage.

    With the bank all of them; with the bank less the torus the strategy at image resolution, ours and their controls.
    With `all_coverages` also those of PARTIAL, and the rows of chapter 01, at the coverages of chapter 01.
    """
    rows = [
        s
        for s in headroom_specs(profile, priors, sky=sky)
        if (all_coverages or s.coverage == 1.0) and not s.method.startswith("oracle")
    ]
    for bank in banks_of(priors):
        seeds = [s for s in rows if s.method == "static_affine" and s.priors == bank and s.coverage == 1.0]
        whole = bank == tuple(priors)
        wanted = only if whole else [m for m in only if m.endswith(":image")]
        slow = SLOW if profile == "smoke" else ()
        simple = (*SIMPLE, *SUPERVISED) if whole else ("csnet", "heldout", "lora", "finetuned")
        for method in (*simple, *CONTROLS, *OURS, *wanted):
            if not method.endswith(slow) and possible(method, bank) and (whole or method != "unrolled"):
                rows += [under(s, method, profile) for s in seeds]
    few = [s for s in rows if s.method == "static_affine" and s.coverage < 1]
    return _sized([*rows, *(under(s, method, profile) for s in few for method in PARTIAL)], profile)


ANALYSED = ("a:image", "a:pixel", "b:image", "c:image", "closed_form")


def weight_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """Chapter 08: the strategies whose weights are looked into, with the whole bank at full coverage, every prior by
    itself, and both these and the average on uncalibrated data."""
    kinds = [m for m in ANALYSED if profile != "smoke" or not m.endswith(SLOW)]
    only = [m for m in kinds if m != "closed_form"]
    weighed = [s for s in strategy_specs(profile, priors, only=only, sky=sky) if s.method in kinds]
    weighed = [s for s in weighed if s.priors == tuple(priors) and s.coverage == 1.0]
    weighed += [
        s for s in baseline_specs(profile, priors, sky=sky) if s.method.startswith("single:") and s.coverage == 1.0
    ]
    plain = [name for name, _ in methods(tuple(priors)) if name != "rml"]
    return weighed + [s for s in closure_specs(profile, priors) if s.method in plain and not s.family]


RESOLVED = (
    *(f"a:{side}" for side in ("image", "16", "8", "4", "pixel")),
    *(f"{kind}:{side}" for kind in ("b", "c") for side in ("image", "8")),
    *(f"closed_form:{side}" for side in ("image", "16", "8", "4", "coarse")),
    *("closed_form", "b_separate:8"),
)
CHOSEN = ("expert:8/16", *(f"closed_expert:8/{l}" for l in (4, 16, 32)))
COST_PRUNED = ("cost_pruned:0.0003", "cost_pruned:0.001", "cost_pruned:0.003", "cost_pruned:0.01")
NUCLEI = ("top_p:image/0.5", "top_p:image/0.7", "top_p:image/0.9")
FAR = ("closed_form:image", "closed_form:8", "closed_form", "closed_form:coarse", "a:image", "a:pixel", COST_PRUNED[1])
FEW = ("closed_form:image", "closed_form:8", "closed_form", "a:image", "a:pixel")
IN_LOCAL = ("average", "static_affine", "closed_form", "expert:16/2", "expert:16/4")


def patch_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """Chapter 06: strategies at every resolution, who chooses, what is skipped; some with the bank less the torus, some
    at the least coverage, and with the bank `local` those that compute by patch."""
    p = profile_of(profile)
    banks = [*banks_of(priors), BANKS["local"]]
    rows: list[Spec] = []
    for k, bank in enumerate(banks):
        base = [s for s in baseline_specs(profile, bank, sky=sky) if s.method.startswith("single:")]
        most = max(s.n_test for s in base)
        if profile == "quick":  # six images are too few for differences within a strategy
            base = [replace(s, n_test=most) for s in base]
        local = k == len(banks) - 1
        least = min(p.coverages)
        rows += [s for s in base if s.coverage == 1.0 or (s.coverage == least and k == 0 and profile != "smoke")]
        for coverage in (1.0, least):
            like = next(s for s in base if s.coverage == coverage)
            everything = (*RESOLVED, *CHOSEN, *COST_PRUNED, *NUCLEI, "static_affine")
            wanted = IN_LOCAL if local else everything if k == 0 else FAR
            wanted = wanted if coverage == 1.0 else FEW if k == 0 else ()
            if profile == "smoke":
                wanted = tuple(m for m in wanted if m in SMOKE_PATCHES) if coverage == 1.0 else ()
            if set(bank) == {"identity"}:
                wanted = ()
            rows += [under(like, method, profile, bank) for method in wanted]
    return _sized(rows, profile)


SMOKE_PATCHES = (
    "closed_form:image",
    "closed_form",
    "a:image",
    "closed_expert:8/16",
    "cost_pruned:0.001",
    "expert:16/2",
)


def banks_of(priors: Sequence[str]) -> list[tuple[str, ...]]:
    """A bank, and what is left of it without the torus, the near-domain prior."""
    bank = tuple(priors)
    far = tuple(name for name in bank if name != "torus")
    return [bank, far] if 1 < len(far) < len(bank) else [bank]


UNCALIBRATED = ("static_affine", "closed_form", "a:image", "b:image", "c:image")


def closure_specs(profile: str, priors: Sequence[str] = BANKS["main"], **_: Any) -> list[Spec]:
    """Chapter 10: the same methods on uncalibrated data: black holes, then objects of each family of the profile; and
    the strategies, fitted on such data, with one setting of the loop."""
    p = profile_of(profile)
    n_train, n_test, n_family = p.closures
    fused = [m for m in UNCALIBRATED if profile != "smoke" or m == "static_affine"] if len(priors) > 1 else []
    return [
        Spec(
            method,
            members,
            1.0,
            n_train,
            n_family if family else n_test,
            p.split,
            regime="uncalibrated",
            steps=p.steps[kind],
            grid=p.grid["rml_closures" if method == "rml" else "fitted_closures" if method in fused else kind],
            family=family,
        )
        for method, members in [*methods(tuple(priors)), *((m, tuple(priors)) for m in fused)]
        for kind in ("rml" if method == "rml" else "closures",)
        for family in ("", *p.families)
    ]
