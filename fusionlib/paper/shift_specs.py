"""Which experiments chapter 11 needs: every row under every condition, in a profile, with a bank."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fusionlib import sky as skies
from fusionlib.paper import conditions
from fusionlib.paper.conditions import Condition
from fusionlib.paper.methods import entry
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import ORACLES, baseline_specs, under
from fusionlib.priors import BANKS

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
    fitted to mixed conditions; that with the network so trained, and that trained at home, among the priors; and, as a
    ceiling, the network with more labels than anybody has."""
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
    if profile == "smoke":
        return [s for s in rows if s.method.startswith(SMOKE_SHIFT)]
    return rows + [replace(s, n_train=skies.MANY) for s in rows if s.method == "unet" and s.fit]


def safe(profile: str, priors: Sequence[str] = BANKS["main"]) -> Spec:
    """The safe rule, at home."""
    method, networks = SAFE
    return next(s for s in shift_rows(profile, priors) if s.method == method and len(s.networks) == networks)


def choice_specs(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11, on development images: the closed form by how it sees data residuals, on each simulated family, left
    out of the fit with those like it; networks by steps and shape, and votes by the weight of diversity, on the sky and
    these families."""
    n = min(profile_of(profile).shift[0], 24)
    rows = [replace(s, split="dev", n_test=n) for s in shift_rows(profile, priors) if s.fit]
    gate, network = (next(s for s in rows if s.method == method) for method in ("closed_residuals", "unet"))
    (many,) = dict(network.grid)["steps"]
    few = many // 3
    families = conditions.SIMULATED if profile != "smoke" else conditions.SIMULATED[:1]
    left = {f: f"mixed less {conditions.ALIKE[conditions.group_of(f)][0]}" for f in families}
    gates = [replace(gate, method=m, fit=left[f], family=f) for m in GATES for f in families]
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


CALIBRATED = ("single:torus", "average", "static_affine", "closed_form", "closed_union", *ESSAY, "unet")


def calibrating_specs(profile: str, priors: Sequence[str] = BANKS["main"], **_: Any) -> list[Spec]:
    """Chapter 10: rows of chapter 11, fitted to calibrated data, on uncalibrated ones in rounds of self-calibration;
    the sky, then each family of objects of the profile."""
    p = profile_of(profile)
    rows = [s for s in shift_rows(profile, priors) if s.n_train != skies.MANY]
    rows = [s for s in rows if (not s.fit and s.method in CALIBRATED) or (s.fit and s.method in (SAFE[0], "unet"))]
    alike = [replace(s, regime="self-calibrated") for s in rows]
    sky = [replace(s, n_test=p.n_other) for s in alike]
    return sky + [replace(s, family=f) for s in alike for f in p.families]


GATES = ("closed_form", "closed_residuals_plain", "closed_residuals")
DIVERSITY = ("c_plain:pixel", "c_weak:pixel", "c:pixel", "c_strong:pixel")  # its weight 0, 1e-5, 1e-4, 1e-3
SMOKE_SHIFT = ("single", "average", "ceiling", "oracle:8", "unet", "closed_residuals", "switched")


def shift_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, objects: str = "", **_: Any) -> list[Spec]:
    """Chapter 11: every row in every cell of the map, then the headline set; `objects`, a folder of images, is one more
    cell."""
    p, rows = profile_of(profile), shift_rows(profile, priors)
    n_mixed, count = p.shift[1:]
    n_own = min(p.shift[0], len(skies.from_folder(objects).image)) if objects else 0
    cells = conditions.CONDITIONS[:count]
    specs = [replace(s, **cell._asdict()) for cell in cells for s in rows]
    specs += [replace(s, family=objects, n_test=n_own) for s in rows if objects]
    drawn = [Condition(*pair)._asdict() for pair in (conditions.MIXED if n_mixed else ())]
    specs += [replace(s, n_test=n_mixed, **cell) for s in rows for cell in drawn]
    for s in swept_rows(profile, priors):
        specs.append(s)
        specs += [replace(s, n_test=n_mixed, **cell) for cell in drawn]
    return list(dict.fromkeys(specs))


def is_swept(s: Spec) -> bool:
    """Whether a row is there with other numbers of labels, too."""
    return (s.method, s.fit, len(s.networks)) in SWEPT and s.n_train != skies.MANY


def swept_rows(profile: str, priors: Sequence[str] = BANKS["main"]) -> list[Spec]:
    """Chapter 11: rows with other numbers of labels, and other seeds, at home."""
    rows = filter(is_swept, shift_rows(profile, priors))
    return [replace(s, n_train=n, seed=seed) for s in rows for n, seed in profile_of(profile).sweep]
