"""Publish a finished run into figures/, notebooks/ and README.md: `python -m fusionlib.paper.publish quick`.

With `--pack` only the records that were computed so far go into figures/scores, of a run that need not be finished.
With `--list` it prints which records a profile lacks, and which ship that no profile wants; `--drop` drops those.
"""

import base64
import io
import json
import re
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
from fusionlib.paper import figures, plots, store, style
from fusionlib.paper.chapter import CHAPTERS, chapters_of
from fusionlib.paper.experiment import rests_on, tuning
from fusionlib.paper.manifest import output, write
from fusionlib.paper.profiles import PROFILES, profile_of
from fusionlib.paper.run import job_seconds, make_plan, parts_of, usable
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import classification
from fusionlib.paper.studies.classification import Cell
from fusionlib.paper.studies.conclusions import strip_specs
from fusionlib.paper.studies.shift import safe
from fusionlib.paper.tasks import Task
from fusionlib.priors import BANKS

WIDGET = "application/vnd.jupyter.widget-view+json"
CONCLUSIONS = "13_conclusions"
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


def results_markdown(table: pd.DataFrame, gap: pd.DataFrame, profile: str) -> str:
    """The headline for the README: PSNR and the gain over the best single prior, by bank; how much of the gap to the
    ceiling labels close; two pictures."""
    p, banks = profile_of(profile), list(dict.fromkeys(table.bank))
    images, seeds = {"dev": "development", "test": "test"}[p.split], len(p.seeds)
    by = {bank: {r["method"]: r for r in table[table.bank == bank].to_dict("records")} for bank in banks}
    first = by[banks[0]]
    some = first["average"]
    best = ", ".join(f"{by[bank]['best_single']['psnr']:.2f} dB in `{bank}`" for bank in banks)
    lines = [
        f"Profile `{profile}`: {some['n_test']} {images} images, {some['n_train']} labels, "
        f"{seeds} seed{'s' * (seeds > 1)}, full coverage; 95 % intervals over images{' and seeds' * (seeds > 1)}. "
        f"Gains are over the single prior that is best on the labels: {best}. PSNR has a data range of 1 (4.5 mJy per "
        f"pixel). The last three columns are in `{banks[0]}`: SSIM; PSNR after truth and reconstruction are blurred to "
        "the resolution of the array; reduced chi-square of the visibilities, of the image shown, which no data step "
        "follows.",
        "",
        f"| method | kind | PSNR in `{banks[0]}` [dB] | {' | '.join(f'gain in `{b}` [dB]' for b in banks)} "
        "| SSIM | PSNR at 20 µas [dB] | χ² |",
        "|---|---|---|" + "---|" * len(banks) + "---|---|---|",
    ]
    for method, r in sorted(first.items(), key=lambda item: -item[1]["psnr"]):
        if method != "best_single":
            gains = " | ".join(_gain(by[bank].get(method)) for bank in banks)
            scores = f"{r['ssim']:.3f} | {r['psnr_blur']:.1f} | {r['chi2_vis']:.2f}"
            lines.append(f"| {style.label(method)} | {r['kind']} | {r['psnr']:.2f} | {gains} | {scores} |")
    for bank, part in gap.dropna(subset="closed").groupby("bank", sort=False):
        n = part.n_train.max()
        told = [
            f"{style.label(r['method'])} {r['closed']:.0%} ({r['closed_lo']:.0%} … {r['closed_hi']:.0%})"
            for r in part[part.n_train == n].sort_values("closed", ascending=False).to_dict("records")
        ]
        lines += [
            "",
            f"With {n} labels, in the sweep over their number (chapter 13: one setting of the loop, one seed), the "
            f"share of the way from the best single prior to the in-domain ceiling in `{bank}`: {'; '.join(told)}.",
        ]
    strip, efficiency = (
        "Truth, dirty image and reconstructions side by side",
        "Gain over the best single prior by labels",
    )
    return "\n".join(
        [*lines, "", f"![{strip}](figures/fig13_strip.png)", "", f"![{efficiency}](figures/fig13_efficiency.png)"]
    )


def _gain(r: dict | None) -> str:
    if r is None:
        return ""
    same = r["delta_lo"] == r["delta_hi"] == 0
    return "reference" if same else f"{r['delta_best_single']:+.2f} ({r['delta_lo']:+.2f} … {r['delta_hi']:+.2f})"


def chapters_markdown(facts: dict[str, dict], experiments: dict[str, int]) -> str:
    lines = ["| chapter | makes | profile | time: jobs, notebook |", "|---|---|---|---|"]
    for chapter in CHAPTERS:
        made = ", ".join(f"`{Path(m).stem}`" for m in facts[chapter.name]["made"])
        seconds, profile = facts[chapter.name]["seconds"], facts[chapter.name]["profile"]
        specs = chapter.specs(profile)
        jobs = sum(job_seconds(s, published=True) for s in {*specs, *map(tuning, specs)})
        told = f"`{profile}` | {jobs:.0f} s, {seconds:.0f} s"
        lines.append(f"| [{chapter.name}](notebooks/{chapter.name}.ipynb) | {made} | {told} |")
    told = "; ".join(f"{where}: {count}" for where, count in experiments.items())
    return "\n".join([*lines, "", f"Experiments were scored on: {told}."])


def computed_on(facts: dict[str, dict]) -> dict[str, int]:
    """How many experiments behind the published chapters each device and version of torch scored."""
    specs = {spec for chapter in CHAPTERS for spec in chapter.specs(facts[chapter.name]["profile"])}
    records = [store.load(spec.key) for spec in specs if store.has(spec.key)]
    return dict(Counter(f"{r['device']}, torch {r['torch']}" for r in records).most_common())


def fill(text: str, block: str, content: str) -> str:
    """`text` with what stands between `<!-- begin:block -->` and `<!-- end:block -->` replaced."""
    pattern = re.compile(rf"(<!-- begin:{block} -->\n).*?(\n<!-- end:{block} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no block {block!r} between <!-- begin:{block} --> and <!-- end:{block} -->")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


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
    return parts | {key: cell for key, cell in classification.cells(profile).items()}


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
    ]


def shipped() -> set[str]:
    """Names of the records that may ship: all that the profiles but smoke want, less fits of more than LARGE bytes
    (networks) but for those that chapter 13 shows in pictures, the safe rule of chapter 11, and the canaries."""
    keys = set().union(*map(wanted, SHIPPED))
    always = [tuning(s).key for p in ("quick", "paper") for s in strip_specs(p, BANKS["main"], singles=True)]
    always += [part.key for s in canaries() for part in (*rests_on(s), s)]
    always += [part.key for part in rests_on(replace(safe("paper"), n_test=1))]
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
