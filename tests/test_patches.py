"""Weights by patch: who chooses, what is computed, closed form at every resolution, what is worth calling."""

import numpy as np
import pytest
import torch

from fusionlib import FusedPrior, Interferometer, PriorBank, black_holes, hqs, schedule
from fusionlib.fitting import expert_choice as choice
from fusionlib.fitting.closed_form import fit_closed_form, fit_static
from fusionlib.fitting.gradient import Schedule, fit_gate
from fusionlib.fusion import spread
from fusionlib.gates import closed_form, routing
from fusionlib.gates import closed_form as cf
from fusionlib.gates.adapters import Residual
from fusionlib.gates.gate import PerNoiseLevel
from fusionlib.gates.routing import Cosine, Encoder, Router, cosine_router, expert_choice
from fusionlib.paper import tables
from fusionlib.paper.methods import make
from fusionlib.paper.methods.method import Labelled
from fusionlib.paper.specs import patch_specs
from fusionlib.paper.studies import patches
from fusionlib.priors import zoo
from fusionlib.priors.prior import in_patches

NAMES = ["identity", "tv", "torus"]


class Denoising:
    """Physics of plain denoising: the data are the noisy image itself."""

    def prox(self, z, y, rho):
        return y

    def start(self, y):
        return torch.zeros_like(y)


@pytest.fixture(scope="module")
def noisy():
    sky = black_holes(6, 21).image
    return sky, sky + 0.1 * torch.randn(sky.shape, generator=torch.Generator().manual_seed(0))


# --- who chooses ---


@pytest.mark.row(47)
def test_expert_choice_gives_every_prior_l_patches_and_the_shared_one_all():
    s = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w = expert_choice(s, 5, 2)
    count = (w > 0).flatten(2).sum(2)
    assert (count[[0, 1, 3]] == 5).all() and (count[2] == 16).all()
    assert torch.allclose(w.sum(0), torch.ones(3, 4, 4))
    (w[0] * torch.rand(3, 4, 4)).sum().backward()
    assert (s.grad[0] != 0).flatten(1).sum(1).eq(5).all()  # where it chose, and only there
    assert torch.allclose(expert_choice(s, 16, 0), routing.dense(s))
    with pytest.raises(ValueError, match=r"l must be in 1 \.\. 16"):
        expert_choice(s, 17, 0)


def test_weights_are_smooth_between_patches_or_sharp():
    w = torch.rand(3, 2, 4, 4).softmax(0)
    smooth, sharp = spread(w, 64, 64), spread(w, 64, 64, sharp=True)
    assert torch.allclose(smooth.sum(0), torch.ones_like(smooth[0]), atol=1e-6)
    assert torch.equal(sharp[:, :, 0, ::16, ::16], w) and torch.equal(sharp[:, :, 0, 15::16, 15::16], w)
    assert (smooth.diff(dim=3).abs().max() < sharp.diff(dim=3).abs().max() / 4).item()


# --- what is computed ---


@pytest.mark.parametrize("name", [n for n in zoo.BANKS["local"] if n != "identity"])
def test_a_patch_with_its_halo_is_what_the_whole_image_gives_there(name, noisy):
    prior, x, sigma = zoo.load(name), noisy[1][:3], torch.tensor([0.02, 0.1, 0.4])
    with torch.no_grad():
        whole = prior(x, sigma)
        for side in (1, 2, 4, 8, 16, 32):
            keep = torch.rand(3, 64 // side, 64 // side, generator=torch.Generator().manual_seed(side)) < 0.4
            keep[0, 0, 0] = keep[0, -1, -1] = True  # at the edges too
            there = keep.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None]
            part = in_patches(prior, x, sigma, keep, name)
            assert (part - whole * there).abs().max() < 1e-5
            assert not part[~there].any()
    with pytest.raises(ValueError, match="does not divide"):
        in_patches(prior, x, sigma, torch.ones(3, 5, 5, dtype=torch.bool), name)


def test_a_fused_prior_that_computes_patches_gives_the_same_image(noisy):
    x, bank = noisy[1], zoo.bank(zoo.BANKS["local"])
    torch.manual_seed(0)
    encoder = Encoder(Router.maps, 8, 16)
    select = lambda s: expert_choice(3 * s, 3, 1)  # noqa: E731
    gate = Router(encoder, Cosine(encoder.channels, 4), select, skips=True, sharp=True)
    seen = []
    for prior in bank.priors:
        prior.register_forward_hook(lambda m, given, out: seen.append(given[0].shape))
    with torch.no_grad():
        some = FusedPrior(bank, gate)(x, 0.1)
        windows = [s[0] for s in seen if s[-1] == 28]
        gate.skips = False
        assert (some - FusedPrior(bank, gate)(x, 0.1)).abs().max() < 1e-5
    assert windows == [18, 18]  # 6 images x 3 patches of the two that choose, with halo; the shared one runs whole


# --- closed form at every resolution ---


def gate_of(found, *options, theta="theta", **named):
    return cf.ClosedForm(
        torch.tensor([0.1]), found[theta], found["static_weights"], found["whitening"], *options, **named
    )


@pytest.mark.row(7)
def test_one_constant_weight_per_image_is_the_static_affine_one(noisy):
    truth, z = noisy
    bank, data = zoo.bank(NAMES), [(Denoising(), truth, z)]
    options = {"features": (cf.constant,), "cell": None, "ridges": (1e-12,)}
    found = fit_closed_form(bank, data, [0.1], 1.0, **options)
    gate = gate_of(found, (cf.constant,), None)
    with torch.no_grad():
        w = gate(z, 0.1, bank(z, 0.1))
    assert w.shape == (3, 6, 1, 1)
    assert torch.allclose(w[:, 0, 0, 0], fit_static(bank, data, [0.1], 1.0, simplex=False)[0], atol=2e-3)


def test_closed_form_fits_better_the_finer_it_is_and_all_scales_together_best(noisy):
    truth, z = noisy
    bank, error = zoo.bank(NAMES), []
    for cell in (None, 16, 8, 1, (None, 16, 1)):
        found = fit_closed_form(bank, [(Denoising(), truth, z)], [0.1], 1.0, cell=cell, ridges=(1e-6,))
        gate = gate_of(found, cell=cell)
        with torch.no_grad():
            fused = FusedPrior(bank, gate).fuse(z, 0.1, lambda v: z)
            error.append(float((fused.image - truth).square().mean()))
            side = {None: 1, 16: 4, 8: 8}.get(cell, 64) if not isinstance(cell, tuple) else 64
            assert fused.weights.shape == (3, 6, side, side)
            whole = fit_closed_form(bank, [(Denoising(), truth, z)], [0.1], 1.0, cell=cell, ridges=(1e-6,))
            assert torch.equal(whole["theta"], found["theta"])
    assert error[0] > error[1] > error[2] > error[3] > error[4]


def test_expert_choice_in_closed_form(noisy):
    truth, z = noisy
    bank, data = zoo.bank(NAMES), [(Denoising(), truth, z)]
    error = {}
    for l in (4, 64):
        found = choice.fit_expert_choice(bank, data, [0.1], 1.0, cell=8, l=l, shared=2, ridges=(1e-6,))
        router = gate_of(found, cell=8, theta="router")
        gate = choice.ExpertChoice(router, found["theta"], l, 2)
        with torch.no_grad():
            w = gate(z, 0.1, bank(z, 0.1), lambda v: z)
            fused = FusedPrior(bank, gate).fuse(z, 0.1, lambda v: z).image
        assert ((w != 0).flatten(2).sum(2)[:2] == l).all()
        assert torch.allclose(w.sum(0), torch.ones(6, 8, 8), atol=1e-5)
        alone = (w[0] == 0) & (w[1] == 0)
        assert (w[2][alone] == 1).all()
        error[l] = float((fused - truth).square().mean())
    with torch.no_grad():
        shared = float((bank(z, 0.1)[2] - truth).square().mean())
    assert error[64] < error[4] < shared
    far = FusedPrior(bank, gate)(z, 0.5)  # nothing like the noise of the fit
    assert torch.allclose(far, bank(z, 0.5)[2], atol=1e-6)
    with pytest.raises(ValueError, match="per patch"):
        choice.ExpertChoice(gate_of(found, theta="router"), found["theta"], 4, 2)


# --- what is worth calling ---


def test_priors_not_worth_their_price_are_not_called(noisy):
    truth, z = noisy
    bank, data, cost = zoo.bank(NAMES), [(Denoising(), truth, z)], (0.0, 1.0, 99.0)
    dense = fit_closed_form(bank, data, [0.1], 1.0)
    cheap = fit_closed_form(bank, data, [0.1], 1.0, price=1e-9, cost=cost)
    assert torch.allclose(cheap["theta"], dense["theta"]) and cheap["kept"].all() and "kept" not in dense
    dear = fit_closed_form(bank, data, [0.1], 1.0, price=1e3, cost=cost)
    assert dear["kept"].tolist() == [[True, False, False]] and not dear["theta"].any()
    some = fit_closed_form(bank, data, [0.1], 1.0, price=0.05, cost=cost)
    assert some["kept"].tolist() == [[True, True, False]]  # the torus costs 5 dB, and is not worth that
    gate = gate_of(some, kept=some["kept"])
    called = []
    for name, prior in zip(bank.names, bank.priors, strict=True):
        prior.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        fused = FusedPrior(bank, gate).fuse(z, 0.1)
    assert called == ["identity", "tv"] and fused.kept.tolist() == [[True] * 6, [True] * 6, [False] * 6]
    assert torch.allclose(fused.weights.sum(0), torch.ones(6, 64, 64), atol=1e-5)
    lone = [(Denoising(), truth[:1], z[:1])]  # of one image there is nothing to predict
    assert fit_closed_form(bank, lone, [0.1], 1.0, price=1e3, cost=cost)["kept"].all()
    with pytest.raises(ValueError, match="cost needs 3 numbers"):
        fit_closed_form(bank, data, [0.1], 1.0, price=0.1, cost=(1.0,))


def test_each_image_calls_what_its_own_noise_level_keeps(noisy):
    x, bank = noisy[1][:3], zoo.bank(NAMES)
    theta = 0.1 * torch.randn(2, 3, 17, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([[True, True, False], [True, False, True]])
    theta, static_weights = theta * kept[..., None], kept / kept.sum(1, keepdim=True)
    whitening = torch.eye(17).expand(2, -1, -1) / 10
    gate = closed_form.ClosedForm(torch.tensor([0.2, 0.1]), theta, static_weights, whitening, kept=kept)
    with torch.no_grad():
        all_three = FusedPrior(bank, gate).fuse(x, torch.tensor([0.2, 0.1, 0.2]))
        for b, sigma in enumerate((0.2, 0.1, 0.2)):
            one = FusedPrior(bank, gate).fuse(x[b : b + 1], sigma)
            assert torch.allclose(all_three.image[b], one.image[0], atol=1e-6)
            assert all_three.kept[:, b].tolist() == kept[b % 2].tolist()


def test_gate_first_then_adapters(noisy):
    truth, z = noisy
    bank, data = PriorBank({"identity": zoo.load("identity"), "tv": zoo.load("tv")}), [(Denoising(), truth, z)]
    make = lambda: (cosine_router(2, 8, 4), Residual(2, 2))  # noqa: E731
    ((gate, adapters),) = fit_gate(bank, data, [0.1], 1.0, make, schedule=Schedule(8, 1), separate=True)
    ((alone, _),) = fit_gate(bank, data, [0.1], 1.0, lambda: (make()[0], None), schedule=Schedule(4, 1))
    ((first, _),) = fit_gate(bank, data, [0.1], 1.0, make, schedule=Schedule(8, 1))
    assert all(torch.equal(v, alone.state_dict()[k]) for k, v in gate.state_dict().items())
    assert any(not torch.equal(v, first.state_dict()[k]) for k, v in gate.state_dict().items())
    assert any(p.abs().max() > 0 for p in adapters.out.parameters())
    assert all(p.requires_grad for p in gate.parameters())


# --- where ---


def test_ring_core_and_empty_sky_part_the_image():
    truth = black_holes(6, 21).image
    parts = patches.regions(truth)
    assert (parts.sum(0) == 1).all()
    ring, core, sky = (truth[:, 0][p].mean() for p in parts)
    assert ring > 2 * core and ring > 10 * sky
    yy, xx = torch.meshgrid(*(torch.arange(64.0),) * 2, indexing="ij")
    circle = ((yy - 32) ** 2 + (xx - 32) ** 2).sqrt()
    ideal = ((circle > 12) & (circle < 16)).float()[None, None]
    _, inside, outside = patches.regions(ideal)
    assert inside[0, 32, 32] and outside[0, 2, 2] and not inside[0, 2, 2]


# --- as the chapter runs it ---


def test_gains_are_of_the_images_that_both_have(monkeypatch):
    """In the paper's run a row of the headline has 1,000 images, the same by patch 200 of them."""
    hard = np.linspace(35, 25, 1000)
    worth = {"a:8": 0.1, "a:image": 0.0}
    monkeypatch.setattr(tables, "image_psnr", lambda found: (hard + worth[found[0].method])[None, : found[0].n_test])
    rows = [s for s in patch_specs("paper") if s.method in worth and s.coverage == 1.0]
    assert {s.n_test for s in rows} == {200, 1000}
    (gain,) = patches.paired_gains(rows, [("a:8", "a:image")]).query("bank == 'main'").to_dict("records")
    assert gain["effect"] == pytest.approx(0.1) and gain["hi"] - gain["lo"] < 1e-6


@pytest.mark.parametrize(
    "name, bank", [("expert:16/2", "local"), ("cost_pruned:0.05", "main"), ("top_p:image/0.5", "main")]
)
def test_operations_are_those_that_were_done(name, bank):
    """Fitted and run as in the chapter; counted from what the priors were handed."""
    names = zoo.BANKS["local"] if bank == "local" else tuple(NAMES)
    method = make(name, names, 3, torch.device("cpu"))
    array, sky = Interferometer.eht2017(0.1, window=60), black_holes(4, 5)
    y = array.observe(sky.fine, 0)
    settings = {"sigma_max": 0.2, "sigma_min": 0.05, "lam": 0.1}
    fitted = method.fit(settings, [Labelled.numbered(array, sky.image, y)])
    done, seen = 0.0, []
    prior = method.prior(settings, fitted)
    for one in prior.bank.priors:
        cost = zoo.flops(one)

        def count(module, given, out, cost=cost):
            nonlocal done
            done += cost * given[0].numel() / 64**2
            seen.append(given[0].shape[-1])

        one.register_forward_hook(count)
    result = hqs(y, array, prior, sigmas=schedule(0.2, 0.05, 3), lam=0.1)
    assert patches.operations(prior, result, names) == pytest.approx(done, rel=1e-6)
    whole = sum(zoo.flops(p) for p in prior.bank.priors) * 3 * 4
    assert done < 0.95 * whole
    assert (28 in seen) == (bank == "local")
    if bank == "local":  # the same weights, everything computed
        prior.gate.skips = False
        again = hqs(y, array, prior, sigmas=schedule(0.2, 0.05, 3), lam=0.1)
        assert (again.image - result.image).abs().max() < 1e-5


def test_gates_of_a_chapter_run_as_they_were_fitted():
    """Expert choice: where the loop leads is where the fit was, on the images of the fit."""
    torch.manual_seed(0)
    bank, array, sky = zoo.bank(["identity", "tv"]), Interferometer.eht2017(0.1, window=60), black_holes(3, 5)
    y, sigmas, ends = array.observe(sky.fine, 0), [0.2, 0.1], []

    def gate():
        encoder = Encoder(Router.maps, 4, 16)
        select = lambda s: expert_choice(s, 3, 0)  # noqa: E731
        return Router(encoder, Cosine(encoder.channels, 2), select, skips=True, sharp=True), None

    fitted = fit_gate(bank, [(array, sky.image, y)], sigmas, 0.1, gate, schedule=Schedule(3, 1))
    z = array.start(y)
    with torch.no_grad():
        for sigma, (one, _) in zip(sigmas, fitted, strict=True):
            step = lambda v, sigma=sigma: array.prox(v, y, 0.1 / sigma**2)  # noqa: E731
            z = FusedPrior(bank, one).fuse(step(z), sigma, step).image
            ends.append(z)
    staged = FusedPrior(bank, PerNoiseLevel(sigmas, [g for g, _ in fitted]))
    assert torch.allclose(hqs(y, array, staged, sigmas=sigmas, lam=0.1).image, ends[-1], atol=1e-6)
