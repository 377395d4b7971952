"""Each claim of the two essays as comparisons of methods, and its verdict."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from fusionlib import files
from fusionlib.paper.experiment import scores
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import banks_of
from fusionlib.paper.studies import classification
from fusionlib.paper.studies.ablation_list import Arm
from fusionlib.paper.studies.ablations import arm_specs, label_specs, single_specs
from fusionlib.paper.studies.checklist import CHECKLIST
from fusionlib.paper.tables import best_of, compared, difference
from fusionlib.priors import zoo

VERDICT = ["essay", "claim", "verdict", "evidence", "figure"]
ESSAY = {"A": "a:image", "B": "b:image", "C": "c:image"}  # the essay's strategies, as it has them


class Pair(NamedTuple):
    """One comparison of a claim: `method` less `minus`, in which case (`where`). `best_single` is the single prior that
    is best on the labels. `far`: without the torus; `labels`: with so many of them; both from chapter 07."""

    where: str
    method: Arm
    minus: Arm
    far: bool = False
    labels: int = 0


class Claim(NamedTuple):
    """What an essay says (`essay`: section of the one on fusing priors, or `patches`), as gains that it says are
    positive, and the figure that shows them."""

    essay: str
    says: str
    pairs: tuple[Pair, ...]
    figure: str


def whole(profile: str, sky: str) -> bool:
    """Whether labels and claims follow the main table: not in smoke, nor on images of the user's, of which the essays
    say nothing."""
    return profile != "smoke" and not sky


def _pair(where: str, method: str, minus: str, **case: Any) -> Pair:
    return Pair(where, Arm("", method), Arm("", minus), **case)


def _both(method: str, minus: str) -> tuple[Pair, Pair]:
    return _pair("in main", method, minus), _pair("in far", method, minus, far=True)


def claims(profile: str, priors: Sequence[str]) -> list[Claim]:
    """The claims that are differences of PSNR, with the comparisons there are in a profile."""
    left = tuple(Pair(f"of {name}", Arm("", "closed_form"), Arm("", "closed_form", name)) for name in priors)
    numbers = sorted({s.n_train for s in label_specs(profile, priors) if s.method == "unet"})
    by_labels = lambda method, minus: tuple(  # noqa: E731
        _pair(f"n = {n}, {'far' if far else 'main'}", method, minus, far=far, labels=n)
        for far in (False, True)
        for n in numbers
    )
    gains = [  # section, claim, figure, comparisons
        ("1.1", "Every prior holds something that the others lack", "fig07_leave", left),
        (
            "1.2",
            "Choosing one or two experts loses what a soft mixture of all keeps",
            "fig07_ablations",
            (_pair("against two", "a:image", "top:2"), _pair("against one", "a:image", "top:1")),
        ),
        ("1.4", "Learned weights beat the plain average", "fig03_strategies", _both("a:image", "average")),
        ("1.4", "Fused priors beat the best of them, strategy A", "fig13_results", _both("a:image", "best_single")),
        ("1.4", "Fused priors beat the best of them, strategy B", "fig13_results", _both("b:image", "best_single")),
        ("1.4", "Fused priors beat the best of them, strategy C", "fig13_results", _both("c:image", "best_single")),
        (
            "1.4",
            "Fused priors beat the best of them, closed form (ours)",
            "fig13_results",
            _both("closed_form", "best_single"),
        ),
        (
            "1.3",
            "It is the difference of the priors that helps: better than one of them at six noise levels",
            "fig07_labels",
            _both("closed_form", "closed_levels"),
        ),
        (
            "1.3",
            "Different priors add to one of them at six noise levels",
            "fig07_labels",
            by_labels("closed_union", "closed_levels"),
        ),
        (
            "1.3",
            "With scarce labels fusing beats a network from the data to the image",
            "fig13_efficiency",
            by_labels("closed_form", "unet"),
        ),
        (
            "1.3",
            "With scarce labels fusing beats a denoiser trained on them",
            "fig13_efficiency",
            by_labels("closed_form", "denoiser"),
        ),
        ("2.1", "Weights by patch or pixel are better than by image", "fig06_resolution", _both("a:pixel", "a:image")),
        ("2.2", "Cosine routing beats a linear head", "fig07_ablations", (_pair("", "a:image", "a_linear:image"),)),
        (
            "2.3",
            "Leaving out the unsure experts helps",
            "fig06_pareto",
            (_pair("p = 0.9", "top_p:image/0.9", "a:image"),),
        ),
        ("3.1", "A shared prior helps strategy B", "fig07_ablations", (_pair("", "b:image", "b_equal:image"),)),
        (
            "3.2",
            "Voting by outputs is sounder than routing by the input",
            "fig05_strategies",
            _both("c:image", "a:image"),
        ),
        (
            "3.3",
            "A penalty on like priors helps the vote",
            "fig07_ablations",
            (_pair("literal", "c_literal:image", "c_plain:image"), _pair("quadratic", "c:image", "c_plain:image")),
        ),
        ("4.1", "Meta-learning the gate helps", "fig03_strategies", _both("a_meta:image", "a:image")),
        (
            "4.2",
            "A gate for each kind of prior beats one gate",
            "fig07_ablations",
            (
                _pair("by hand", "mgpf:image", "a:image"),
                _pair("by error", "mgpf_clustered:image", "a:image"),
                _pair("at random", "mgpf_random:image", "a:image"),
            ),
        ),
        (
            "4.3",
            "Random subsets of the priors make a gate fit for unseen ones",
            "fig07_ablations",
            (_pair("", "c_subsets_unseen:image", "c_unseen:image"),),
        ),
        ("5.1", "Output adapters help", "fig07_ablations", (_pair("", "b:image", "b_bare:image"),)),
        ("5.2", "Adapters and meta-learning together are best", "fig04_strategies", _both("b_meta:image", "b:image")),
        (
            "7.1",
            "Spreading the weights by their entropy helps",
            "fig07_ablations",
            (_pair("each image", "a_spread:image", "a:image"), _pair("their mean", "a_shared_out:image", "a:image")),
        ),
        (
            "7.1",
            "Absolute or focal error is better than squared error",
            "fig07_ablations",
            (_pair("absolute", "a_l1:image", "a:image"), _pair("focal", "a_focal:image", "a:image")),
        ),
    ]
    return [Claim(essay, says, tuple(pairs), figure) for essay, says, figure, pairs in gains]


def sides(pair: Pair, profile: str, priors: Sequence[str], sky: str) -> tuple[list[Spec], list[Spec]]:
    """The experiments of both sides of a comparison, one per seed; of `best_single` those of all single priors."""
    bank = tuple(name for name in priors if not pair.far or name != "torus")

    def side(arm: Arm) -> list[Spec]:
        if pair.labels:
            known = label_specs(profile, priors, sky)
            return [s for s in known if (s.method, s.n_train) == (arm.method, pair.labels) and s.priors in ((), bank)]
        if arm.method == "best_single":
            return [s for name in bank for s in single_specs(profile, priors, name, sky)]
        return arm_specs(profile, priors, arm._replace(without=arm.without or ("torus" if pair.far else "")), sky)

    return side(pair.method), side(pair.minus)


def claim_table(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """essay, claim, where, figure, and the gain of PSNR [dB]: every comparison behind a claim, judged together."""
    rows = []
    for claim in claims(profile, priors) if whole(profile, sky) else ():
        for pair in claim.pairs:
            if pair.far and len(banks_of(priors)) < 2:
                continue
            one, other = sides(pair, profile, priors, sky)
            gain = difference(one, best_of(other) if pair.minus.method == "best_single" else other)
            rows.append(((claim.essay, claim.says, pair.where, claim.figure), gain))
    return compared(rows, ["essay", "claim", "where", "figure"])


def verdict_table(comparisons: pd.DataFrame) -> pd.DataFrame:
    """essay, claim, verdict, evidence, figure, from the comparisons of `claim_table`."""
    rows = []
    for (essay, claim), part in comparisons.groupby(["essay", "claim"], sort=False):
        cases = part.to_dict("records")
        told = [f"{r['where']} {r['effect']:+.2f} dB ({r['lo']:+.2f} to {r['hi']:+.2f})".strip() for r in cases]
        verdict = overall([(r["where"], r["verdict"]) for r in cases])
        rows.append((essay, claim, verdict, "; ".join(told), part.figure.iloc[0]))
    return pd.DataFrame(rows, columns=VERDICT)


def overall(cases: Sequence[tuple[str, str]]) -> str:
    """A claim, from (case, verdict) of its comparisons: it holds if all are `better`, or in those cases that are."""
    verdicts, good = {v for _, v in cases}, [where for where, v in cases if v == "better"]
    if good:
        return "holds" if len(verdicts) == 1 else f"holds {'; '.join(good)}"
    if verdicts == {"worse"}:
        return "the reverse holds"
    return "negligible" if verdicts <= {"negligible", "same"} else "does not hold"


def patch_claims(profile: str) -> pd.DataFrame:
    """The same for the essay on routing by patch, from chapter 09, whose thresholds are in the claims."""
    gains, chosen = classification.gain_table(classification.by_samples(profile)), classification.by_chosen(profile)
    told = classification.verdict_table(gains, classification.trend_table(chosen), classification.table(chosen))
    rows = []
    for claim, part in told.groupby("claim", sort=False):
        cases = [(f"for {r.arm} training", "better" if r.holds else "undecided") for r in part.itertuples()]
        said = [f"{r['arm']} {r['value']:+.2f}" for r in part.to_dict("records")]
        rows.append(("patches", claim, overall(cases), "; ".join(said), "fig09_accuracy"))
    return pd.DataFrame(rows, columns=VERDICT)


def size_claim(profile: str, priors: Sequence[str], sky: str = "") -> pd.DataFrame:
    """The claim on parameters (essay, 5.1): a thousandth of the frozen ones or fewer, by count."""
    count = max(frozen(priors), 1)
    told = {name: trained(arm_specs(profile, priors, Arm("", m), sky)[0]) / count for name, m in ESSAY.items()}
    verdict = overall([(f"for {name}", "better" if ratio <= 1e-3 else "undecided") for name, ratio in told.items()])
    said = "; ".join(f"{name} {1e3 * ratio:.1f} thousandths" for name, ratio in told.items())
    row = ("5.1", "A thousandth of the frozen parameters is enough to train", verdict, said, "tab04_sizes")
    return pd.DataFrame([row], columns=VERDICT)


def frozen(priors: Sequence[str]) -> int:
    return sum(p.numel() for name in priors for p in zoo.load(name).parameters())


def trained(spec: Spec) -> int:
    return int(scores(spec)["trainable"])


def checklist_table() -> pd.DataFrame:
    """row, item, essay, test, figure: what the two essays name, the tests that check it, and where it is shown."""
    tests = tests_by_row()
    rows = [(row, item, essay, "; ".join(tests.get(row, [])), shown) for row, item, essay, shown in CHECKLIST]
    return pd.DataFrame(rows, columns=["row", "item", "essay", "test", "figure"])


def tests_by_row() -> dict[int, list[str]]:
    """Names of the tests marked with each row, read from their files; none where the tests are not there."""
    tests: dict[int, list[str]] = {}
    for path in sorted(files.source("tests").glob("test_*.py")):
        rows: list[str] = []
        for line in path.read_text().splitlines():
            if marked := re.match(r"@pytest\.mark\.row\(([\d, ]+)\)", line):
                rows += marked[1].split(",")
            elif test := re.match(r"def (\w+)", line):
                for row in rows:
                    tests.setdefault(int(row), []).append(f"{path.stem}::{test[1]}")
                rows = []
    return tests
