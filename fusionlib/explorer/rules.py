"""What can be chosen in the explorer to fuse priors, and the prior that a choice is."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fusionlib import paper
from fusionlib.fusion import FusedPrior
from fusionlib.gates import DataStep, average
from fusionlib.interferometer import Interferometer, Uncalibrated
from fusionlib.paper import store
from fusionlib.paper.experiment import images_of, rests_on
from fusionlib.paper.methods.method import is_network, joined
from fusionlib.paper.shift_specs import SAFE, safe
from fusionlib.paper.specs import closure_specs
from fusionlib.priors import PriorBank, call, zoo

FITTED = (
    SAFE[0],
    *("a:image", "a:8", "a:pixel", "b:image", "c:image"),
    *("mgpf:image", "gradient:pixel", "closed_form", "static_affine"),
)
BANKS = {name: zoo.BANKS[name] for name in ("main", "far")}
NETWORKS = safe("paper").networks  # priors of the first rule that are networks from the data to the image


class Shared(nn.Module):
    """A gate for some of the priors it was fitted for, bool `keep` (N,): the others' weight goes to those in equal
    parts."""

    def __init__(self, gate: nn.Module, keep: Tensor):
        super().__init__()
        self.gate, self.keep = gate, keep
        self.reads_outputs, self.skips, self.sharp = gate.reads_outputs, gate.skips, getattr(gate, "sharp", False)

    def forward(
        self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step: DataStep | None = None
    ) -> Tensor:
        w, keep = self.gate(x, sigma, outputs, data_step), self.keep.to(x).view(-1, 1, 1, 1)
        return (w + (w * (1 - keep)).sum(0) / keep.sum()) * keep


class Abreast(PriorBank):
    """A bank whose priors run side by side, each on one core, the longest first: for a single image twice as fast as
    one after another on all cores."""

    def __init__(self, bank: PriorBank):
        super().__init__(dict(zip(bank.names, bank.priors, strict=True)))
        self.order = sorted(range(len(bank)), key=lambda i: -zoo.flops(self.priors[i]))

    def forward(self, x: Tensor, sigma: float | Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is not None:
            return super().forward(x, sigma, keep)

        @torch.inference_mode()
        def run(prior: nn.Module, name: str) -> Tensor:
            return call(prior, x, sigma, name)

        futures = {i: _POOL.submit(run, self.priors[i], self.names[i]) for i in self.order}
        return torch.stack([futures[i].result() for i in range(len(self))])


_POOL = ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))


def strategies(priors: tuple[str, ...], regime: str = "calibrated") -> list[str]:
    """What can be chosen with these priors: each, their average, and what is fitted for a bank that has them."""
    fitted = [m for m in FITTED if _spec(m, _bank_of(priors), regime) is not None] if len(priors) > 1 else []
    return [*fitted, *["average"] * (len(priors) > 1), *priors]


def _bank_of(priors: tuple[str, ...]) -> str:
    """The bank whose fits serve some priors. The torus is in `main` alone."""
    return "main" if "torus" in priors else "far"


@lru_cache
def _spec(method: str, bank: str, regime: str) -> paper.Spec | None:
    """The experiment behind a fitted strategy, if its fit ships or was made here."""
    if method == SAFE[0]:
        specs = [safe("paper")] if (bank, regime) == ("main", "calibrated") else []
    else:
        candidates = (paper.strategy_specs if regime == "calibrated" else closure_specs)("quick", BANKS["main"])
        specs = [s for s in candidates if s.method == method and s.priors == BANKS[bank] and s.coverage == 1.0]
    return next((s for s in specs if all(store.has(fit.key) for fit in rests_on(s))), None)


def prior(strategy: str, priors: tuple[str, ...], instrument: Interferometer | Uncalibrated, y: Any) -> nn.Module:
    """The prior that a strategy is, fitted to data of this regime, for the data `y` alone where a network makes one of
    its images of them. Raises ValueError for a strategy that there is not."""
    regime = "calibrated" if isinstance(instrument, Interferometer) else "uncalibrated"
    fused, spec = _prior(strategy, priors, regime), _spec(strategy, _bank_of(priors), regime)
    if not isinstance(fused, FusedPrior) or spec is None or not spec.networks:
        return fused
    bank = joined(fused.bank, images_of(spec, instrument, y))
    return FusedPrior(Abreast(bank), fused.gate, fused.adapters)


@lru_cache(maxsize=8)
def _prior(strategy: str, priors: tuple[str, ...], regime: str) -> nn.Module:
    """As `prior`, without the images that networks make of data."""
    if not priors:
        raise ValueError("priors: none is switched on; switch on at least one")
    if strategy in priors:
        return zoo.load(strategy)
    if len(priors) > 1 and strategy == "average":
        return FusedPrior(Abreast(zoo.bank(priors)), average(len(priors)))
    spec = _spec(strategy, _bank_of(priors), regime) if len(priors) > 1 else None
    if spec is None or not set(priors) <= set(spec.priors):
        there = strategies(priors, regime)
        raise ValueError(f"strategy: there is no {strategy} with {', '.join(priors)}; there are {there}")
    fused = paper.prior_of(spec)[0].cpu()  # one small image: where everything else here is
    assert isinstance(fused, FusedPrior)
    fused.bank = Abreast(fused.bank)
    if len(priors) < len(spec.priors):
        keep = torch.tensor([name in priors or is_network(name) for name in spec.priors])
        fused = FusedPrior(fused.bank, Shared(fused.gate, keep), fused.adapters)
    return fused
