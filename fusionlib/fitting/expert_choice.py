"""Expert choice in closed form: each prior edits only the patches it chooses, a shared prior serves the rest."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.fitting.closed_form import RIDGES, bounded, solve_stage
from fusionlib.fitting.trajectory import Data, Stage, along_trajectory, fused
from fusionlib.fusion import spread
from fusionlib.gates import DataStep, given, nearest
from fusionlib.gates import closed_form as cf
from fusionlib.priors import PriorBank


class ExpertChoice(nn.Module):
    """Weights theta_i . phi in the `l` patches that prior i chooses, else 0; the `shared` prior takes what is left.

    A prior chooses where a dense gate, `router`, would let it change the shared prior's image most. Routing and weights
    are fitted one after the other, as in the separate training of pMoE. `theta` (K, N, F), 0 for the shared prior.
    """

    reads_outputs, skips, sharp = True, False, True
    theta: Tensor

    def __init__(self, router: cf.ClosedForm, theta: Tensor, l: int, shared: int):
        super().__init__()
        if router.cell in (None, 1) or isinstance(router.cell, tuple):
            raise ValueError(f"ExpertChoice: the router's weights must be per patch, its cell is {router.cell}")
        self.router, self.l, self.shared = router, l, shared
        self.register_buffer("theta", theta.float())

    def forward(
        self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step: DataStep | None = None
    ) -> Tensor:
        o = given(outputs)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        stage, away = nearest(self.router.levels, s, len(x))
        phi = self.router.seen(x, s, o, data_step, stage, away)
        there = chosen(self.router(x, sigma, o, data_step), o, self.l, self.shared)
        w = torch.einsum("bnf,bfhw->nbhw", self.theta[stage], phi) * there
        null = torch.zeros(len(w), 1, 1, 1).to(w)
        null[self.shared] = 1
        return w * (1 - null) + null * (1 - (w * (1 - null)).sum(0))


def chosen(w: Tensor, outputs: Tensor, l: int, shared: int) -> Tensor:
    """The l patches of each prior with the largest mean square of w_i (o_i - o_shared), bool (N, B, h, w)."""
    change = (outputs - outputs[shared])[:, :, 0].square()
    size = w.square() * F.adaptive_avg_pool2d(change, (w.shape[2], w.shape[3]))
    if not 1 <= l <= size[0, 0].numel():
        raise ValueError(f"chosen: l must be in 1 .. {size[0, 0].numel()}, the number of patches, got {l}")
    flat = size.flatten(2)
    return torch.zeros_like(flat, dtype=torch.bool).scatter(2, flat.topk(l, 2).indices, True).view_as(size)


def fit_expert_choice(
    bank: PriorBank,
    data: Data,
    sigmas: Sequence[float],
    lam: float,
    *,
    cell: int,
    l: int,
    shared: int,
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> dict[str, Tensor]:
    """What makes an `ExpertChoice` gate for `pnp.hqs`: `router` and `theta` (K, N, F), `static_weights` (K, N),
    `whitening` (K, F, F).

    Patches of `cell` pixels: at each iteration first the dense gate, then, its choice fixed, the weights of the priors
    where they chose.
    """
    fitted: dict[str, list[Tensor]] = {name: [] for name in ("router", "static_weights", "whitening", "theta")}
    others = [i for i in range(len(bank)) if i != shared]

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        count, position = min(folds, sum(len(s.truth) for s in stages)), 0
        dense = solve_stage(stages, cf.ALL, ridges, count, cell)
        level, device = torch.tensor([stages[0].sigma]), dense.theta.device
        theta, static, e = (value[None] for value in (dense.theta, dense.static_weights, dense.whitening))
        router = cf.ClosedForm(level, theta, static, e, cell=cell).to(device)
        normal, width = cf.NormalEquations(count), dense.theta.shape[1]
        phis, _ = bounded(stages, cf.ALL, cell, sharp=True)
        for s in stages:
            there = chosen(router(s.x, s.sigma, s.outputs, s.data_step), s.outputs, l, shared)
            there = spread(there.float(), *s.x.shape[2:], sharp=True)[:, :, 0]
            apart = (s.outputs - s.outputs[shared])[:, :, 0] * there
            for b in range(len(s.x)):
                columns = apart[others, b].flatten(1)[:, None] * phis[position][None]
                target = (s.truth[b] - s.outputs[shared, b]).flatten()
                normal.add(position % count, columns.flatten(0, 1), target)
                position += 1
        theta = torch.zeros(len(bank), width)
        if others:
            theta[others] = normal.solve(ridges)[0].view(len(others), width).float().cpu()
        parts = (dense.theta, dense.static_weights, dense.whitening, theta)
        for name, value in zip(fitted, parts, strict=True):
            fitted[name].append(value.cpu())
        gate = ExpertChoice(router, theta[None], l, shared).to(device)

        def fuse(s: Stage) -> Tensor:
            return fused(gate(s.x, s.sigma, s.outputs, s.data_step), s.outputs, sharp=True)

        return fuse

    along_trajectory(bank, data, sigmas, lam, fit)
    return {name: torch.stack(values) for name, values in fitted.items()}
