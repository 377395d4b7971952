"""Figures of chapter 10."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.plots import SCALE, Arrays, curve, frame, panels, points, scale_bar, sky_picture


def fig10_m87(data: Arrays) -> Figure:
    """`source`, `label` (S,), `method` (M,), `image_<source>` (M, H, W), for the twin `truth` (H, W), `psnr` (M,)."""
    sources, methods = [str(s) for s in data["source"]], [str(m) for m in data["method"]]
    columns = min(6, len(methods) + 1)
    rows = -(-(len(methods) + 1) // columns)
    height = 1.62 * rows + 0.25
    fig = plt.figure(figsize=(style.WIDTH * 1.25, height * len(sources) + 0.6))
    ratios = [height] * len(sources) + [0.6]
    *parts, foot = fig.subfigures(len(sources) + 1, 1, squeeze=False, height_ratios=ratios)[:, 0]
    for part, source, label in zip(parts, sources, data["label"], strict=True):
        part.suptitle(str(label), fontsize=9)
        axes, twin = part.subplots(rows, columns, squeeze=False).flatten(), source == "twin"
        pictures = [(style.short(m), image) for m, image in zip(methods, data[f"image_{source}"], strict=True)]
        pictures = [("truth", data["truth"])] * twin + pictures
        scores = [None, *data["psnr"]] if twin else [None] * len(pictures)
        for ax, (title, image), psnr in zip(axes, pictures, scores, strict=False):
            shown = sky_picture(ax, image, title, psnr)
        for ax in axes[len(pictures) :]:
            ax.axis("off")
        frame(axes[: len(pictures)])
    bar = foot.add_axes((0.3, 0.72, 0.4, 0.2))
    fig.colorbar(shown, cax=bar, orientation="horizontal", label=SCALE, extend="both")
    return fig


def fig10_profiles(data: Arrays) -> Figure:
    """`source`, `method` as above, `profile_<source>` (M, 180) and `profile_truth` (180,): ridge over its mean."""
    sources, methods = [str(s) for s in data["source"]], [str(m) for m in data["method"]]
    alone = [m for m in methods if m.startswith("single:") or m in ("rml", "average")]
    fused = [m for m in methods if m not in alone]
    fig, axes = panels(2, len(sources), 1, 5.0, sharex=True, sharey=True, layout="constrained")
    for column, source, label in zip(axes.T, sources, data["label"], strict=True):
        profiles = dict(zip(methods, data[f"profile_{source}"], strict=True))
        for ax, part in zip(column, (alone, fused), strict=True):
            for method in part:
                angle = np.arange(len(profiles[method])) * (360 / len(profiles[method]))
                curve(ax, angle, profiles[method], style.color(method), style.label(method), lw=1.2)
            if source == "twin":
                ax.plot(angle, data["profile_truth"], "k--", lw=1.5, label="truth")
        column[0].set_title(str(label))
        column[1].set(xlabel="position angle, east of north [°]", xlim=(0, 360))
        column[1].set_xticks(range(0, 361, 90), ["0\nN", "90\nE", "180\nS", "270\nW", "360\nN"])
    for ax, right in zip(axes[:, 0], axes[:, -1], strict=True):
        ax.set_ylabel("ridge brightness / its mean")
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    return fig


def fig10_closures(data: Arrays) -> Figure:
    """`image` (K, H, W) made from `data` (K,) of one source, started from `start` (K,)."""
    kinds, starts = list(dict.fromkeys(data["data"])), list(dict.fromkeys(data["start"]))
    size = (1.75 * len(starts) + 0.5, 1.8 * len(kinds) + 0.9)
    fig, axes = plt.subplots(len(kinds), len(starts), figsize=size, squeeze=False)
    for kind, start, image in zip(data["data"], data["start"], data["image"], strict=True):
        ax = axes[kinds.index(kind), starts.index(start)]
        shown = sky_picture(ax, image, f"from {start}" if kind == kinds[0] else "")
        if start == starts[0]:
            ax.set_ylabel(kind)
    frame(axes)
    scale_bar(fig, shown, axes, SCALE, shrink=0.7)
    return fig


def fig10_families(data: pd.DataFrame) -> Figure:
    """Rows: family, method, rings_true, rings_seen, lo, hi: the share of images that show a ring."""
    families, methods = list(dict.fromkeys(data.family)), list(dict.fromkeys(data.method))
    fig, axes = panels(1, len(families), 1, 0.9 + 0.22 * len(methods), sharey=True)
    for ax, family in zip(axes[0], families, strict=True):
        part = data[data.family == family][::-1]
        colors, labels = [style.color(m) for m in part.method], [style.label(m) for m in part.method]
        points(ax, part, "rings_seen", "lo", "hi", colors, labels=labels)
        ax.axvline(part.rings_true.iloc[0], color="black", lw=0.8, ls="--")
        ax.set(title=family, xlim=(-0.05, 1.05))
        ax.margins(y=0.1)
    fig.supxlabel("share of images that show a ring", fontsize=9)
    return fig
