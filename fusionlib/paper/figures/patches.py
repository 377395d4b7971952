"""The figures of chapters 06 and 09."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fusionlib.paper import style
from fusionlib.paper.plots import (
    SCALE,
    Arrays,
    curve,
    frame,
    grid_of,
    legend,
    map_picture,
    panels,
    scale_bar,
    sky_picture,
    table_of,
    ticks,
    zero,
)

FAMILIES = {"a": "A", "b": "B", "c": "C", "closed_form": "closed form (ours)"}
KINDS = {
    "cost_pruned": "closed form, priors worth their price (ours)",
    "top_p": "A, image, largest weights that reach p",
    "expert": "expert choice, by gradient",
    "single": "single priors",
}
REGIONS = {"ring": "#D55E00", "core": "#0072B2", "empty sky": "#666666"}


def fig06_resolution(data: pd.DataFrame) -> Figure:
    """Rows: family, bank, coverage, side [px], gain, lo, hi over the best single prior."""
    groups = list(data.groupby(["bank", "coverage"], sort=False))
    fig, axes = panels(1, len(groups), 1, 2.9, sharey=True)
    for ax, ((bank, coverage), part) in zip(axes[0], groups, strict=True):
        for k, (family, rows) in enumerate(part.groupby("family", sort=False)):
            name, rows = str(family), rows.sort_values("side")
            x, error = np.log2(rows.side.to_numpy()) + 0.06 * (k - 1.5), [rows.gain - rows.lo, rows.hi - rows.gain]
            look: dict[str, Any] = {
                "color": style.color(name if name == "closed_form" else f"{name}:image"),
                "label": FAMILIES[name],
            }
            ax.errorbar(x, rows.gain, error, marker="o", ms=3.5, lw=1.2, **look)
        zero(ax)
        ax.set_xticks([0, 2, 3, 4, 6], ["1", "4", "8", "16", "64"])
        ax.set(title=f"bank {bank}, coverage {coverage}", xlabel="pixels that share a weight")
        ax.invert_xaxis()
    axes[0, 0].set_ylabel("gain over the best single prior [dB]")
    legend(fig, axes, 4)
    return fig


def fig06_pareto(data: pd.DataFrame) -> Figure:
    """Rows: method, bank, psnr, flops, ms per image: what accuracy costs, in operations and time; p or price beside."""
    banks = list(dict.fromkeys(data.bank))
    fig, axes = panels(len(banks), 2, 1, 2.6 * len(banks) + 0.5)
    costs = (("flops", 1e-9, "GFLOP of the priors per image"), ("ms", 1.0, "ms per image"))
    for row, bank in zip(axes, banks, strict=True):
        part = data[data.bank == bank]
        for ax, (column, scale, xlabel) in zip(row, costs, strict=True):
            for kind, line in part.groupby(part.method.str.partition(":")[0], sort=False):
                line, first = line.sort_values(column), str(line.sort_values(column).method.iloc[0])
                label = KINDS.get(str(kind), style.label(first))
                curve(ax, scale * line[column], line.psnr, style.color(first), label, fmt="o-", ms=4, lw=0.8)
            for k, point in enumerate(part.sort_values(["psnr", "method"]).to_dict("records")):
                _annotate(ax, str(point["method"]), scale * point[column], point["psnr"], above=k % 2 == 1)
            ax.set(xscale="log", xlabel=xlabel, title=f"bank {bank}")
            ax.margins(0.18, 0.12)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        row[0].set_ylabel("PSNR [dB]")
    legend(fig, axes[:, 0], 2)
    return fig


def _annotate(ax: Axes, method: str, x: float, y: float, *, above: bool) -> None:
    """The number in a method's name beside its point, of neighbours on different sides."""
    kind, _, argument = method.partition(":")
    number, left = argument.rpartition("/")[2], above or kind == "top_p"
    if number.replace(".", "").isdigit():
        away = (-5 if left else 5, 0 if kind == "top_p" else 5 if above else -5)
        look: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 6,
            "ha": "right" if left else "left",
            "va": "center",
        }
        ax.annotate(number, (x, y), away, **look)


def fig06_maps(data: Arrays) -> Figure:
    """`truth` (n, H, W), `weights` (n, N, H, W), `name` (N,): weights in the middle of the loop, one scale."""
    names, count = [str(v) for v in data["name"]], len(data["truth"])
    top = float(np.quantile(np.abs(data["weights"]), 0.99))
    fig, axes = panels(count, len(names) + 1, 1.25, 1.1 * count + 0.9)
    for row, truth, maps in zip(axes, data["truth"], data["weights"], strict=True):
        shown = sky_picture(row[0], truth, "truth")
        for ax, name, image in zip(row[1:], names, maps, strict=True):
            drawn = map_picture(ax, image, style.short(name), top, signed=True)
    frame(axes)
    scale_bar(fig, drawn, axes[:, 1:], "weight")
    scale_bar(fig, shown, axes[:, :1], SCALE.partition("(")[0], shrink=0.9, ends="max")
    return fig


def fig06_regions(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, region, iteration, weight, lo, hi; one method."""
    priors = list(dict.fromkeys(data.prior))
    fig, axes = grid_of(len(priors), columns=4)
    for ax, prior in zip(axes.flat, priors, strict=False):
        for region, colour in REGIONS.items():
            part = data[(data.prior == prior) & (data.region == region)]
            curve(ax, part.iteration, part.weight, colour, region, (part.lo, part.hi))
        zero(ax)
        ax.set_title(style.short(prior))
    for row in axes:
        row[0].set_ylabel("weight")
    legend(fig, axes.flat[0], 3)
    return fig


# --- chapter 09 ---

ARMS = {"cnn": "CNN", "separate": "pMoE, separate", "joint": "pMoE, joint", "image": "mixture by sample"}
ARM_COLORS = {"cnn": "#1A1A1A", "separate": "#0072B2", "joint": "#D55E00", "image": "#999999"}


def _lines(ax: Axes, data: pd.DataFrame, x: str, y: str = "accuracy") -> None:
    for arm, part in data.groupby("arm", sort=False):
        part, name = part.sort_values(x), str(arm)
        band = (part.lo, part.hi) if y == "accuracy" else None
        curve(ax, part[x], part[y], ARM_COLORS[name], ARMS[name], band, "o-", lw=1.2)


def fig09_accuracy(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe over N: accuracy, and how often the discriminative patch is among those chosen."""
    fig, (axes,) = panels(1, 2, 1, 2.8)
    routed = data.dropna(subset="router_hit")
    _lines(axes[0], data, "N")
    _lines(axes[1], routed, "N", "router_hit")
    for arm, part in routed.groupby("arm", sort=False):
        axes[1].axhline(float((part.l / part.n).iloc[0]), color=ARM_COLORS[str(arm)], lw=0.8, ls=":")
    for ax, label in zip(axes, ("test accuracy", "discriminative patch chosen"), strict=True):
        ax.set(xscale="log", xlabel="training samples N", ylabel=label)
        ticks(ax, sorted(set(data.N)), fontsize=7)
        ax.grid(alpha=0.3)
    legend(fig, axes[0], 4)
    return fig


def fig09_success(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe, with `map` the title and `x` the column across: share of trials of at least 95 %."""
    maps = list(data.groupby("map", sort=False))
    fig, axes = panels(1, len(maps), 1, 2.6)
    for ax, (title, part) in zip(axes[0], maps, strict=True):
        across = str(part.x.iloc[0])
        table = part.pivot_table(index="N", columns=across, values="success")
        values, (rows, columns) = table.to_numpy(), ([str(v) for v in axis] for axis in (table.index, table.columns))
        look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "origin": "lower", "aspect": "auto"}
        text = [[f"{v:.2f}" for v in row] for row in values]
        shown = table_of(ax, values, rows, columns, text=text, dark=values <= 0.5, **look)
        names = {"l": "patches per expert l", "k": "experts k"}
        ax.set(title=str(title), xlabel=names[across], ylabel="training samples N" if ax is axes[0, 0] else "")
    fig.colorbar(shown, ax=axes, shrink=0.8, label="share of trials ≥ 95 %")
    return fig


def fig09_shape(data: pd.DataFrame) -> Figure:
    """Rows of tab09_pmoe with `panel`: `m` over neurons, `n` over patches."""
    fig, (axes,) = panels(1, 2, 1, 2.8, sharey=True)
    labels = {"m": "neurons m", "n": "patches n, one of them discriminative"}
    for ax, (panel, label) in zip(axes, labels.items(), strict=True):
        part = data[data.panel == panel]
        _lines(ax, part, panel)
        ax.set(xscale="log", xlabel=label)
        ticks(ax, sorted(set(part[panel])))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy")
    legend(fig, axes[0], 4)
    return fig


def fig09_cost(data: pd.DataFrame) -> Figure:
    """Rows: arm, l, flops, bytes, seconds, each over the CNN's of equal neurons."""
    fig, (axes,) = panels(1, 3, 1, 2.7, sharey=True)
    titles = {"flops": "operations per sample", "bytes": "memory of a training step", "seconds": "training time"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        _lines(ax, data, "l", name)
        zero(ax, at=1)
        ax.set(xscale="log", yscale="log", xlabel="patches per expert l", title=title)
        ticks(ax, sorted(set(data.l)))
    axes[0].set_ylabel("over the CNN")
    legend(fig, axes[0], 2)
    return fig
