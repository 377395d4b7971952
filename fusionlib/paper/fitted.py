"""The methods that learn from labelled images: their makers, and the hashes of what makes them."""

from functools import partial
from typing import Any

from fusionlib import files
from fusionlib.meta import Course
from fusionlib.paper import learned, solved, varied

NOT_TRAINED = ("best", "shared", "ellipsoid", "ridge", "kept")  # found by a fit, but no parameters
MAKERS: dict[str, varied.Maker] = {
    "static_simplex": partial(solved.solved, solved.static(True), "baseline"),
    "static_affine": partial(solved.solved, solved.static(False), "baseline"),
    "closed_form": solved.closed_form,
    "closed_expert": solved.closed_expert,
    "priced": solved.priced,
    "unrolled": partial(solved.solved, solved.unrolled(), "fused"),
    "csnet": partial(solved.solved, solved.csnet(), "baseline"),
    "single_identity": partial(solved.control, solved.static(False), solved.with_identity),
    "noise_levels": partial(solved.control, solved.static(False), solved.at_levels),
    "closed_single": partial(solved.control, solved.closed(), solved.with_identity),
    "closed_levels": partial(solved.control, solved.closed(), solved.at_levels),
    "closed_union": solved.union,
    **{kind: partial(learned.learned, build) for kind, build in learned.PARTS.items()},
    "c": partial(learned.learned, learned.strategy_c, objective=varied.PEERS),
    "b_separate": partial(learned.learned, learned.strategy_b, separate=True),
    "expert": learned.expert,
    "top": learned.top,
    "top_p": learned.nucleus,
    "a_meta": partial(learned.learned, learned.strategy_a, course=Course()),
    "b_meta": partial(learned.learned, learned.strategy_b, course=Course()),
    "lora": learned.low_rank,
    "denoiser": partial(learned.denoiser, False),
    "finetuned": partial(learned.denoiser, True),
    "unet": learned.unet,
    **varied.VARIANTS,
}
_SOLVED = ("solved", "over")
_CONTROLS = (*_SOLVED, "control", "with_identity", "at_levels", "best_single")
_LEARNED = ("learned", "both", "best_single")
_META = (*_LEARNED, "conditions")


def _variant(kind: str) -> tuple[str, ...]:
    """The functions behind one of `varied`."""
    maker: Any = varied.VARIANTS[kind]
    if maker is varied.turned:
        return ("turned", "closed_form", "closed", *_SOLVED)
    if maker.func is solved.closed_form:
        return ("closed_form", "closed", *_SOLVED)
    own = ("_correlation",) if kind == "mgpf_clustered" else ()
    return (maker.args[0].__name__, *own, *(_META if "course" in maker.keywords else _LEARNED))


# the functions of `solved`, `learned` and `varied` that make a method, and the modules of the library it uses
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "static_simplex": ("static", *_SOLVED),
    "static_affine": ("static", *_SOLVED),
    "closed_form": ("closed_form", "closed", *_SOLVED),
    "closed_expert": ("closed_expert", "best_single"),
    "priced": ("priced", "closed", "shares", *_SOLVED),
    "unrolled": ("unrolled", "closed", *_SOLVED),
    "csnet": ("csnet", *_SOLVED),
    "single_identity": ("static", *_CONTROLS),
    "noise_levels": ("static", *_CONTROLS),
    "closed_single": ("closed", *_CONTROLS),
    "closed_levels": ("closed", *_CONTROLS),
    "closed_union": ("union", "closed", *_SOLVED, "control", "best_single"),
    **{kind: (build.__name__, *_LEARNED) for kind, build in learned.PARTS.items()},
    "b_separate": ("strategy_b", *_LEARNED),
    "expert": ("expert", *_LEARNED),
    "top": ("top", "strategy_a", *_LEARNED),
    "top_p": ("nucleus", "strategy_a", *_LEARNED),
    "a_meta": ("strategy_a", *_META),
    "b_meta": ("strategy_b", *_META),
    "lora": ("low_rank",),
    "denoiser": ("denoiser",),
    "finetuned": ("denoiser", "best_single"),
    "unet": ("unet",),
    **{kind: _variant(kind) for kind in varied.VARIANTS},
}


def _uses(kind: str) -> tuple[str, ...]:
    maker: Any = varied.VARIANTS[kind]
    if maker is varied.turned:
        return ("solve", "datasets")
    if maker.func is solved.closed_form:
        return ("solve",)
    if "course" in maker.keywords:
        return ("meta", "adapters", "families", "interferometer")
    return ("learn", "routing", "adapters", *("groups", "oracles", "sky") * kind.startswith("mgpf"))


USES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("static_simplex", "static_affine", "closed_form", "priced"), ("solve",)),
    "closed_expert": ("choice",),
    **dict.fromkeys(
        ("single_identity", "noise_levels", "closed_single", "closed_levels", "closed_union"), ("solve", "oracles")
    ),
    **dict.fromkeys((*learned.PARTS, "b_separate", "expert", "top", "top_p"), ("learn", "routing", "adapters")),
    **dict.fromkeys(("a_meta", "b_meta"), ("meta", "adapters", "families", "interferometer")),
    **{kind: _uses(kind) for kind in varied.VARIANTS},
    "unrolled": ("unroll", "solve"),
    "csnet": ("csnet",),
    "lora": ("lora",),
    **dict.fromkeys(("unet", "denoiser", "finetuned"), ("supervised",)),
}

OWN: dict[str, tuple[Any, ...]] = {  # and constants
    "priced": (files.function_hash("zoo", "flops"),),
    "closed_turned": (varied.TURNED,),
    "a_meta": (learned.NOISE, learned.WINDOW),
    "b_meta": (learned.NOISE, learned.WINDOW),
    **{kind: (learned.NOISE, learned.WINDOW) for kind in varied.VARIANTS if "conditions" in _FUNCTIONS[kind]},
}


def code(kind: str) -> str:
    """Hash of the functions here that make a method."""
    given = getattr(MAKERS[kind], "keywords", {})
    return files.digest(
        [[_HASHES[name] for name in _FUNCTIONS[kind]], repr((solved.LEVELS, learned.PLAIN, given, *OWN.get(kind, ())))]
    )


def _module_of(name: str) -> str:
    return next(f"paper.{m.__name__.rpartition('.')[2]}" for m in (solved, learned, varied) if hasattr(m, name))


_HASHES = {name: files.function_hash(_module_of(name), name) for names in _FUNCTIONS.values() for name in names}
