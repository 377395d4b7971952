"""What leaves the explorer: lines of Python that give the same number, arrays for a figure, a line of a table."""

from dataclasses import fields
from typing import Any

import numpy as np

from fusionlib.explorer.state import KERR, State, View
from fusionlib.paper.conditions import station_gains


def lines(state: State) -> str:
    """Python that computes the state's image and prints its PSNR, of an observation the reduced chi-square, from the
    library's own parts."""
    fixed = ", ".join(f"{name}={getattr(state, name)!r}" for name in KERR)
    if state.truth:
        scene = f"sky = explorer.images({state.truth!r})\nk = {state.seed} % len(sky.image)\nsky = sky[k : k + 1]"
    elif state.family:
        scene = f"sky = paper.conditions.objects({state.family!r}, 1, {state.seed})"
    else:
        scene = f"sky = black_holes(1, {state.seed}, x=0.0, y=0.0, {fixed})"
    gains = station_gains(state.array)
    data = f"""{scene}
array = explorer.array({state.array!r}, {state.noise!r})
y = array.observe(sky.fine, {state.seed}{f", gains={gains}" if gains else ""})"""
    said = "metrics.psnr(result.image, sky.image)"
    if state.observation:
        flux = f", {state.flux!r}" if state.flux else ""
        data = f"array, y = explorer.measured({state.observation!r}{flux})"
        said = "array.chi2(result.image, y)"
    lam = "" if state.algorithm == "pgd" else f", lam={state.lam!r}"
    return f"""from fusionlib import black_holes, explorer, metrics, paper, schedule
from fusionlib.pnp import {state.algorithm}

{data}
prior = explorer.prior({state.strategy!r}, {state.priors!r}, array, y)
sigmas = schedule({state.sigma_max!r}, {state.sigma_min!r}, {state.iterations})
result = {state.algorithm}(y, array, prior, sigmas=sigmas{lam})
print(f"{{float({said}):.6f}}")
"""


def pictures(view: View) -> dict[str, np.ndarray]:
    """A view as arrays, for a figure: `image` (4, H, W) truth, dirty image, reconstruction, error; `weights` (N, H, W),
    the mean over the iterations; `name` (N,); `psnr`."""
    weights = np.ones((1, *view.truth.shape)) if view.weights is None else view.weights.mean(0)
    images = np.stack([view.truth, view.dirty, view.image, view.image - view.truth])
    return {"image": images, "weights": weights, "name": np.array(view.names), "psnr": np.array(view.psnr)}


def row(view: View) -> dict[str, Any]:
    """A line of the table of runs kept for comparison."""
    changed = {f.name: getattr(view.state, f.name) for f in fields(State)}
    return changed | {
        "priors": " ".join(view.state.priors),
        "psnr": round(view.psnr, 3),
        "chi2": round(float(view.chi2[-1]), 3),
        "seconds": round(view.seconds, 3),
    }
