"""Our readers of published weights against the runtimes they were made for, where those are installed."""

import importlib.util

import numpy as np
import pytest
import torch

from fusionlib import black_holes
from fusionlib.priors import downloads as published
from fusionlib.priors import zoo
from fusionlib.priors.hsc import scorenet
from fusionlib.priors.srmd import BLUR, SRMD


@pytest.fixture(scope="module")
def noisy() -> torch.Tensor:
    x = black_holes(2, 3).image
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def test_srmd_is_what_ncnn_computes(noisy, tmp_path):
    ncnn = pytest.importorskip("ncnn")
    weights = published.fetch(published.SRMD_X2)
    layers = [f"Convolution c{k} 1 1 {k} {k + 1} 0={12 if k == 11 else 128} 1=3 4=1 5=1 6={size}" + " 9=1" * (k < 11)
              for k, size in enumerate([19 * 128 * 9, *[128 * 128 * 9] * 10, 128 * 12 * 9])]  # fmt: skip
    text = ["7767517", "14 14", "Input in 0 1 0", *layers, "PixelShuffle out 1 1 12 out 0=2"]
    (tmp_path / "net.param").write_text("\n".join(text) + "\n")
    net = ncnn.Net()
    net.opt.use_fp16_arithmetic = net.opt.use_fp16_storage = net.opt.use_fp16_packed = False
    net.load_param(str(tmp_path / "net.param"))
    net.load_model(str(weights))
    small = torch.nn.functional.avg_pool2d(noisy, 2)[:1]
    blur = torch.tensor(BLUR).view(1, -1, 1, 1).expand(1, -1, 32, 32)
    u = torch.cat([small.expand(-1, 3, -1, -1), blur, torch.full_like(small, 0.05)], 1)[0].numpy()
    extractor = net.create_extractor()
    extractor.input("0", ncnn.Mat(np.ascontiguousarray(u)).clone())
    _, theirs = extractor.extract("out")
    with torch.no_grad():
        ours = zoo.load("srmd").network(small, 0.05)[0, 0].numpy()
    assert isinstance(zoo.load("srmd").network, SRMD)
    assert abs(np.array(theirs).mean(0) - ours).max() < 1e-4


def test_dncnn_is_what_scico_computes(noisy):
    denoiser = pytest.importorskip("scico.denoiser")
    theirs = denoiser.DnCNN("17M")(noisy[0, 0].numpy())
    with torch.no_grad():
        ours = zoo.load("dncnn")(noisy[:1], 0.1)[0, 0].numpy()
    assert abs(np.array(theirs) - ours).max() < 1e-4


def test_the_galaxy_score_is_what_equinox_computes(noisy, tmp_path):
    equinox, jax = pytest.importorskip("equinox"), pytest.importorskip("jax")
    found = importlib.util.find_spec("galaxygrad")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("galaxygrad is not installed")
    # the package itself does not import where file names know upper and lower case
    source = importlib.util.spec_from_file_location("models", found.submodule_search_locations[0] + "/models_eqx.py")
    assert source and source.loader
    models = importlib.util.module_from_spec(source)
    source.loader.exec_module(models)
    net = models.ScoreNet((1, 64, 64), 4, 64, 512, 512, 4, 10.0, key=jax.random.PRNGKey(0))
    path = published.fetch(published.HSC_SCORE)
    net = equinox.tree_deserialise_leaves(path, net)
    theirs = np.array(net(noisy[0].numpy(), 0.3))
    with torch.no_grad():
        ours = scorenet(path)(noisy[:1], torch.tensor([0.3]))[0].numpy()
    assert abs(theirs - ours).max() < 1e-4 * abs(theirs).max()
