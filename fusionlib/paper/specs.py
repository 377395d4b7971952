"""Which experiments each chapter needs, in a profile, with a bank."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fusionlib import sky as skies
from fusionlib.paper import conditions
from fusionlib.paper.conditions import Condition
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


ESSAY = ("a:image", "b:image", "c:image")  # the strategies as written
HOME = ("static_affine", "closed_form", "closed_union", *ESSAY, "unet")
BEYOND = (
    "closed_residuals",
    "static_simplex",
    "closed_form:image",
    "a:pixel",
    "b:pixel",
    "b_joint:pixel",
    "b_joint_meta:pixel",
    "c:pixel",
    "mgpf:image",
    "gradient:pixel",
)
EXPERT = ("closed_residuals", "static_affine", "a:pixel", "c:pixel", "started", "switched", "stacked")
SWEPT = (  # method, fit, and how many networks are among the priors
    *(("single:torus", "", 0), ("average", "", 0), ("closed_form", "", 0), ("unet", "", 0), ("unet", "mixed", 0)),
    *(("closed_residuals", "mixed", k) for k in (0, 1, 2)),
)
SAFE = ("closed_residuals", 1)  # the rule to be used everywhere: a method, and how many networks are among its priors


def shift_rows(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11: the rows, as experiments at home: what learns nothing; what is fitted to labels as they are; what is
    fitted to mixed conditions; and that with the network so trained, and that trained at home, among the priors."""
    fits, bank = "paper" if profile == "quick" else profile, tuple(priors)
    p = profile_of(fits)  # a reader's map rests on the fits of the paper
    split, n_cell = profile_of(profile).split, profile_of(profile).shift[0]
    likes = [
        replace(s, split=split, n_test=n_cell)
        for s in baseline_specs(fits, bank)
        if s.coverage == 1.0 and s.seed == p.seeds[0]
    ]
    like = likes[0]
    home, network = (f"unet:{dict(p.grid[kind])['steps'][0]:.0f}" for kind in ("unet", "unet_mixed"))
    mixed = replace(like, fit="mixed")
    rows = [*likes, replace(like, method="ceiling", priors=())]
    rows += [under(like, m, fits, bank) for m in (*HOME, *ORACLES)]
    learning = [(m, bank) for m in (*HOME, *BEYOND)] + [(m, (*bank, network)) for m in EXPERT]
    for m, priors in (*learning, ("closed_residuals", (*bank, network, f"{home}/home"))):
        s, grids = under(mixed, m, fits, priors), {"fitted": "learned", "unet": "unet_mixed"}  # one setting for all
        rows.append(replace(s, grid=p.grid[grids.get(entry(m).grid, entry(m).grid)]))
    return [s for s in rows if profile != "smoke" or s.method.startswith(SMOKE_SHIFT)]


def safe(profile: str, priors: Sequence[str] = BANKS["main"]) -> Spec:
    """The safe rule, at home."""
    method, networks = SAFE
    return next(s for s in shift_rows(profile, priors) if s.method == method and len(s.networks) == networks)


def choice_specs(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11, on development images: the closed form by how it sees data residuals, on each simulated family, left
    out of the fit; networks by steps and shape, and votes by the weight of diversity, on the sky and these families."""
    n = min(profile_of(profile).shift[0], 24)
    rows = [replace(s, split="dev", n_test=n) for s in shift_rows(profile, priors) if s.fit]
    gate, network = (next(s for s in rows if s.method == method) for method in ("closed_residuals", "unet"))
    (many,) = dict(network.grid)["steps"]
    few = many // 3
    families = conditions.SIMULATED if profile != "smoke" else conditions.SIMULATED[:1]
    gates = [replace(gate, method=m, fit=f"mixed less {f}", family=f) for m in GATES for f in families]
    shapes = [("unet", few), ("unet", many), ("unet:beam", few), ("unet:wide", few)]
    nets = [replace(network, method=m, grid=(("steps", (float(k),)),)) for m, k in shapes]
    votes = [replace(gate, method=m) for m in DIVERSITY] if profile != "smoke" else []
    return gates + [replace(s, family=f) for s in (*nets, *votes) for f in ("", *families)]


def picking_specs(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11: what picking among the priors could win on the headline set, on development images of it."""
    p = profile_of(profile)
    plain = [s for s in shift_rows(profile, priors) if s.method.startswith(("single", "average", "oracle"))]
    drawn = [Condition(*pair)._asdict() for pair in conditions.MIXED[: None if p.shift[1] else 2]]
    return [replace(s, split="dev", n_test=min(p.shift[0], 12), **cell) for cell in drawn for s in plain]


GATES = ("closed_form", "closed_residuals_plain", "closed_residuals")
DIVERSITY = ("c_plain:pixel", "c_weak:pixel", "c:pixel", "c_strong:pixel")  # its weight 0, 1e-5, 1e-4, 1e-3
SMOKE_SHIFT = ("single", "average", "ceiling", "oracle:8", "unet", "closed_residuals", "switched")


def shift_specs(profile: str, priors: Sequence[str] = BANKS["main"], **_: Any) -> list[Spec]:
    """Chapter 11: every row in every cell of the map, then the headline set."""
    p, rows = profile_of(profile), shift_rows(profile, priors)
    n_mixed, count = p.shift[1:]
    cells = conditions.CONDITIONS[:count]
    specs = [replace(s, **cell._asdict()) for cell in cells for s in rows]
    drawn = [Condition(*pair)._asdict() for pair in (conditions.MIXED if n_mixed else ())]
    specs += [replace(s, n_test=n_mixed, **cell) for s in rows for cell in drawn]
    for s in swept_rows(profile, priors):
        specs.append(s)
        specs += [replace(s, n_test=n_mixed, **cell) for cell in drawn]
    return list(dict.fromkeys(specs))


def is_swept(s: Spec) -> bool:
    return (s.method, s.fit, len(s.networks)) in SWEPT


def swept_rows(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11: rows with other numbers of labels, and other seeds, at home."""
    rows = filter(is_swept, shift_rows(profile, priors))
    return [replace(s, n_train=n, seed=seed) for s in rows for n, seed in profile_of(profile).sweep]
