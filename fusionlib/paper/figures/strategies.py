"""The figures that chapters 03 to 05 have of their own; the others are `plots.forest` and `plots.mosaic`."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusionlib.paper import style
from fusionlib.paper.plots import curve, grid_of, legend, zero

DASHES = {"labelled": (4, 2), "development": (None, None)}


def curves(data: pd.DataFrame) -> Figure:
    """Rows: method, images, iteration, psnr: mean over labelled images and over development images."""
    methods = list(dict.fromkeys(data.method))
    fig, axes = grid_of(len(methods))
    for ax, method in zip(axes.flat, methods, strict=False):
        for images, dashes in DASHES.items():
            part = data[(data.method == method) & (data.images == images)]
            curve(ax, part.iteration, part.psnr, style.color(method), dashes=dashes)
        ax.set(title=style.label(method), ylim=(data.psnr.min() - 0.3, data.psnr.max() + 0.3))
    for row in axes:
        row[0].set_ylabel("PSNR [dB]")
    lines = [Line2D([], [], color="black", lw=1.3, dashes=d) for d in DASHES.values()]
    words = ["images it was fitted to", "development images"]
    fig.legend(lines, words, loc="outside lower center", ncols=2, fontsize=7)
    return fig


def weights(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, iteration, weight, lo, hi: mean over images and places, and the middle 80 % of them."""
    methods, priors = list(dict.fromkeys(data.method)), list(dict.fromkeys(data.prior))
    fig, axes = grid_of(len(methods))
    for ax, method in zip(axes.flat, methods, strict=False):
        for prior in priors:
            part = data[(data.method == method) & (data.prior == prior)]
            band = part.lo, part.hi
            curve(ax, part.iteration, part.weight, style.color(f"single:{prior}"), style.short(prior), band)
        zero(ax)
        ax.set_title(style.label(method))
    for row in axes:
        row[0].set_ylabel("weight")
    legend(fig, axes.flat[0], len(priors), 7)
    return fig
