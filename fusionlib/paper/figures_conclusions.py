"""The figures of chapter 13."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.drawing import EXTENT, SCALE, Arrays, frame, sky_picture
from fusionlib.paper.figures_ablations import fig07_labels


def fig13_strip(data: Arrays) -> Figure:
    """As `mosaic`, one row for each image."""
    methods, count = [str(m) for m in data["method"]], len(data["truth"])
    columns = len(methods) + 2
    fig, axes = plt.subplots(
        count, columns, figsize=(1.22 * columns, 1.25 * count + 1.1), squeeze=False, layout="constrained"
    )
    for k, row in enumerate(axes):
        shown = sky_picture(row[0], data["truth"][k], "")
        row[1].imshow(data["dirty"][k], cmap=style.SKY, vmin=0, vmax=1, extent=EXTENT)
        for ax, image, psnr in zip(row[2:], data["image"][:, k], data["psnr"][:, k], strict=True):
            sky_picture(ax, image, "")
            ax.text(0.97, 0.04, f"{psnr:.1f} dB", transform=ax.transAxes, color="white", ha="right", fontsize=8)
    for ax, title in zip(axes[0], ("truth", "dirty image*", *(_title(m) for m in methods)), strict=True):
        ax.set_title(title, fontsize=8.5)
    frame(axes)
    label = f"{SCALE};  * scaled to its own peak"
    fig.colorbar(shown, ax=axes, shrink=0.4, aspect=50, location="bottom", label=label, extend="both")
    return fig


def _title(method: str) -> str:
    name = style.short(method)
    return f"best: {name}" if method.startswith("single:") else name.split(" (")[0].split(",")[0]


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
    fig, ax = plt.subplots(figsize=(style.WIDTH, 0.8 + 0.27 * len(claims)))
    for y, (essay, claim) in enumerate(claims):
        part = data[(data.essay == essay) & (data.claim == claim)]
        places = y + np.linspace(-0.28, 0.28, len(part)) if len(part) > 1 else [y]
        for place, row in zip(places, part.to_dict("records"), strict=True):
            error = [[row["effect"] - row["lo"]], [row["hi"] - row["effect"]]]
            ax.errorbar(row["effect"], place, xerr=error, fmt="o", ms=2.5, lw=0.9, color=style.VERDICTS[row["verdict"]])
    ax.axvline(0, color="black", lw=0.6, ls=":")
    ax.set_yticks(range(len(claims)), [f"{claim}  ({essay})" for essay, claim in claims], fontsize=6.5)
    ax.set_ylim(len(claims) - 0.4, -0.6)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [t for t in (-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4) if data.lo.min() <= t <= data.hi.max()]
    ax.set_xticks(ticks, [f"{t:g}".replace("-", "−") for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("gain that the claim says is positive [dB]")
    ax.grid(axis="x", alpha=0.3)
    marks = [
        plt.Line2D([], [], color=style.VERDICTS[v], marker="o", ms=2.5, lw=0.9, label=word)
        for v, word in {"better": "positive", "worse": "negative", "negligible": "negligible (below 0.1 dB)",
                        "undecided": "undecided"}.items()
    ]  # fmt: skip
    fig.legend(handles=marks, loc="lower left", fontsize=6.5, frameon=False).set_in_layout(False)  # beside the axis
    return fig
