"""CsNet: the convex combination of denoisers that estimated errors ask for (Choi, Elgendy & Chan, IEEE TIP 2019)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fusionlib.fitting.trajectory import Data, Stage, along_trajectory
from fusionlib.gates import DataStep, given, nearest, simplex_weights
from fusionlib.priors import PriorBank


class CsNet(nn.Module):
    """argmin w' M w over the simplex, per image, M_ij = (mse_i + mse_j - mean |x_i - x_j|^2) / 2.

    The off-diagonals need no estimate beyond the priors' mean squared errors. These come from a linear regression of
    their logarithm, `theta` (K, N, 5) for each noise level, on `statistics`; Choi et al. use a network, and a booster
    after it, which is left out here.
    """

    reads_outputs, skips = True, False
    levels: Tensor
    theta: Tensor

    def __init__(self, sigmas: Tensor, theta: Tensor):
        super().__init__()
        self.register_buffer("levels", sigmas.log().float())
        self.register_buffer("theta", theta.float())

    def forward(
        self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step: DataStep | None = None
    ) -> Tensor:
        o = given(outputs)
        s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x))
        stage, _ = nearest(self.levels, s, len(x))
        mse = torch.einsum("bnf,bnf->bn", statistics(x, o, s, data_step), self.theta[stage]).exp()
        return weights(mse, o)


def weights(mse: Tensor, outputs: Tensor) -> Tensor:
    """The weights (N, B, 1, 1) that mean squared errors (B, N) ask for, of outputs (N, B, 1, H, W)."""
    apart = (outputs[:, None] - outputs[None]).square().mean((3, 4, 5)).permute(2, 0, 1)
    gram = (mse[:, :, None] + mse[:, None] - apart) / 2
    return torch.stack([simplex_weights(g) for g in gram], 1)[:, :, None, None].to(outputs)


def statistics(x: Tensor, outputs: Tensor, sigma: Tensor, data_step: DataStep | None) -> Tensor:
    """(B, N, 5): 1, and the logarithms of each output's mean square change of x, distance from the mean output, change
    by the data step, and gradient, over sigma^2."""
    change = torch.stack([data_step(o) - o for o in outputs]) if data_step is not None else torch.zeros_like(outputs)
    dy, dx = torch.gradient(outputs, dim=(3, 4))
    sizes = [outputs - x, outputs - outputs.mean(0), change, (dy**2 + dx**2).sqrt()]
    logs = [(u.square().mean((2, 3, 4)) / sigma**2 + 1e-6).log() for u in sizes]
    return torch.stack([torch.ones_like(logs[0]), *logs], 2).transpose(0, 1)


def fit_csnet(bank: PriorBank, data: Data, sigmas: Sequence[float], lam: float, ridge: float = 0.1) -> Tensor:
    """`theta` (K, N, 5) for `pnp.hqs`, fitted along its own trajectory."""
    thetas: list[Tensor] = []

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        level = [torch.full((len(s.x),), s.sigma, device=s.x.device) for s in stages]
        f = torch.cat([statistics(s.x, s.outputs, at, s.data_step) for s, at in zip(stages, level, strict=True)])
        mse = torch.cat([(s.outputs - s.truth).square().mean((2, 3, 4)).T for s in stages]).clamp(min=1e-12).log()
        middle = f.mean(0, keepdim=True) * torch.tensor([0.0, 1, 1, 1, 1]).to(f)  # the ridge leaves the mean alone
        g = f - middle
        penalty = ridge * len(g) * torch.diag(torch.tensor([0.0, 1, 1, 1, 1])).to(f)
        theta = torch.linalg.solve(
            torch.einsum("bnf,bng->nfg", g, g) + penalty + 1e-6 * torch.eye(5).to(f),
            torch.einsum("bnf,bn->nf", g, mse),
        )
        theta[:, 0] -= (theta * middle[0]).sum(1)
        thetas.append(theta.cpu())
        gate = CsNet(torch.tensor([stages[0].sigma]), theta[None].clone()).to(theta.device)
        return lambda s: (gate(s.x, s.sigma, s.outputs, s.data_step)[:, :, None] * s.outputs).sum(0)

    along_trajectory(bank, data, sigmas, lam, fit)
    return torch.stack(thetas)
