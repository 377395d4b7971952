"""The figures of chapter 08."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from fusionlib.paper import style
from fusionlib.paper.drawing import EXTENT, SCALE, Arrays, frame, sky_picture

NARROW = SCALE.replace(" (", "\n(").replace(" per", "\nper")  # under one or two pictures
ERROR_TOP = 0.15  # errors and disagreement are shown on 0 .. ERROR_TOP


def fig08_structure(data: pd.DataFrame) -> Figure:
    """Rows of tab08_structure: how much more a prior weighs in a class of pixels than in the whole image."""
    methods = list(dict.fromkeys(data.method))
    priors, names = list(dict.fromkeys(data.prior)), list(dict.fromkeys(data.structure))
    fig, axes = plt.subplots(1, len(methods), figsize=(style.WIDTH * 1.1, 2.9), sharey=True, squeeze=False)
    top = float(data.more.abs().max())
    for ax, method in zip(axes[0], methods, strict=True):
        part = data[data.method == method].set_index(["prior", "structure"])
        table = np.array([[part.loc[(p, n), "more"] for n in names] for p in priors], dtype=float)
        shown = ax.imshow(table, cmap=style.SIGNED, vmin=-top, vmax=top, aspect="auto")
        for i, prior in enumerate(priors):
            for j, name in enumerate(names):
                row = part.loc[(prior, name)]
                star = "" if float(row["p_holm"]) >= 0.05 else "*"
                dark = abs(float(row["more"])) > 0.6 * top
                text = f"{float(row['more']):+.2f}{star}"
                ax.text(j, i, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set_yticks(range(len(priors)), [style.short(p) for p in priors])
        ax.set_title(style.label(method))
        ax.spines[:].set_visible(True)
    fig.colorbar(shown, ax=axes, shrink=0.8, label="weight less the image's mean")
    return fig


def fig08_occlusion(data: pd.DataFrame) -> Figure:
    """Rows: method, prior, weight, loss, lo, hi: mean weight beside what is lost without the prior."""
    methods = list(dict.fromkeys(data.method))
    fig, axes = plt.subplots(1, len(methods), figsize=(style.WIDTH, 3.0), squeeze=False)
    for ax, method in zip(axes[0], methods, strict=True):
        for row in data[data.method == method].to_dict("records"):
            error = [[row["loss"] - row["lo"]], [row["hi"] - row["loss"]]]
            colour = style.color(f"single:{row['prior']}")
            ax.errorbar(row["weight"], row["loss"], error, fmt="o", ms=6, color=colour, label=style.short(row["prior"]))
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.axvline(0, color="black", lw=0.6, ls=":")
        ax.set(title=style.label(method), xlabel="mean weight")
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks([-1, 0, 1, 3, 10], ["−1", "0", "1", "3", "10"])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("PSNR lost without it [dB]")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=7)
    return fig


def fig08_embeddings(data: Arrays) -> Figure:
    """`prior` (K, N, 2), `image` (K, B, 2), `share` (K,), `iteration` (K,), `name` (N,)."""
    names, count = [str(v) for v in data["name"]], len(data["prior"])
    fig, axes = plt.subplots(1, count, figsize=(style.WIDTH, 2.8), squeeze=False)
    for ax, prior, image, share, k in zip(
        axes[0], data["prior"], data["image"], data["share"], data["iteration"], strict=True
    ):
        ax.scatter(*np.asarray(image, float).T, s=8, color="black", alpha=0.4, lw=0, label="images")
        for name, point in zip(names, np.asarray(prior, float), strict=True):
            ax.plot(*point, "o", ms=7, color=style.color(f"single:{name}"), label=style.short(name))
        ax.set(title=f"iteration {int(k)}, {100 * float(share):.0f} % of the variance", xticks=[], yticks=[])
        ax.set_aspect("equal", "datalim")
        ax.spines[:].set_visible(True)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=9, fontsize=7)
    return fig


def fig08_alignment(data: pd.DataFrame) -> Figure:
    """Rows of tab08_alignment: pairs of priors before and after the adapters."""
    fig, axes = plt.subplots(1, 2, figsize=(style.WIDTH * 0.85, 3.1))
    colours = ("#0072B2", "#E69F00", "#009E73")
    for ax, name, title in zip(
        axes, ("cka", "correlation"), ("outputs: linear CKA", "errors: correlation"), strict=True
    ):
        for colour, (k, part) in zip(colours, data.groupby("iteration"), strict=False):
            ax.scatter(part[f"{name}_before"], part[f"{name}_after"], s=12, color=colour, lw=0, label=f"iteration {k}")
        both = data[[f"{name}_before", f"{name}_after"]].to_numpy()
        ends = (both.min(), both.max())
        ax.plot(ends, ends, color="black", lw=0.6, ls=":")
        ax.set(xlabel="before the adapters", ylabel="after", title=title)
        ax.grid(alpha=0.3)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


def fig08_regret(data: pd.DataFrame) -> Figure:
    """Rows: method, oracle, iteration, regret."""
    oracles = list(dict.fromkeys(data.oracle))
    fig, axes = plt.subplots(1, len(oracles), figsize=(style.WIDTH, 2.7), squeeze=False)
    for ax, oracle in zip(axes[0], oracles, strict=True):
        for method, part in data[data.oracle == oracle].groupby("method", sort=False):
            ax.plot(part.iteration, part.regret, lw=1.3, color=style.color(str(method)), label=style.label(str(method)))
        ax.axhline(0, color="black", lw=0.6, ls=":")
        ax.set(title=f"one pick per {oracle.replace('8 px', 'patch of 8 px')}", xlabel="iteration")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("regret [dB]")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def fig08_regret_maps(data: Arrays) -> Figure:
    """`truth`, `fused`, `regret` (n, H, W)."""
    count = len(data["truth"])
    fig, axes = plt.subplots(count, 3, figsize=(style.WIDTH * 0.8, 1.9 * count + 1.0), squeeze=False)
    for row, truth, fused, regret in zip(axes, data["truth"], data["fused"], data["regret"], strict=True):
        sky_picture(row[0], truth, "truth")
        shown = sky_picture(row[1], fused, "fused")
        drawn = row[2].imshow(
            np.asarray(regret, float), cmap=style.SIGNED, vmin=-ERROR_TOP, vmax=ERROR_TOP, extent=EXTENT
        )
        row[2].set_title("regret")
    frame(axes)
    fig.colorbar(shown, ax=axes[:, :2], shrink=0.6, location="bottom", label=NARROW, extend="max")
    fig.colorbar(drawn, ax=axes[:, 2:], shrink=0.9, location="bottom", label="root of what is given up", extend="both")
    return fig


def fig08_disagreement(data: Arrays) -> Figure:
    """`truth`, `fused`, `error`, `disagreement` (n, H, W)."""
    return _maps(data, ("truth", "fused"), ("error", "disagreement"), [""] * len(data["truth"]))


def fig08_m87(data: Arrays) -> Figure:
    """`source` (S,), `fused`, `disagreement` (S, H, W), `error` of the twin, the last source."""
    told = {"M87": "M87", "twin": "simulated twin"}
    rows = [told.get(str(s), str(s)) for s in data["source"]]
    errors = [np.full_like(data["fused"][0], np.nan)] * (len(rows) - len(data["error"])) + list(data["error"])
    return _maps(data | {"error": np.stack(errors)}, ("fused",), ("disagreement", "error"), rows)


def _maps(data: Arrays, skies: tuple[str, ...], errors: tuple[str, ...], rows: list[str]) -> Figure:
    columns = len(skies) + len(errors)
    fig, axes = plt.subplots(len(rows), columns, figsize=(1.9 * columns + 0.4, 1.95 * len(rows) + 1.0), squeeze=False)
    for k, (line, name) in enumerate(zip(axes, rows, strict=True)):
        for ax, what in zip(line, skies, strict=False):
            shown = sky_picture(ax, data[what][k], f"{name}, {what}" if name else what)
        for ax, what in zip(line[len(skies) :], errors, strict=True):
            image = np.asarray(data[what][k], float)
            if np.isnan(image).all():
                ax.axis("off")
                continue
            drawn = ax.imshow(image, cmap=style.ERROR, vmin=0, vmax=ERROR_TOP, extent=EXTENT)
            ax.set_title({"error": "absolute error"}.get(what, what))
    frame(axes)
    fig.colorbar(shown, ax=axes[:, : len(skies)], shrink=0.8, location="bottom", label=NARROW, extend="max")
    fig.colorbar(drawn, ax=axes[:, len(skies) :], shrink=0.8, location="bottom", label="image value", extend="max")
    return fig


def fig08_calibration(data: pd.DataFrame) -> Figure:
    """Rows: method, bin, disagreement, error."""
    fig, ax = plt.subplots(figsize=(style.WIDTH * 0.55, 3.1))
    for method, part in data.groupby("method", sort=False):
        ax.plot(
            part.disagreement,
            part.error,
            "o-",
            ms=4,
            lw=1.2,
            color=style.color(str(method)),
            label=style.label(str(method)),
        )
    ends = (data.disagreement.min(), data.disagreement.max())
    ax.plot(ends, ends, color="black", lw=0.6, ls=":", label="equal")
    ax.set(xscale="log", yscale="log", xlabel="disagreement of the priors", ylabel="root mean square error")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
    return fig
