"""Multi-agent consensus equilibrium (Buzzard et al., SIAM J. Imaging Sci. 2018): every prior has a state of its own."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusionlib.pnp import Physics, Reconstruction
from fusionlib.priors import PriorBank, call


def mace(
    y: Any,
    physics: Physics,
    bank: PriorBank,
    *,
    sigmas: Sequence[float],
    lam: float,
    rho: float = 0.5,
    share: float = 0.5,
    start: Tensor | None = None,
) -> Reconstruction:
    """The equilibrium F(v) = G(v) of the data step and the priors, by Mann iteration, sigma falling as in `pnp.hqs`.

    v = (1 - rho) v + rho (2 G - I)(2 F - I) v: F applies to each agent's state the agent, the data step with penalty
    lam / sigma^2 first; G averages, the data with weight `share`, the priors with equal parts of the rest. The image
    returned is the average of F(v). Raises ValueError for settings that are not positive, and, by name, for a prior
    that returns another shape.
    """
    if not len(sigmas) or min(sigmas) <= 0 or lam <= 0 or not (0 < rho < 1 and 0 < share < 1):
        raise ValueError(
            f"mace: sigmas, lam > 0 and 0 < rho, share < 1 needed, got {list(sigmas)}, {lam}, {rho}, {share}"
        )
    began = time.perf_counter()
    first = physics.start(y) if start is None else start
    v = first[None].repeat(len(bank) + 1, 1, 1, 1, 1)
    mu = torch.tensor([share, *[(1 - share) / len(bank)] * len(bank)]).to(v).view(-1, 1, 1, 1, 1)
    rows: dict[str, list[Tensor]] = {"chi2": [], "step": []}
    image = first
    with torch.inference_mode():
        for sigma in sigmas:
            agents = [physics.prox(v[0], y, lam / sigma**2)]
            agents += [
                call(prior, v[k + 1], sigma, name)
                for k, (name, prior) in enumerate(zip(bank.names, bank.priors, strict=True))
            ]
            f = torch.stack(agents)
            new = (mu * f).sum(0)
            reflected = 2 * f - v
            v = (1 - rho) * v + rho * (2 * (mu * reflected).sum(0) - reflected)
            rows["chi2"].append(physics.chi2(new, y))
            rows["step"].append((new - image).square().mean((1, 2, 3)).sqrt())
            image = new
    return Reconstruction(image, {k: torch.stack(r) for k, r in rows.items()}, time.perf_counter() - began)
