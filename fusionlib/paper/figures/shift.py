"""The figures of chapter 11."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.plots import (
    SCALE,
    Arrays,
    curve,
    dirty_picture,
    frame,
    legend,
    panels,
    points,
    scale_bar,
    sky_picture,
    table_of,
    ticks,
    zero,
)

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000")  # of conditions; colour-blind safe (Okabe & Ito)
LINES = (  # rows of fig11_labels
    "average of the bank",
    "closed form, pixel (ours) (home)",
    "end-to-end U-Net (home)",
    "end-to-end U-Net (mixed)",
    "closed form, data residuals (ours) (mixed)",
    "closed form, data residuals (ours) + network (mixed)",
)
REGRET_TOP = 3.0  # dB: regrets are shown on 0 .. this, larger ones as this


def fig11_map(data: pd.DataFrame) -> Figure:
    """Rows: name, condition, regret, kind: a number in each cell; rows by their mean regret, the bounds last."""
    names, cells = list(dict.fromkeys(data.name)), list(dict.fromkeys(data.condition))
    grid = data.pivot_table(index="name", columns="condition", values="regret")[cells]
    kind = data.groupby("name").kind.first()
    order = sorted(names, key=lambda n: (kind[n] in ("ceiling", "oracle"), grid.loc[n].mean()))
    regret = grid.loc[order].to_numpy()
    values = np.c_[regret.mean(1), regret]
    shown = np.clip(values, 0, REGRET_TOP)
    text = [[f"{v:.1f}".replace("-", "−") for v in row] for row in values]
    fig, ((ax,),) = panels(1, 1, 1.5, 1.9 + 0.2 * len(order))
    image = table_of(
        ax, shown, order, ["mean", *cells], text=text, dark=shown < REGRET_TOP / 2, size=5.5, turn=60,
        cmap="cividis", vmin=0, vmax=REGRET_TOP, aspect="auto",
    )  # fmt: skip
    ax.axvline(0.5, color="white", lw=3)
    ax.tick_params(labelsize=6.5)
    label = "PSNR below that of the best row of the cell [dB], ceiling and oracles, which are no methods, aside"
    fig.colorbar(image, ax=ax, shrink=0.4, aspect=40, location="bottom", label=label, extend="max")
    return fig


def fig11_mixed(data: pd.DataFrame) -> Figure:
    """Rows of tab11_mixed with `name`: gain over the best single prior, and the same for kinds seen and unseen."""
    part = data.sort_values("delta_best_single")
    fig, ((ax,),) = panels(1, 1, 1, 1.0 + 0.2 * len(part))
    kinds = [style.MARKERS.get(str(kind), "o") for kind in part.kind]
    colors = [style.color(m) for m in part.method]
    points(ax, part, "delta_best_single", "delta_lo", "delta_hi", colors, labels=part.name.to_list(), markers=kinds)
    zero(ax, vertical=True)
    ax.set_xlabel("gain over the single prior that is best on this set [dB]")
    ax.margins(y=0.02)
    return fig


def fig11_labels(data: pd.DataFrame) -> Figure:
    """Rows of `labels_table`: PSNR over the number of labels, a panel a part."""
    parts = list(dict.fromkeys(data.part))
    fig, axes = panels(1, len(parts), 1, 3.4)
    for ax, part in zip(axes[0], parts, strict=True):
        for name in LINES:
            here = data[(data.part == part) & (data.name == name)].sort_values("n_train")
            if len(here):
                method, band = here.method.iloc[0], (here.psnr_lo, here.psnr_hi)
                fmt = ("s" if "network" in name else "o") + ("--" if here.fit.iloc[0] == "home" else "-")
                curve(ax, here.n_train, here.psnr, style.color(method), name, band, fmt)
        ax.set(title=part, xscale="log", xlabel="labels", ylabel="PSNR [dB]")
        ticks(ax, sorted(set(data.n_train)))
    legend(fig, axes, 2, 7)
    return fig


def fig11_pictures(data: Arrays) -> Figure:
    """`truth`, `dirty` (K, H, W), `image` (rows, K, H, W), `psnr`, `chi2` (rows, K), `name` (rows,), `condition` (K,):
    a line of pictures for each condition, with PSNR and chi-square."""
    names, told = [str(n) for n in data["name"]], [str(c) for c in data["condition"]]
    fig, axes = panels(len(told), len(names) + 2, 1.5, 1.62 * len(told) + 1.1)
    for k, block in enumerate(axes):
        shown = sky_picture(block[0], data["truth"][k], "truth" if k == 0 else "")
        dirty_picture(block[1], data["dirty"][k], "dirty image*" if k == 0 else "")
        block[0].set_ylabel(told[k].replace(", ", ",\n"), fontsize=8)
        for ax, name, image, psnr, chi2 in zip(
            block[2:], names, data["image"][:, k], data["psnr"][:, k], data["chi2"][:, k], strict=True
        ):
            sky_picture(ax, image, name.replace(" (", "\n(").replace(" + ", "\n+ ") if k == 0 else "", float(psnr))
            ax.text(0.03, 0.04, f"χ² {chi2:.1f}", transform=ax.transAxes, color="white", fontsize=8)
            ax.title.set_fontsize(7.5)
    frame(axes)
    scale_bar(fig, shown, axes, f"{SCALE};  * scaled to its own peak", ends="max")
    return fig


def fig11_trust(data: pd.DataFrame) -> Figure:
    """Rows: condition, chi2 of the network's own image, its weight in the fused rule; a point for each image."""
    cells = list(dict.fromkeys(data.condition))
    fig, ((ax,),) = panels(1, 1, 0.8, 3.8)
    for cell, color, marker in zip(cells, COLORS, "osD^v", strict=True):
        part = data[data.condition == cell]
        ax.plot(part.chi2, part.weight, marker, ms=3.5, color=color, label=cell, alpha=0.8, mew=0)
    zero(ax)
    ax.set(xscale="log", xlabel="reduced chi-square of the network's own image", ylabel="its weight, mean over pixels")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("{x:g}" if data.chi2.max() < 10 * data.chi2.min() else "")
    legend(fig, ax, 3, 7)
    return fig
