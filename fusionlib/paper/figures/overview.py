"""The figures of chapters 00 to 02."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.paper.plots import (
    EXTENT,
    SCALE,
    Arrays,
    curves,
    frame,
    legend,
    panels,
    points,
    scale_bar,
    sky_picture,
    table_of,
    zero,
)

# --- chapter 00 ---


def fig00_sky(data: Arrays) -> Figure:
    """`image` (n, 128, 128), `spin`, `inclination` (n,); 16 of them in the paper."""
    rows = -(-len(data["image"]) // 4)
    fig, axes = panels(rows, 4, 1, 1.75 * rows + 1.1)
    used, rest = np.split(axes.flatten(), [len(data["image"])])
    for ax in rest:
        ax.axis("off")
    for ax, image, a, i in zip(used, data["image"], data["spin"], data["inclination"], strict=True):
        shown = sky_picture(ax, image, "" if np.isnan(a) else f"a = {a:+.2f}, i = {i:.0f}°")
    frame(used)
    scale_bar(fig, shown, axes, SCALE, shrink=0.5, ends="max")
    return fig


def fig00_coverage(data: pd.DataFrame) -> Figure:
    """Rows: coverage, u, v [Gλ], scan, visibilities, rank (the last two constant within a coverage)."""
    fig, axes = panels(1, data.coverage.nunique(), 1, 2.6, sharex=True, sharey=True)
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
    look: dict[str, Any] = {"fmt": "o", "ms": 2.5, "lw": 0.6, "color": style.COVERAGE_COLORS[1.0]}
    ax.errorbar(data["baseline"], data["amplitude"], data["sigma"], **look, label="observed, with its thermal noise")
    ax.plot(data["baseline"][order], data["clean"][order], "x", ms=3, mew=0.6, color="black", label="noise-free")
    ax.set(yscale="log", xlabel="baseline length [Gλ]", ylabel="|visibility| [Jy]", xlim=(0, None))
    ax.legend(loc="upper right", ncols=2)
    return fig


# --- chapter 01 ---


def fig01_denoised(data: Arrays) -> Figure:
    """`image` (S, M, H, W), `psnr` (S, M), `sigma` (S,), `name` (M,): the noisy image first."""
    names = [str(n) for n in data["name"]]
    rows, columns = data["psnr"].shape
    fig, axes = panels(rows, columns, 1.25, 1.0 * rows + 0.95)
    for row, sigma, images, scores in zip(axes, data["sigma"], data["image"], data["psnr"], strict=True):
        for ax, image, psnr in zip(row, images, scores, strict=True):
            shown = sky_picture(ax, image, "")
            box = {"facecolor": "black", "alpha": 0.7, "lw": 0, "pad": 1}
            ax.text(0.96, 0.04, f"{psnr:.1f}", transform=ax.transAxes, color="white", ha="right", fontsize=7, bbox=box)
        row[0].set_ylabel(f"σ = {sigma:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(style.short(name))
    frame(axes)
    scale_bar(fig, shown, axes, f"{SCALE}; PSNR in dB")
    return fig


def fig01_correlation(data: pd.DataFrame) -> Figure:
    """Rows: prior, other, correlation of their errors."""
    names = list(dict.fromkeys(data.prior))
    value = data.set_index(["prior", "other"]).correlation
    matrix = np.array([[value[a, b] for b in names] for a in names])
    labels, text = [style.short(n) for n in names], [[f"{v:.2f}" for v in row] for row in matrix]
    fig, ((ax,),) = panels(1, 1, (0.62 * len(names) + 1.6) / style.WIDTH, 0.52 * len(names) + 1.0)
    look: dict[str, Any] = {"cmap": style.SIGNED, "vmin": -1, "vmax": 1, "turn": 40}
    shown = table_of(ax, matrix, labels, labels, text=text, dark=matrix > 0.7, **look)
    ax.spines[:].set_visible(False)
    fig.colorbar(shown, ax=ax, label="error correlation", shrink=0.8)
    return fig


def fig01_winners(data: Arrays) -> Figure:
    """`truth`, `winner` (n, H, W): number of the prior in `name` (M,) with the least error at each pixel."""
    names = [str(n) for n in data["name"]]
    count = len(data["truth"])
    fig, axes = panels(2, count, 1, 2 * style.WIDTH / count + 0.6)
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
    fig, axes = panels(1, len(coverages), 1, 0.9 + 0.28 * data.method.nunique(), sharey=True)
    for ax, coverage in zip(axes.flat, coverages, strict=True):
        part = data[data.coverage == coverage][::-1]
        colors, labels = [style.color(m) for m in part.method], [style.label(m) for m in part.method]
        points(ax, part, "psnr", "psnr_lo", "psnr_hi", colors, labels=labels, size=5)
        ax.set(title=f"coverage {coverage}", xlabel="PSNR [dB]")
        ax.margins(y=0.2)
    return fig


def fig02_convergence(data: pd.DataFrame) -> Figure:
    """Rows: method, iteration, chi2, step (means over the images shown)."""
    fig, (axes,) = panels(1, 2, 1, 3.2)
    labels = {"step": "RMS change of the image", "chi2": "reduced χ² of the denoised image"}
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        curves(ax, data, "iteration", column, fmt="o-", ms=2.5, lw=1.2)
        ax.set(xlabel="iteration", ylabel=label, yscale="log")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    zero(axes[1], at=1)
    legend(fig, axes[0], 5, 7)
    return fig
