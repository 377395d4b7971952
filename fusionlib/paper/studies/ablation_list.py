"""What chapter 07 changes, one thing at a time."""

from typing import NamedTuple


class Arm(NamedTuple):
    """A method, under what name; `without` that prior, `with_` another one in the bank."""

    label: str
    method: str
    without: str = ""
    with_: str = ""


class Ablation(NamedTuple):
    """What is asked, and the arms; the first is what the others are compared with."""

    name: str
    asks: str
    arms: tuple[Arm, ...]


def _compared(name: str, asks: str, **methods: str) -> Ablation:
    arms = (Arm(label.replace("_s_", "'s ").replace("_", " "), method) for label, method in methods.items())
    return Ablation(name, asks, tuple(arms))


HARMFUL = "upside_down"
ABLATIONS = (
    _compared(
        "A1 head",
        "Does the cosine head beat a linear one, and does the encoder matter?",
        linear="a_linear:image",
        cosine="a:image",
        raw_pixels="a_pixels:image",
    ),
    _compared(
        "B1 shared prior", "Does a shared prior help strategy B?", all_alike="b_equal:image", shared_prior="b:image"
    ),
    _compared("B2 adapters", "Do output adapters help strategy B?", no_adapters="b_bare:image", adapters="b:image"),
    _compared("B meta", "Does meta-learning help strategy B?", supervised="b:image", meta_learned="b_meta:image"),
    _compared(
        "C1 diversity",
        "Does a diversity term help strategy C?",
        none="c_plain:image",
        literal="c_literal:image",
        quadratic="c:image",
    ),
    _compared(
        "MGPF groups",
        "Which groups of priors, or none?",
        one_gate="a:image",
        by_hand="mgpf:image",
        by_error="mgpf_clustered:image",
        at_random="mgpf_random:image",
    ),
    _compared(
        "entropy",
        "Should weights be pushed apart or together?",
        none="a:image",
        spread="a_spread:image",
        sharpened="a_sharp:image",
        shared_out="a_shared_out:image",
    ),
    _compared("loss", "Which loss?", squared="a:image", absolute="a_l1:image", focal="a_focal:image"),
    _compared(
        "images, gradient",
        "Which images is a gate to be fitted on?",
        white_noise="a_white:pixel",
        average_s_iterates="a_average:pixel",
        own_iterates="a:pixel",
    ),
    _compared(
        "images, closed form",
        "Which images is a gate to be fitted on?",
        white_noise="closed_white",
        average_s_iterates="closed_average",
        own_iterates="closed_form",
    ),
    _compared("sign, static", "Affine weights, or on the simplex?", simplex="static_simplex", free="static_affine"),
    _compared("sign, gate", "Affine weights, or on the simplex?", simplex="a:pixel", free="gradient:pixel"),
    Ablation(
        "sign, gate, no torus",
        "Affine weights, or on the simplex?",
        (Arm("simplex", "a:pixel", "torus"), Arm("free", "gradient:pixel", "torus")),
    ),
    _compared("context, gradient", "Should a gate see what the data say?", blind="a_blind:image", context="a:image"),
    _compared(
        "context, closed form", "Should a gate see what the data say?", blind="closed_blind", context="closed_form"
    ),
    _compared("selection", "A few priors, or all, softly?", all="a:image", two="top:2", one="top:1"),
    _compared(
        "heterogeneity, static",
        "Do different priors win over one at several noise levels?",
        one_prior="noise_levels",
        different_priors="static_affine",
    ),
    _compared(
        "heterogeneity, closed form",
        "Do different priors win over one at several noise levels?",
        one_prior="closed_levels",
        different_priors="closed_form",
        both="closed_union",
    ),
    Ablation(
        "unseen prior",
        "Can a vote use a prior that joins after the fit?",
        (
            Arm("without it", "c:image", "torus"),
            Arm("it joins", "c_unseen:image"),
            Arm("it joins, random subsets", "c_subsets_unseen:image"),
            Arm("fitted with it", "c:image"),
            Arm("fitted with it, random subsets", "c_subsets:image"),
        ),
    ),
    *(
        Ablation(
            f"harmful prior, {label}",
            "What does a prior that is always wrong do?",
            (Arm("without it", method), Arm("added", method, "", HARMFUL)),
        )
        for label, method in (
            ("average", "average"),
            ("A", "a:image"),
            ("C", "c:image"),
            ("closed form", "closed_form"),
        )
    ),
)
