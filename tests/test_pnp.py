import pandas as pd
import pytest
import torch
from torch import nn

from fusionlib import FusedPrior, Interferometer, PriorBank, admm, black_holes, hqs, pgd, red, schedule
from fusionlib.gates.gate import Static, average
from fusionlib.pnp import iterate
from fusionlib.priors import zoo


@pytest.fixture(scope="module")
def array() -> Interferometer:
    return Interferometer.eht2017(0.1)


@pytest.fixture(scope="module")
def y(array) -> torch.Tensor:
    return array.observe(black_holes(3, 8).fine, 0)


class Gaussian(nn.Module):
    """Posterior mean under the prior N(0, tau^2 I): x tau^2 / (tau^2 + sigma^2)."""

    img_channels, img_resolution = 1, None

    def __init__(self, tau: float):
        super().__init__()
        self.tau = tau

    def forward(self, x, sigma):
        return x * self.tau**2 / (self.tau**2 + sigma**2)


@pytest.mark.row(3)
@pytest.mark.parametrize("name", ["identity", "tv", "ffdnet"])
def test_a_bank_of_one_is_that_prior_bit_for_bit(array, y, name):
    options = {"sigmas": schedule(0.3, 0.02, 5), "lam": 0.1}
    single = hqs(y, array, zoo.load(name), **options)
    for gate in (average(1), Static(torch.ones(1))):
        fused = hqs(y, array, FusedPrior(PriorBank({name: zoo.load(name)}), gate), **options)
        assert torch.equal(single.image, fused.image)
        assert torch.equal(single.record["chi2"], fused.record["chi2"])


def test_order_of_the_bank_does_not_matter(array, y):
    options = {"sigmas": schedule(0.3, 0.02, 5), "lam": 0.1}
    there = hqs(y, array, FusedPrior(zoo.bank(["identity", "tv"]), Static(torch.tensor([0.3, 0.7]))), **options)
    back = hqs(y, array, FusedPrior(zoo.bank(["tv", "identity"]), Static(torch.tensor([0.7, 0.3]))), **options)
    assert torch.allclose(there.image, back.image, atol=1e-6)
    assert torch.equal(there.record["weights"], back.record["weights"].flip(1))


def test_gaussian_prior_reaches_the_closed_form():
    """At fixed sigma the fixed point solves (A'A + rho (1 - c)) x = A'y with c = tau^2 / (tau^2 + sigma^2)."""
    array = Interferometer.eht2017(0.1, dtype=torch.float64)
    y = array.observe(black_holes(2, 8).fine.double(), 0)
    sigma, tau, lam = 0.2, 0.3, 0.5
    rho, c = lam / sigma**2, tau**2 / (tau**2 + sigma**2)
    result = hqs(y, array, Gaussian(tau), sigmas=[sigma] * 400, lam=lam)
    a = array.matrix
    x = torch.linalg.solve(a.T @ a + rho * (1 - c) * torch.eye(4096, dtype=a.dtype), a.T @ y.T).T
    assert ((result.image.flatten(1) - c * x).norm() / (c * x).norm()) < 1e-5
    assert (result.record["step"][-1] < 1e-6).all()


def test_images_do_not_mix_in_a_batch(array, y):
    options = {"sigmas": schedule(0.3, 0.02, 4), "lam": 0.1}
    prior = zoo.load("ffdnet")
    assert torch.allclose(
        hqs(y, array, prior, **options).image[1:2], hqs(y[1:2], array, prior, **options).image, atol=1e-5
    )


def test_record_has_the_stated_shapes(array, y):
    result = hqs(y, array, FusedPrior(zoo.bank(["identity", "tv"]), average(2)), sigmas=schedule(0.2, 0.02, 4), lam=0.1)
    shapes = {k: tuple(v.shape) for k, v in result.record.items()}
    assert shapes == {"chi2": (4, 3), "step": (4, 3), "weights": (4, 2, 3, 1, 1), "kept": (4, 2, 3)}
    assert torch.allclose(result.record["weights"].sum(1), torch.ones(()))
    assert result.seconds > 0


def test_start_image_is_used(array, y):
    options = {"sigmas": [0.1], "lam": 0.1}
    start = torch.ones(3, 1, 64, 64)
    assert not torch.allclose(
        hqs(y, array, zoo.Identity(), start=start, **options).image, hqs(y, array, zoo.Identity(), **options).image
    )


def test_loop_is_one_graph(array, y):
    fused = FusedPrior(zoo.bank(["identity", "tv"]), average(2))

    def step(z, u, sigma, y, denoise):
        def data_step(v):
            return array.prox(v, y, 0.1 / sigma**2)

        return denoise(data_step(z), sigma, data_step), u

    args = (step, y, array, fused, (0.2, 0.1), array.start(y))
    compiled = torch.compile(iterate, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(*args)[0], hqs(y, array, fused, sigmas=(0.2, 0.1), lam=0.1).image, atol=1e-6)


@pytest.fixture(scope="module")
def toy() -> tuple[Interferometer, torch.Tensor]:
    """A small, well-conditioned array: 16 pixels across, noise such that gradients converge."""
    rng = torch.Generator().manual_seed(0)
    u, v = (4e9 * torch.randn(12, generator=rng, dtype=torch.float64) for _ in range(2))
    table = pd.DataFrame({"u": u, "v": v, "sigma": 0.02})
    array = Interferometer.from_table(table, npix=16, dtype=torch.float64)
    return array, array.observe(torch.rand(2, 1, 16, 16, generator=rng, dtype=torch.float64), 0)


def test_hqs_admm_and_pgd_reach_the_closed_form_of_a_quadratic_prior(toy):
    """min |A x - y|^2 / 2 + t |x|^2 / 2: its prox is the Gaussian denoiser x / (1 + t / rho), rho = lam / sigma^2.

    ADMM solves this problem. PGD with step s = 1 / |A|^2 and the denoiser x / (1 + s t) does too. HQS solves its
    relaxation, where |x|^2 t / 2 becomes the Moreau envelope: t -> t rho / (t + rho).
    """
    array, y = toy
    a, weight, rho = array.matrix, 0.5, 1.0

    def solve(t: float) -> torch.Tensor:
        return torch.linalg.solve(a.T @ a + t * torch.eye(256, dtype=a.dtype), a.T @ y.T).T

    class Shrink(zoo.Identity):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x, sigma):
            return x * self.factor

    def error(result, expected):
        return float((result.image.flatten(1) - expected).norm() / expected.norm())

    options = {"sigmas": [1.0] * 600, "lam": rho}
    shrink = 1 / (1 + weight / rho)
    assert error(admm(y, array, Shrink(shrink), **options), solve(weight)) < 1e-5
    assert error(hqs(y, array, Shrink(shrink), **options), shrink * solve(weight * rho / (weight + rho))) < 1e-5
    length = 1 / float(array.singular[0]) ** 2
    found = pgd(y, array, Shrink(1 / (1 + length * weight)), sigmas=[1.0] * 20000)
    assert error(found, solve(weight)) < 1e-5


def test_red_settles_where_its_equation_holds(toy):
    """grad f(x) + lam (x - D(x)) = 0, with total variation as D."""
    array, y = toy
    prior, lam, sigma = zoo.TotalVariation(), 2.0, 0.1
    x = red(y, array, prior, sigmas=[sigma] * 3000, lam=lam).image
    gradient = -array.adjoint(array.residual(x, y)) + lam * (x - prior(x, sigma))
    assert gradient.norm() < 1e-5 * array.adjoint(y).norm()


def test_settled_images_leave_the_batch(toy):
    """One image starts at the solution and stops at once; the other ends where it would alone."""
    array, y = toy
    prior, options = zoo.TotalVariation(), {"sigmas": [0.1] * 200, "lam": 0.05}
    solved = hqs(y, array, prior, **options | {"sigmas": [0.1] * 3000}).image
    start = torch.stack([solved[0], torch.zeros_like(solved[1])])
    result = hqs(y, array, prior, start=start, tolerance=1e-6, **options)
    moved = result.record["step"] > 0
    assert int(moved[:, 0].sum()) == 1 and int(moved[:, 1].sum()) > 5
    alone = hqs(y[1:], array, prior, **options).image
    assert torch.allclose(result.image[1:], alone) and torch.allclose(result.image[:1], solved[:1], atol=1e-5)
    fused = hqs(y, array, FusedPrior(PriorBank({"tv": prior}), average(1)), start=start, tolerance=1e-6, **options)
    assert torch.allclose(fused.image, result.image) and fused.record["weights"][1:, 0, 0].isnan().all()


def test_bad_input_is_named(array, y):
    prior, good = zoo.Identity(), {"sigmas": [0.1], "lam": 0.1}
    broken = y.clone()
    broken[0, 3] = torch.nan
    with pytest.raises(ValueError, match="data y have NaN"):
        hqs(broken, array, prior, **good)
    for bad in ({"sigmas": [0.1, 0.0]}, {"lam": 0.0}, {"sigmas": []}):
        with pytest.raises(ValueError, match="must be positive"):
            hqs(y, array, prior, **(good | bad))
    with pytest.raises(ValueError, match="sigma_max >= sigma_min"):
        schedule(0.01, 0.1, 4)


def test_a_prior_that_returns_nan_is_blamed_by_name(array, y):
    class Sick(zoo.Identity):
        def forward(self, x, sigma):
            return x * torch.nan

    bank = PriorBank({"healthy": zoo.Identity(), "sick": Sick()})
    with pytest.raises(ValueError, match="sick returned NaN"):
        hqs(y, array, FusedPrior(bank, average(2)), sigmas=[0.1], lam=0.1)
    with pytest.raises(ValueError, match="Sick returned NaN"):
        hqs(y, array, Sick(), sigmas=[0.1], lam=0.1)

    class Later(zoo.Identity):
        def forward(self, x, sigma):
            return x * (torch.nan if sigma < 0.05 else 1)

    with pytest.raises(ValueError, match=r"Later returned NaN .* sigma = 0\.01"):
        hqs(y, array, Later(), sigmas=[0.1, 0.01], lam=0.1)


def test_a_prior_that_returns_another_shape_is_blamed_by_name(array, y):
    class Crop(zoo.Identity):
        def forward(self, x, sigma):
            return x[..., 1:]

    for prior, name in ((Crop(), "Crop"), (FusedPrior(PriorBank({"mine": Crop()}), average(1)), "mine")):
        with pytest.raises(ValueError, match=f"{name} returned shape"):
            hqs(y[:1], array, prior, sigmas=[0.1], lam=0.1)
