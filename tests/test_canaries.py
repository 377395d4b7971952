"""Canaries: records are named by declared versions, so that a test must notice when what a method computes changes.

`python tests/test_canaries.py` writes the golden numbers anew, once the versions are raised.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fusionlib import Interferometer, black_holes, gates, metrics
from fusionlib.fitting import gradient as learn
from fusionlib.fitting import lora, meta, unroll
from fusionlib.fusion import FusedPrior
from fusionlib.paper import Spec, experiment, methods, publish, store
from fusionlib.paper.experiment import tuned, tuning
from fusionlib.paper.methods import closed_form, gradient
from fusionlib.paper.methods.method import Labelled, always, with_truth
from fusionlib.priors import zoo
from fusionlib.sky.families import FAMILIES, geometric
from fusionlib.sky.torus import tori

GOLDEN = Path(__file__).parent / "data" / "golden.csv"
ADVICE = (
    "Either mend what changed it, or, if the change is meant, raise the version of {name} in paper/methods.py (of a "
    "prior, if all that use it fail: zoo.PRIORS; if nearly all fail: files.PIPELINE) and run `python "
    "tests/test_canaries.py`. That voids {count} records, which are computed anew."
)


def advice(kind: str) -> str:
    count = sum(line["method"].partition(":")[0] == kind for line in store.index().values())
    return ADVICE.format(name=repr(kind), count=count)


# --- stored scores, scored again ---


@cache
def experiments() -> dict[str, Spec]:
    """Experiments of the profiles whose scores ship, and whose fits do where they have one."""
    found = {key: s for name in publish.SHIPPED for key, s in publish.wanted(name).items() if isinstance(s, Spec)}
    found |= {s.key: s for s in publish.canaries()}
    scored = {key: s for key, s in found.items() if s.n_test and store.has(key) and store.has(tuning(s).key)}
    return {key: s for key, s in scored.items() if not s.family}


def example(kind: str, regime: str = "calibrated") -> Spec:
    """The experiment of a kind that is scored again soonest: on a CPU, with few priors, on development images."""
    mine = [s for s in experiments().values() if s.method.partition(":")[0] == kind and s.regime == regime]
    mine.sort(key=lambda s: (-s.coverage, len(s.priors), s.split, s.n_train, s.key))
    for s in mine:
        learns = experiment.method_of(s).fit is not None
        if store.index()[s.key]["device"] == "cpu" and learns == bool(tuned(s)[2]):
            return s
    raise AssertionError(f"no record of {kind}, {regime}, ships with what its canary needs: a score on a CPU, its fit")


def check_scores(spec: Spec) -> None:
    """The first two images scored again from the stored fit. Raises AssertionError with what to do."""
    kind, tolerance = spec.method.partition(":")[0], 0.02 if spec.regime == "calibrated" else 0.1
    settings, _, fitted = tuned(spec)
    array = experiment.arrays(spec)[0]
    truth, y = experiment.observed(spec, spec.split, 2, 0, array)
    images = experiment.images_of(spec, array, y)
    image = with_truth(experiment.method_of(spec), truth).run(settings, fitted, array, y, None, images).image
    now = metrics.psnr(experiment.comparable(spec, image, truth), truth).cpu().numpy()
    was = store.load(spec.key)["psnr"][0, :2]
    assert np.allclose(now, was, atol=tolerance), f"{spec.method}: stored {was} dB, now {now} dB. {advice(kind)}"


@pytest.mark.parametrize("kind", sorted(methods.METHODS))
def test_stored_scores_are_what_the_code_computes(kind):
    check_scores(example(kind))


@pytest.mark.parametrize("kind", ["a", "average", "b", "c", "closed_form", "rml", "single", "static_affine"])
def test_stored_scores_of_uncalibrated_data_are_what_the_code_computes(kind):
    check_scores(example(kind, "uncalibrated"))


def test_a_changed_method_is_caught_and_a_raised_version_voids_its_records_alone(monkeypatch):
    spec, before = example("average"), {key: s.method for key, s in experiments().items()}

    def uneven(argument, priors, steps, device):
        w = torch.tensor([0.8, *[0.2 / (len(priors) - 1)] * (len(priors) - 1)])
        return always(FusedPrior(zoo.bank(priors), gates.Static(w)).to(device), steps, "baseline", len(priors))

    entry = methods.METHODS["average"]._replace(make=uneven)
    monkeypatch.setitem(methods.METHODS, "average", entry)
    with pytest.raises(AssertionError, match=r"raise the version of 'average' .* voids \d+ records"):
        check_scores(spec)
    monkeypatch.setitem(methods.METHODS, "average", entry._replace(version=2))
    gone = {key for key, s in experiments().items() if not store.has(s.key)}
    assert gone == {key for key, method in before.items() if method == "average"}


# --- fits, cut short ---

LEARN = [kind for kind in methods.METHODS if kind not in ("single", "average", "rml", "consensus", "mace", "heldout")]
LEARN = [kind for kind in LEARN if kind not in ("oracle", "ceiling")]
NETWORK = ("started", "switched", "stacked")  # need the image of a network
ARGUMENTS = {
    "unet": "",
    "top": "1",
    "top_p": "image/0.9",
    "expert": "16/4",
    "closed_expert": "16/4",
    "cost_pruned": "0.001",
}
SETTINGS = {"sigma_max": 0.2, "sigma_min": 0.1, "lam": 0.1, "steps": 4}
PRIORS, STEPS = ("identity", "galaxies", "torus"), 2


def short(monkeypatch) -> None:
    """Every fit in a few steps, in full precision on every processor."""
    monkeypatch.setattr(zoo, "FAST", False)

    def gate(*args, schedule=learn.USUAL, **options):
        return learn.fit_gate(*args, schedule=replace(schedule, steps=3, first=2), **options)

    def course(*args, course, **options):
        return meta.fit_meta(*args, course=replace(course, rounds=1, first=1, tasks=1, k=1), **options)

    monkeypatch.setattr(gradient, "fit_gate", gate)
    monkeypatch.setattr(gradient, "fit_meta", course)
    monkeypatch.setattr(gradient, "conditions", partial(gradient.conditions, n=2))
    monkeypatch.setattr(closed_form, "fit_unrolled", partial(unroll.fit_unrolled, last=1, steps=2, batch=2))
    few = lora.Schedule(steps=2, first=1, batch=2)
    monkeypatch.setattr(gradient.lora, "fit_lora", partial(lora.fit_lora, schedule=few))


@cache
def labels() -> tuple[Interferometer, torch.Tensor, torch.Tensor]:
    array, sky = Interferometer.eht2017(0.3, window=60), black_holes(4, 5)
    return array, sky.image, array.observe(sky.fine, 0)


def golden_fit(kind: str) -> dict[str, float]:
    """PSNR of what a short fit makes of its labels; size and a fixed projection of all that it has found."""
    array, x, y = labels()
    images = {"unet:9": metrics.blur(x, 20.0)} if kind in NETWORK else {}
    bank = (*PRIORS, *images)
    method = methods.METHODS[kind].make(ARGUMENTS.get(kind, "image"), bank, STEPS, torch.device("cpu"))
    assert method.fit is not None
    found = method.fit(SETTINGS, [Labelled.numbered(array, x, y)._replace(images=images)])
    image = method.run(SETTINGS, found, array, y, None, images).image
    return {"psnr": float(metrics.psnr(image, x).mean())} | numbers([found[name] for name in sorted(found)])


def numbers(tensors: list[torch.Tensor]) -> dict[str, float]:
    flat = torch.cat([t.double().flatten() for t in tensors])
    along = torch.linspace(-1, 1, len(flat), dtype=torch.double)
    return {"size": float(flat.square().mean().sqrt()), "projection": float((flat * along).mean())}


def foundations() -> dict[str, dict[str, float]]:
    """What all records rest on: skies (not from a cache) and arrays."""
    found = {"black_holes": [black_holes(1, 7).fine], "tori": [tori(1, 7).fine]}
    found |= {family: [geometric(family, 1, 7).fine] for family in FAMILIES}
    arrays = [Interferometer.eht2017(c, window=60) for c in (1.0, 0.3, 0.1)]
    found |= {"arrays": [a.matrix for a in arrays] + [a.singular for a in arrays]}
    return {f"pipeline: {name}": {"psnr": 0.0} | numbers(tensors) for name, tensors in found.items()}


def check_golden(name: str, now: dict[str, float]) -> None:
    was = pd.read_csv(GOLDEN).set_index("name").loc[name]
    apart = {k: abs(v - was[k]) for k, v in now.items()}
    good = apart["psnr"] < 0.01 and max(apart["size"], apart["projection"]) < 2e-3 * was["size"]
    what = "files.PIPELINE" if name.startswith("pipeline") else advice(name)
    assert good, f"{name}: {was.to_dict()} is golden, {now} now. {what}"


@pytest.mark.parametrize("kind", LEARN)
def test_short_fits_find_the_golden_numbers(kind, monkeypatch):
    short(monkeypatch)
    check_golden(kind, golden_fit(kind))


def test_skies_and_arrays_are_what_they_were():
    for name, now in foundations().items():
        check_golden(name, now)


def write_golden(monkeypatch) -> None:
    found = foundations()
    short(monkeypatch)
    found |= {kind: golden_fit(kind) for kind in LEARN}
    pd.DataFrame(found).T.rename_axis("name").round(7).to_csv(GOLDEN)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    write_golden(pytest.MonkeyPatch())
