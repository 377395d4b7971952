"""The figure of chapter 14: what the explorer shows, for those who read without running it."""

import numpy as np
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.plots import SCALE, Arrays, dirty_picture, frame, map_picture, panels, scale_bar, sky_picture

ERROR_TOP = 0.2


def fig14_view(data: Arrays) -> Figure:
    """`image` (4, H, W): truth, dirty image, reconstruction, error; `weights` (N, H, W), `name` (N,), `psnr`."""
    names, columns = [str(v) for v in data["name"]], 4
    rows = 1 + -(-len(names) // columns)
    fig, axes = panels(rows, columns, 1, 1.9 * rows + 1.2)
    truth, dirty, image, error = np.asarray(data["image"], float)
    shown = sky_picture(axes[0, 0], truth, "truth")
    dirty_picture(axes[0, 1], dirty)
    sky_picture(axes[0, 2], image, f"reconstruction, {float(data['psnr']):.1f} dB")
    map_picture(axes[0, 3], error, f"error, ±{ERROR_TOP}", ERROR_TOP, signed=True)
    for ax, name, weight in zip(axes[1:].flat, names, data["weights"], strict=False):
        drawn = map_picture(ax, weight, style.short(name), 1.0, signed=True)
    for ax in list(axes[1:].flat)[len(names) :]:
        ax.axis("off")
    frame(axes)
    label = SCALE.replace(" (", "\n(") + ";  * its own peak"
    scale_bar(fig, shown, axes[:, :2], label, shrink=0.8, ends="max")
    label = "mean weight over the iterations,\nof each prior"
    scale_bar(fig, drawn, axes[:, 2:], label, shrink=0.8, ends="neither")
    return fig
