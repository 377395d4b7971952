"""Publish a finished run into figures/, notebooks/ and README.md: `python -m fusionlib.paper.publish quick`.

With `--pack` only the records that were computed so far go into figures/scores, of a run that need not be finished.
With `--list` it prints which records a profile lacks, and which ship that no profile wants; `--drop` drops those.
"""

import base64
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
from PIL import Image

from fusionlib import files
from fusionlib.paper import figures, plots, store
from fusionlib.paper.chapter import CHAPTERS, chapters_of
from fusionlib.paper.experiment import rests_on, tuning
from fusionlib.paper.manifest import output, write
from fusionlib.paper.profiles import PROFILES
from fusionlib.paper.readme import chapters_markdown, fill, results_markdown, shift_markdown
from fusionlib.paper.run import make_plan, parts_of, usable
from fusionlib.paper.shift_specs import safe, shift_rows
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import classification
from fusionlib.paper.studies.classification import Cell
from fusionlib.paper.studies.conclusions import strip_specs
from fusionlib.paper.tasks import Task
from fusionlib.priors import BANKS

WIDGET = "application/vnd.jupyter.widget-view+json"
SHIFT, CONCLUSIONS = "11_shift", "13_conclusions"
LARGE = 400_000  # bytes
SHIPPED = ("quick", "wide", "paper")  # profiles whose records ship


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without widget states, run times, paths, warnings: only what a reader sees and what a diff should show."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
            for o in cell.outputs:
                o.pop("metadata", None) if o.output_type == "stream" else o.update(metadata={})
                if picture := o.get("data", {}).get("image/png"):
                    o["data"]["image/png"] = _smaller(picture)
    return nbformat.reads(nbformat.writes(notebook).replace(f"{files.home()}/", ""), as_version=4)


def _smaller(picture: str) -> str:
    """A PNG in base64 with a palette of 256 colours, a third of the size."""
    image, out = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def computed_on(facts: dict[str, dict]) -> dict[str, int]:
    """How many experiments behind the published chapters each device and version of torch scored."""
    specs = {spec for chapter in CHAPTERS for spec in chapter.specs(facts[chapter.name]["profile"])}
    records = [store.load(spec.key) for spec in specs if store.has(spec.key)]
    return dict(Counter(f"{r['device']}, torch {r['torch']}" for r in records).most_common())


def publish(profile: str) -> None:
    """The chapters of the run that are up to date; the others stay as they were published, of whatever profile.

    Raises ValueError when there is none; then nothing is changed.
    """
    run, home, target = output(profile), files.home(), files.home() / "figures"
    if len(chapters_of(profile)) < len(CHAPTERS):
        raise ValueError(f"profile {profile} has some chapters only; publish quick or paper: its scores go with them")
    left = {name for name, *_ in make_plan(profile, [], {}).chapters.values()}
    ready = [chapter for chapter in CHAPTERS if chapter.name not in left]
    manifest = target / "manifest.json"
    facts = json.loads(manifest.read_text())["chapters"] if manifest.exists() else {}
    facts = {name: said for name, said in facts.items() if name in {c.name for c in CHAPTERS}}
    if not ready or left - set(facts):
        raise ValueError(
            f"profile {profile} is not up to date with the code and default parameters: {sorted(left)} are to be run"
        )
    for chapter in ready:
        facts[chapter.name] = json.loads((run / f"{chapter.name}.json").read_text())
    experiments = computed_on(facts)
    readme = fill((home / "README.md").read_text(), "chapters", chapters_markdown(facts, experiments))
    if SHIFT not in left and (run / "tables" / "tab11_mixed.csv").exists():
        summary, mixed = (
            pd.read_csv(run / "tables" / f"tab11_{name}.csv", keep_default_na=False) for name in ("summary", "mixed")
        )
        readme = fill(readme, "shift", shift_markdown(summary, mixed, profile))
    if CONCLUSIONS not in left:
        results, gap = (pd.read_csv(run / "tables" / f"tab13_{name}.csv") for name in ("results", "gap"))
        readme = fill(readme, "results", results_markdown(results, gap, profile))

    with tempfile.TemporaryDirectory(dir=run) as folder:
        stage = Path(folder)
        wanted = {m for chapter in ready for m in facts[chapter.name]["made"]}
        for name in sorted(wanted):
            stem = Path(name).stem
            if name.startswith("tab"):
                shutil.copy(run / "tables" / name, stage)
                (stage / f"{stem}.tex").write_text(_tex(pd.read_csv(run / "tables" / name)))
                continue
            for path in (run / "figures").glob(f"{stem}.*"):
                shutil.copy(path, stage)
            data = next(p for p in stage.glob(f"{stem}.*") if p.suffix in (".csv", ".npz"))
            said = json.loads((stage / f"{stem}.json").read_text())
            drawn = plots.redraw(getattr(figures, said["drawn_by"]), data)
            drawn.savefig(stage / f"{stem}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
            plt.close(drawn)
        notebooks = stage / "notebooks"
        notebooks.mkdir()
        for chapter in ready:
            notebook = clean(nbformat.read(run / "notebooks" / f"{chapter.name}.ipynb", as_version=4))
            nbformat.write(notebook, notebooks / f"{chapter.name}.ipynb")
        write(stage / "manifest.json", {"experiments": experiments, "chapters": facts})

        target.mkdir(exist_ok=True)
        for chapter in ready:
            for old in target.glob(f"???{chapter.name[:2]}_*"):
                old.unlink()
        for path in stage.iterdir():
            if path.is_file():
                shutil.move(str(path), target / path.name)
        for path in notebooks.iterdir():
            shutil.move(str(path), home / "notebooks" / path.name)
    (home / "README.md").write_text(readme)
    pack()
    print(f"published profile {profile}: {len(wanted)} figures and tables, {len(ready)} notebooks, README.md")
    for name in sorted(left):
        print(f"  {name} is not up to date; what is published of it stays, of profile {facts[name]['profile']}")


def wanted(profile: str) -> dict[str, Spec | Task | Cell]:
    """What a profile's records are of, by name: experiments with their tunings, tasks of chapters, cells of pMoE."""
    parts: dict[str, Spec | Task | Cell] = {}
    priors = usable({})
    for chapter in chapters_of(profile):
        specs, tasks = parts_of(chapter, profile, {}, priors)
        specs = [*specs, *(s for task in tasks for s in task.specs)]
        parts |= {part.key: part for s in specs for part in (*rests_on(s), s)} | {task.key: task for task in tasks}
    parts |= {part.key: part for part in fold_networks(profile)}
    return parts | {key: cell for key, cell in classification.cells(profile).items()}


def fold_networks(profile: str) -> list[Spec]:
    """The networks that gates of chapter 11 are fitted to, hours of training; those of the sweep do not ship."""
    return [part for s in shift_rows(profile) for part in rests_on(tuning(s))] if profile == "paper" else []


def canaries() -> list[Spec]:
    """Small experiments that the tests score again, of methods whose other fits are too large to ship, or whose other
    images come out differently on another processor."""
    one, uncalibrated = PROFILES["wide"].grid["learned"], PROFILES["quick"].grid["fitted_closures"]
    near = ("identity", "torus")
    return [
        Spec("closed_average:image", near, 1.0, 8, 8, "dev", grid=one),
        Spec("static_affine", near, 1.0, 8, 8, "dev", regime="uncalibrated", steps=30, grid=uncalibrated),
        Spec("denoiser", (), 1.0, 12, 8, "dev", grid=(*one, ("steps", (200.0,)))),
        Spec("lora", ("identity", "galaxies"), 1.0, 4, 8, "dev", steps=4, grid=one),
        *(
            Spec(method, (*near, "unet:20"), 1.0, 8, 8, "dev", steps=4, grid=one)
            for method in ("closed_residuals", "started", "switched", "stacked")
        ),
        *(
            Spec(method, near, 1.0, 8, 8, "dev", steps=4, grid=one)
            for method in (
                "closed_residuals_plain",
                "b_joint:image",
                "b_joint_meta:image",
                "c_weak:image",
                "c_strong:image",
            )
        ),
    ]


def shipped() -> set[str]:
    """Names of the records that may ship: all that the profiles but smoke want, less fits of more than LARGE bytes
    (networks) but for those that chapter 13 shows in pictures, the safe rule of chapter 11 and what it was fitted to,
    and the canaries."""
    keys = set().union(*map(wanted, SHIPPED))
    always = [tuning(s).key for p in ("quick", "paper") for s in strip_specs(p, BANKS["main"], singles=True)]
    always += [part.key for s in canaries() for part in (*rests_on(s), s)]
    always += [part.key for part in (*rests_on(replace(safe("paper"), n_test=1)), *fold_networks("paper"))]
    return {key for key in keys if _size(key) < LARGE} | set(always)


def _size(key: str) -> int:
    """Bytes of a record that was computed here."""
    return store.here(key).stat().st_size if store.here(key).exists() else 0


def pack() -> None:
    """Copy what was computed here and may ship into figures/scores, and say what came."""
    came, _ = store.pack(key for key in sorted(shipped()) if store.here(key).exists())
    print(f"figures/scores: {came} records came, {len(store.index())} are there")


def unwanted() -> list[str]:
    """Records that ship and no profile wants, less those of an observation: not everybody has its file."""
    kept = set().union(*map(wanted, SHIPPED)) | {part.key for s in canaries() for part in (*rests_on(s), s)}
    return [
        key
        for key, line in store.index().items()
        if key not in kept and not json.loads(line["more"]).get("observation")
    ]


def listed(profile: str, drop: bool) -> None:
    """Print what a profile lacks, and what ships that no profile wants; with `drop` the latter goes."""
    missing = {key: part for key, part in wanted(profile).items() if not store.has(key)}
    needed = {tuning(part).key for part in missing.values() if isinstance(part, Spec) and part.n_test}
    # a tuning alone is missed where scores are: fits that are too large do not ship, their scores do
    lacks = {k: part for k, part in missing.items() if k in needed or not isinstance(part, Spec) or part.n_test}
    for key, part in lacks.items():
        print(f"lacks {key}  {_told(part)}")
    extra = unwanted()
    for key in extra:
        line = store.index()[key]
        print(f"unwanted {key}  {line['method']}, {line['priors']}, {line['n_train']} labels, seed {line['seed']}")
    print(f"{profile} lacks {len(lacks)} records; of {len(store.index())} that ship {len(extra)} are wanted nowhere")
    if drop:
        store.pack([], extra)
        print(f"{len(extra)} dropped")


def _told(part: Spec | Task | Cell) -> str:
    if isinstance(part, Spec):
        return f"{part.method}, {'+'.join(part.priors)}, {part.regime}, coverage {part.coverage}, {part.n_test} images"
    return f"{part.name} {', '.join(s.method for s in part.specs)}" if isinstance(part, Task) else str(part)


def _tex(frame: pd.DataFrame) -> str:
    frame = frame.rename(columns=lambda c: c.replace("_", r"\_"))
    frame = frame.map(lambda v: v.replace("_", r"\_") if isinstance(v, str) else v)
    return frame.style.hide(axis="index").format(precision=3).to_latex(hrules=True)


if __name__ == "__main__":
    options = {a for a in sys.argv[1:] if a.startswith("-")}
    given = next((a for a in sys.argv[1:] if not a.startswith("-")), "quick")
    try:
        if "--pack" in options:
            pack()
        elif options:
            listed(given, "--drop" in options)
        else:
            publish(given)
    except ValueError as error:
        sys.exit(f"error: {error}")
