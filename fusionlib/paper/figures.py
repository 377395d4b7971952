"""One function per figure: tidy table or arrays in, figure out. `save` keeps the data beside the picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fusionlib import files
from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.sky import FOV

Arrays = dict[str, np.ndarray]
Data = pd.DataFrame | Arrays
EXTENT = (FOV / 2, -FOV / 2, -FOV / 2, FOV / 2)  # east to the left
SCALE = f"image value (1 = {1e3 * S_REF:g} mJy per 2.5 µas pixel)"


# --- chapter 00 ---


def fig00_sky(data: Arrays) -> Figure:
    """`image` (n, 128, 128), `spin`, `inclination` (n,); 16 of them in the paper."""
    rows = -(-len(data["image"]) // 4)
    fig, axes = plt.subplots(rows, 4, figsize=(style.WIDTH, 1.75 * rows + 1.1), squeeze=False)
    used, rest = np.split(axes.flatten(), [len(data["image"])])
    for ax in rest:
        ax.axis("off")
    for ax, image, a, i in zip(used, data["image"], data["spin"], data["inclination"], strict=True):
        shown = _sky(ax, image, "" if np.isnan(a) else f"a = {a:+.2f}, i = {i:.0f}°")
    _frame(used)
    fig.colorbar(shown, ax=axes, shrink=0.5, aspect=40, location="bottom", label=SCALE, extend="max")
    return fig


def fig00_coverage(data: pd.DataFrame) -> Figure:
    """Rows: coverage, u, v [Gλ], scan, visibilities, rank (the last two constant within a coverage)."""
    fig, axes = plt.subplots(
        1, data.coverage.nunique(), figsize=(style.WIDTH, 2.6), sharex=True, sharey=True, squeeze=False
    )
    for ax, (coverage, part) in zip(axes.flat, data.groupby("coverage", sort=False), strict=True):
        for sign in (1, -1):
            ax.scatter(sign * part.u, sign * part.v, s=5, color=style.COVERAGE_COLORS[float(coverage)], lw=0)  # type: ignore[arg-type]
        count, rank = part.visibilities.iloc[0], part["rank"].iloc[0]
        ax.set(title=f"coverage {coverage}: {part.scan.nunique()} scans\n{count} visibilities, rank {rank}")
        ax.set(xlabel="u [Gλ]", aspect="equal", xlim=(9, -9), ylim=(-6.5, 6.5))
    axes[0, 0].set_ylabel("v [Gλ]")
    return fig


def fig00_observation(data: Arrays) -> Figure:
    """`truth`, `beam`, `dirty` (H, W); `baseline` [Gλ], `amplitude`, `clean`, `sigma` [Jy], (M,) each."""
    fig = plt.figure(figsize=(style.WIDTH, 4.9))
    axes = fig.subplot_mosaic([["truth", "beam", "dirty"], ["amp", "amp", "amp"]], height_ratios=[1, 0.9])
    shown = _sky(axes["truth"], data["truth"], "truth")
    fig.colorbar(
        shown, ax=axes["truth"], shrink=0.7, location="bottom", label=f"1 = {1e3 * S_REF:g} mJy / pixel", extend="max"
    )
    for name, title, unit in (
        ("beam", "dirty beam", "response (peak 1)"),
        ("dirty", "dirty image", f"1 = {1e3 * S_REF:g} mJy / beam"),
    ):
        top = float(np.abs(data[name]).max())
        axes[name].imshow(data[name], cmap=style.SIGNED, vmin=-top, vmax=top, extent=EXTENT)
        axes[name].set_title(title)
        fig.colorbar(axes[name].images[0], ax=axes[name], shrink=0.7, location="bottom", label=unit)
    _frame(np.array([axes["truth"], axes["beam"], axes["dirty"]]))
    ax = axes["amp"]
    order = np.argsort(data["baseline"])
    ax.errorbar(
        data["baseline"],
        data["amplitude"],
        data["sigma"],
        fmt="o",
        ms=2.5,
        lw=0.6,
        color=style.COVERAGE_COLORS[1.0],
        label="observed, with its thermal noise",
    )
    ax.plot(data["baseline"][order], data["clean"][order], "x", ms=3, mew=0.6, color="black", label="noise-free")
    ax.set(yscale="log", xlabel="baseline length [Gλ]", ylabel="|visibility| [Jy]", xlim=(0, None))
    ax.legend(loc="upper right", ncols=2)
    return fig


# --- chapter 01 ---


def fig01_denoised(data: Arrays) -> Figure:
    """`image` (S, M, H, W), `psnr` (S, M), `sigma` (S,), `name` (M,): the noisy image first."""
    names = [str(n) for n in data["name"]]
    rows, columns = data["psnr"].shape
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH * 1.25, 1.0 * rows + 0.95), squeeze=False)
    for row, sigma, images, scores in zip(axes, data["sigma"], data["image"], data["psnr"], strict=True):
        for ax, image, psnr in zip(row, images, scores, strict=True):
            shown = _sky(ax, image, "")
            ax.text(0.96, 0.04, f"{psnr:.1f}", transform=ax.transAxes, color="white", ha="right", fontsize=7)
        row[0].set_ylabel(f"σ = {sigma:g}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(style.short(name))
    _frame(axes)
    label = f"{SCALE}; PSNR in dB"
    fig.colorbar(shown, ax=axes, shrink=0.4, aspect=50, location="bottom", label=label, extend="both")
    return fig


def fig01_correlation(data: pd.DataFrame) -> Figure:
    """Rows: prior, other, correlation of their errors."""
    names = list(dict.fromkeys(data.prior))
    value = data.set_index(["prior", "other"]).correlation
    matrix = np.array([[value[a, b] for b in names] for a in names])
    labels = [style.short(n) for n in names]
    fig, ax = plt.subplots(figsize=(0.62 * len(names) + 1.6, 0.52 * len(names) + 1.0))
    shown = ax.imshow(matrix, cmap=style.SIGNED, vmin=-1, vmax=1)
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            ax.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if value > 0.7 else "black"
            )
    ax.set_xticks(range(len(names)), labels, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), labels)
    for spine in ax.spines.values():
        spine.set_visible(False)
    fig.colorbar(shown, ax=ax, label="error correlation", shrink=0.8)
    return fig


def fig01_winners(data: Arrays) -> Figure:
    """`truth`, `winner` (n, H, W): number of the prior in `name` (M,) with the least error at each pixel."""
    names = [str(n) for n in data["name"]]
    count = len(data["truth"])
    fig, axes = plt.subplots(2, count, figsize=(style.WIDTH, 2 * style.WIDTH / count + 0.6), squeeze=False)
    colours = mpl.colors.ListedColormap([style.color(f"single:{n}") for n in names])
    for (top, bottom), truth, winner in zip(axes.T, data["truth"], data["winner"], strict=True):
        _sky(top, truth, "")
        bottom.imshow(winner, cmap=colours, vmin=-0.5, vmax=len(names) - 0.5, extent=EXTENT, interpolation="nearest")
    _frame(axes)
    axes[0, 0].set_ylabel("truth")
    axes[1, 0].set_ylabel("least error")
    share = np.bincount(data["winner"].ravel().astype(int), minlength=len(names)) / data["winner"].size
    handles = [
        mpl.patches.Patch(color=colours(k), label=f"{style.short(n)} {100 * share[k]:.0f} %")
        for k, n in enumerate(names)
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return fig


def fig01_headroom(data: pd.DataFrame) -> Figure:
    """Table in the schema, banks together: gain over its best single prior at full coverage, by bank."""
    data = data[(data.coverage == 1.0) & (data.method != "best_single")]
    banks = list(dict.fromkeys(data.bank))
    count = max(int((data.bank == b).sum()) for b in banks)
    fig, axes = plt.subplots(1, len(banks), figsize=(style.WIDTH, 1.0 + 0.22 * count), squeeze=False)
    for ax, bank in zip(axes[0], banks, strict=True):
        part = data[data.bank == bank].sort_values("delta_best_single")
        for y, row in enumerate(part.itertuples()):
            error = [[row.delta_best_single - row.delta_lo], [row.delta_hi - row.delta_best_single]]
            ax.errorbar(
                row.delta_best_single, y, xerr=error, fmt=style.MARKERS.get(str(row.kind), "o"), ms=4,
                color=style.color(str(row.method)),
            )  # fmt: skip
        ax.axvline(0, color="black", lw=0.6, ls=":")
        ax.set_yticks(range(len(part)), [style.label(m) for m in part.method])
        ax.set(title=f"bank {bank}", xlabel="gain [dB]")
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks([-6, -2, -1, 0, 1, 2, 6], ["−6", "−2", "−1", "0", "1", "2", "6"])
        ax.minorticks_off()
        ax.grid(axis="x", alpha=0.3)
    return fig


# --- chapter 02 ---


def fig02_reconstructions(data: Arrays) -> Figure:
    """`truth`, `dirty` (K, H, W; the latter with peak 1), `image` (methods, K, H, W), `psnr` (methods, K), `method`."""
    methods, count = [str(m) for m in data["method"]], len(data["truth"])
    columns = min(6, len(methods) + 2)
    rows = -(-(len(methods) + 2) // columns)
    fig, axes = plt.subplots(
        count * rows, columns, figsize=(style.WIDTH * 1.25, 1.62 * count * rows + 0.9), squeeze=False
    )
    for k, block in enumerate(axes.reshape(count, rows * columns)):
        _sky(block[0], data["truth"][k], "truth")
        block[1].imshow(data["dirty"][k], cmap=style.SKY, vmin=0, vmax=1, extent=EXTENT)
        block[1].set_title("dirty image*")
        for ax, method, image, psnr in zip(block[2:], methods, data["image"][:, k], data["psnr"][:, k], strict=False):
            shown = _sky(ax, image, style.short(method))
            ax.text(0.97, 0.04, f"{psnr:.1f} dB", transform=ax.transAxes, color="white", ha="right", fontsize=8)
        for ax in block[len(methods) + 2 :]:
            ax.axis("off")
    _frame(axes)
    label = f"{SCALE};  * scaled to its own peak"
    fig.colorbar(shown, ax=axes, shrink=0.4, aspect=50, location="bottom", label=label, extend="both")
    return fig


def fig02_psnr(data: pd.DataFrame) -> Figure:
    """Table in the schema: PSNR with its interval, one panel per coverage."""
    data = data[data.method != "best_single"]
    coverages = list(dict.fromkeys(data.coverage))
    fig, axes = plt.subplots(
        1, len(coverages), figsize=(style.WIDTH, 0.9 + 0.28 * data.method.nunique()), sharey=True, squeeze=False
    )
    for ax, coverage in zip(axes.flat, coverages, strict=True):
        part = data[data.coverage == coverage][::-1]
        for y, row in enumerate(part.itertuples()):
            ax.errorbar(
                row.psnr,
                y,
                xerr=[[row.psnr - row.psnr_lo], [row.psnr_hi - row.psnr]],
                fmt="o",
                ms=5,
                color=style.color(str(row.method)),
            )
        ax.set(
            yticks=range(len(part)),
            yticklabels=[style.label(m) for m in part.method],
            title=f"coverage {coverage}",
            xlabel="PSNR [dB]",
        )
        ax.margins(y=0.2)
        ax.grid(axis="x", alpha=0.3)
    return fig


def fig02_convergence(data: pd.DataFrame) -> Figure:
    """Rows: method, iteration, chi2, step (means over the images shown)."""
    fig, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 3.2))
    for method, part in data.groupby("method", sort=False):
        for ax, column in zip(axes, ("step", "chi2"), strict=True):
            ax.plot(
                part.iteration,
                part[column],
                "o-",
                ms=2.5,
                lw=1.2,
                color=style.color(str(method)),
                label=style.label(str(method)),
            )
    axes[0].set(xlabel="iteration", ylabel="RMS change of the image", yscale="log")
    axes[1].set(xlabel="iteration", ylabel="reduced χ² of the denoised image", yscale="log")
    axes[1].axhline(1, color="black", lw=0.6, ls=":")
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    return fig


# --- chapter 10 ---


def fig10_m87(data: Arrays) -> Figure:
    """`source` (S,), `method` (M,), `image_<source>` (M, H, W), for the twin `truth` (H, W) and `psnr` (M,)."""
    sources, methods = [str(s) for s in data["source"]], [str(m) for m in data["method"]]
    columns = min(6, len(methods) + 1)
    rows = -(-(len(methods) + 1) // columns)
    height = 1.62 * rows + 0.25
    fig = plt.figure(figsize=(style.WIDTH * 1.25, height * len(sources) + 0.6))
    ratios = [height] * len(sources) + [0.6]
    *parts, foot = fig.subfigures(len(sources) + 1, 1, squeeze=False, height_ratios=ratios)[:, 0]
    for part, source in zip(parts, sources, strict=True):
        part.suptitle(SOURCES.get(source, source), fontsize=9)
        axes = part.subplots(rows, columns, squeeze=False).flatten()
        twin = source == "twin"
        pictures = [("truth", data["truth"])] * twin + list(zip(methods, data[f"image_{source}"], strict=True))
        for ax, (method, image) in zip(axes, pictures, strict=False):
            shown = _sky(ax, image, style.short(method))
            if twin and method != "truth":
                psnr = data["psnr"][methods.index(method)]
                ax.text(0.97, 0.04, f"{psnr:.1f} dB", transform=ax.transAxes, color="white", ha="right", fontsize=8)
        for ax in axes[len(pictures) :]:
            ax.axis("off")
        _frame(axes[: len(pictures)])
    bar = foot.add_axes((0.3, 0.72, 0.4, 0.2))
    fig.colorbar(shown, cax=bar, orientation="horizontal", label=SCALE, extend="both")
    return fig


SOURCES = {"M87": "M87, 11 April 2017, low band", "twin": "simulated twin, same baselines"}


def fig10_profiles(data: Arrays) -> Figure:
    """`source`, `method` as above, `profile_<source>` (M, 180) and `profile_truth` (180,): ridge over its mean."""
    sources, methods = [str(s) for s in data["source"]], [str(m) for m in data["method"]]
    fig, axes = plt.subplots(1, len(sources), figsize=(style.WIDTH, 3.4), sharey=True, squeeze=False)
    for ax, source in zip(axes[0], sources, strict=True):
        profiles = data[f"profile_{source}"]
        angle = np.arange(profiles.shape[1]) * (360 / profiles.shape[1])
        for method, profile in zip(methods, profiles, strict=True):
            ax.plot(angle, profile, lw=1.2, color=style.color(method), label=style.label(method))
        if source == "twin":
            ax.plot(angle, data["profile_truth"], "k--", lw=1.5, label="truth")
        ax.set(title=SOURCES.get(source, source), xlabel="position angle, east of north [°]", xlim=(0, 360))
        ax.set_xticks(range(0, 361, 90), ["0\nN", "90\nE", "180\nS", "270\nW", "360\nN"])
    axes[0, 0].set_ylabel("ridge brightness / its mean")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return fig


def fig10_closures(data: Arrays) -> Figure:
    """`image` (K, H, W) made from `data` (K,) of one source, started from `start` (K,)."""
    kinds, starts = list(dict.fromkeys(data["data"])), list(dict.fromkeys(data["start"]))
    size = (1.75 * len(starts) + 0.5, 1.8 * len(kinds) + 0.9)
    fig, axes = plt.subplots(len(kinds), len(starts), figsize=size, squeeze=False)
    for kind, start, image in zip(data["data"], data["start"], data["image"], strict=True):
        ax = axes[kinds.index(kind), starts.index(start)]
        shown = _sky(ax, image, f"from {start}" if kind == kinds[0] else "")
        if start == starts[0]:
            ax.set_ylabel(kind)
    _frame(axes)
    fig.colorbar(shown, ax=axes, shrink=0.7, aspect=40, location="bottom", label=SCALE, extend="both")
    return fig


def fig10_families(data: pd.DataFrame) -> Figure:
    """Rows: family, method, rings_true, rings_seen, lo, hi: the share of images that show a ring."""
    families, methods = list(dict.fromkeys(data.family)), list(dict.fromkeys(data.method))
    fig, axes = plt.subplots(
        1, len(families), figsize=(style.WIDTH, 0.9 + 0.22 * len(methods)), sharey=True, squeeze=False
    )
    for ax, family in zip(axes[0], families, strict=True):
        part = data[data.family == family][::-1]
        for y, row in enumerate(part.itertuples()):
            error = [[max(0.0, row.rings_seen - row.lo)], [max(0.0, row.hi - row.rings_seen)]]
            ax.errorbar(row.rings_seen, y, xerr=error, fmt="o", ms=4, color=style.color(str(row.method)))
        ax.axvline(part.rings_true.iloc[0], color="black", lw=0.8, ls="--")
        ax.set(title=family, xlim=(-0.05, 1.05), xlabel="share with a ring")
        ax.set_yticks(range(len(part)), [style.label(m) for m in part.method])
        ax.margins(y=0.1)
        ax.grid(axis="x", alpha=0.3)
    return fig


# --- parts ---


def _sky(ax: Axes, image: np.ndarray, title: str) -> mpl.image.AxesImage:
    """An intensity picture on the shared scale."""
    shown = ax.imshow(image, cmap=style.SKY, vmin=0, vmax=style.SKY_TOP, extent=EXTENT)
    ax.set_title(title)
    return shown


def _frame(axes: np.ndarray) -> None:
    """No ticks; a 50 µas bar and the directions north and east in the first picture."""
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)
    ax = axes.flat[0]
    ax.plot([70, 20], [-70, -70], color="white", lw=1.5)
    ax.text(45, -66, "50 µas", color="white", ha="center", va="bottom", fontsize=7)
    arrow = {"arrowstyle": "-|>", "color": "white", "lw": 0.8, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 0}
    for dx, dy, name in ((0, 22, "N"), (22, 0, "E")):
        ax.annotate("", (-68 + dx, 40 + dy), (-68, 40), arrowprops=arrow)
        ax.text(-68 + 1.4 * dx, 40 + 1.4 * dy, name, color="white", fontsize=6, ha="center", va="center")


# --- saving and redrawing ---


def save(draw: Callable[[Any], Figure], data: Data, out: Path, **facts: Any) -> Figure:
    """Write `out/figures/<name>.{csv|npz, png, json}` for the figure function `draw`, and return the figure.

    The picture is drawn from the data as read back, so that it can be redrawn from the file alone. `facts` (profile,
    seeds, ...) go into the json.
    """
    name, folder = draw.__name__, out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{'csv' if isinstance(data, pd.DataFrame) else 'npz'}"
    with files.replacing(path) as aside:
        if isinstance(data, pd.DataFrame):
            data.to_csv(aside, index=False, float_format="%.6g")
        else:
            with open(aside, "wb") as handle:
                np.savez_compressed(handle, **{k: _compact(v) for k, v in data.items()})  # type: ignore[arg-type]
    fig = redraw(draw, path)
    fig.savefig(folder / f"{name}.png", metadata={"Software": None})
    versions = {"matplotlib": mpl.__version__, "numpy": np.__version__}
    facts = {"figure": name, "data": path.name, "data_sha256": files.sha256(path), "versions": versions, **facts}
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    plt.close(fig)  # a notebook shows the returned figure once
    return fig


def redraw(draw: Callable[[Any], Figure], path: Path) -> Figure:
    """The figure from its data file."""
    style.use()
    if path.suffix == ".csv":
        return draw(pd.read_csv(path))
    with np.load(path) as z:
        return draw(dict(z))


def _compact(array: Any) -> np.ndarray:
    a = np.asarray(array)
    return a.astype(np.float16) if a.ndim > 1 and a.dtype.kind == "f" else a
