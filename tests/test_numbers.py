"""Every number in what the chapters conclude is read here from the published tables."""

import re
from collections.abc import Callable
from pathlib import Path

import jupytext
import numpy as np
import pandas as pd
import pytest

from fusionlib.paper.chapter import CHAPTERS
from fusionlib.priors.zoo import BANKS

ROOT = Path(__file__).parents[1]
Source = tuple[str, str, str] | list | Callable  # (table, column, rows); of two the difference; a function of tables


def read(table: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{table}.csv")


def row(method: str, bank: str = "main", column: str = "delta_best_single", table: str = "tab13_results") -> Source:
    return table, column, f"method == '{method}' and bank == '{bank}' and coverage == 1"


def headroom(method: str, bank: str = "main", column: str = "delta_best_single") -> Source:
    return row(method, bank, column, "tab01_headroom")


def strategy(method: str, bank: str = "main", column: str = "delta_best_single") -> Source:
    return row(method, bank, column, "tab03_strategies")


def patched(method: str, bank: str = "main", column: str = "delta_best_single") -> Source:
    return row(method, bank, column, "tab06_resolution")


def patch_gain(method: str, bank: str = "main") -> Source:
    return row(method, bank, "effect", "tab06_gains")


def arm(ablation: str, name: str, column: str = "effect") -> Source:
    return "tab07_ablations", column, f"ablation == '{ablation}' and arm == '{name}'"


def labels(method: str, bank: str, rows: str = "n_train > 0") -> Source:
    return "tab07_labels", "effect", f"method == '{method}' and bank == '{bank}' and {rows}"


def lead(minus: str, bank: str, n: int) -> Source:
    return "tab03_lead", "effect", f"minus == '{minus}' and bank == '{bank}' and n_train == {n}"


def steps(n: int, count: int) -> Source:
    return "tab07_training", "psnr", f"method == 'unet' and n_train == {n} and steps == {count}"


def grown(method: str, number: int, order: str = "nearest first") -> Source:
    return "tab07_number", "psnr", f"method == '{method}' and number == {number} and order == '{order}'"


def regret(oracle: str) -> Source:
    return "tab08_regret", "regret", f"oracle == '{oracle}' and iteration == 16"


def goes_along(method: str) -> Source:
    return lambda: (
        read("tab08_occlusion").query(f"method == '{method}'")[["weight", "loss"]].corr("spearman").iloc[0, 1]
    )


def uncalibrated(method: str) -> Source:
    return "tab10_families", "psnr", f"method == '{method}' and family == 'black hole'"


# words with their {numbers}, signed as in the source, then a source for each
SAID: dict[str, list[tuple]] = {
    "01_priors": [
        ("nothing to win, even with the truth in hand ({0.02} dB)", headroom("oracle:image")),
        (
            "{1.1} dB by the best affine weights of each image or by a pick per patch of 8 pixels",
            (
                "tab01_headroom",
                "delta_best_single",
                "method in ['oracle:affine', 'oracle:8'] & bank == 'main' & coverage == 1",
            ),
        ),
        ("within {-0.03} dB of the torus at full coverage", headroom("static_affine", column="delta_lo")),
        ("affine ones win {0.3} dB over the best single prior", headroom("static_affine", "far")),
        (
            "is {0.1} dB above the torus, and {1.2} above the best prior without it",
            headroom("ceiling"),
            headroom("ceiling", "far"),
        ),
    ],
    "02_baselines": [
        (
            "average of all eight is {0.04} dB below the next best, galaxies",
            ("tab02_pairs", "effect", "method == 'single:galaxies' and minus == 'average'"),
        ),
        (
            "all methods lose, on the same images, {0.1 to 0.5} dB",
            [("tab02_baselines", "psnr", f"coverage == {c}") for c in (0.3, 0.1)],
        ),
    ],
    "03_strategy_a": [
        ("nowhere more than {-1.3} dB below", strategy("a:pixel", column="delta_worst")),
        ("the ceiling is {0.1} dB above the torus, so that", strategy("ceiling")),
        (
            "The closed form gains {0.34} dB, and `closed_union` {0.45}; the control that uses the best prior at six "
            "noise levels and the identity under the same gate gains {0.38}",
            strategy("closed_form"),
            strategy("closed_union"),
            strategy("closed_levels"),
        ),
        ("galaxy network, {1.2} dB below the ceiling", strategy("ceiling", "far")),
        (
            "are worth {0.2 to 0.3} dB",
            [
                (
                    "tab03_strategies",
                    "psnr",
                    "method in ['closed_form', 'closed_union'] & bank == 'far' & coverage == 1",
                ),
                strategy("closed_levels", "far", "psnr"),
            ],
        ),
        (
            "is {-0.8} dB above all fused methods where the torus is in the bank, and {-1.1} where it is not",
            lead("unet", "main", 100),
            lead("unet", "far", 100),
        ),
        (
            "better than the closed form there too, by {0.7 to 1.1} dB",
            [("tab03_strategies", "psnr", f"method == '{m}' and coverage < 1") for m in ("unet", "closed_form")],
        ),
        (
            "as good as the ceiling, {0.1} dB above the torus and {1.2} above the galaxy network",
            strategy("denoiser"),
            strategy("denoiser", "far"),
        ),
        ("over a thousand times the parameters of the closed form, gains {0.8} dB", strategy("lora", "far")),
        (
            "The worst image of the closed form (`delta_worst`) is {-2.6} dB below the best single prior with the "
            "torus in the bank, {-1.4} dB without",
            strategy("closed_form", column="delta_worst"),
            strategy("closed_form", "far", "delta_worst"),
        ),
        ("(on test images {0.1} dB)", strategy("ceiling")),
        (
            "The U-Net is above it by {-0.8} dB with the torus and {-1.1} dB without",
            lead("unet", "main", 300),
            lead("unet", "far", 300),
        ),
    ],
    "04_strategy_b": [
        (
            f"by {{{told}}} dB {where} ({{{lo}}} to {{{hi}}}",
            *(row("b:image", bank, column) for column in ("delta_best_single", "delta_lo", "delta_hi")),
        )
        for told, where, lo, hi, bank in (
            ("0.06", "with the torus", "0.02", "0.09", "main"),
            ("0.22", "without it", "0.18", "0.25", "far"),
        )
    ]
    + [
        (
            "On its worst image (`delta_worst`) it is {-3.5} and {-8.7} dB below that prior",
            row("b:image", column="delta_worst"),
            row("b:image", "far", "delta_worst"),
        ),
        (
            "by {-0.37} dB with the torus in the bank and {-0.07} dB without",
            row("b_meta:image", table="tab04_strategies"),
            row("b_meta:image", "far", table="tab04_strategies"),
        ),
    ],
    "05_strategy_c": [
        (
            "{-0.79} dB below the single best prior with the torus in the bank and {-0.15} without",
            row("c:image"),
            row("c:image", "far"),
        ),
        (
            "{0.2} dB above the vote without training",
            [arm("C1 diversity", "quadratic", "psnr"), row("consensus:image", column="psnr", table="tab05_strategies")],
        ),
    ],
    "06_patch_routing": [
        (
            "{0.26} dB over one weight per image with the torus in the bank, {0.54} without, C {0.6} at 8 pixels",
            patch_gain("a:pixel"),
            patch_gain("a:pixel", "far"),
            patch_gain("c:8"),
        ),
        (
            "gains from the pixel too, {0.2} dB with the torus and {0.64} without",
            patch_gain("closed_form"),
            patch_gain("closed_form", "far"),
        ),
        (
            "the best of these gates, with {0.3} and {0.7} dB",
            patch_gain("closed_form:coarse"),
            patch_gain("closed_form:coarse", "far"),
        ),
        ("at 8 pixels ({0.06} dB)", patch_gain("expert:8/16")),
        (
            "the dense gate it is made from, by {-0.11 to -0.13} dB",
            ("tab06_gains", "effect", "method in ['closed_expert:8/4', 'closed_expert:8/16']"),
        ),
        (
            "at a price of 0.0003, the fit keeps a quarter of the operations and is {0.03} dB better than with all of "
            "them; at 0.001 it keeps a seventh and cannot be told from it. Without the torus to keep a sixth costs "
            "{-0.09} dB",
            patch_gain("cost_pruned:0.0003"),
            patch_gain("cost_pruned:0.001", "far"),
        ),
        (
            "that together reach 0.7 lose nothing, at a tenth of the operations; those that reach a half lose "
            "{-0.03} dB",
            patch_gain("top_p:image/0.5"),
        ),
        (
            "no more than {0.1} dB over its best network, the closed form by pixel {0.6}",
            patched("expert:16/2", "local"),
            patched("closed_form", "local"),
        ),
        ("picked by the truth lie {1.1} dB above the torus", headroom("oracle:8")),
    ],
    "07_ablations": [
        (
            "lose {0.8} dB against fitting along the trajectory",
            ("tab07_ablations", "effect", "ablation.str.startswith('images') and arm == 'own iterates'"),
        ),
        ("the cosine head loses {-0.03} dB to a linear one", arm("A1 head", "cosine")),
        (
            "gains {0.01 to 0.02} dB, random groups",
            ("tab07_ablations", "effect", "ablation == 'MGPF groups' and arm != 'one gate'"),
        ),
        ("Output adapters give B {0.2} dB", arm("B2 adapters", "adapters")),
        (
            "costs the average {-0.5} dB, strategy A {-0.01} dB and the closed form {-0.05} dB; C gains {0.16} dB",
            *(arm(f"harmful prior, {name}", "added") for name in ("average", "A", "closed form", "C")),
        ),
        (
            "costs C {-0.6} dB, the literal one {-2.2} dB; every entropy term costs strategy A {-0.8} dB or more",
            arm("C1 diversity", "quadratic"),
            arm("C1 diversity", "literal"),
            arm("entropy", "shared out"),
        ),
        ("Static affine weights are {0.2} dB better", arm("sign, static", "free")),
        ("and {0.4} dB better without it", arm("sign, gate, no torus", "free")),
        ("gains the closed form {0.05} dB", arm("context, closed form", "context")),
        ("together (`closed_union`) it is {0.07} dB better", arm("heterogeneity, closed form", "both")),
        (
            "by {-0.6 to -0.9} dB with the torus and by {-0.9 to -1.2} dB without",
            *(("tab07_overtaking", "effect", f"bank == '{bank}' and n_train >= 30") for bank in ("main", "far")),
        ),
        (
            "it is below the closed form, by {0.2 to 0.4} dB",
            [labels("closed_form", "main"), labels("denoiser", "main")],
        ),
        (
            "it is above it, by {0.15 to 0.23} dB up to 100 labels (by {0.11} dB with 100 over three seeds, tuned)",
            [labels(method, "far", "n_train <= 100") for method in ("denoiser", "closed_form")],
            [row("denoiser", "far"), row("closed_form", "far")],
        ),
        (
            "16,000 steps gain {0.1} dB over 4,000 with 100 labels and {0.8} dB with 1,000",
            [steps(100, 16000), steps(100, 4000)],
            [steps(1000, 16000), steps(1000, 4000)],
        ),
        (
            "is within {0.05} dB at any number of labels",
            lambda: abs(values([labels("closed_form", "main"), labels("closed_levels", "main")])).max(),
        ),
        (
            "Without the torus different priors are {0.2 to 0.4} dB better",
            [labels("closed_form", "far"), labels("closed_levels", "far")],
        ),
        (
            "MAML is {-0.19} dB worse with no label to adapt to and {0.12 to 0.29} dB better with one or more",
            ("tab07_shots", "effect", "arm == 'MAML' and labels == 0"),
            ("tab07_shots", "effect", "arm == 'MAML' and labels > 0"),
        ),
        ("{0.47 to 0.59} dB above joint training", ("tab07_shots", "effect", "arm == 'from nothing'")),
        (
            "the closed form gains {0.16} dB by the second prior and {0.17} dB by the six that follow; strategy A "
            "loses {-0.14} dB on the way, the average {-1.1} dB",
            [grown("closed_form", 2), grown("closed_form", 1)],
            [grown("closed_form", 8), grown("closed_form", 2)],
            [grown("a:image", 8), grown("a:image", 1)],
            [grown("average", 8), grown("average", 1)],
        ),
        (
            "come within {0.1} dB of the torus alone",
            [grown("closed_form", 1), grown("closed_form", 6, "nearest last")],
        ),
        (
            "Leaving out the torus costs the closed form {0.35} dB",
            ("tab07_leave", "effect", "prior == 'torus'"),
        ),
    ],
    "08_weight_analysis": [
        (
            "Of {96} differences between a structure and the whole image {89} differ significantly from zero",
            lambda: len(read("tab08_structure")),
            lambda: (read("tab08_structure").p_holm < 0.05).sum(),
        ),
        (
            "(rank correlation {0.4} for strategy A, {0.5} for the closed form)",
            goes_along("a:image"),
            goes_along("closed_form"),
        ),
        (
            "that costs it {0.7} dB",
            ("tab08_occlusion", "loss", "method == 'closed_form' and prior == 'identity'"),
        ),
        ("taken away it costs {0.3} dB", ("tab08_occlusion", "loss", "method == 'closed_form' and prior == 'tv'")),
        (
            "no weight differs by more than {0.005} between images (middle 80 %)",
            lambda: read("tab08_weights").query("method == 'a:image'").eval("hi - lo").max(),
        ),
        (
            "One pick per image would win {0.04 to 0.12} dB over what is fused at the end; one per patch {0.2 to 0.5}",
            regret("image"),
            regret("8 px"),
        ),
    ],
    "09_pmoe": [
        (
            "Joint training is {11} points above the CNN of equal neurons at N = 100",
            ("tab09_gains", "100 * effect", "arm == 'joint' and data == 'digits' and N == 100"),
        ),
        (
            "at N = 100 by {6.6} points",
            ("tab09_gains", "100 * effect", "arm == 'separate' and data == 'digits' and N == 100"),
        ),
        (
            "(from {99} % with 3 of them to {98} % with 35); separate training loses {12} points",
            *(("tab09_pmoe", "100 * accuracy", f"arm == 'joint' and N == 100 and n == {n}") for n in (4, 36)),
            [("tab09_pmoe", "100 * accuracy", f"arm == 'separate' and N == 100 and n == {n}") for n in (4, 36)],
        ),
        (
            "every arm is at {100} % with 100 samples, but for separate training",
            ("tab09_pmoe", "100 * accuracy", "data == 'theory' and N == 100 and arm != 'separate'"),
        ),
    ],
    "10_m87": [
        (
            "is {0.4} dB above every other single prior",
            [uncalibrated("average"), lambda: max(values(uncalibrated(f"single:{name}"))[0] for name in BANKS["far"])],
        ),
        (
            "C is {0.7} dB worse, A {1.2} dB, affine weights (static or in closed form) {2.4 to 2.5} dB, and B, with "
            "its output adapters, {3.5} dB",
            *([uncalibrated("average"), uncalibrated(method)] for method in ("c:image", "a:image")),
            [
                uncalibrated("average"),
                ("tab10_families", "psnr", "method in ['static_affine', 'closed_form'] and family == 'black hole'"),
            ],
            [uncalibrated("average"), uncalibrated("b:image")],
        ),
    ],
    "13_conclusions": [
        ("the ceiling is {0.1} dB above the best single prior", row("ceiling")),
        (
            "win {0.45} dB, the closed form of the bank alone {0.34}, its control, the best prior at six levels and "
            "the identity, {0.38}",
            *(row(method) for method in ("closed_union", "closed_form", "closed_levels")),
        ),
        (
            "fusing wins {1.1} dB by the closed form and {1.2} by `closed_union`, as much as the ceiling; with 1,000 "
            "labels {1.35}",
            row("closed_form", "far"),
            row("closed_union", "far"),
            ("tab13_gap", "effect", "method == 'closed_union' and bank == 'far' and n_train == 1000"),
        ),
        ("the best single prior, by {0.06} and {0.22} dB", row("b:image"), row("b:image", "far")),
        (
            "where it is not they are {0.2} dB better",
            [row("closed_form", "far"), row("closed_levels", "far")],
        ),
        (
            "{1.2} and {2.3} dB above the best single prior, {-0.8} and {-1.1} above the best fused row",
            row("unet"),
            row("unet", "far"),
            lead("unet", "main", 100),
            lead("unet", "far", 100),
        ),
        ("{0.35} dB below `closed_union`", lead("denoiser", "main", 100)),
    ],
}


def values(source: Source) -> np.ndarray:
    if callable(source):
        return np.atleast_1d(source())
    if isinstance(source, list):
        return values(source[0]) - values(source[1])
    table, column, rows = source
    found = read(table).query(rows).eval(column).to_numpy()
    assert len(found), source
    return found


def concluded(chapter: str) -> str:
    """The cells that say what one run has shown, in one line."""
    cells = jupytext.read(ROOT / "notebooks" / f"{chapter}.py").cells
    told = r"^In the paper's run[,: (]|^With 20 trials"
    return " ".join(" ".join(c.source for c in cells if re.search(told, c.source, re.MULTILINE)).split())


@pytest.mark.parametrize("chapter", [c.name for c in CHAPTERS])
def test_numbers_in_words_are_those_of_the_tables(chapter):
    text = concluded(chapter)
    assert bool(text) == (chapter in SAID)
    for words, *sources in SAID.get(chapter, []):
        numbers = re.findall(r"\{(.*?)\}", words)
        plain = re.sub(r"\{(.*?)\}", lambda found: found[1].replace("-", ""), words)
        assert plain in text
        text = text.replace(plain, "")
        for number, source in zip(numbers, sources, strict=True):
            told, found = sorted(float(part) for part in number.split(" to ")), values(source)
            digits = len(number.split(" ")[0].partition(".")[2])
            half = 0.5 * 10.0**-digits + 5e-4  # of the last digit, here and in the table
            assert abs(found.min() - told[0]) <= half and abs(found.max() - told[-1]) <= half, (words, number, found)
    assert not re.findall(r"[^.]*\d\.\d[^.]*|[^.]*\d (?:dB|%|points)[^.]*", text)
