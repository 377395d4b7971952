"""The figure that chapters 03 to 05 have of their own; the others are `drawing.forest` and `drawing.mosaic`."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusionlib.paper import style


def weights(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, iteration, weight, lo, hi: mean over images and places, and the middle 80 % of them."""
    methods, priors = list(dict.fromkeys(data.method)), list(dict.fromkeys(data.prior))
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, 2.2 * rows + 0.6), sharex=True, squeeze=False)
    for ax in axes.flat[len(methods) :]:
        ax.axis("off")
    for ax, method in zip(axes.flat, methods, strict=False):
        for prior in priors:
            part = data[(data.method == method) & (data.prior == prior)]
            colour = style.color(f"single:{prior}")
            ax.plot(part.iteration, part.weight, lw=1.3, color=colour, label=style.short(prior))
            ax.fill_between(part.iteration, part.lo, part.hi, color=colour, alpha=0.15, lw=0)
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.set_title(style.label(method))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("iteration")
    for row in axes:
        row[0].set_ylabel("weight")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(priors), fontsize=7)
    return fig
