"""The look of every figure: sizes, one colour per method, one colour map per kind of picture."""

import matplotlib as mpl

WIDTH = 7.0  # inches, a full text width
SKY = "inferno"  # intensity
SKY_TOP = 0.5  # every intensity map is shown on 0 .. SKY_TOP; photon rings may exceed it
SIGNED = "RdBu_r"  # what can be negative
ERROR = "cividis"  # sizes of errors
DPI = 150

# Colour-blind safe (Okabe & Ito); the same method has the same colour in every figure
COLORS = {
    "single:identity": "#999999",
    "single:tv": "#E69F00",
    "single:ffdnet": "#0072B2",
    "single:torus": "#009E73",
    "single:faces": "#CC79A7",
    "single:digits": "#F0E442",
    "single:galaxies": "#56B4E9",
    "single:sr": "#7A5195",
    "average": "#D55E00",
    "rml": "#8C510A",
    "static_simplex": "#B2912F",
    "static_affine": "#DA5526",
    "single_identity": "#5AB4AC",
    "noise_levels": "#01665E",
    "best_single": "#000000",
    "ceiling": "#000000",
    "closed_form": "#B30059",
    "closed_turned": "#F768A1",
    "closed_union": "#49006A",
    "unrolled": "#7A0177",
    "gradient:pixel": "#E7298A",
    "closed_single": "#80CDC1",
    "closed_levels": "#35978F",
    "csnet": "#A6761D",
    "mace": "#7F6000",
    "consensus:image": "#BF812D",
    "top:1": "#666666",
    "top:2": "#969696",
    "unet": "#1A1A1A",
    "denoiser": "#4D4D4D",
    "finetuned": "#333333",
    "heldout": "#C7B35A",
    "lora": "#8C6D31",
    "a:image": "#1F78B4",
    "a:8": "#4A98C9",
    "a:16": "#3A8BC2",
    "a:4": "#5BA3D0",
    "a:pixel": "#6BAED6",
    "mgpf:image": "#6A51A3",
    "a_meta:image": "#08306B",
    "b:image": "#33A02C",
    "b_meta:image": "#00441B",
    "b:8": "#55B54C",
    "b_separate:8": "#238443",
    "c:image": "#FF7F00",
    "c:8": "#FF9933",
    **{f"closed_form:{k}": "#B30059" for k in ("image", "16", "8", "4")},
    "closed_form:coarse": "#67001F",
    **{f"priced:{p}": "#DD1C77" for p in ("0.0003", "0.001", "0.003", "0.01")},
    **{f"top_p:image/{p}": "#41B6C4" for p in ("0.5", "0.7", "0.9")},
    **{f"expert:{k}": "#6A51A3" for k in ("8/16", "16/2", "16/4")},
    **{f"closed_expert:{k}": "#980043" for k in ("8/4", "8/16", "8/32")},
    "single:local_photographs": "#0072B2",
    "single:local_galaxies": "#56B4E9",
    "single:local_torus": "#009E73",
}
LABELS = {
    "single:identity": "data only (identity)",
    "single:tv": "total variation",
    "single:ffdnet": "FFDNet (photographs)",
    "single:torus": "thick torus",
    "single:faces": "faces",
    "single:digits": "digits (diffusion)",
    "single:galaxies": "galaxies",
    "single:sr": "super-resolution",
    "average": "average of the bank",
    "rml": "RML",
    "static_simplex": "static weights, simplex",
    "static_affine": "static weights, sign-free",
    "single_identity": "best prior + identity",
    "noise_levels": "best prior at 6 noise levels",
    "oracle:image": "oracle, prior per image",
    "oracle:affine": "oracle, weights per image",
    "oracle:8": "oracle, prior per 8 px",
    "oracle:pixel": "oracle, prior per pixel",
    "best_single": "best single prior",
    "ceiling": "ceiling: trained on the sky",
    "closed_form": "closed form, pixel (ours)",
    "closed_turned": "closed form, turned labels (ours)",
    "closed_union": "closed form, bank + levels (ours)",
    "unrolled": "closed form, unrolled (ours)",
    "gradient:pixel": "gradient, pixel (ours)",
    "closed_single": "closed form: best + identity",
    "closed_levels": "closed form: best, 6 levels",
    "csnet": "CsNet, linear estimates",
    "mace": "MACE",
    "consensus:image": "consensus vote",
    "top:1": "top 1 of strategy A",
    "top:2": "top 2 of strategy A",
    "unet": "end-to-end U-Net",
    "denoiser": "denoiser from nothing",
    "finetuned": "best prior, fine-tuned",
    "heldout": "held-out visibilities",
    "lora": "plain routing + LoRA",
    "a:image": "A, image",
    "a:8": "A, 8 px",
    "a:pixel": "A, pixel",
    "mgpf:image": "MGPF, image",
    "a_meta:image": "A, image, meta-learned",
    "b:image": "B, image",
    "b_meta:image": "B, image, meta-learned",
    "c:image": "C, image",
    "a:16": "A, 16 px",
    "a:4": "A, 4 px",
    "b:8": "B, 8 px",
    "b_separate:8": "B, 8 px, gate first",
    "c:8": "C, 8 px",
    "closed_form:image": "closed form, image (ours)",
    **{f"closed_form:{k}": f"closed form, {k} px (ours)" for k in ("16", "8", "4")},
    "closed_form:coarse": "closed form, coarse to fine (ours)",
    **{f"priced:{p}": f"closed form, price {p} (ours)" for p in ("0.0003", "0.001", "0.003", "0.01")},
    **{f"top_p:image/{p}": f"A, image, p = {p}" for p in ("0.5", "0.7", "0.9")},
    **{f"expert:{a}/{l}": f"expert choice, {l} of {a} px" for a, l in ((8, 16), (16, 2), (16, 4))},
    **{f"closed_expert:8/{l}": f"expert choice, {l} of 8 px, closed form" for l in (4, 16, 32)},
    "single:local_photographs": "photographs, 15 px",
    "single:local_galaxies": "galaxies, 15 px",
    "single:local_torus": "thick torus, 15 px",
}
COVERAGE_COLORS = {1.0: "#0072B2", 0.3: "#009E73", 0.1: "#CC79A7"}


MARKERS = {
    "single": "o",
    "baseline": "s",
    "control": "D",
    "oracle": "^",
    "fused": "*",
    "supervised": "P",
    "ceiling": "v",
}
SHORT = {"tv": "TV", "ffdnet": "FFDNet", "sr": "SR", "rml": "RML", "closed_form": "closed form", "unet": "U-Net"}
SHORT |= {"local_photographs": "photographs", "local_galaxies": "galaxies", "local_torus": "torus"}
SHORT |= {"unet_galaxies": "galaxies, U-Net"}
SHORT |= {"static_affine": "static, free", "static_simplex": "static, simplex"}


def short(method: str) -> str:
    """The name of a prior or method where there is little room."""
    name = method.removeprefix("single:")
    if ".py:" in name:  # a prior of the user's, from a file
        return name.rpartition(":")[2]
    return SHORT.get(name) or (LABELS.get(name, name) if ":" in name else name)


def label(method: str) -> str:
    return LABELS.get(method) or short(method)


def color(method: str) -> str:
    return COLORS.get(method, "#444444")


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
