"""The figures of chapter 13."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.figures.ablations import fig07_labels
from fusionlib.paper.plots import Arrays, mosaic, panels, points, ticks, zero


def fig13_strip(data: Arrays) -> Figure:
    """As `mosaic`, one row for each image."""
    return mosaic(data, wrap=len(data["method"]) + 2)


def fig13_efficiency(data: pd.DataFrame) -> Figure:
    """Rows of tab13_gap: as `fig07_labels`, with the gain of the in-domain ceiling."""
    fig = fig07_labels(data)
    for ax, (_, here) in zip(fig.axes, data.groupby("bank", sort=False), strict=True):
        ceiling = here.ceiling.iloc[0]
        if np.isfinite(ceiling):
            ax.axhline(ceiling, color="black", lw=1, ls="--")
            box = {"fc": "white", "alpha": 0.8, "pad": 0.5, "lw": 0}
            ax.text(0.02, ceiling, "ceiling", transform=ax.get_yaxis_transform(), va="center", fontsize=7, bbox=box)
            low, high = ax.get_ylim()
            ax.set_ylim(low, max(high, ceiling + 0.25))
    return fig


def fig13_claims(data: pd.DataFrame) -> Figure:
    """Rows of tab13_claims: every comparison behind a claim; the claim holds where all of its points are blue."""
    claims = list(dict.fromkeys(zip(data.essay, data.claim, strict=True)))
    fig, ((ax,),) = panels(1, 1, 1, 0.8 + 0.27 * len(claims))
    for y, (essay, claim) in enumerate(claims):
        part = data[(data.essay == essay) & (data.claim == claim)]
        places = y + np.linspace(-0.28, 0.28, len(part)) if len(part) > 1 else np.array([y])
        colors = [style.VERDICTS[v] for v in part.verdict]
        points(ax, part, "effect", "lo", "hi", colors, places=places.tolist(), size=2.5)
    zero(ax, vertical=True)
    ax.set_yticks(range(len(claims)), [f"{claim}  ({essay})" for essay, claim in claims], fontsize=6.5)
    ax.set_ylim(len(claims) - 0.4, -0.6)
    ax.set_xscale("symlog", linthresh=1)
    ticks(ax, [t for t in (-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4) if data.lo.min() <= t <= data.hi.max()])
    ax.set_xlabel("gain that the claim says is positive [dB]")
    words = {"better": "positive", "worse": "negative", "negligible": "negligible (< 0.1 dB)", "undecided": "undecided"}
    marks = [plt.Line2D([], [], color=style.VERDICTS[v], marker="o", ms=2.5, lw=0.9, label=w) for v, w in words.items()]
    fig.legend(handles=marks, loc="lower left", fontsize=6.5, frameon=False).set_in_layout(False)  # beside the axis
    return fig
