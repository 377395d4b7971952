"""The pictures of the explorer, as bytes: fast, since every change of a slider draws them all."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from fusionlib.explorer.state import View
from fusionlib.paper import style


def coloured(image: np.ndarray, cmap: str, low: float, high: float) -> np.ndarray:
    """An image (H, W) as (H, W, 3) bytes."""
    scaled = np.clip((np.asarray(image, float) - low) / (high - low), 0, 1)
    return (mpl.colormaps[cmap](scaled)[:, :, :3] * 255).astype(np.uint8)


def png(pixels: np.ndarray, side: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(out, "png", compress_level=1)
    return out.getvalue()


def sky_pixels(image: np.ndarray) -> np.ndarray:
    return coloured(image, style.SKY, 0, style.SKY_TOP)


_PLOTS = ((0.05, 0.2), (0.385, 0.22), (0.615, 0.01), (0.72, 0.26))  # left edges and widths


def plots(view: View) -> bytes:
    """Weights over the iterations, baselines with their residuals, convergence."""
    style.use()
    fig = Figure(figsize=(10.4, 2.6), dpi=96, layout="none")  # type: ignore[arg-type]
    FigureCanvasAgg(fig)
    one, two, bar, three = (fig.add_axes((x, 0.17, width, 0.73)) for x, width in _PLOTS)  # a layout engine draws twice
    for axis in (one.xaxis, one.yaxis, two.xaxis, two.yaxis, three.xaxis):
        axis.set_major_locator(MaxNLocator(5, integer=axis in (one.xaxis, three.xaxis)))
    count = np.arange(1, len(view.chi2) + 1)
    weights = view.weights.mean((2, 3)) if view.weights is not None else np.ones((len(count), 1))
    colours = [style.color(f"single:{name}") for name in view.names]
    if (weights >= 0).all():
        one.stackplot(count, weights.T, colors=colours, labels=[style.short(n) for n in view.names])
    else:
        for line, name, colour in zip(weights.T, view.names, colours, strict=True):
            one.plot(count, line, color=colour, lw=1.2, label=style.short(name))
    one.set(title="mean weight", xlabel="iteration")
    one.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    u, v, residual = view.points[["u", "v", "residual"]].to_numpy().T
    u, v, residual = np.append(u, -u) / 1e9, np.append(v, -v) / 1e9, np.append(residual, residual)
    shown = two.scatter(u, v, c=residual, s=6, cmap="viridis", vmin=0, vmax=3)
    two.set(title="baselines [Gλ], residual over noise", aspect="equal")
    two.invert_xaxis()
    fig.colorbar(shown, cax=bar, extend="max", ticks=range(4))
    three.semilogy(count, view.chi2, "o-", ms=2.5, color="#0072B2", label="reduced χ²")
    three.semilogy(count, view.step, "o-", ms=2.5, color="#D55E00", label="RMS change")
    three.set(title="convergence", xlabel="iteration")
    three.minorticks_off()
    three.yaxis.set_major_formatter("{x:g}")
    three.legend(fontsize=6)
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi="figure")
    return out.getvalue()
