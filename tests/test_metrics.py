import math

import numpy as np
import pytest
import torch

from fusionlib import black_holes, metrics


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    truth = black_holes(3, 2).image
    return truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1)), truth


@pytest.mark.row(4, 42)
def test_psnr_and_ssim_agree_with_scikit_image():
    skimage = pytest.importorskip("skimage.metrics")
    x, truth = pair()
    for k in range(3):
        a, b = truth[k, 0].double().numpy(), x[k, 0].double().numpy()
        assert math.isclose(
            metrics.psnr(x, truth)[k], skimage.peak_signal_noise_ratio(a, b, data_range=1), abs_tol=1e-3
        )
        kind = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
        whole = skimage.structural_similarity(a, b, full=True, **kind)[1].mean()  # borders differ slightly
        assert math.isclose(metrics.ssim(x, truth)[k], whole, abs_tol=2e-3)


def test_blur_of_a_point_is_the_gaussian():
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 32, 32] = 1
    blurred = metrics.blur(x, fwhm=20.0)[0, 0]
    assert abs(float(blurred.sum()) - 1) < 1e-4
    assert abs(float(blurred[32, 36] / blurred[32, 32]) - 0.5) < 1e-4  # 4 px = 10 uas = half the width


def test_nxcorr_ignores_scale_and_offset_and_sees_sign():
    x, truth = pair()
    assert torch.allclose(metrics.nxcorr(3 * x + 1, truth), metrics.nxcorr(x, truth), atol=1e-5)
    assert torch.allclose(metrics.nxcorr(truth, truth), torch.ones(3), atol=1e-6)
    assert torch.allclose(metrics.nxcorr(-truth, truth), -torch.ones(3), atol=1e-6)


def test_best_shift_undoes_a_shift_and_never_harms():
    x, truth = pair()
    assert torch.equal(metrics.best_shift(torch.roll(truth, (5, -9), (2, 3)), truth), truth)
    assert (metrics.psnr(metrics.best_shift(x, truth), truth) >= metrics.psnr(x, truth) - 1e-4).all()


def test_bootstrap_interval_of_normal_images_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    mean, lo, hi = metrics.bootstrap(values)
    assert mean == pytest.approx(values.mean())
    assert (hi - lo) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.1)


def test_bootstrap_sees_the_spread_of_seeds():
    """Three seeds that disagree by far more than images do: the interval must be wide."""
    values = np.array([[0.0], [1.0], [2.0]]) + 0.01 * np.random.default_rng(0).normal(size=(3, 200))
    assert metrics.bootstrap(values).hi - metrics.bootstrap(values).lo > 1


def test_bootstrap_refuses_nan_and_nothing():
    for bad in (np.zeros(0), np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="finite and not empty"):
            metrics.bootstrap(bad)


def test_verdicts_need_an_interval_a_corrected_p_and_an_effect_of_use():
    noise = np.random.default_rng(0).normal(size=200)
    noise -= noise.mean()
    told = {
        "better": 0.3 + noise,
        "worse": -0.3 + noise,
        "negligible": 0.05 + 0.1 * noise,  # significant, of no use
        "undecided": 0.05 + 2 * noise,
        "same": 0 * noise,
    }
    assert [c.verdict for c in metrics.compare(list(told.values()))] == list(told)
    assert metrics.compare([0.01 * noise])[0].verdict == "negligible"  # within the threshold, if not significant
    assert metrics.compare([0.05 + 0.1 * noise], threshold=0)[0].verdict == "better"
    alone = metrics.compare([0.16 + noise])[0]
    assert alone.p_holm < 0.05 and alone.lo > 0 and alone.verdict == "better"
    among = metrics.compare([0.16 + noise, *(np.roll(noise, k) for k in range(20))])[0]
    assert among.p_holm == pytest.approx(21 * alone.p_holm) and among.verdict == "undecided"
    three_seeds = np.array([[0.0], [1.0], [2.0]]) + 0.01 * noise
    assert metrics.compare([three_seeds])[0].effect == pytest.approx(1)


def test_holm_is_bonferroni_for_the_least_and_keeps_the_order():
    p = np.array([0.04, 0.001, 0.03, 0.5])
    assert np.allclose(metrics.holm(p), [0.09, 0.004, 0.09, 0.5])
