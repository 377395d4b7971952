"""Figures of chapter 15."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.drawing import Arrays


def fig15_data(data: Arrays) -> Figure:
    """`image` (sets, n, 64, 64), each over its own peak, `name` (sets,)."""
    rows, columns = data["image"].shape[:2]
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, style.WIDTH / columns * rows), squeeze=False)
    for row, name, images in zip(axes, data["name"], data["image"], strict=True):
        _gray(row, images)
        row[0].set_ylabel(str(name))
    return fig


def fig15_losses(data: pd.DataFrame) -> Figure:
    """Rows: network, local (dashed), step, loss. Losses of different networks are weighted differently: compare shapes,
    not heights."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.2))
    for name, part in data.groupby("network", sort=False):
        colour = style.color(f"single:{str(name).rpartition('_')[2].replace('photographs', 'sr')}")
        ax.plot(part.step, part.loss, lw=1.2, ls="--" if part.local.all() else "-", color=colour, label=str(name))
    ax.set(xlabel="training step", ylabel="loss, mean of 100 steps", yscale="log")
    ax.legend(ncols=3, fontsize=7)
    return fig


def fig15_samples(data: Arrays) -> Figure:
    """`image` (n, 64, 64): samples of the digit diffusion."""
    count = len(data["image"])
    fig, axes = plt.subplots(1, count, figsize=(style.WIDTH, style.WIDTH / count + 0.1), squeeze=False)
    _gray(axes[0], data["image"])
    return fig


def fig15_families(data: pd.DataFrame) -> Figure:
    """Rows: prior, family, psnr, local: one colour for what a prior was trained on, dashed if it sees 15 pixels."""
    families = list(dict.fromkeys(data.family))
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.2))
    for name, part in data.groupby("prior", sort=False):
        colour = style.color(f"single:{str(name).rpartition('_')[2].replace('photographs', 'sr')}")
        values = part.set_index("family").psnr.reindex(families)
        ax.plot(
            range(len(families)),
            values,
            "--o" if part.local.all() else "-o",
            ms=4,
            lw=0.8,
            color=colour,
            label=style.short(str(name)),
        )
    ax.set_xticks(range(len(families)), families)
    ax.set_ylabel("PSNR in the loop [dB]")
    ax.grid(axis="y", alpha=0.3)
    title = "dashed: sees 15 pixels at a time"
    legend = fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7, title=title)
    legend.get_title().set_fontsize(7)
    return fig


def _gray(axes, images) -> None:
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
