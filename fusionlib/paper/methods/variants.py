"""The strategies with one thing changed each, for the ablations of chapter 07."""

from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from fusionlib import sky
from fusionlib.fitting import MetaConfig, Objective, Schedule
from fusionlib.gates import (
    Encoder,
    Linear,
    MultiGate,
    Pixels,
    Residual,
    Router,
    cosine_router,
    groups,
    oracles,
    residuals,
)
from fusionlib.paper.conditions import SIMULATED
from fusionlib.paper.methods.closed_form import closed_form
from fusionlib.paper.methods.gradient import Part, learned, strategy_a, strategy_b_joint, strategy_c
from fusionlib.paper.methods.method import Data, Entry, Fitted, Labelled, Method, Settings
from fusionlib.priors import zoo
from fusionlib.priors.datasets import augmented


def linear_head(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Strategy A with a dot product and a bias in place of the cosine."""
    encoder = Encoder(Router.maps, cell=cell)
    return Router(encoder, Linear(encoder.channels, len(priors))), None


def raw_pixels(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """A linear head on the image itself, pooled: nothing in between."""
    encoder = Pixels(Router.maps)
    return Router(encoder, Linear(encoder.channels, len(priors))), None


def blind(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Strategy A without what the data say."""

    def hide(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        seen = given[0].clone()
        seen[:, 1] = 0
        return (seen,)

    router = cosine_router(len(priors), cell)
    router.encoder.register_forward_pre_hook(hide)
    return router, None


def equal(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Strategy B with every prior treated alike."""
    return cosine_router(len(priors), cell), Residual(len(priors))


def bare(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """Strategy B without adapters."""
    return cosine_router(len(priors), cell, shared=shared), None


def grouped_at_random(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """MGPF over two groups drawn at random."""
    return MultiGate(groups.at_random(len(priors), min(2, len(priors))), cell=cell), None


def grouped_by_error(priors: tuple[str, ...], cell: int | None, shared: int) -> Part:
    """MGPF over two groups of priors that err alike on noisy training images."""
    return MultiGate(groups.clustered(_correlation(priors), min(2, len(priors))), cell=cell), None


COPIES = 96  # varied copies of the labelled images


def augmented_labels(argument: str, priors: tuple[str, ...], steps: int, device: torch.device) -> Method:
    """The closed form, fitted to the labelled images and to copies of them: turned, mirrored, moved, brighter or
    fainter, and observed anew by the same array, as the networks that learn from labels see them."""
    method = closed_form(argument, priors, steps, device)
    learn = method.fit
    assert learn is not None

    def fit(s: Settings, data: Data) -> Fitted:
        rng, total, more = torch.Generator().manual_seed(0), sum(len(d.truth) for d in data), []
        for array, x, *_ in data:
            clean = (x / x.amax((2, 3), keepdim=True)).cpu()
            copies = augmented(clean, max(1, COPIES * len(x) // total), rng, turns=True, shift=0.05).to(x)
            more.append(Labelled.numbered(array, copies, array.observe(copies, 77)))
        return learn(s, [*data, *more])

    return replace(method, fit=fit)


@cache
def _correlation(priors: tuple[str, ...], n: int = 12, sigma: float = 0.1) -> Tensor:
    x = sky.split("train", n).image
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return oracles.error_correlation(zoo.bank(priors)(x + sigma * noise, sigma), x)


PEERS = Objective(diversity=1e-4)  # of strategy C
SUBSETS = Schedule(subsets=8)
JOINT_ZERO = MetaConfig(unseen=True, steps=0, shots=0)
_learned = partial(Entry, grid="learned", resolution="argument", seconds=40.0)
_solved = partial(Entry, grid="fitted", resolution="argument")
VARIANTS: dict[str, Entry] = {
    "a_linear": _learned(partial(learned, linear_head), "a linear, {}"),
    "a_pixels": _learned(partial(learned, raw_pixels), "a pixels, {}"),
    "a_blind": _learned(partial(learned, blind), "a blind, {}"),
    "a_average": _learned(partial(learned, strategy_a, policy="average"), "a average, {}"),
    "a_white": _learned(partial(learned, strategy_a, policy="white"), "a white, {}"),
    "a_l1": _learned(partial(learned, strategy_a, objective=Objective("l1")), "a l1, {}"),
    "a_focal": _learned(partial(learned, strategy_a, objective=Objective("focal")), "a focal, {}"),
    "a_spread": _learned(partial(learned, strategy_a, objective=Objective(entropy=1e-4)), "a spread, {}"),
    "a_sharp": _learned(partial(learned, strategy_a, objective=Objective(entropy=-1e-4)), "a sharp, {}"),
    "a_shared_out": _learned(partial(learned, strategy_a, objective=Objective(batch_entropy=1e-4)), "a shared out, {}"),
    "a_maml": _learned(partial(learned, strategy_a, course=MetaConfig(unseen=True)), "a maml, {}"),
    "a_maml_zero": _learned(partial(learned, strategy_a, course=MetaConfig(unseen=True, shots=0)), "a maml zero, {}"),
    "a_joint": _learned(partial(learned, strategy_a, course=MetaConfig(unseen=True, steps=0)), "a joint, {}"),
    "a_joint_zero": _learned(
        partial(learned, strategy_a, course=MetaConfig(unseen=True, steps=0, shots=0)), "a joint zero, {}"
    ),
    "b_equal": _learned(partial(learned, equal), "b equal, {}"),
    "b_bare": _learned(partial(learned, bare), "b bare, {}"),
    "b_joint": _learned(partial(learned, strategy_b_joint), "B, {}, joint adapters", "#74C476"),
    "b_joint_meta": _learned(
        partial(learned, strategy_b_joint, course=MetaConfig(), families=SIMULATED),
        "B, {}, joint adapters, meta-learned",
        "#006D2C",
    ),
    "c_plain": _learned(partial(learned, strategy_c), "c plain, {}"),
    "c_weak": _learned(partial(learned, strategy_c, objective=Objective(diversity=1e-5)), "c weak, {}"),
    "c_strong": _learned(partial(learned, strategy_c, objective=Objective(diversity=1e-3)), "c strong, {}"),
    "c_literal": _learned(partial(learned, strategy_c, objective=Objective(literal=1e-4)), "c literal, {}"),
    "c_unseen": _learned(partial(learned, strategy_c, objective=PEERS, without="torus"), "c unseen, {}"),
    "c_subsets": _learned(partial(learned, strategy_c, objective=PEERS, schedule=Schedule(subsets=8)), "c subsets, {}"),
    "c_subsets_unseen": _learned(
        partial(learned, strategy_c, objective=PEERS, schedule=Schedule(subsets=8), without="torus"),
        "c subsets unseen, {}",
    ),
    "mgpf_random": _learned(partial(learned, grouped_at_random), "mgpf random, {}"),
    "mgpf_clustered": _learned(partial(learned, grouped_by_error), "mgpf clustered, {}"),
    "closed_residuals_plain": _solved(
        partial(closed_form, more=(residuals,)), "closed form, data residuals alike everywhere", "#980043"
    ),
    "closed_average": _solved(partial(closed_form, policy="average"), "closed average, {}"),
    "closed_white": _solved(partial(closed_form, policy="white"), "closed white, {}"),
    "closed_augmented": _solved(augmented_labels, "closed form, augmented labels (ours)", "#F768A1"),
    "closed_blind": _solved(partial(closed_form, without="context"), "closed blind, {}"),
}
