import pandas as pd
import pytest
import torch

from fusionlib import Interferometer, PriorBank
from fusionlib.pnp import mace
from fusionlib.priors import wrappers


def test_the_equilibrium_of_quadratic_priors_is_the_closed_form():
    """Agents prox of f / r and of t_i |x|^2 / 2, weights mu: argmin mu_0 f / r + sum mu_i t_i |x|^2 / 2."""
    rng = torch.Generator().manual_seed(0)
    u, v = (4e9 * torch.randn(12, generator=rng, dtype=torch.float64) for _ in range(2))
    array = Interferometer.from_table(pd.DataFrame({"u": u, "v": v, "sigma": 0.02}), npix=16, dtype=torch.float64)
    y = array.observe(torch.rand(2, 1, 16, 16, generator=rng, dtype=torch.float64), 0)
    strengths, share, lam = (0.5, 2.0), 0.4, 30.0
    bank = PriorBank({str(t): wrappers.Function(lambda x, s, t=t: x / (1 + t)) for t in strengths})
    found = mace(y, array, bank, sigmas=[1.0] * 600, lam=lam, share=share)
    a = array.matrix
    weight = lam / share * (1 - share) / 2 * sum(strengths)
    exact = torch.linalg.solve(a.T @ a + weight * torch.eye(256, dtype=a.dtype), a.T @ y.T).T.view(2, 1, 16, 16)
    assert (found.image - exact).abs().max() < 1e-6 * exact.abs().max()
    assert found.record["step"][-1].max() < 1e-8
    with pytest.raises(ValueError, match="rho"):
        mace(y, array, bank, sigmas=[1.0], lam=lam, rho=1.0)
