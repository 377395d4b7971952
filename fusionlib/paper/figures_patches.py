"""The figures of chapters 06 and 09."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fusionlib.paper import style
from fusionlib.paper.drawing import EXTENT, SCALE, Arrays, frame, sky_picture
from fusionlib.paper.figures_strategies import grid_of

FAMILIES = {"a": "A", "b": "B", "c": "C", "closed_form": "closed form (ours)"}


def fig06_resolution(data: pd.DataFrame) -> Figure:
    """Rows: family, bank, coverage, side [px], gain, lo, hi over the best single prior."""
    panels = list(data.groupby(["bank", "coverage"], sort=False))
    fig, axes = plt.subplots(1, len(panels), figsize=(style.WIDTH, 2.9), sharey=True, squeeze=False)
    for ax, ((bank, coverage), part) in zip(axes[0], panels, strict=True):
        for k, (family, rows) in enumerate(part.groupby("family", sort=False)):
            rows, colour = (
                rows.sort_values("side"),
                style.color({"closed_form": "closed_form"}.get(str(family), f"{family}:image")),
            )
            x = np.log2(rows.side.to_numpy()) + 0.06 * (k - 1.5)
            error = [rows.gain - rows.lo, rows.hi - rows.gain]
            ax.errorbar(x, rows.gain, error, marker="o", ms=3.5, lw=1.2, color=colour, label=FAMILIES[str(family)])
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.set_xticks([0, 2, 3, 4, 6], ["1", "4", "8", "16", "64"])
        ax.set(title=f"bank {bank}, coverage {coverage}", xlabel="pixels that share a weight")
        ax.invert_xaxis()
    axes[0, 0].set_ylabel("gain over the best single prior [dB]")
    _legend(fig, axes[0], 4)
    return fig


def _legend(fig: Figure, axes: np.ndarray, columns: int) -> None:
    """One legend of what is in any of the axes."""
    entries: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    fig.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=8)


def fig06_pareto(data: pd.DataFrame) -> Figure:
    """Rows: method, bank, psnr, flops, ms per image: what accuracy costs, in operations and time; p or price beside."""
    banks = list(dict.fromkeys(data.bank))
    fig, axes = plt.subplots(len(banks), 2, figsize=(style.WIDTH, 2.6 * len(banks) + 0.5), squeeze=False)
    for row, bank in zip(axes, banks, strict=True):
        part = data[data.bank == bank]
        for ax, (column, scale, label) in zip(
            row, (("flops", 1e-9, "GFLOP of the priors per image"), ("ms", 1.0, "ms per image")), strict=True
        ):
            for kind, line in part.groupby(part.method.str.partition(":")[0], sort=False):
                line = line.sort_values(column)
                colour = style.color(str(line.method.iloc[0]))
                ax.plot(
                    scale * line[column],
                    line.psnr,
                    "o-",
                    ms=4,
                    lw=0.8,
                    color=colour,
                    label=KINDS.get(str(kind), style.label(str(line.method.iloc[0]))),
                )
            for k, point in enumerate(part.sort_values(["psnr", "method"]).to_dict("records")):
                kind, _, argument = str(point["method"]).partition(":")
                told, above = argument.rpartition("/")[2], k % 2 == 1  # neighbours on different sides
                left = above or kind == "top_p"
                if told.replace(".", "").isdigit():
                    away = (-5 if left else 5, 0 if kind == "top_p" else 5 if above else -5)
                    look = {"textcoords": "offset points", "fontsize": 6, "ha": "right" if left else "left"}
                    look |= {"va": "center"}
                    ax.annotate(told, (scale * point[column], point["psnr"]), away, **look)
            ax.set(xscale="log", xlabel=label, title=f"bank {bank}")
            ax.margins(0.18, 0.12)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        row[0].set_ylabel("PSNR [dB]")
    _legend(fig, axes[:, 0], 2)
    return fig


KINDS = {
    "priced": "closed form, priors worth their price (ours)",
    "top_p": "A, image, largest weights that reach p",
    "expert": "expert choice, by gradient",
    "single": "single priors",
}


def fig06_maps(data: Arrays) -> Figure:
    """`truth` (n, H, W), `weights` (n, N, H, W), `name` (N,): weights in the middle of the loop, one scale."""
    names, count = [str(v) for v in data["name"]], len(data["truth"])
    top = float(np.quantile(np.abs(data["weights"]), 0.99))
    fig, axes = plt.subplots(count, len(names) + 1, figsize=(style.WIDTH * 1.25, 1.1 * count + 0.9), squeeze=False)
    for row, truth, maps in zip(axes, data["truth"], data["weights"], strict=True):
        shown = sky_picture(row[0], truth, "truth")
        for ax, name, image in zip(row[1:], names, maps, strict=True):
            drawn = ax.imshow(image, cmap=style.SIGNED, vmin=-top, vmax=top, extent=EXTENT)
            ax.set_title(style.short(name))
    frame(axes)
    fig.colorbar(drawn, ax=axes[:, 1:], shrink=0.4, aspect=50, location="bottom", label="weight", extend="both")
    fig.colorbar(shown, ax=axes[:, :1], shrink=0.9, location="bottom", label=SCALE.partition("(")[0], extend="max")
    return fig


def fig06_regions(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, region, iteration, weight, lo, hi; one method."""
    priors = list(dict.fromkeys(data.prior))
    fig, axes = grid_of(len(priors), columns=4)
    for ax, prior in zip(axes.flat, priors, strict=False):
        for region, colour in zip(("ring", "core", "empty sky"), ("#D55E00", "#0072B2", "#666666"), strict=True):
            part = data[(data.prior == prior) & (data.region == region)]
            ax.plot(part.iteration, part.weight, lw=1.3, color=colour, label=region)
            ax.fill_between(part.iteration, part.lo, part.hi, color=colour, alpha=0.15, lw=0)
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.set_title(style.short(prior))
    for row in axes:
        row[0].set_ylabel("weight")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


# --- chapter 09 ---

ARMS = {"cnn": "CNN", "separate": "pMoE, separate", "joint": "pMoE, joint", "image": "mixture by sample"}
ARM_COLORS = {"cnn": "#1A1A1A", "separate": "#0072B2", "joint": "#D55E00", "image": "#999999"}


def _lines(ax: plt.Axes, data: pd.DataFrame, x: str, y: str = "accuracy") -> None:
    for arm, part in data.groupby("arm", sort=False):
        part = part.sort_values(x)
        ax.plot(part[x], part[y], "o-", ms=3.5, lw=1.2, color=ARM_COLORS[str(arm)], label=ARMS[str(arm)])
        if y == "accuracy":
            ax.fill_between(part[x], part.lo, part.hi, color=ARM_COLORS[str(arm)], alpha=0.15, lw=0)


def fig09_accuracy(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe over N: accuracy, and how often the discriminative patch is among those chosen."""
    fig, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 2.8))
    _lines(axes[0], data, "N")
    _lines(axes[1], data.dropna(subset="router_hit"), "N", "router_hit")
    for arm, part in data.dropna(subset="router_hit").groupby("arm", sort=False):
        axes[1].axhline(float((part.l / part.n).iloc[0]), color=ARM_COLORS[str(arm)], lw=0.8, ls=":")
    axes[0].set(xscale="log", xlabel="training samples N", ylabel="test accuracy")
    axes[1].set(xscale="log", xlabel="training samples N", ylabel="discriminative patch chosen")
    for ax in axes:
        ax.set_xticks(sorted(set(data.N)), [str(v) for v in sorted(set(data.N))], fontsize=7)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def fig09_success(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe, with `map` the title and `x` the column across: share of trials of at least 95 %."""
    maps = list(data.groupby("map", sort=False))
    fig, axes = plt.subplots(1, len(maps), figsize=(style.WIDTH, 2.6), squeeze=False)
    for ax, (title, part) in zip(axes[0], maps, strict=True):
        across = str(part.x.iloc[0])
        table = part.pivot_table(index="N", columns=across, values="success")
        shown = ax.imshow(table, cmap="gray", vmin=0, vmax=1, origin="lower", aspect="auto")
        ax.set_xticks(range(table.shape[1]), [str(v) for v in table.columns])
        ax.set_yticks(range(table.shape[0]), [str(v) for v in table.index])
        for (i, j), value in np.ndenumerate(table.to_numpy()):
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="black" if value > 0.5 else "white"
            )
        names = {"l": "patches per expert l", "k": "experts k"}
        ax.set(title=str(title), xlabel=names[across], ylabel="training samples N" if ax is axes[0, 0] else "")
        ax.spines[:].set_visible(True)
    fig.colorbar(shown, ax=axes, shrink=0.8, label="share of trials ≥ 95 %")
    return fig


def fig09_shape(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe with `panel`: `m` over neurons, `n` over patches."""
    fig, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 2.8), sharey=True)
    for ax, panel, label in zip(axes, ("m", "n"), ("neurons m", "patches n, one of them discriminative"), strict=True):
        part = data[data.panel == panel]
        _lines(ax, part, panel)
        ax.set(xscale="log", xlabel=label)
        ax.set_xticks(sorted(set(part[panel])), [str(v) for v in sorted(set(part[panel]))])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def fig09_cost(data: pd.DataFrame) -> Figure:
    """Rows: arm, l, flops, bytes, seconds, each over the CNN's of equal neurons."""
    fig, axes = plt.subplots(1, 3, figsize=(style.WIDTH, 2.7), sharey=True)
    for ax, name, title in zip(
        axes,
        ("flops", "bytes", "seconds"),
        ("operations per sample", "memory of a training step", "training time"),
        strict=True,
    ):
        for arm, part in data.groupby("arm", sort=False):
            part = part.sort_values("l")
            ax.plot(part.l, part[name], "o-", ms=3.5, lw=1.2, color=ARM_COLORS[str(arm)], label=ARMS[str(arm)])
        ax.axhline(1, color="black", lw=0.6, ls=":")
        ax.set(xscale="log", yscale="log", xlabel="patches per expert l", title=title)
        ax.set_xticks(sorted(set(data.l)), [str(v) for v in sorted(set(data.l))])
        ax.minorticks_off()
    axes[0].set_ylabel("over the CNN")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return fig
