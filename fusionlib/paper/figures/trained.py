"""Figures of chapter 15."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.plots import Arrays, curve, legend, panels


def fig15_data(data: Arrays) -> Figure:
    """`image` (sets, n, 64, 64), each over its own peak, `name` (sets,)."""
    rows, columns = data["image"].shape[:2]
    fig, axes = panels(rows, columns, 1, style.WIDTH / columns * rows)
    for row, name, images in zip(axes, data["name"], data["image"], strict=True):
        _gray(row, images)
        row[0].set_ylabel(str(name))
    return fig


def fig15_losses(data: pd.DataFrame) -> Figure:
    """Rows: network, local (dashed), step, loss. Losses of different networks are weighted differently: compare shapes,
    not heights."""
    fig, ((ax,),) = panels(1, 1, 1, 3.2)
    for name, part in data.groupby("network", sort=False):
        curve(ax, part.step, part.loss, _color(name), str(name), fmt="--" if part.local.all() else "-", lw=1.2)
    ax.set(xlabel="training step", ylabel="loss, mean of 100 steps", yscale="log")
    ax.legend(ncols=3, fontsize=7)
    return fig


def fig15_samples(data: Arrays) -> Figure:
    """`image` (n, 64, 64): samples of the digit diffusion."""
    count = len(data["image"])
    fig, axes = panels(1, count, 1, style.WIDTH / count + 0.1)
    _gray(axes[0], data["image"])
    return fig


def fig15_families(data: pd.DataFrame) -> Figure:
    """Rows: prior, family, psnr, local: one colour for what a prior was trained on, dashed if it sees 15 pixels."""
    families = list(dict.fromkeys(data.family))
    fig, ((ax,),) = panels(1, 1, 1, 3.2)
    for name, part in data.groupby("prior", sort=False):
        values, dashed = part.set_index("family").psnr.reindex(families), part.local.all()
        look: dict[str, Any] = {"fmt": "--o" if dashed else "-o", "ms": 4, "lw": 0.8}
        label = style.short(str(name)) + (", 15 px" if dashed else "")  # some are there in both forms
        curve(ax, range(len(families)), values, _color(name), label, **look)
    ax.set_xticks(range(len(families)), families)
    ax.set_ylabel("PSNR in the loop [dB]")
    ax.grid(axis="y", alpha=0.3)
    legend(fig, ax, 5, 7, title="dashed: sees 15 pixels at a time", title_fontsize=7)
    return fig


def _color(name: object) -> str:
    return style.color(f"single:{str(name).rpartition('_')[2].replace('photographs', 'sr')}")


def _gray(axes, images) -> None:
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
