"""What the README says of a published run: blocks between comments, filled anew each time."""

import re
from pathlib import Path

import pandas as pd

from fusionlib.paper import style
from fusionlib.paper.chapter import CHAPTERS
from fusionlib.paper.conditions import CONDITIONS, MIXED
from fusionlib.paper.experiment import tuning
from fusionlib.paper.profiles import profile_of
from fusionlib.paper.run import job_seconds
from fusionlib.paper.shift_specs import SAFE
from fusionlib.paper.studies import shift


def fill(text: str, block: str, content: str) -> str:
    """`text` with what stands between `<!-- begin:block -->` and `<!-- end:block -->` replaced."""
    pattern = re.compile(rf"(<!-- begin:{block} -->\n).*?(\n<!-- end:{block} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no block {block!r} between <!-- begin:{block} --> and <!-- end:{block} -->")
    return pattern.sub(lambda m: m[1] + content + m[2], text)


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


# rows of chapter 11 that the README shows: method, what it was fitted to, number of networks among its priors
SHIFTED = (
    *((method, "mixed", k) for method, k in (SAFE, (SAFE[0], 0), ("unet", 0))),
    *((method, "home", 0) for method in ("unet", "closed_form", "a:image", "b:image", "c:image")),
    ("average", "", 0),
)


def shift_markdown(summary: pd.DataFrame, headline: pd.DataFrame, profile: str) -> str:
    """Chapter 11 for the README: its figure, and ten rows: at home, over the map, and on the headline set."""
    n = summary.n_train.mode()[0]
    summary, headline = (shift.named(t[t.n_train == n]) for t in (summary, headline))
    both = summary.merge(headline, on=["name", "method", "fit", "bank", "kind"], suffixes=("", "_headline"))
    networks = both.bank.str.count("network")
    rows = [both[(both.method == m) & (both.fit == fit) & (networks == k)] for m, fit, k in SHIFTED]
    single = both[both.kind == "single"].nlargest(1, "psnr")
    shown = pd.concat([*rows, single]).sort_values("psnr", ascending=False)
    lines = [
        f"Profile `{profile}`, {n} labels. Home: the array and objects of the labels. Map: {len(CONDITIONS)} "
        "conditions; regret is the PSNR below that of the best of all rows in a condition; χ² the largest median of "
        "the conditions without unmodelled gain errors. Headline set: "
        f"{headline.n_test.max()} images under {len(MIXED)} drawn conditions; gains are over the single prior that is "
        "best there.",
        "",
        "| method | home [dB] | map: mean regret [dB] | worst | χ² | headline set [dB] | gain [dB] |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in shown.to_dict("records"):
        over = f"{r['home']:.2f} | {r['regret']:.2f} | {r['worst']:.2f} ({r['worst_cell']}) | {r['chi2']:.1f}"
        lines.append(f"| {r['name']} | {over} | {r['psnr']:.2f} | {_gain(r)} |")
    return "\n".join([*lines, "", "![Regret of every method under every condition](figures/fig11_map.png)"])


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
