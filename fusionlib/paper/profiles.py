"""How big a run is (profiles), what the chapters are, and which experiments each needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fusionlib import sky as skies
from fusionlib.paper.experiment import BANKS, Spec


@dataclass(frozen=True)
class Profile:
    """Sizes of a run. `smoke` is for tests, `quick` for readers on two cores, `paper` for the numbers of the paper."""

    split: str
    n_train: int
    n_test: int
    seeds: tuple[int, ...]
    coverages: tuple[float, ...]
    n_show: int
    grid: dict[str, Any]


PROFILES = {
    "smoke": Profile(
        "dev", 3, 3, (0,), (1.0, 0.1), 2, {"steps": 3, "sigma_max": (0.2,), "sigma_min": (0.02,), "lam": (0.1, 0.3)}
    ),
    "quick": Profile("dev", 16, 32, (0,), (1.0, 0.3, 0.1), 3, {}),
    "paper": Profile(
        "test",
        50,
        1000,
        (0, 1, 2),
        (1.0, 0.3, 0.1),
        3,
        {"steps": 20, "sigma_max": (0.1, 0.2, 0.4), "sigma_min": (0.01, 0.02, 0.04), "lam": (0.03, 0.1, 0.3, 1.0, 3.0)},
    ),
}
N_PARTIAL = 200  # test images of the paper profile at partial coverage


def profile_of(name: str) -> Profile:
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {sorted(PROFILES)}, got {name!r}")
    return PROFILES[name]


def baseline_specs(
    profile: str, priors: Sequence[str] = BANKS["main"], *, sky: str = "", observation: str = ""
) -> list[Spec]:
    """Chapter 02: every prior alone and their average, at every coverage and seed of the profile."""
    p, bank = profile_of(profile), tuple(priors)
    have = skies.split_sizes(len(skies.from_folder(sky).image) if sky else None)
    n_train, n_test = min(p.n_train, have["train"]), min(p.n_test, have[p.split])
    if min(n_train, n_test) < 1:
        raise ValueError(
            f"sky: {sky} has too few images; 10 are the least, {p.n_test} {p.split} images are used if there"
        )
    methods = [(f"single:{name}", (name,)) for name in bank] + ([("average", bank)] if len(bank) > 1 else [])
    return [
        Spec(
            method,
            members,
            coverage,
            n_train,
            n_test if coverage == 1.0 else min(n_test, N_PARTIAL),
            p.split,
            seed,
            sky=sky,
            observation=observation,
            **p.grid,
        )
        for coverage in ((1.0,) if observation else p.coverages)
        for method, members in methods
        for seed in p.seeds
    ]


@dataclass(frozen=True)
class Chapter:
    """A notebook: its name, the experiments it reads, and its time budget by profile [seconds], jobs included."""

    name: str
    specs: Callable[..., list[Spec]]
    budget: dict[str, int]


def _none(profile: str, priors: Sequence[str] = (), **_: Any) -> list[Spec]:
    return []


CHAPTERS = [
    Chapter("00_sky_and_observation", _none, {"smoke": 30, "quick": 60, "paper": 120}),
    Chapter("02_baselines", baseline_specs, {"smoke": 60, "quick": 300, "paper": 7200}),
]
