"""Chapter 07: one thing changed at a time, each beside what it is changed from, on the same images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from fusionlib.paper.methods import entry
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import SUPERVISED, banks_of, baseline_specs, of_headline, under
from fusionlib.paper.studies.ablation_list import ABLATIONS, Ablation, Arm
from fusionlib.paper.tables import bank_name, best_of, compared, difference, image_psnr
from fusionlib.priors import BANKS

SHOTS = {0: "A2 meta, no labels", 1: "A2 meta, 1 label", 5: "A2 meta, 5 labels", 10: "A2 meta, 10 labels"}
ADAPTED = {"joint training": "a_joint:image", "MAML": "a_maml:image", "from nothing": "a:image"}
ZERO = {"joint training": "a_joint_zero:image", "MAML": "a_maml_zero:image"}
LABELS = (
    "static_affine",
    "closed_form",
    "closed_augmented",
    "closed_union",
    "closed_single",
    "closed_levels",
    "denoiser",
    "finetuned",
    "unet",
)
NUMBERED = ("average", "a:image", "closed_form")
ORDERS = {"nearest last": 1, "nearest first": -1}  # steps through the bank, whose own order ends at what is near
ESSAY = ("a:image", "b:image", "c:image")  # the essay's strategies as it has them
TRAINING = {  # steps
    "unet": (1000.0, 4000.0, 16000.0),
    "denoiser": (600.0, 2400.0, 9600.0),
    "finetuned": (200.0, 800.0, 3200.0),
}
SMOKE = ("A1 head", "unseen prior", "harmful prior, average")


def bank_of(arm: Arm, priors: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in priors if name != arm.without) + ((arm.with_,) if arm.with_ else ())


def ablations(profile: str, priors: Sequence[str]) -> list[Ablation]:
    """Those that there are priors for."""
    some = [a for a in ABLATIONS if profile != "smoke" or a.name in SMOKE]
    return [a for a in some if all(not arm.without or arm.without in priors for arm in a.arms)]


def reference_specs(profile: str, priors: Sequence[str], sky: str) -> tuple[Spec, ...]:
    """An experiment per seed with the whole bank at full coverage."""
    alone = [s for s in baseline_specs(profile, priors, sky=sky) if s.method == f"single:{priors[0]}"]
    return tuple(replace(s, priors=tuple(priors)) for s in alone if s.coverage == 1.0)


def like(s: Spec, profile: str, method: str, priors: tuple[str, ...], **changes: Any) -> Spec:
    """An experiment of `reference_specs` with another method. One of the headline is that of the chapters before, with
    all images of the profile; of a difference those images count that both sides have."""
    p = profile_of(profile)
    new = replace(under(s, method, profile, priors), **changes)
    return new if not changes and _shared(new, s) else replace(new, n_test=min(s.n_test, p.n_other))


def _shared(new: Spec, reference: Spec) -> bool:
    """Whether an experiment is one of the headline, with a bank of the chapters before."""
    return of_headline(new) and (len(new.priors) < 2 or new.priors in banks_of(reference.priors))


def arm_specs(profile: str, priors: Sequence[str], arm: Arm, sky: str = "") -> list[Spec]:
    """An experiment per seed, if it is of the headline, else of the first seed."""
    first, *others = reference_specs(profile, priors, sky)
    first_seed = like(first, profile, arm.method, bank_of(arm, priors))
    return [first_seed, *(replace(first_seed, seed=s.seed) for s in others if _shared(first_seed, first))]


def single_specs(profile: str, priors: Sequence[str], name: str, sky: str = "") -> list[Spec]:
    """The prior `name` by itself, all seeds."""
    return [like(s, profile, f"single:{name}", (name,)) for s in reference_specs(profile, priors, sky)]


def shot_specs(profile: str, priors: Sequence[str], sky: str = "") -> dict[tuple[str, int], list[Spec]]:
    """(training, labels): at the least coverage, which like black holes is none of the conditions of the training."""
    p = profile_of(profile)
    specs = {}
    for n in SHOTS if profile != "smoke" else ():
        for training, method in (ADAPTED if n else ZERO).items():
            specs[training, n] = [
                like(s, profile, method, tuple(priors), coverage=min(p.coverages), n_train=max(n, 1))
                for s in reference_specs(profile, priors, sky)[:1]
            ]
    return specs


def label_specs(profile: str, priors: Sequence[str], sky: str = "") -> list[Spec]:
    """The methods of LABELS with more and more labels, one setting of the loop for all, in every bank; first seed."""
    numbers = {"smoke": (), "quick": (4, 12, 40, 120), "paper": (10, 30, 100, 300, 1000)}[profile]
    compared = (*LABELS, *(ESSAY if profile == "paper" else ()))
    one = profile_of("wide").grid["learned"]
    rows = []
    for bank in banks_of(priors):
        s = replace(reference_specs(profile, priors, sky)[0], priors=bank)
        rows += [
            like(s, profile, method, bank, n_train=n, **({} if method in SUPERVISED else {"grid": one}))
            for n in numbers
            for method in compared
            if method != "unet" or n >= 10  # with fewer it overfits
        ]
        rows += [
            replace(s, method=f"single:{name}", priors=(name,), n_train=numbers[0], grid=one)
            for name in bank
            if numbers
        ]
    return list(dict.fromkeys(rows))


def training_specs(profile: str, priors: Sequence[str], sky: str = "") -> list[Spec]:
    """The networks trained on labels, for more and more steps, on development images; paper profile, first seed."""
    s = reference_specs(profile, priors, sky)[0]
    return [
        replace(like(s, profile, method, tuple(priors), n_train=n), split="dev", grid=(*grid, ("steps", (steps,))))
        for method, numbers in (TRAINING if profile == "paper" else {}).items()
        for grid in (tuple(part for part in profile_of(profile).grid[method] if part[0] != "steps"),)
        for n in (10, 100, 1000)
        for steps in numbers
    ]


def leave_specs(profile: str, priors: Sequence[str], sky: str = "") -> dict[str, list[Spec]]:
    """The closed form with the whole bank (""), and without each prior."""
    if profile == "smoke":
        return {}
    return {name: arm_specs(profile, priors, Arm("", "closed_form", name), sky) for name in ("", *priors)}


def number_specs(profile: str, priors: Sequence[str], sky: str = "") -> dict[tuple[str, str, int], list[Spec]]:
    """(order, method, number of priors): the bank growing prior by prior, one setting of the loop for all; paper
    profile, first seed."""
    s, grid = reference_specs(profile, priors, sky)[0], profile_of("wide").grid["learned"]
    specs = {}
    for order, step in ORDERS.items():
        for method in NUMBERED if profile == "paper" else ():
            for n in range(1, len(priors) + 1):
                bank = tuple(name for name in priors if name in priors[::step][:n])
                asked = method if n > 1 else f"single:{bank[0]}"
                specs[order, method, n] = [like(s, profile, asked, bank, grid=grid)]
    return specs


def ablation_specs(profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", **_: Any) -> list[Spec]:
    """All experiments of chapter 07."""
    rows = [s for a in ablations(profile, priors) for arm in a.arms for s in arm_specs(profile, priors, arm, sky)]
    rows += [s for group in shot_specs(profile, priors, sky).values() for s in group]
    rows += [*label_specs(profile, priors, sky), *training_specs(profile, priors, sky)]
    rows += [s for group in leave_specs(profile, priors, sky).values() for s in group]
    rows += [s for group in number_specs(profile, priors, sky).values() for s in group]
    return list(dict.fromkeys(rows))


def ablation_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """ablation, arm, method, bank, n_train, seeds, n_test, psnr, and the paired difference to the first arm, of the
    seeds and images that all arms have."""
    rows = []
    for a in ablations(profile, priors):
        specs = {arm: arm_specs(profile, priors, arm, sky) for arm in a.arms}
        all_psnr = [image_psnr(of_arm) for of_arm in specs.values()]
        seeds, images = min(len(p) for p in all_psnr), min(p.shape[1] for p in all_psnr)
        common = [p[:seeds, :images] for p in all_psnr]
        for (arm, (s, *_)), psnr in zip(specs.items(), common, strict=True):
            own = (a.name, arm.label, arm.method, bank_name(s.priors), s.n_train, seeds, images, psnr.mean())
            rows.append((own, psnr - common[0]))
    return compared(rows, ["ablation", "arm", "method", "bank", "n_train", "seeds", "n_test", "psnr"])


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """ablation, asks, verdict: a sentence per ablation."""
    asks = {a.name: a.asks for a in ABLATIONS} | dict.fromkeys(SHOTS.values(), "Does meta-learning help strategy A?")
    rows = []
    for name, part in table.groupby("ablation", sort=False):
        first = part.iloc[0]
        told = [
            f"{r['arm']}: {r['verdict']}, {r['effect']:+.2f} dB ({r['lo']:+.2f} to {r['hi']:+.2f})"
            for r in part.iloc[1:].to_dict("records")
        ]
        rows.append((name, asks[str(name)], f"Against {first.arm} ({first.psnr:.2f} dB), {'; '.join(told)}."))
    return pd.DataFrame(rows, columns=["ablation", "asks", "verdict"])


def shot_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """ablation, arm (how strategy A was trained), labels, psnr, and the paired difference to joint training, adapted
    to as many labels."""
    by_training = shot_specs(profile, priors, sky)
    rows = [
        ((SHOTS[n], training, n, image_psnr(specs).mean()), difference(specs, by_training["joint training", n]))
        for (training, n), specs in by_training.items()
    ]
    return compared(rows, ["ablation", "arm", "labels", "psnr"])


def label_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """bank, method, n_train, psnr, and the gain over the single prior that is best on the labels."""
    specs, rows = label_specs(profile, priors, sky), []
    for bank in banks_of(priors) if specs else ():
        singles = [s for s in specs if s.method.startswith("single:") and s.priors[0] in bank]
        best = best_of(singles)
        for s in specs:
            if s.priors == bank or entry(s.method).priors == "none":
                own = (bank_name(bank), s.method, s.n_train, image_psnr([s]).mean())
                rows.append((own, difference([s], best)))
    return compared(rows, ["bank", "method", "n_train", "psnr"])


def training_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """method, n_train, steps, psnr: of the networks trained on labels, on development images."""
    rows = [
        (s.method, s.n_train, int(dict(s.grid)["steps"][0]), image_psnr([s]).mean())
        for s in training_specs(profile, priors, sky)
    ]
    return pd.DataFrame(rows, columns=["method", "n_train", "steps", "psnr"])


def number_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """order, method, number (of priors), added (the last of them), psnr, and what it adds: the paired difference to
    the bank without it; none for the first."""
    by_number, rows = number_specs(profile, priors, sky), []
    for (order, method, n), specs in by_number.items():
        own = (order, method, n, priors[:: ORDERS[order]][n - 1], image_psnr(specs).mean())
        rows.append((own, difference(specs, by_number[order, method, n - 1]) if n > 1 else None))
    return compared(rows, ["order", "method", "number", "added", "psnr"])


def leave_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """prior, and the paired difference of the closed form with the whole bank to that without this prior."""
    by_prior = leave_specs(profile, priors, sky)
    rows = [((name,), difference(by_prior[""], specs)) for name, specs in by_prior.items() if name]
    return compared(rows, ["prior"])
