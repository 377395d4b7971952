"""The chapters, and how one is run: percent script to notebook, parameters in, executed by papermill, kept only if it
ran through."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from fusionlib import files
from fusionlib.paper import shift_specs, specs
from fusionlib.paper.manifest import output, provenance, write
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import m87, patches, shift, strategies, stress, weight_analysis
from fusionlib.paper.studies.ablations import ablation_specs
from fusionlib.paper.studies.conclusions import conclusion_specs
from fusionlib.paper.tasks import Task
from fusionlib.priors import zoo

KERNEL = "python3"


@dataclass(frozen=True)
class Chapter:
    """A notebook: its name, the experiments it reads, its time budget by profile [seconds], jobs included, and the
    `tasks` it has done beside.

    `also` are the experiments of the profile `wide` that it shows beside, those of them that are stored.
    """

    name: str
    specs: Callable[..., list[Spec]]
    budget: dict[str, int]
    also: Callable[..., list[Spec]] | None = None
    tasks: Callable[..., list[Task]] | None = None


def _only(*names: str, all_coverages: bool = False) -> Callable[..., list[Spec]]:
    return partial(specs.strategy_specs, only=names, all_coverages=all_coverages)


def _strategy_a(profile: str, priors: Sequence[str] = zoo.BANKS["main"], **options: Any) -> list[Spec]:
    """Chapter 03: strategy A and MGPF; in the wide run, which is this chapter's alone, all strategies."""
    if profile == "wide":
        return specs.strategy_specs(profile, priors, **options)
    only = ("a:image", "a:8", "a:pixel", "a_meta:image", "mgpf:image")
    return specs.strategy_specs(profile, priors, only=only, all_coverages=True, **options)


def _shift(profile: str, priors: Sequence[str] = zoo.BANKS["main"], **options: Any) -> list[Spec]:
    """Chapter 11: the map and the headline set, and what was chosen beforehand on development images."""
    chosen = [*shift_specs.choice_specs(profile, priors), *shift_specs.picking_specs(profile, priors)]
    return [*chosen, *shift_specs.shift_specs(profile, priors, **options)]


def _none(profile: str, priors: Sequence[str] = (), **_: Any) -> list[Spec]:
    return []


CHAPTERS = [
    Chapter("00_sky_and_observation", _none, {"smoke": 30, "quick": 60, "paper": 120}),
    Chapter("01_priors", specs.headroom_specs, {"smoke": 90, "quick": 400, "paper": 28800}),
    Chapter("02_baselines", specs.baseline_specs, {"smoke": 60, "quick": 240, "paper": 14400}),
    Chapter(
        "03_strategy_a",
        _strategy_a,
        {"smoke": 120, "quick": 300, "wide": 10800, "paper": 14400},
        partial(specs.strategy_specs, "wide"),
        partial(strategies.stage_tasks, strategies.WATCHED["03"], _strategy_a),
    ),
    Chapter(
        "04_strategy_b",
        _only("b:image", "b_meta:image"),
        {"smoke": 60, "quick": 300, "paper": 14400},
        tasks=partial(strategies.stage_tasks, strategies.WATCHED["04"], _only("b:image", "b_meta:image")),
    ),
    Chapter(
        "05_strategy_c",
        _only("c:image"),
        {"smoke": 60, "quick": 300, "paper": 14400},
        tasks=partial(strategies.stage_tasks, strategies.WATCHED["05"], _only("c:image")),
    ),
    Chapter(
        "06_patch_routing",
        specs.patch_specs,
        {"smoke": 90, "quick": 400, "paper": 14400},
        tasks=patches.tasks,
    ),
    Chapter("07_ablations", ablation_specs, {"smoke": 90, "quick": 400, "paper": 28800}, tasks=stress.stress_tasks),
    Chapter(
        "08_weight_analysis",
        specs.weight_specs,
        {"smoke": 60, "quick": 300, "paper": 3600},
        tasks=weight_analysis.tasks,
    ),
    Chapter("09_pmoe", _none, {"smoke": 60, "quick": 120, "paper": 120}),
    Chapter("10_m87", specs.closure_specs, {"smoke": 60, "quick": 300, "paper": 3600}, tasks=m87.tasks),
    Chapter("11_shift", _shift, {"smoke": 180, "paper": 57600}, tasks=shift.trust_tasks),
    Chapter("13_conclusions", conclusion_specs, {"smoke": 60, "quick": 300, "paper": 18000}),
    Chapter("14_explorer", _none, {"smoke": 30, "quick": 30, "paper": 30}),
    Chapter("15_train_priors", _none, {"smoke": 60, "quick": 90, "paper": 90}),
]


def chapters_of(profile: str) -> list[Chapter]:
    """The chapters that a profile has: those with a budget for it."""
    return [chapter for chapter in CHAPTERS if profile in chapter.budget]


def chapter_of(name: str) -> Chapter:
    """The chapter whose name starts with `name` (its number is enough)."""
    for chapter in CHAPTERS:
        if chapter.name.startswith(name):
            return chapter
    raise ValueError(f"no chapter {name!r}; there are {[c.name for c in CHAPTERS]}")


def source(name: str) -> Path:
    return files.source("notebooks", f"{name}.py")


def failed_notebook(name: str, profile: str) -> Path:
    """Where a run that failed is kept."""
    return output(profile) / "notebooks" / f"{name}.failed.ipynb"


def made_by(name: str, profile: str) -> dict[str, str]:
    """The figures (.png) and tables (.csv) of a chapter on disk, with their SHA-256."""
    out, number = output(profile), name[:2]
    made = [*out.glob(f"figures/fig{number}_*.png"), *out.glob(f"tables/tab{number}_*.csv")]
    return {p.name: files.sha256(p) for p in sorted(made)}


def draft(name: str, path: Path) -> None:
    """Write the unexecuted notebook of a chapter to `path`."""
    notebook = jupytext.read(source(name))
    notebook.metadata["kernelspec"] = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def parameters_of(name: str) -> dict[str, str]:
    """Names and default values, as written, of a chapter's parameters."""
    path = files.folder("build", "drafts") / f"{name}.ipynb"
    with files.replacing(path) as aside:
        draft(name, aside)
    return {k: v["default"] for k, v in papermill.inspect_notebook(str(path)).items()}


def check_parameters(name: str, parameters: dict[str, Any]) -> None:
    """Raises ValueError for a parameter the chapter does not have (papermill would only warn)."""
    known = parameters_of(name)
    if unknown := set(parameters) - set(known):
        raise ValueError(f"chapter {name} has no parameter {sorted(unknown)}; it has {sorted(known)}")


def run_chapter(name: str, profile: str, parameters: dict[str, Any]) -> Path:
    """Execute a chapter into `build/<profile>/notebooks` and return the notebook.

    A run that fails is kept as `<name>.failed.ipynb` and raises RuntimeError with the cell's error.
    """
    parameters = {"profile": profile, **parameters}
    check_parameters(name, parameters)
    folder = files.folder("build", profile, "notebooks")
    path, failed = folder / f"{name}.ipynb", failed_notebook(name, profile)
    began, clock = time.perf_counter(), time.time()
    with files.replacing(path) as aside:
        start, result = aside.with_suffix(".draft.ipynb"), aside.with_suffix(".run.ipynb")
        try:
            draft(name, start)
            _execute(start, result, parameters)
            result.replace(aside)
        except PapermillExecutionError as error:
            result.replace(failed)
            raise RuntimeError(
                f"{name}: {error.ename}: {error.evalue} (see {failed.relative_to(files.home())})"
            ) from None
        finally:
            start.unlink(missing_ok=True)
            result.unlink(missing_ok=True)
    for kind in ("fig", "tab"):  # what an older version of the chapter made; kept until a run went through
        for made in output(profile).glob(f"*/{kind}{name[:2]}_*"):
            if made.stat().st_mtime < clock - 1:
                made.unlink()
    seconds = round(time.perf_counter() - began, 1)
    facts = provenance(
        chapter=name, profile=profile, parameters=parameters, seconds=seconds, made=made_by(name, profile)
    )
    write(output(profile) / f"{name}.json", facts)
    return path


def _execute(start: Path, result: Path, parameters: dict[str, Any]) -> None:
    """Papermill with this interpreter, whatever other kernels there are; tried once more if the kernel did not start
    (ports can be taken between choice and use)."""
    spec = files.folder("build", "kernels", "kernels", KERNEL) / "kernel.json"
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    with files.replacing(spec) as aside:
        aside.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    elsewhere = [path for path in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if path]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(dict.fromkeys([str(files.folder("build", "kernels")), *elsewhere]))
    for attempt in (1, 2):
        try:
            papermill.execute_notebook(
                str(start), str(result), parameters, kernel_name=KERNEL, cwd=str(files.home()), progress_bar=False
            )
            return
        except RuntimeError as error:
            if isinstance(error, PapermillExecutionError) or "Kernel" not in str(error) or attempt == 2:
                raise
