"""The figure of chapter 14: what the explorer shows, for those who read without running it."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from fusionlib.paper import style
from fusionlib.paper.drawing import EXTENT, SCALE, Arrays, frame, sky_picture

ERROR_TOP = 0.2


def fig14_view(data: Arrays) -> Figure:
    """`image` (4, H, W): truth, dirty image, reconstruction, error; `weights` (N, H, W), `name` (N,), `psnr`."""
    names, columns = [str(v) for v in data["name"]], 4
    rows = 1 + -(-len(names) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(style.WIDTH, 1.9 * rows + 1.2), squeeze=False)
    truth, dirty, image, error = np.asarray(data["image"], float)
    shown = sky_picture(axes[0, 0], truth, "truth")
    axes[0, 1].imshow(dirty, cmap=style.SKY, vmin=0, vmax=1, extent=EXTENT)
    axes[0, 1].set_title("dirty image*")
    sky_picture(axes[0, 2], image, f"reconstruction, {float(data['psnr']):.1f} dB")
    signed = {"cmap": style.SIGNED, "extent": EXTENT}
    axes[0, 3].imshow(error, vmin=-ERROR_TOP, vmax=ERROR_TOP, **signed)
    axes[0, 3].set_title(f"error, ±{ERROR_TOP}")
    for ax, name, weight in zip(axes[1:].flat, names, np.asarray(data["weights"], float), strict=False):
        drawn = ax.imshow(weight, vmin=-1, vmax=1, **signed)
        ax.set_title(style.short(name))
    for ax in list(axes[1:].flat)[len(names) :]:
        ax.axis("off")
    frame(axes)
    label = SCALE.replace(" (", "\n(") + ";  * its own peak"
    fig.colorbar(shown, ax=axes[:, :2], shrink=0.8, location="bottom", label=label, extend="max")
    fig.colorbar(
        drawn, ax=axes[:, 2:], shrink=0.8, location="bottom", label="mean weight over the iterations,\nof each prior"
    )
    return fig
