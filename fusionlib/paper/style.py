"""The look of every figure: sizes, one colour map per kind of picture; names and colours are those of `methods`."""

import matplotlib as mpl

from fusionlib.paper.methods import color, label, short  # noqa: F401

WIDTH = 7.0  # inches, a full text width
SKY = "inferno"  # intensity
SKY_TOP = 0.5  # every intensity map is shown on 0 .. SKY_TOP; photon rings may exceed it
SIGNED = "RdBu_r"  # what can be negative
ERROR = "cividis"  # sizes of errors
DPI = 150

COVERAGE_COLORS = {1.0: "#0072B2", 0.3: "#009E73", 0.1: "#CC79A7"}
VERDICTS = {  # of `metrics.compare`
    "better": "#0072B2",
    "worse": "#D55E00",
    "negligible": "#999999",
    "undecided": "#CC9A00",
    "same": "#999999",
}
MARKERS = {
    "single": "o",
    "baseline": "s",
    "control": "D",
    "oracle": "^",
    "fused": "*",
    "supervised": "P",
    "ceiling": "v",
}


def use() -> None:
    """Set matplotlib's defaults for the paper."""
    import seaborn as sns  # a second of import that jobs do not need

    sns.set_theme(context="paper", style="ticks")
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "font.size": 9,
            "legend.frameon": False,
            "pdf.fonttype": 42,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
