"""The figures that chapters 03 to 05 have of their own; the others are `drawing.forest` and `drawing.mosaic`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fusionlib.paper import style


def grid_of(count: int, columns: int = 3) -> tuple[Figure, np.ndarray]:
    """Axes for one thing each, over iterations."""
    columns = min(columns, count)
    rows = -(-count // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, 2.2 * rows + 0.6), sharex=True, squeeze=False)
    for ax in axes.flat[count:]:
        ax.axis("off")
    for ax in axes.flat[max(0, count - columns) : count]:
        ax.set_xlabel("iteration")
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.xaxis.set_major_locator(MaxNLocator(9 - columns, integer=True))
    return fig, axes


def curves(data: pd.DataFrame) -> Figure:
    """Rows: method, images, iteration, psnr: mean over labelled images and over development images."""
    methods = list(dict.fromkeys(data.method))
    fig, axes = grid_of(len(methods))
    for ax, method in zip(axes.flat, methods, strict=False):
        for images, dashes in (("labelled", (4, 2)), ("development", (None, None))):
            part = data[(data.method == method) & (data.images == images)]
            ax.plot(part.iteration, part.psnr, lw=1.3, color=style.color(method), dashes=dashes, label=images)
        ax.set_title(style.label(method))
        ax.set_ylim(data.psnr.min() - 0.3, data.psnr.max() + 0.3)
    for row in axes:
        row[0].set_ylabel("PSNR [dB]")
    lines = [Line2D([], [], color="black", lw=1.3, dashes=d) for d in ((4, 2), (None, None))]
    fig.legend(
        lines, ["images it was fitted to", "development images"], loc="outside lower center", ncols=2, fontsize=7
    )
    return fig


def weights(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, iteration, weight, lo, hi: mean over images and places, and the middle 80 % of them."""
    methods, priors = list(dict.fromkeys(data.method)), list(dict.fromkeys(data.prior))
    fig, axes = grid_of(len(methods))
    for ax, method in zip(axes.flat, methods, strict=False):
        for prior in priors:
            part = data[(data.method == method) & (data.prior == prior)]
            colour = style.color(f"single:{prior}")
            ax.plot(part.iteration, part.weight, lw=1.3, color=colour, label=style.short(prior))
            ax.fill_between(part.iteration, part.lo, part.hi, color=colour, alpha=0.15, lw=0)
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.set_title(style.label(method))
    for row in axes:
        row[0].set_ylabel("weight")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(priors), fontsize=7)
    return fig
