"""The figures of chapter 07."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.plots import curve, legend, panels, points, ticks, zero


def fig07_ablations(data: pd.DataFrame) -> Figure:
    """Rows of tab07_ablations: the difference of each arm to the first arm of its ablation."""
    names = list(dict.fromkeys(data.ablation))
    sizes = [int((data.ablation == n).sum()) + 0.4 for n in names]
    half = int(np.argmin(np.abs(np.cumsum(sizes) - sum(sizes) / 2))) + 1
    columns = [part for part in (names[:half], names[half:]) if part]
    height = max(sum(sizes[names.index(n)] for n in part) for part in columns)
    fig, axes = panels(1, len(columns), 1.1, 0.7 + 0.2 * height)
    for ax, part in zip(axes[0], columns, strict=True):
        y, labels = 0.0, dict[float, str]()
        for name in part:
            first, *_ = arms = data[data.ablation == name].to_dict("records")
            ax.text(0.0, y - 0.15, str(name), fontsize=7, fontweight="bold", transform=ax.get_yaxis_transform())
            places = [y + 1 + k for k in range(len(arms))]
            labels |= {place: arm["arm"] for place, arm in zip(places, arms, strict=True)}
            labels[places[0]] += f" ({first['psnr']:.1f} dB)"
            ax.plot(0, places[0], "|", ms=8, color="black")
            others = pd.DataFrame(arms[1:])
            points(ax, others, "effect", "lo", "hi", [style.VERDICTS[v] for v in others.verdict], places=places[1:])
            y = places[-1] + 1.4
        zero(ax, vertical=True)
        ax.set_yticks(list(labels), list(labels.values()), fontsize=7)
        ax.set_ylim(y - 0.6, -0.9)
        ax.set_xscale("symlog", linthresh=0.5)
        ticks(ax, (-10, -1, 0, 1))
        ax.set_xlim(left=1.4 * ax.get_xlim()[0])
        ax.set_xlabel("difference to the first row [dB]")
    return fig


def fig07_labels(data: pd.DataFrame) -> Figure:
    """Rows: bank, method, n_train, psnr, effect, lo, hi: gain over the best single prior by labels."""
    banks = list(dict.fromkeys(data.bank))
    fig, axes = panels(1, len(banks), 1, 4.4, sharey=True)
    for ax, bank in zip(axes[0], banks, strict=True):
        for method, part in data[data.bank == bank].groupby("method", sort=False):
            part, name = part.sort_values("n_train"), str(method)
            fmt = {"denoiser": "s--", "finetuned": "^:"}.get(name, "o-")  # beside their greys
            band = part.lo, part.hi
            curve(ax, part.n_train, part.effect, style.color(name), style.label(name), band, fmt, lw=1.2)
        zero(ax)
        ax.set(xscale="log", xlabel="labelled images n", title=f"bank {bank}")
        ticks(ax, sorted(set(data.n_train)))
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylim(max(data.effect.min() - 0.4, -4), data.effect.max() + 0.25)
    axes[0, 0].set_ylabel("gain over the best single prior [dB]")
    legend(fig, axes[0, 0], 3)
    return fig


def fig07_shots(data: pd.DataFrame) -> Figure:
    """Rows of tab07_shots: PSNR by the number of labelled images adapted to, and the paired difference to joint
    training."""
    fig, ((level, gain),) = panels(1, 2, 1, 3.1)
    colours = {"MAML": "#08306B", "joint training": "#D55E00", "from nothing": "#1F78B4"}
    for k, (training, part) in enumerate(data.groupby("arm", sort=False)):
        look = {"marker": "o", "ms": 4, "lw": 1.2, "color": colours[str(training)]}
        level.plot(part.labels, part.psnr, label=str(training), **look)
        if training != "joint training":
            error = [part.effect - part.lo, part.hi - part.effect]
            gain.errorbar(part.labels + 0.1 * (k - 1.5), part.effect, error, **look)
    zero(gain)
    for ax, label in ((level, "PSNR [dB]"), (gain, "gain over joint training [dB]")):
        ax.set_xticks(sorted(set(data.labels)))
        ax.set(xlabel="labelled images adapted to", ylabel=label)
        ax.grid(alpha=0.3)
    legend(fig, level, 3)
    return fig


def fig07_number(data: pd.DataFrame) -> Figure:
    """Rows of tab07_number: PSNR as the bank grows; hollow where the last prior adds nothing or it is undecided."""
    orders = list(dict.fromkeys(data.order))
    fig, axes = panels(1, len(orders), 1, 3.6, sharey=True)
    for ax, order in zip(axes[0], orders, strict=True):
        part = data[data.order == order]
        for method, line in part.groupby("method", sort=False):
            colour, counts = style.color(str(method)), line.verdict.isin(["better", "worse"]) | line.effect.isna()
            curve(ax, line.number, line.psnr, colour, style.label(str(method)), lw=1.2)
            for some, face in ((counts, colour), (~counts, "white")):
                ax.plot(line.number[some], line.psnr[some], "o", ms=4.5, color=colour, mfc=face)
        added = part.drop_duplicates("number").sort_values("number")
        names = [("" if n == 1 else "+ ") + style.short(str(p)) for n, p in zip(added.number, added.added, strict=True)]
        ax.set_xticks(added.number, names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_title(order)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("PSNR [dB]")
    legend(fig, axes[0, 0], 3)
    return fig


def fig07_leave(data: pd.DataFrame) -> Figure:
    """Rows: prior, effect, lo, hi."""
    fig, ((ax,),) = panels(1, 1, 0.6, 2.6)
    data = data.sort_values("effect")
    colours, names = zip(*((style.color(f"single:{p}"), style.short(str(p))) for p in data.prior), strict=True)
    points(ax, data, "effect", "lo", "hi", colours, labels=names, size=5)
    zero(ax, vertical=True)
    ax.set_xlabel("what the closed form loses without it [dB]")
    return fig


def fig07_stress(data: pd.DataFrame) -> Figure:
    """Rows: stress, method, psnr, effect, lo, hi: the gain over the average of the priors."""
    stresses, methods = list(dict.fromkeys(data.stress)), [m for m in dict.fromkeys(data.method) if m != "average"]
    fig, ((ax,),) = panels(1, 1, 1, 3.0)
    for k, method in enumerate(methods):
        part = data[data.method == method].set_index("stress").loc[stresses]
        x = np.arange(len(stresses)) + 0.12 * (k - (len(methods) - 1) / 2)
        error = [part.effect - part.lo, part.hi - part.effect]
        ax.errorbar(x, part.effect, error, fmt="o", ms=5, color=style.color(method), label=style.label(method))
    zero(ax)
    ax.set_xticks(range(len(stresses)), [textwrap.fill(s.replace(" µas", "\u00a0µas"), 10) for s in stresses])
    ax.set_ylabel("gain over the average [dB]")
    ax.grid(axis="y", alpha=0.3)
    legend(fig, ax, 4)
    return fig
