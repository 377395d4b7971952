"""The figures of chapter 08."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fusionlib.paper import style
from fusionlib.paper.plots import (
    SCALE,
    Arrays,
    curves,
    frame,
    legend,
    map_picture,
    panels,
    scale_bar,
    sky_picture,
    table_of,
    zero,
)

NARROW = SCALE.replace(" (", "\n(").replace(" per", "\nper")  # under one or two pictures
ERROR_TOP = 0.15  # errors and disagreement are shown on 0 .. ERROR_TOP


def fig08_structure(data: pd.DataFrame) -> Figure:
    """Rows of tab08_structure: how much more a prior weighs in a class of pixels than in the whole image."""
    methods = list(dict.fromkeys(data.method))
    priors, names = list(dict.fromkeys(data.prior)), list(dict.fromkeys(data.structure))
    fig, axes = panels(1, len(methods), 1.1, 2.9, sharey=True)
    top = float(data.more.abs().max())
    for ax, method in zip(axes[0], methods, strict=True):
        part = data[data.method == method].set_index(["prior", "structure"])
        table, p = (np.array([[part.loc[(q, n), c] for n in names] for q in priors], float) for c in ("more", "p_holm"))
        text = [
            [f"{table[i, j]:+.2f}{'*' if p[i, j] < 0.05 else ''}" for j in range(len(names))]
            for i in range(len(priors))
        ]
        look: dict[str, Any] = {
            "cmap": style.SIGNED,
            "vmin": -top,
            "vmax": top,
            "aspect": "auto",
            "text": text,
            "size": 6,
            "turn": 30,
        }
        shown = table_of(ax, table, [style.short(p) for p in priors], names, dark=abs(table) > 0.6 * top, **look)
        ax.set_title(style.label(method))
    fig.colorbar(shown, ax=axes, shrink=0.8, label="weight less the image's mean")
    return fig


def fig08_occlusion(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, weight, loss, lo, hi: mean weight beside what is lost without the prior."""
    methods = list(dict.fromkeys(data.method))
    fig, axes = panels(1, len(methods), 1, 3.0)
    for ax, method in zip(axes[0], methods, strict=True):
        for row in data[data.method == method].to_dict("records"):
            error = [[row["loss"] - row["lo"]], [row["hi"] - row["loss"]]]
            colour = style.color(f"single:{row['prior']}")
            ax.errorbar(row["weight"], row["loss"], error, fmt="o", ms=6, color=colour, label=style.short(row["prior"]))
        zero(ax)
        zero(ax, vertical=True)
        ax.set(title=style.label(method), xlabel="mean weight")
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks([-1, 0, 1, 3, 10], ["−1", "0", "1", "3", "10"])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("PSNR lost without it [dB]")
    legend(fig, axes[0, 0], 8, 7)
    return fig


def fig08_embeddings(data: Arrays) -> Figure:
    """`prior` (K, N, 2), `image` (K, B, 2), `share` (K,), `iteration` (K,), `name` (N,)."""
    names, count = [str(v) for v in data["name"]], len(data["prior"])
    fig, axes = panels(1, count, 1, 2.8)
    columns = (data[name] for name in ("prior", "image", "share", "iteration"))
    for ax, prior, image, share, k in zip(axes[0], *columns, strict=True):
        ax.scatter(*np.asarray(image, float).T, s=8, color="black", alpha=0.4, lw=0, label="images")
        for name, point in zip(names, np.asarray(prior, float), strict=True):
            ax.plot(*point, "o", ms=7, color=style.color(f"single:{name}"), label=style.short(name))
        ax.set(title=f"iteration {int(k)}, {100 * float(share):.0f} % of the variance", xticks=[], yticks=[])
        ax.set_aspect("equal", "datalim")
        ax.spines[:].set_visible(True)
    legend(fig, axes[0, 0], 9, 7)
    return fig


def fig08_alignment(data: pd.DataFrame) -> Figure:
    """Rows of tab08_alignment: pairs of priors before and after the adapters."""
    fig, (axes,) = panels(1, 2, 0.85, 3.1)
    titles = {"cka": "outputs: linear CKA", "correlation": "errors: correlation"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for colour, (k, part) in zip(("#0072B2", "#E69F00", "#009E73"), data.groupby("iteration"), strict=False):
            ax.scatter(part[f"{name}_before"], part[f"{name}_after"], s=12, color=colour, lw=0, label=f"iteration {k}")
        both = data[[f"{name}_before", f"{name}_after"]].to_numpy()
        ends = (both.min(), both.max())
        ax.plot(ends, ends, color="black", lw=0.6, ls=":")
        ax.set(xlabel="before the adapters", ylabel="after", title=title)
        ax.grid(alpha=0.3)
    legend(fig, axes[0], 3)
    return fig


def fig08_regret(data: pd.DataFrame) -> Figure:
    """Rows: method, oracle, iteration, regret."""
    oracles = list(dict.fromkeys(data.oracle))
    fig, axes = panels(1, len(oracles), 1, 2.7)
    for ax, oracle in zip(axes[0], oracles, strict=True):
        curves(ax, data[data.oracle == oracle], "iteration", "regret")
        zero(ax)
        ax.set(title=f"one pick per {oracle.replace('8 px', 'patch of 8 px')}", xlabel="iteration")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("regret [dB]")
    legend(fig, axes[0, 0], 4)
    return fig


def fig08_regret_maps(data: Arrays) -> Figure:
    """`truth`, `fused`, `regret` (n, H, W)."""
    count = len(data["truth"])
    fig, axes = panels(count, 3, 0.8, 1.9 * count + 1.0)
    for row, truth, fused, regret in zip(axes, data["truth"], data["fused"], data["regret"], strict=True):
        sky_picture(row[0], truth, "truth")
        shown = sky_picture(row[1], fused, "fused")
        drawn = map_picture(row[2], regret, "regret", ERROR_TOP, signed=True)
    frame(axes)
    scale_bar(fig, shown, axes[:, :2], NARROW, shrink=0.6, ends="max")
    scale_bar(fig, drawn, axes[:, 2:], "root of what is given up", shrink=0.9)
    return fig


def fig08_disagreement(data: Arrays) -> Figure:
    """`truth`, `fused`, `error`, `disagreement` (n, H, W)."""
    return _maps(data, ("truth", "fused"), ("error", "disagreement"), [""] * len(data["truth"]))


def fig08_m87(data: Arrays) -> Figure:
    """`source` (S,), `fused`, `disagreement` (S, H, W), `error` of the twin, the last source."""
    words = {"M87": "M87", "twin": "simulated twin"}
    rows = [words.get(str(s), str(s)) for s in data["source"]]
    errors = [np.full_like(data["fused"][0], np.nan)] * (len(rows) - len(data["error"])) + list(data["error"])
    return _maps(data | {"error": np.stack(errors)}, ("fused",), ("disagreement", "error"), rows)


def _maps(data: Arrays, skies: tuple[str, ...], errors: tuple[str, ...], rows: list[str]) -> Figure:
    columns = len(skies) + len(errors)
    fig, axes = panels(len(rows), columns, (1.9 * columns + 0.4) / style.WIDTH, 1.95 * len(rows) + 1.0)
    for k, (line, name) in enumerate(zip(axes, rows, strict=True)):
        for ax, what in zip(line, skies, strict=False):
            shown = sky_picture(ax, data[what][k], f"{name}, {what}" if name else what)
        for ax, what in zip(line[len(skies) :], errors, strict=True):
            if np.isnan(data[what][k]).all():
                ax.axis("off")
                continue
            drawn = map_picture(ax, data[what][k], {"error": "absolute error"}.get(what, what), ERROR_TOP, signed=False)
    frame(axes)
    scale_bar(fig, shown, axes[:, : len(skies)], NARROW, shrink=0.8, ends="max")
    scale_bar(fig, drawn, axes[:, len(skies) :], "image value", shrink=0.8, ends="max")
    return fig


def fig08_calibration(data: pd.DataFrame) -> Figure:
    """Rows: method, bin, disagreement, error."""
    fig, ((ax,),) = panels(1, 1, 0.55, 3.1)
    curves(ax, data, "disagreement", "error", fmt="o-", ms=4, lw=1.2)
    ends = (data.disagreement.min(), data.disagreement.max())
    ax.plot(ends, ends, color="black", lw=0.6, ls=":", label="equal")
    ax.set(xscale="log", yscale="log", xlabel="disagreement of the priors", ylabel="root mean square error")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
    return fig
