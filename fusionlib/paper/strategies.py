"""Chapters 03 to 05: the data behind the figures of the learned strategies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fusionlib.paper.experiment import Spec, arrays, method_of, observed, tuned
from fusionlib.paper.tables import examples


def of(specs: Sequence[Spec], methods: Sequence[str], bank: Sequence[str]) -> list[Spec]:
    """The experiments of `methods` with the whole bank, first seed, in that order."""
    found = {s.method: s for s in reversed(specs) if s.priors in (tuple(bank), (), (s.method.partition(":")[2],))}
    return [found[m] for m in methods if m in found]


def weight_table(specs: Sequence[Spec], n: int) -> pd.DataFrame:
    """method, prior, iteration, weight, lo, hi: mean and middle 80 % over `n` development images and all places."""
    rows = []
    for s in specs:
        array = arrays(s)[0]
        truth, y = observed(s, "dev", n, 0, array)
        settings, _, fitted = tuned(s)
        record = method_of(s).run(settings, fitted, array, y, truth, None).record
        w = record["weights"].flatten(2).float()  # (K, N, places)
        places = np.quantile(w.cpu().numpy(), (0.1, 0.9), axis=2)
        for k, iteration in enumerate(w):
            for i, name in enumerate(s.priors):
                rows.append((s.method, name, k + 1, float(iteration[i].mean()), places[0, k, i], places[1, k, i]))
    return pd.DataFrame(rows, columns=["method", "prior", "iteration", "weight", "lo", "hi"])


def pictures(specs: Sequence[Spec], n: int) -> dict[str, np.ndarray]:
    """What `drawing.mosaic` shows: the first development images under each method."""
    return examples(specs, n)[0]


def shapes(module: nn.Module, *inputs: Tensor) -> pd.DataFrame:
    """The diagram of a module, from the module itself: its layers in the order they run, output shapes, parameters."""
    rows: list[tuple[str, str, str, int]] = []
    hooks = []
    for name, layer in module.named_modules():
        if not list(layer.children()):
            count = sum(p.numel() for p in layer.parameters())

            def note(_: nn.Module, __: object, out: object, name: str = name, layer: nn.Module = layer, n: int = count):
                shape = tuple(out.shape) if isinstance(out, Tensor) else ""
                rows.append((name, type(layer).__name__, str(shape), n))

            hooks.append(layer.register_forward_hook(note))
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return pd.DataFrame(rows, columns=["layer", "kind", "output", "parameters"])
