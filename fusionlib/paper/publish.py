"""Publish a finished run into figures/, notebooks/ and README.md: `python -m fusionlib.paper.publish quick`."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd

from fusionlib import files
from fusionlib.paper import classified, drawing, figures, style
from fusionlib.paper.chapter import CHAPTERS, chapters_of
from fusionlib.paper.experiment import record_key, store_paths, tuning
from fusionlib.paper.manifest import output, write
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.run import job_seconds, make_plan

KEPT = "scores"  # inside figures/: the published store
LARGE = 400_000  # bytes
LONG = 8.0  # seconds of a job


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
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for o in cell.outputs:
                o.pop("metadata", None) if o.output_type == "stream" else o.update(metadata={})
    return nbformat.reads(nbformat.writes(notebook).replace(f"{files.home()}/", ""), as_version=4)


def results_markdown(table: pd.DataFrame, profile: str) -> str:
    """The full-coverage rows for the README."""
    p = profile_of(profile)
    whole = table.query("coverage == 1.0 and method != 'best_single'").sort_values("psnr", ascending=False)
    images, seeds = {"dev": "development", "test": "test"}[p.split], len(p.seeds)
    lines = [
        f"Profile `{profile}`: {whole.n_test.iloc[0]} {images} images, {whole.n_train.iloc[0]} labelled to tune on, "
        f"{seeds} seed{'s' * (seeds > 1)}, full coverage; 95 % intervals. "
        "Reference: the single prior that is best on the labelled images.",
        "",
        "| method | PSNR [dB] | against the reference | SSIM | PSNR at 20 µas [dB] | reduced χ² |",
        "|---|---|---|---|---|---|",
    ]
    for _, r in whole.iterrows():
        delta = f"{r.delta_best_single:+.2f} ({r.delta_lo:+.2f} … {r.delta_hi:+.2f})"
        delta = "the reference" if r.delta_lo == r.delta_hi == 0 else delta
        scores = f"{r.psnr:.2f} ({r.psnr_lo:.2f} … {r.psnr_hi:.2f}) | {delta} | {r.ssim:.3f} | {r.psnr_blur:.1f}"
        lines.append(f"| `{r.method}` | {scores} | {r.chi2_vis:.2f} |")
    return "\n".join(lines)


def gains_markdown(table: pd.DataFrame) -> str:
    """Gain of every fused, learned or controlled row over the best single prior, a column per bank, for the README."""
    whole = table[(table.coverage == 1.0) & ~table.method.str.startswith("single:") & (table.method != "best_single")]
    banks = list(dict.fromkeys(whole.bank))
    best = table[(table.coverage == 1.0) & (table.method == "best_single")].set_index("bank").psnr
    said = ", ".join(f"{best[bank]:.2f} dB in `{bank}`" for bank in banks)
    head = " | ".join(f"gain in `{bank}` [dB]" for bank in banks)
    lines = [f"The best single prior: {said}.", "", f"| method | kind | {head} |", "|---|---|" + "---|" * len(banks)]
    by = {bank: whole[whole.bank == bank].set_index("method") for bank in banks}
    for method in by[banks[0]].sort_values("delta_best_single", ascending=False).index:
        cells = []
        for bank in banks:
            if method not in by[bank].index:
                cells.append("")
                continue
            r = by[bank].loc[method]
            cells.append(f"{r.delta_best_single:+.2f} ({r.delta_lo:+.2f} … {r.delta_hi:+.2f})")
        lines.append(f"| {style.label(method)} | {by[banks[0]].kind[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chapters_markdown(facts: dict[str, dict], profile: str) -> str:
    lines = [f"| chapter | makes | profile `{profile}`: its jobs, notebook |", "|---|---|---|"]
    for chapter in CHAPTERS:
        made = ", ".join(f"`{Path(m).stem}`" for m in facts[chapter.name]["made"])
        seconds = facts[chapter.name]["seconds"]
        specs = chapter.specs(profile)
        jobs = sum(job_seconds(s) for s in {*specs, *map(tuning, specs)})
        lines.append(f"| [{chapter.name}](notebooks/{chapter.name}.ipynb) | {made} | {jobs:.0f} s, {seconds:.0f} s |")
    return "\n".join(lines)


def fill(text: str, block: str, content: str) -> str:
    """`text` with what stands between `<!-- begin:block -->` and `<!-- end:block -->` replaced."""
    pattern = re.compile(rf"(<!-- begin:{block} -->\n).*?(\n<!-- end:{block} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no block {block!r} between <!-- begin:{block} --> and <!-- end:{block} -->")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


def publish(profile: str) -> None:
    """Raises ValueError when a chapter of the run is missing or failed; then nothing is changed."""
    run, home = output(profile), files.home()
    facts = {}
    if len(chapters_of(profile)) < len(CHAPTERS):
        raise ValueError(f"profile {profile} has some chapters only; publish quick or paper: its scores go with them")
    plan = make_plan(profile, [], {})
    if plan.jobs or plan.chapters:
        left = [name for name, *_ in plan.chapters.values()]
        raise ValueError(
            f"profile {profile} is not up to date with the code and default parameters: {left} are to be run"
        )
    for chapter in CHAPTERS:
        facts[chapter.name] = json.loads((run / f"{chapter.name}.json").read_text())
    results = pd.read_csv(run / "tables" / "tab02_baselines.csv")
    readme = fill((home / "README.md").read_text(), "results", results_markdown(results, profile))
    strategies = pd.concat([pd.read_csv(run / "tables" / f"tab{n}_strategies.csv") for n in ("03", "04", "05")])
    readme = fill(readme, "gains", gains_markdown(strategies.drop_duplicates(["bank", "coverage", "method"])))
    readme = fill(readme, "chapters", chapters_markdown(facts, profile))

    with tempfile.TemporaryDirectory(dir=run) as folder:
        stage = Path(folder)
        wanted = {m for f in facts.values() for m in f["made"]}
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
            drawn = drawing.redraw(getattr(figures, said["drawn_by"]), data)
            drawn.savefig(stage / f"{stem}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
            plt.close(drawn)
        notebooks = stage / "notebooks"
        notebooks.mkdir()
        for chapter in CHAPTERS:
            notebook = clean(nbformat.read(run / "notebooks" / f"{chapter.name}.ipynb", as_version=4))
            nbformat.write(notebook, notebooks / f"{chapter.name}.ipynb")
        write(stage / "manifest.json", {"profile": profile, "chapters": facts})

        target = home / "figures"
        target.mkdir(exist_ok=True)
        for old in target.iterdir():
            if old.is_file():
                old.unlink()
        for path in stage.iterdir():
            if path.is_file():
                shutil.move(str(path), target / path.name)
        for path in notebooks.iterdir():
            shutil.move(str(path), home / "notebooks" / path.name)
    (home / "README.md").write_text(readme)
    _publish_scores(target / KEPT, profile)
    print(f"published profile {profile}: {len(wanted)} figures and tables, {len(CHAPTERS)} notebooks, README.md")


def _publish_scores(folder: Path, profile: str) -> None:
    """Into the published store: tuned settings of every profile, with what was fitted; all scores of the paper's run
    and of the wide one, of the others those at partial coverage, of uncalibrated data and of jobs of more than LONG
    seconds; what chapter 09 trains. So a fresh checkout has less to compute. What is stale goes. Fits of more than
    LARGE bytes (networks) stay here, their scores go instead."""
    kept = set()
    for name in {profile, "quick", "wide", "paper"}:
        for spec in (s for chapter in chapters_of(name) for s in chapter.specs(name)):
            fit = store_paths(record_key(tuning(spec)))[0].with_suffix(".safetensors")
            large = fit.exists() and fit.stat().st_size > LARGE
            score = record_key(spec)
            slow = large or spec.coverage < 1 or spec.regime == "uncalibrated" or name in ("wide", "paper")
            slow = slow or job_seconds(spec) > LONG
            kept |= {score} if slow or (folder / f"{score}.npz").exists() else set()
            kept |= set() if large else {fit.stem}
    kept |= set(classified.keys(profile))
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.stem not in kept:
            old.unlink()
    for key in kept:
        mine, published = store_paths(key)
        for suffix in (".safetensors", ".npz"):
            if mine.with_suffix(suffix).exists() and not published.exists():
                shutil.copy(mine.with_suffix(suffix), published.with_suffix(suffix))


def _tex(frame: pd.DataFrame) -> str:
    frame = frame.rename(columns=lambda c: c.replace("_", r"\_"))
    frame = frame.map(lambda v: v.replace("_", r"\_") if isinstance(v, str) else v)
    return frame.style.hide(axis="index").format(precision=3).to_latex(hrules=True)


if __name__ == "__main__":
    try:
        publish(sys.argv[1] if len(sys.argv) > 1 else "quick")
    except ValueError as error:
        sys.exit(f"error: {error}")
