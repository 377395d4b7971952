"""The figures of chapter 07."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style


def fig07_ablations(data: pd.DataFrame) -> Figure:
    """Rows of tab07_ablations: the gain of each arm over the first arm of its ablation."""
    names = list(dict.fromkeys(data.ablation))
    sizes = [int((data.ablation == n).sum()) + 0.4 for n in names]
    half = int(np.argmin(np.abs(np.cumsum(sizes) - sum(sizes) / 2))) + 1
    columns = [part for part in (names[:half], names[half:]) if part]
    height = max(sum(sizes[names.index(n)] for n in part) for part in columns)
    fig, axes = plt.subplots(1, len(columns), figsize=(style.WIDTH * 1.1, 0.7 + 0.2 * height), squeeze=False)
    for ax, part in zip(axes[0], columns, strict=True):
        y, ticks = 0.0, []
        for name in part:
            rows = data[data.ablation == name]
            ax.text(0.0, y - 0.15, str(name), fontsize=7, fontweight="bold", transform=ax.get_yaxis_transform())
            for k, row in enumerate(rows.to_dict("records")):
                y += 1
                ticks.append((y, f"{row['arm']} ({row['psnr']:.1f} dB)" if k == 0 else row["arm"]))
                if k == 0:
                    ax.plot(0, y, "|", ms=8, color="black")
                    continue
                gain, lo, hi = (row[name] for name in ("effect", "lo", "hi"))
                colour = style.VERDICTS[row["verdict"]]
                ax.errorbar(gain, y, xerr=[[gain - lo], [hi - gain]], fmt="o", ms=4, color=colour)
            y += 1.4
        ax.axvline(0, color="black", lw=0.6, ls=":")
        ax.set_yticks([t for t, _ in ticks], [label for _, label in ticks], fontsize=7)
        ax.set_ylim(y - 0.6, -0.9)
        ax.set_xscale("symlog", linthresh=0.5)
        ax.set_xticks([-10, -1, 0, 1], ["−10", "−1", "0", "1"])
        ax.set_xlim(left=1.4 * ax.get_xlim()[0])
        ax.minorticks_off()
        ax.set_xlabel("difference to the first row [dB]")
        ax.grid(axis="x", alpha=0.3)
    return fig


def fig07_labels(data: pd.DataFrame) -> Figure:
    """Rows: bank, method, n_train, psnr, effect, lo, hi: gain over the best single prior by labels."""
    banks = list(dict.fromkeys(data.bank))
    fig, axes = plt.subplots(1, len(banks), figsize=(style.WIDTH, 4.4), sharey=True, squeeze=False)
    for ax, bank in zip(axes[0], banks, strict=True):
        for method, part in data[data.bank == bank].groupby("method", sort=False):
            part, colour = part.sort_values("n_train"), style.color(str(method))
            line = {"denoiser": "s--", "finetuned": "^:"}.get(str(method), "o-")  # beside their greys
            ax.plot(part.n_train, part.effect, line, ms=3.5, lw=1.2, color=colour, label=style.label(str(method)))
            ax.fill_between(part.n_train, part.lo, part.hi, color=colour, alpha=0.12, lw=0)
        ax.axhline(0, color="black", lw=0.6, ls=":")
        numbers = sorted(set(data.n_train))
        ax.set(xscale="log", xlabel="labelled images n", title=f"bank {bank}")
        ax.set_xticks(numbers, [str(n) for n in numbers])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylim(max(data.effect.min() - 0.4, -4), data.effect.max() + 0.25)
    axes[0, 0].set_ylabel("gain over the best single prior [dB]")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


def fig07_shots(data: pd.DataFrame) -> Figure:
    """Rows of tab07_shots: PSNR by the number of labelled images adapted to, and the paired difference to joint
    training."""
    fig, (level, gain) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.1))
    colours = {"MAML": "#08306B", "joint training": "#D55E00", "from nothing": "#1F78B4"}
    for k, (training, part) in enumerate(data.groupby("arm", sort=False)):
        look = {"marker": "o", "ms": 4, "lw": 1.2, "color": colours[str(training)]}
        level.plot(part.labels, part.psnr, label=str(training), **look)
        if training != "joint training":
            error = [part.effect - part.lo, part.hi - part.effect]
            gain.errorbar(part.labels + 0.1 * (k - 1.5), part.effect, error, **look)
    gain.axhline(0, color="black", lw=0.6, ls=":")
    for ax, label in ((level, "PSNR [dB]"), (gain, "gain over joint training [dB]")):
        ax.set_xticks(sorted(set(data.labels)))
        ax.set(xlabel="labelled images adapted to", ylabel=label)
        ax.grid(alpha=0.3)
    fig.legend(*level.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


def fig07_number(data: pd.DataFrame) -> Figure:
    """Rows of tab07_number: PSNR as the bank grows; hollow where the last prior adds nothing or it is undecided."""
    orders = list(dict.fromkeys(data.order))
    fig, axes = plt.subplots(1, len(orders), figsize=(style.WIDTH, 3.6), sharey=True, squeeze=False)
    for ax, order in zip(axes[0], orders, strict=True):
        part = data[data.order == order]
        for method, line in part.groupby("method", sort=False):
            colour, told = style.color(str(method)), line.verdict.isin(["better", "worse"]) | line.effect.isna()
            ax.plot(line.number, line.psnr, "-", lw=1.2, color=colour, label=style.label(str(method)))
            for some, face in ((told, colour), (~told, "white")):
                ax.plot(line.number[some], line.psnr[some], "o", ms=4.5, color=colour, mfc=face)
        added = part.drop_duplicates("number").sort_values("number")
        names = [("" if n == 1 else "+ ") + style.short(str(p)) for n, p in zip(added.number, added.added, strict=True)]
        ax.set_xticks(added.number, names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_title(order)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("PSNR [dB]")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


def fig07_leave(data: pd.DataFrame) -> Figure:
    """Rows: prior, effect, lo, hi."""
    fig, ax = plt.subplots(figsize=(style.WIDTH * 0.6, 2.6))
    data = data.sort_values("effect")
    for y, row in enumerate(data.to_dict("records")):
        error = [[row["effect"] - row["lo"]], [row["hi"] - row["effect"]]]
        ax.errorbar(row["effect"], y, xerr=error, fmt="o", ms=5, color=style.color(f"single:{row['prior']}"))
    ax.axvline(0, color="black", lw=0.6, ls=":")
    ax.set_yticks(range(len(data)), [style.short(str(p)) for p in data.prior])
    ax.set_xlabel("what the closed form loses without it [dB]")
    ax.grid(axis="x", alpha=0.3)
    return fig


def fig07_stress(data: pd.DataFrame) -> Figure:
    """Rows: stress, method, psnr, effect, lo, hi: the gain over the average of the priors."""
    stresses, methods = list(dict.fromkeys(data.stress)), [m for m in dict.fromkeys(data.method) if m != "average"]
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.0))
    for k, method in enumerate(methods):
        part = data[data.method == method].set_index("stress").loc[stresses]
        x = np.arange(len(stresses)) + 0.12 * (k - (len(methods) - 1) / 2)
        error = [part.effect - part.lo, part.hi - part.effect]
        ax.errorbar(x, part.effect, error, fmt="o", ms=5, color=style.color(method), label=style.label(method))
    ax.axhline(0, color="black", lw=0.6, ls=":")
    ax.set_xticks(range(len(stresses)), [textwrap.fill(s.replace(" µas", "\u00a0µas"), 10) for s in stresses])
    ax.set_ylabel("gain over the average [dB]")
    ax.grid(axis="y", alpha=0.3)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig
