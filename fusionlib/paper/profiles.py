"""How big a run is."""

from dataclasses import dataclass

from fusionlib.paper.spec import HQS_GRID, RML_GRID, Grid
from fusionlib.sky import FAMILIES


@dataclass(frozen=True)
class Profile:
    """Sizes of a run. `smoke` is for tests, `quick` for readers on two cores, `paper` for the numbers of the paper;
    `wide` gives chapter 03 more labels and images than `quick`, with one setting of the loop for all.

    `n_test` images score the rows of the headline, `n_other` all others, `n_partial` all at partial coverage;
    `headroom` are the coverages of chapter 01. `closures` are the numbers of training and test images, and of objects
    of each of the `families`, seen uncalibrated. `shift`: images of a cell of chapter 11, of each of the twenty
    conditions of its headline, and how many cells; `sweep`: numbers of labels and seeds of some of its rows.
    """

    split: str
    n_train: int
    n_test: int
    seeds: tuple[int, ...]
    coverages: tuple[float, ...]
    n_show: int
    steps: dict[str, int]
    grid: dict[str, Grid]
    closures: tuple[int, int, int]
    n_other: int
    n_partial: int
    headroom: tuple[float, ...]
    families: tuple[str, ...]
    shift: tuple[int, int, int] = (0, 0, 0)
    sweep: tuple[tuple[int, int], ...] = ()


STEPS = {"hqs": 16, "closures": 30, "rml": 300}
ONE: Grid = (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.1,)))
GRID = {
    "hqs": HQS_GRID,
    "closures": (("sigma_max", (0.15, 0.3)), ("sigma_min", (0.01, 0.02)), ("lam", (0.1, 0.3, 1.0))),
    "rml": RML_GRID,
    "fitted": (("sigma_max", (0.1, 0.2)), ("sigma_min", (0.02,)), ("lam", (0.1, 0.3))),
    "started": (("sigma_max", (0.05, 0.1, 0.2)), ("sigma_min", (0.02,)), ("lam", (0.1,))),
    "learned": ONE,
    # steps of training; tab07_training has others: the U-Net and the denoiser would gain from more with many labels
    "unet": (("steps", (4000.0,)),),
    "unet_mixed": (("steps", (12000.0,)),),
    "network": (*ONE, ("steps", (4000.0,))),
    "denoiser": (*ONE, ("steps", (9600.0,))),
    "finetuned": (*ONE, ("steps", (200.0,))),
    "fitted_closures": (("sigma_max", (0.15,)), ("sigma_min", (0.01,)), ("lam", (0.3,))),
    "rml_closures": (("entropy", (1.0, 3.0, 10.0)), ("tv", (0.0,)), ("tsv", (10.0, 30.0)), ("l1", (0.0, 3.0))),
}
PROFILES = {
    "smoke": Profile(
        "dev",
        3,
        3,
        (0,),
        (1.0, 0.1),
        2,
        {"hqs": 3, "closures": 3, "rml": 10},
        {
            "hqs": (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.1, 0.3))),
            "closures": (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.3,))),
            "rml": (("entropy", (10.0,)), ("tv", (0.0,)), ("tsv", (30.0,)), ("l1", (0.0, 30.0))),
            "fitted": (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.3,))),
            "learned": (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.3,))),
            "started": (("sigma_max", (0.1,)), ("sigma_min", (0.02,)), ("lam", (0.3,))),
            "unet": (("steps", (4.0,)),),
            "unet_mixed": (("steps", (6.0,)),),
            "network": (*ONE, ("steps", (4.0,))),
            "denoiser": (*ONE, ("steps", (4.0,))),
            "finetuned": (*ONE, ("steps", (4.0,))),
            "fitted_closures": (("sigma_max", (0.2,)), ("sigma_min", (0.02,)), ("lam", (0.3,))),
            "rml_closures": (("entropy", (3.0,)), ("tv", (0.0,)), ("tsv", (10.0,)), ("l1", (3.0,))),
        },
        (1, 2, 2),
        3,
        3,
        (1.0,),
        ("disc", "double"),
        (2, 0, 2),
    ),
    "quick": Profile(
        "dev",
        12,
        32,
        (0,),
        (1.0, 0.3, 0.1),
        2,
        STEPS,
        GRID,
        (8, 16, 50),
        32,
        6,
        (1.0, 0.3, 0.1),
        ("disc", "double"),
        (6, 0, 4),
    ),
    "wide": Profile(
        "dev",
        300,
        200,
        (0,),
        (1.0,),
        2,
        STEPS,
        {
            **dict.fromkeys(("hqs", "fitted", "learned"), GRID["learned"]),
            "rml": (("entropy", (10.0,)), ("tv", (0.0,)), ("tsv", (30.0,)), ("l1", (30.0,))),
            **{name: GRID[name] for name in ("unet", "network", "denoiser", "finetuned")},
        },
        (0, 0, 0),
        200,
        0,
        (1.0,),
        (),
    ),
    "paper": Profile(
        "test",
        100,
        1000,
        (0, 1, 2),
        (1.0, 0.3, 0.1),
        3,
        STEPS,
        GRID,
        (16, 100, 100),
        200,
        60,
        (1.0, 0.3, 0.1),
        tuple(FAMILIES),
        (50, 50, 27),
        ((100, 1), (100, 2), (10, 0), (30, 0), (300, 0), (1000, 0)),
    ),
}


def profile_of(name: str) -> Profile:
    if name not in PROFILES:
        raise ValueError(f"profile must be one of {sorted(PROFILES)}, got {name!r}")
    return PROFILES[name]
