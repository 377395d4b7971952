"""What the figures share: sky pictures with their frame, and saving with the data beside the picture."""

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

from fusionlib import files
from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.sky import FOV

Arrays = dict[str, np.ndarray]
Data = pd.DataFrame | Arrays
EXTENT = (FOV / 2, -FOV / 2, -FOV / 2, FOV / 2)  # east to the left
SCALE = f"image value (1 = {1e3 * S_REF:g} mJy per 2.5 µas pixel)"


def sky_picture(ax: Axes, image: np.ndarray, title: str) -> mpl.image.AxesImage:
    """An intensity picture on the shared scale."""
    shown = ax.imshow(image, cmap=style.SKY, vmin=0, vmax=style.SKY_TOP, extent=EXTENT)
    ax.set_title(title)
    return shown


def frame(axes: np.ndarray) -> None:
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


# --- figures that several chapters have ---


def forest(data: pd.DataFrame) -> Figure:
    """Table in the schema, banks together: gain over the best single prior at full coverage, by bank."""
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
        ax.set_xscale("symlog", linthresh=4)
        ticks = (-8, *range(-4, 5), 8)
        ax.set_xticks(ticks, [f"{t}".replace("-", "−") for t in ticks])
        ax.set_xlim(1.1 * min(-0.2, data.delta_lo.min()), 1.1 * max(0.2, data.delta_hi.max()))
        ax.margins(y=0.02)
        ax.minorticks_off()
        ax.grid(axis="x", alpha=0.3)
    return fig


def mosaic(data: Arrays) -> Figure:
    """`truth`, `dirty` (K, H, W; the latter with peak 1), `image` (methods, K, H, W), `psnr` (methods, K), `method`."""
    methods, count = [str(m) for m in data["method"]], len(data["truth"])
    rows = -(-(len(methods) + 2) // 6)
    columns = -(-(len(methods) + 2) // rows)
    fig, axes = plt.subplots(
        count * rows, columns, figsize=(style.WIDTH * 1.25 * columns / 6, 1.62 * count * rows + 0.9), squeeze=False
    )
    for k, block in enumerate(axes.reshape(count, rows * columns)):
        sky_picture(block[0], data["truth"][k], "truth")
        block[1].imshow(data["dirty"][k], cmap=style.SKY, vmin=0, vmax=1, extent=EXTENT)
        block[1].set_title("dirty image*")
        for ax, method, image, psnr in zip(block[2:], methods, data["image"][:, k], data["psnr"][:, k], strict=False):
            shown = sky_picture(ax, image, style.short(method))
            ax.text(0.97, 0.04, f"{psnr:.1f} dB", transform=ax.transAxes, color="white", ha="right", fontsize=8)
        for ax in block[len(methods) + 2 :]:
            ax.axis("off")
    frame(axes)
    label = f"{SCALE};  * scaled to its own peak"
    fig.colorbar(shown, ax=axes, shrink=0.4, aspect=50, location="bottom", label=label, extend="both")
    return fig


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
