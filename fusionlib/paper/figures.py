"""One function per kind of figure: tidy table or arrays in, figure out.

Chapters 00 to 02 are here; the others are imported, so that a published figure's `drawn_by` is found here.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.paper.drawing import EXTENT, SCALE, Arrays, forest, frame, mosaic, sky_picture
from fusionlib.paper.figures_ablations import (
    fig07_ablations,
    fig07_labels,
    fig07_leave,
    fig07_number,
    fig07_shots,
    fig07_stress,
)
from fusionlib.paper.figures_conclusions import fig13_claims, fig13_efficiency, fig13_strip
from fusionlib.paper.figures_explorer import fig14_view
from fusionlib.paper.figures_m87 import fig10_closures, fig10_families, fig10_m87, fig10_profiles
from fusionlib.paper.figures_patches import (
    fig06_maps,
    fig06_pareto,
    fig06_regions,
    fig06_resolution,
    fig09_accuracy,
    fig09_cost,
    fig09_shape,
    fig09_success,
)
from fusionlib.paper.figures_strategies import curves, weights
from fusionlib.paper.figures_trained import fig15_data, fig15_families, fig15_losses, fig15_samples
from fusionlib.paper.figures_weights import (
    fig08_alignment,
    fig08_calibration,
    fig08_disagreement,
    fig08_embeddings,
    fig08_m87,
    fig08_occlusion,
    fig08_regret,
    fig08_regret_maps,
    fig08_structure,
)

__all__ = [
    "curves",
    "fig00_coverage",
    "fig00_observation",
    "fig00_sky",
    "fig01_correlation",
    "fig01_denoised",
    "fig01_winners",
    "fig02_convergence",
    "fig02_psnr",
    "fig06_maps",
    "fig06_pareto",
    "fig06_regions",
    "fig06_resolution",
    "fig07_ablations",
    "fig07_labels",
    "fig07_leave",
    "fig07_number",
    "fig07_shots",
    "fig07_stress",
    "fig08_alignment",
    "fig08_calibration",
    "fig08_disagreement",
    "fig08_embeddings",
    "fig08_m87",
    "fig08_occlusion",
    "fig08_regret",
    "fig08_regret_maps",
    "fig08_structure",
    "fig09_accuracy",
    "fig09_cost",
    "fig09_shape",
    "fig09_success",
    "fig10_closures",
    "fig10_families",
    "fig10_m87",
    "fig10_profiles",
    "fig13_claims",
    "fig13_efficiency",
    "fig13_strip",
    "fig14_view",
    "fig15_data",
    "fig15_families",
    "fig15_losses",
    "fig15_samples",
    "forest",
    "mosaic",
    "weights",
]


# --- chapter 00 ---


def fig00_sky(data: Arrays) -> Figure:
    """`image` (n, 128, 128), `spin`, `inclination` (n,); 16 of them in the paper."""
    rows = -(-len(data["image"]) // 4)
    fig, axes = plt.subplots(rows, 4, figsize=(style.WIDTH, 1.75 * rows + 1.1), squeeze=False)
    used, rest = np.split(axes.flatten(), [len(data["image"])])
    for ax in rest:
        ax.axis("off")
    for ax, image, a, i in zip(used, data["image"], data["spin"], data["inclination"], strict=True):
        shown = sky_picture(ax, image, "" if np.isnan(a) else f"a = {a:+.2f}, i = {i:.0f}°")
    frame(used)
    fig.colorbar(shown, ax=axes, shrink=0.5, aspect=40, location="bottom", label=SCALE, extend="max")
    return fig


def fig00_coverage(data: pd.DataFrame) -> Figure:
    """Rows: coverage, u, v [Gλ], scan, visibilities, rank (the last two constant within a coverage)."""
    fig, axes = plt.subplots(
        1, data.coverage.nunique(), figsize=(style.WIDTH, 2.6), sharex=True, sharey=True, squeeze=False
    )
    for ax, (coverage, part) in zip(axes.flat, data.groupby("coverage", sort=False), strict=True):
        for sign in (1, -1):
            ax.scatter(sign * part.u, sign * part.v, s=5, color=style.COVERAGE_COLORS[float(coverage)], lw=0)  # type: ignore[arg-type]
        count, rank = part.visibilities.iloc[0], part["rank"].iloc[0]
        ax.set(title=f"coverage {coverage}: {part.scan.nunique()} scans\n{count} visibilities, rank {rank}")
        ax.set(xlabel="u [Gλ]", aspect="equal", xlim=(9, -9), ylim=(-6.5, 6.5))
    axes[0, 0].set_ylabel("v [Gλ]")
    return fig


def fig00_observation(data: Arrays) -> Figure:
    """`truth`, `beam`, `dirty` (H, W); `baseline` [Gλ], `amplitude`, `clean`, `sigma` [Jy], (M,) each."""
    fig = plt.figure(figsize=(style.WIDTH, 4.9))
    axes = fig.subplot_mosaic([["truth", "beam", "dirty"], ["amp", "amp", "amp"]], height_ratios=[1, 0.9])
    shown = sky_picture(axes["truth"], data["truth"], "truth")
    fig.colorbar(
        shown, ax=axes["truth"], shrink=0.7, location="bottom", label=f"1 = {1e3 * S_REF:g} mJy / pixel", extend="max"
    )
    for name, title, unit in (
        ("beam", "dirty beam", "response (peak 1)"),
        ("dirty", "dirty image", f"1 = {1e3 * S_REF:g} mJy / beam"),
    ):
        top = float(np.abs(data[name]).max())
        axes[name].imshow(data[name], cmap=style.SIGNED, vmin=-top, vmax=top, extent=EXTENT)
        axes[name].set_title(title)
        fig.colorbar(axes[name].images[0], ax=axes[name], shrink=0.7, location="bottom", label=unit)
    frame(np.array([axes["truth"], axes["beam"], axes["dirty"]]))
    ax = axes["amp"]
    order = np.argsort(data["baseline"])
    ax.errorbar(
        data["baseline"],
        data["amplitude"],
        data["sigma"],
        fmt="o",
        ms=2.5,
        lw=0.6,
        color=style.COVERAGE_COLORS[1.0],
        label="observed, with its thermal noise",
    )
    ax.plot(data["baseline"][order], data["clean"][order], "x", ms=3, mew=0.6, color="black", label="noise-free")
    ax.set(yscale="log", xlabel="baseline length [Gλ]", ylabel="|visibility| [Jy]", xlim=(0, None))
    ax.legend(loc="upper right", ncols=2)
    return fig


# --- chapter 01 ---


def fig01_denoised(data: Arrays) -> Figure:
    """`image` (S, M, H, W), `psnr` (S, M), `sigma` (S,), `name` (M,): the noisy image first."""
    names = [str(n) for n in data["name"]]
    rows, columns = data["psnr"].shape
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH * 1.25, 1.0 * rows + 0.95), squeeze=False)
    for row, sigma, images, scores in zip(axes, data["sigma"], data["image"], data["psnr"], strict=True):
        for ax, image, psnr in zip(row, images, scores, strict=True):
            shown = sky_picture(ax, image, "")
            box = {"facecolor": "black", "alpha": 0.7, "lw": 0, "pad": 1}
            ax.text(0.96, 0.04, f"{psnr:.1f}", transform=ax.transAxes, color="white", ha="right", fontsize=7, bbox=box)
        row[0].set_ylabel(f"σ = {sigma:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(style.short(name))
    frame(axes)
    label = f"{SCALE}; PSNR in dB"
    fig.colorbar(shown, ax=axes, shrink=0.4, aspect=50, location="bottom", label=label, extend="both")
    return fig


def fig01_correlation(data: pd.DataFrame) -> Figure:
    """Rows: prior, other, correlation of their errors."""
    names = list(dict.fromkeys(data.prior))
    value = data.set_index(["prior", "other"]).correlation
    matrix = np.array([[value[a, b] for b in names] for a in names])
    labels = [style.short(n) for n in names]
    fig, ax = plt.subplots(figsize=(0.62 * len(names) + 1.6, 0.52 * len(names) + 1.0))
    shown = ax.imshow(matrix, cmap=style.SIGNED, vmin=-1, vmax=1)
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if value > 0.7 else "black"
            )
    ax.set_xticks(range(len(names)), labels, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), labels)
    for spine in ax.spines.values():
        spine.set_visible(False)
    fig.colorbar(shown, ax=ax, label="error correlation", shrink=0.8)
    return fig


def fig01_winners(data: Arrays) -> Figure:
    """`truth`, `winner` (n, H, W): number of the prior in `name` (M,) with the least error at each pixel."""
    names = [str(n) for n in data["name"]]
    count = len(data["truth"])
    fig, axes = plt.subplots(2, count, figsize=(style.WIDTH, 2 * style.WIDTH / count + 0.6), squeeze=False)
    colours = mpl.colors.ListedColormap([style.color(f"single:{n}") for n in names])
    for (top, bottom), truth, winner in zip(axes.T, data["truth"], data["winner"], strict=True):
        sky_picture(top, truth, "")
        bottom.imshow(winner, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, extent=EXTENT, interpolation="nearest")
    frame(axes)
    axes[0, 0].set_ylabel("truth")
    axes[1, 0].set_ylabel("least error")
    share = np.bincount(data["winner"].ravel().astype(int), minlength=len(names)) / data["winner"].size
    handles = [
        mpl.patches.Patch(color=colours(k), label=f"{style.short(n)} {100 * share[k]:.0f} %")
        for k, n in enumerate(names)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return fig


# --- chapter 02 ---


def fig02_psnr(data: pd.DataFrame) -> Figure:
    """Table in the schema: PSNR with its interval, one panel per coverage."""
    data = data[data.method != "best_single"]
    coverages = list(dict.fromkeys(data.coverage))
    fig, axes = plt.subplots(
        1, len(coverages), figsize=(style.WIDTH, 0.9 + 0.28 * data.method.nunique()), sharey=True, squeeze=False
    )
    for ax, coverage in zip(axes.flat, coverages, strict=True):
        part = data[data.coverage == coverage][::-1]
        for y, row in enumerate(part.itertuples()):
            ax.errorbar(
                row.psnr,
                y,
                xerr=[[row.psnr - row.psnr_lo], [row.psnr_hi - row.psnr]],
                fmt="o",
                ms=5,
                color=style.color(str(row.method)),
            )
        ax.set(
            yticks=range(len(part)),
            yticklabels=[style.label(m) for m in part.method],
            title=f"coverage {coverage}",
            xlabel="PSNR [dB]",
        )
        ax.margins(y=0.2)
        ax.grid(axis="x", alpha=0.3)
    return fig


def fig02_convergence(data: pd.DataFrame) -> Figure:
    """Rows: method, iteration, chi2, step (means over the images shown)."""
    fig, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 3.2))
    for method, part in data.groupby("method", sort=False):
        for ax, column in zip(axes, ("step", "chi2"), strict=True):
            ax.plot(
                part.iteration,
                part[column],
                "o-",
                ms=2.5,
                lw=1.2,
                color=style.color(str(method)),
                label=style.label(str(method)),
            )
    axes[0].set(xlabel="iteration", ylabel="RMS change of the image", yscale="log")
    axes[1].set(xlabel="iteration", ylabel="reduced χ² of the denoised image", yscale="log")
    axes[1].axhline(1, color="black", lw=0.6, ls=":")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    return fig
