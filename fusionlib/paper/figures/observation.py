"""Figures of an observation that somebody gave: its picture, its data, and every rule side by side."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from fusionlib.interferometer import S_REF
from fusionlib.paper import style
from fusionlib.paper.plots import EXTENT, Arrays, frame, panels, scale_bar
from fusionlib.sky import FOV, NPIX

LIGHT, BOLTZMANN = 299792458.0, 1.380649e-23


def brightness(image: np.ndarray, frequency: float) -> tuple[np.ndarray, str]:
    """Brightness temperature [1e9 K] of image values at a frequency [Hz], or without one mJy per square µas; and the
    unit in words."""
    if not np.isfinite(frequency):
        return image * 1e3 * S_REF / (FOV / NPIX) ** 2, "mJy per square µas"
    pixel = math.radians(FOV / NPIX / 3600e6)
    kelvin = S_REF * 1e-26 / pixel**2 * LIGHT**2 / (2 * BOLTZMANN * frequency**2)
    return image * kelvin / 1e9, "brightness temperature [10⁹ K]"


def observation_picture(data: Arrays, facts: dict[str, Any]) -> Figure:
    """`image` (H, W), `beam` (major, minor [µas], position angle [deg]), `frequency` [Hz], `label`; and the facts."""
    shown, unit = brightness(data["image"], float(data["frequency"]))
    fig, axes = panels(1, 1, 0.62, 4.9)
    ax = axes[0, 0]
    picture = ax.imshow(shown, cmap=style.SKY, vmin=0, vmax=shown.max(), extent=EXTENT)
    major, minor, angle = data["beam"]
    # east is to the left: an angle east of north turns against the clock
    ax.add_patch(Ellipse((55, 50), minor, major, angle=angle, facecolor="none", edgecolor="white", lw=1))
    ax.text(55, 72, "beam", color="white", fontsize=7, ha="center", va="center")
    frame(axes)
    ax.set_title(f"{data['label']}\n{_told(facts)}", fontsize=8)
    scale_bar(fig, picture, axes, unit, shrink=0.8, ends="neither")
    return fig


def _told(facts: dict[str, Any]) -> str:
    chi2, ring = facts["chi2"], facts["ring"]
    lines = [f"χ² of closure phases {chi2['cphase']:.2f}, of log closure amplitudes {chi2['logcamp']:.2f}"]
    if ring["is_ring"]:
        lines.append(f"ring {ring['diameter_uas']:.1f} µas, brightest at {ring['position_angle_deg']:.0f}°")
    if not facts["fits_the_data"]:
        lines.append("does not fit the data")
    return "\n".join(lines)


def observation_data(data: Arrays) -> Figure:
    """Closure phases `cphase`, `cphase_error`, `cphase_model` [deg], side by side in order of their `time`, and
    calibrated amplitudes `amp`, `amp_error`, `amp_model` [Jy] over `length` [Gλ]."""
    fig, axes = panels(1, 2, 1.25, 3.4)
    left, right = axes[0]
    order = np.argsort(data["time"], kind="stable")
    place = np.argsort(order)
    _against(left, place, data["cphase"], data["cphase_error"].clip(max=180), data["cphase_model"])
    _against(right, data["length"], data["amp"], data["amp_error"], data["amp_model"])
    times, first = np.unique(data["time"], return_index=True)
    shown = slice(None, None, -(-len(times) // 8))
    left.set_xticks(place[first[shown]], [f"{t:.1f}" for t in times[shown]])
    left.set(xlabel=f"triangles in order of time, {data['clock']}", ylabel="closure phase [°]", ylim=(-210, 210))
    left.set_yticks(range(-180, 181, 90))
    right.set(xlabel="baseline [Gλ]", ylabel="amplitude, gains removed [Jy]", yscale="log")
    right.legend(fontsize=8)
    fig.suptitle(str(data["label"]), fontsize=9)
    return fig


def _against(ax: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, model: np.ndarray) -> None:
    """Data with their errors, and those of the picture."""
    ax.errorbar(x, y, error, fmt="o", ms=3, elinewidth=0.6, color=style.VERDICTS["better"], label="data")
    ax.plot(x, model, "x", ms=4, mew=1, color=style.VERDICTS["worse"], label="picture", zorder=3)


def observation_rules(pictures: dict[str, tuple[dict[str, Any], Arrays]]) -> Figure:
    """Every rule's picture, by its name, on one scale."""
    columns = min(5, len(pictures))
    fig, axes = panels(-(-len(pictures) // columns), columns, 0.24 * columns, 1.95 * -(-len(pictures) // columns) + 0.7)
    images = {name: brightness(data["image"], float(data["frequency"])) for name, (_, data) in pictures.items()}
    top, unit = max(float(image.max()) for image, _ in images.values()), next(iter(images.values()))[1]
    for ax, (name, (facts, _)) in zip(axes.flat, pictures.items(), strict=False):
        shown = ax.imshow(images[name][0], cmap=style.SKY, vmin=0, vmax=top, extent=EXTENT)
        ax.set_title(name)
        chi2 = facts["chi2"]
        ax.text(
            0.97, 0.04, f"χ² {chi2['cphase']:.1f}, {chi2['logcamp']:.1f}", transform=ax.transAxes, color="white",
            ha="right", fontsize=7,
        )  # fmt: skip
    for ax in axes.flat[len(pictures) :]:
        ax.axis("off")
    frame(axes)
    scale_bar(fig, shown, axes, f"{unit};  χ² of closure phases, of log closure amplitudes", ends="neither")
    return fig
