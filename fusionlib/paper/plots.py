"""What figures are drawn from: sky pictures, curves, points with intervals, tables of numbers; and saving."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fusionlib import files
from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.sky import FOV

Arrays = dict[str, np.ndarray]
Data = pd.DataFrame | Arrays
EXTENT = (FOV / 2, -FOV / 2, -FOV / 2, FOV / 2)  # east to the left
SCALE = f"image value (1 = {1e3 * S_REF:g} mJy per 2.5 µas pixel)"


def panels(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `width` text widths and `height` inches, and its axes (rows, columns)."""
    return plt.subplots(rows, columns, figsize=(style.WIDTH * width, height), squeeze=False, **options)


def legend(fig: Figure, axes: Any, columns: int, size: float = 8, **look: Any) -> None:
    """One legend below the figure of what is in any of the axes."""
    entries: dict[str, Any] = {}
    for ax in np.ravel(axes):
        entries |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=size, **look)


# --- pictures ---


def sky_picture(ax: Axes, image: np.ndarray, title: str = "", psnr: float | None = None) -> mpl.image.AxesImage:
    """An intensity picture on the shared scale, with its PSNR [dB] in the corner."""
    shown = ax.imshow(image, cmap=style.SKY, vmin=0, vmax=style.SKY_TOP, extent=EXTENT)
    ax.set_title(title)
    if psnr is not None:
        ax.text(0.97, 0.04, f"{psnr:.1f} dB", transform=ax.transAxes, color="white", ha="right", fontsize=8)
    return shown


def dirty_picture(ax: Axes, image: np.ndarray, title: str = "dirty image*") -> None:
    """A dirty image on the scale of its own peak."""
    ax.imshow(image, cmap=style.SKY, vmin=0, vmax=1, extent=EXTENT)
    ax.set_title(title)


def map_picture(ax: Axes, image: np.ndarray, title: str, top: float, *, signed: bool) -> mpl.image.AxesImage:
    """A map of differences on -top .. top, or of sizes on 0 .. top."""
    cmap, low = (style.SIGNED, -top) if signed else (style.ERROR, 0)
    shown = ax.imshow(np.asarray(image, float), cmap=cmap, vmin=low, vmax=top, extent=EXTENT)
    ax.set_title(title)
    return shown


def frame(axes: np.ndarray) -> None:
    """No ticks; a 50 µas bar and the directions north and east in the first picture."""
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    ax = axes.flat[0]
    ax.plot([70, 20], [-70, -70], color="white", lw=1.5)
    ax.text(45, -66, "50 µas", color="white", ha="center", va="bottom", fontsize=7)
    arrow = {"arrowstyle": "-|>", "color": "white", "lw": 0.8, "mutation_scale": 6, "shrinkA": 0, "shrinkB": 0}
    for dx, dy, name in ((0, 22, "N"), (22, 0, "E")):
        ax.annotate("", (-68 + dx, 40 + dy), (-68, 40), arrowprops=arrow)
        ax.text(-68 + 1.4 * dx, 40 + 1.4 * dy, name, color="white", fontsize=6, ha="center", va="center")


def scale_bar(fig: Figure, shown: Any, axes: Any, label: str, *, shrink: float = 0.4, ends: str = "both") -> None:
    """The colours of a picture below `axes`."""
    aspect = 50 if shrink < 0.6 else 20
    fig.colorbar(shown, ax=axes, shrink=shrink, aspect=aspect, location="bottom", label=label, extend=ends)


def mosaic(data: Arrays, wrap: int = 6) -> Figure:
    """`truth`, `dirty` (K, H, W; the latter with peak 1), `image` (methods, K, H, W), `psnr` (methods, K), `method`; at
    most `wrap` pictures a row. Where an image has one row, titles stand above the first."""
    methods, count = [str(m) for m in data["method"]], len(data["truth"])
    rows = -(-(len(methods) + 2) // wrap)
    columns = -(-(len(methods) + 2) // rows)
    titles = ["truth", "dirty image*", *(style.short(m) for m in methods)]
    width, height = (
        (1.25 * columns / wrap, 1.62 * count * rows + 0.9) if rows > 1 else (0.174 * columns, 1.25 * count + 1.1)
    )
    fig, axes = panels(count * rows, columns, width, height)
    for k, block in enumerate(axes.reshape(count, rows * columns)):
        told = titles if rows > 1 or k == 0 else [""] * len(titles)
        sky_picture(block[0], data["truth"][k], told[0])
        dirty_picture(block[1], data["dirty"][k], told[1])
        for ax, title, image, psnr in zip(block[2:], told[2:], data["image"][:, k], data["psnr"][:, k], strict=False):
            shown = sky_picture(ax, image, title, psnr)
        for ax in block[len(titles) :]:
            ax.axis("off")
    frame(axes)
    scale_bar(fig, shown, axes, f"{SCALE};  * scaled to its own peak")
    return fig


# --- curves and points ---


def zero(ax: Axes, *, vertical: bool = False, at: float = 0.0) -> None:
    """A dotted line where nothing is gained or lost."""
    (ax.axvline if vertical else ax.axhline)(at, color="black", lw=0.6, ls=":")


def curve(
    ax: Axes,
    x: Any,
    y: Any,
    color: str,
    label: str = "",
    band: tuple[Any, Any] | None = None,
    fmt: str = "-",
    **look: Any,
) -> None:
    """A line, with its interval as a band."""
    ax.plot(x, y, fmt, color=color, label=label, **{"lw": 1.3, "ms": 3.5} | look)
    if band is not None:
        ax.fill_between(x, *band, color=color, alpha=0.15, lw=0)


def curves(ax: Axes, data: pd.DataFrame, x: str, y: str, **look: Any) -> None:
    """A curve for every method of a table."""
    for method, part in data.groupby("method", sort=False):
        curve(ax, part[x], part[y], style.color(str(method)), style.label(str(method)), **look)


def points(
    ax: Axes,
    data: pd.DataFrame,
    value: str,
    lo: str,
    hi: str,
    colors: Sequence[str],
    *,
    labels: Sequence[str] = (),
    places: Sequence[float] = (),
    markers: Sequence[str] = (),
    size: float = 4,
) -> None:
    """Values with their intervals, one above the other, at `places`, by default 0, 1, ... from below."""
    at = places or range(len(data))
    for place, row, colour, marker in zip(at, data.to_dict("records"), colors, markers or "o" * len(data), strict=True):
        error = [[max(0.0, row[value] - row[lo])], [max(0.0, row[hi] - row[value])]]
        ax.errorbar(row[value], place, xerr=error, fmt=marker, ms=size, color=colour)
    if len(labels):
        ax.set_yticks(list(at), labels)
    ax.grid(axis="x", alpha=0.3)


def ticks(ax: Axes, values: Sequence[float], **look: Any) -> None:
    """These numbers along the horizontal axis, and no others."""
    ax.set_xticks(values, [f"{v:g}".replace("-", "−") for v in values], **look)
    ax.minorticks_off()


def grid_of(count: int, columns: int = 3) -> tuple[Figure, np.ndarray]:
    """Axes for one thing each, over iterations."""
    columns = min(columns, count)
    rows = -(-count // columns)
    fig, axes = panels(rows, columns, 1, 2.2 * rows + 0.6, sharex=True)
    for ax in axes.flat[count:]:
        ax.axis("off")
    for ax in axes.flat[max(0, count - columns) : count]:
        ax.set_xlabel("iteration")
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(9 - columns, integer=True))
    return fig, axes


def forest(data: pd.DataFrame) -> Figure:
    """Table in the schema, banks together: gain over the best single prior at full coverage, by bank."""
    data = data[(data.coverage == 1.0) & (data.method != "best_single")]
    banks = list(dict.fromkeys(data.bank))
    fig, axes = panels(1, len(banks), 1, 1.0 + 0.22 * max(int((data.bank == b).sum()) for b in banks))
    for ax, bank in zip(axes[0], banks, strict=True):
        part = data[data.bank == bank].sort_values("delta_best_single")
        kinds = [style.MARKERS.get(str(kind), "o") for kind in part.kind]
        points(
            ax, part, "delta_best_single", "delta_lo", "delta_hi", [style.color(m) for m in part.method],
            labels=[style.label(m) for m in part.method], markers=kinds,
        )  # fmt: skip
        zero(ax, vertical=True)
        ax.set(title=f"bank {bank}", xlabel="gain [dB]")
        ax.set_xscale("symlog", linthresh=4)
        ticks(ax, (-8, *range(-4, 5), 8))
        ax.set_xlim(1.1 * min(-0.2, data.delta_lo.min()), 1.1 * max(0.2, data.delta_hi.max()))
        ax.margins(y=0.02)
    return fig


def table_of(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    text: Sequence[Sequence[str]],
    dark: np.ndarray,
    size: float = 7,
    turn: float = 0,
    **look: Any,
) -> mpl.image.AxesImage:
    """Numbers as colours, with `text` in each cell, white where it is `dark`."""
    shown = ax.imshow(values, **look)
    for (i, j), is_dark in np.ndenumerate(dark):
        ax.text(j, i, text[i][j], ha="center", va="center", fontsize=size, color="white" if is_dark else "black")
    ax.set_xticks(range(len(columns)), columns, rotation=turn, ha="right" if turn else "center")
    ax.set_yticks(range(len(rows)), rows)
    ax.spines[:].set_visible(True)
    return shown


# --- saving and redrawing ---


def save(draw: Callable[[Any], Figure], data: Data, out: Path, name: str = "", **facts: Any) -> Figure:
    """Write `out/figures/<name>.{csv|npz, png, json}`, by default named as the function `draw`; return the figure.

    The picture is drawn from the data as read back, so that it can be redrawn from the file alone. `facts` (profile,
    seeds, ...) go into the json.
    """
    name, folder = name or draw.__name__, out / "figures"
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
    facts = {
        "figure": name,
        "drawn_by": draw.__name__,
        "data": path.name,
        "data_sha256": files.sha256(path),
        "versions": versions,
        **facts,
    }
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
