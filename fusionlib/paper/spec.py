"""What an experiment is, and how its record is named."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

from fusionlib import files, selfcal
from fusionlib.interferometer import COVERAGE
from fusionlib.paper import conditions, methods
from fusionlib.paper.methods.method import is_network
from fusionlib.priors import zoo

CLOSURES = ("chi2_cphase", "chi2_logcamp")
CHI2 = {"calibrated": ("chi2_vis",), "uncalibrated": CLOSURES, "self-calibrated": CLOSURES}
Grid = tuple[tuple[str, tuple[float, ...]], ...]
HQS_GRID: Grid = (("sigma_max", (0.1, 0.2, 0.4)), ("sigma_min", (0.01, 0.02)), ("lam", (0.03, 0.1, 0.3, 1.0)))
RML_GRID: Grid = (("entropy", (0.0, 10.0, 30.0)), ("tv", (0.0, 10.0)), ("tsv", (30.0, 100.0)), ("l1", (10.0, 30.0)))


@dataclass(frozen=True)
class Spec:
    """What is computed. A record is named by the fields that are not at their defaults, the versions of the method, of
    the priors and of `files.PIPELINE`, and the content of the files given here.

    `method` is one of `methods`, with the bank `priors`; `n_train` labels fit it and tune its settings over `grid`;
    `n_test` images of `split` are scored, black holes, or of a `family` of objects or a folder of images. `regime` is
    `calibrated`, `uncalibrated` (closures, amplitudes with gain errors, flux), or `self-calibrated`: the same data in
    rounds of calibration, by what was fitted to calibrated ones. `array` names another instrument of `conditions` that
    the test images are seen with, `replaced` what is put in the place of a prior after the fit; `fit` is "" for labels
    as the packaged array sees them, `mixed`: through arrays drawn anew, and with simulated objects beside them, or
    `mixed less ring`: without those of a group. `sky` is a folder of images instead of the simulator, `observation` a
    UVFITS or CSV file instead of the packaged 2017 coverage. With n_test = 0 it stands for the tuning
    alone.
    """

    method: str
    priors: tuple[str, ...]
    coverage: float
    n_train: int
    n_test: int
    split: str
    seed: int = 0
    regime: str = "calibrated"
    steps: int = 16
    grid: Grid = HQS_GRID
    family: str = ""
    sky: str = ""
    observation: str = ""
    array: str = ""
    fit: str = ""
    replaced: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "coverage", float(self.coverage))  # 1 and 1.0 are one name
        object.__setattr__(self, "grid", tuple((name, tuple(map(float, values))) for name, values in self.grid))
        wanted = set(methods.entry(self.method).settings)
        kind, _, name = self.method.partition(":")
        if kind == "single" and name not in self.priors:
            raise ValueError(f"Spec: {self.method!r} is not among the priors {self.priors}")
        if self.regime not in CHI2:
            raise ValueError(f"Spec: regime must be one of {sorted(CHI2)}, got {self.regime!r}")
        if self.coverage not in COVERAGE:
            raise ValueError(f"Spec: coverage must be one of {sorted(COVERAGE)}, got {self.coverage}")
        if self.family and self.family not in conditions.OBJECTS and not Path(self.family).is_dir():
            known = sorted(conditions.OBJECTS)
            raise ValueError(f"Spec: family must be one of {known}, or a folder of images, got {self.family!r}")
        if self.array and (self.array not in conditions.ARRAYS or self.coverage != 1.0):
            raise ValueError(
                f"Spec: array must be one of {sorted(conditions.ARRAYS)} at coverage 1, got {self.array!r}"
            )
        if self.array and self.observation:
            raise ValueError("Spec: array and observation are two instruments; give one of them")
        if self.replaced not in conditions.REPLACED:
            raise ValueError(f"Spec: replaced must be one of {sorted(conditions.REPLACED)}, got {self.replaced!r}")
        if self.fit not in conditions.FITS or (self.fit and self.regime == "uncalibrated"):
            raise ValueError(f"Spec: fit must be one of {conditions.FITS}, on calibrated data, got {self.fit!r}")
        if self.networks and self.n_train < 2:
            raise ValueError(f"Spec: n_train: a network judged by labels it has not seen needs two, got {self.n_train}")
        if {name for name, _ in self.grid} != wanted:
            raise ValueError(f"Spec: the grid of {self.method} needs values of {sorted(wanted)}, got {self.grid}")
        if self.observation and self.coverage != 1.0:
            raise ValueError(
                "Spec: coverage must be 1.0 with an observation; the lists of scans are the packaged one's"
            )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """From JSON, lists as tuples. Raises ValueError for unknown or missing fields."""
        try:
            return cls(**{k: _tuples(v) for k, v in fields.items()})
        except TypeError as error:
            raise ValueError(f"Spec: {error}") from None

    def asked(self) -> dict[str, Any]:
        """The fields that are not at their defaults, for JSON; files as hashes of what they hold."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        given["priors"] = [name if is_network(name) else zoo.identity(name)[0] for name in self.priors]
        kind, _, argument = self.method.partition(":")
        if zoo.is_own(argument):
            given["method"] = f"{kind}:{zoo.identity(argument)[0]}"
        files_given = ["sky", "observation", *["family"] * (self.family not in conditions.OBJECTS)]
        return given | {name: content(given[name]) for name in files_given if name in given}

    def versions(self) -> dict[str, Any]:
        """What the record rests on."""
        priors = [methods.identity(name) if is_network(name) else zoo.identity(name) for name in self.priors]
        more: dict[str, Any] = {"mixture": conditions.VERSION} if self.fit and conditions.VERSION > 1 else {}
        if self.replaced:
            more["replaced"] = [zoo.identity(name) for name in conditions.REPLACED[self.replaced].values()]
        if self.regime == "self-calibrated":
            more["selfcal"] = selfcal.VERSION
        return {"pipeline": files.PIPELINE, "method": methods.identity(self.method), "priors": priors} | more

    @property
    def networks(self) -> tuple[str, ...]:
        """Those of the priors that are networks from the data to the image."""
        return tuple(filter(is_network, self.priors))

    @property
    def key(self) -> str:
        """Name of the record."""
        return files.digest([self.asked(), self.versions()])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def content(path: str) -> str:
    """Hash of the file or folder at `path`, so that moving it changes nothing and editing it does; "" for none."""
    if not path:
        return ""
    members = sorted(Path(path).glob("*")) if Path(path).is_dir() else [Path(path)]
    try:
        return _hash_files(tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in members if not f.is_dir()))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None


@cache
def _hash_files(stamped: tuple[tuple[str, int, int], ...]) -> str:
    return files.digest([files.sha256(Path(name)) for name, *_ in stamped])
