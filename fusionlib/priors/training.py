"""Training our own networks: `python -m fusionlib.training torus faces ...`; resumes where it was interrupted.

Checkpoints and results go to `build/training`. Chapter 15 shows what came of it; `make weights` ships it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fusionlib import files
from fusionlib.priors import datasets
from fusionlib.priors.networks import NETWORKS
from fusionlib.priors.zoo import native_bfloat16

BATCH, EVERY, WARMUP, DECAY, SOLVED = 32, 100, 200, 0.998, 3000


@dataclass(frozen=True)
class Recipe:
    """Images and how they are varied, the noise levels (log-uniform), and how long it is trained.

    Without steps there is nothing to descend: the prior is solved for, from `SOLVED` varied images.
    """

    data: str
    vary: dict[str, Any]
    sigma: tuple[float, float] = (0.004, 1.0)
    steps: int = 5000
    rate: float = 2e-3
    seed: int = 0
    batch: int = BATCH


RECIPES = {
    "torus": Recipe("torus", {"turns": True, "zoom": 1.15, "shift": 0.1}),
    "galaxies": Recipe("galaxies", {"turns": True, "zoom": 1.3, "shift": 0.2}, steps=3000),
    "unet_galaxies": Recipe("galaxies", {"turns": True, "zoom": 1.3, "shift": 0.2}),
    "faces": Recipe("faces", {"zoom": 1.3, "tilt": 15.0}, steps=0),
    "digits": Recipe(
        "digits",
        {"mirror": False, "zoom": 1.4, "shift": 0.2, "tilt": 15.0},
        sigma=(0.004, 20.0),
    ),
    "sr": Recipe("photographs", {}),
    "sky": Recipe("sky", {"turns": True, "zoom": 1.0, "shift": 0.05}, steps=6000),
    "local_torus": Recipe("torus", {"turns": True, "zoom": 1.15, "shift": 0.1}, steps=3000),
    "local_photographs": Recipe("photographs", {}, steps=3000),
}


def batches(recipe: Recipe, start: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Clean images, noise levels (B,), unit noise, from step `start` on; step k depends on (recipe, k) alone."""
    images = datasets.DATASETS[recipe.data]()
    low, high = (math.log(s) for s in recipe.sigma)
    for step in range(start, recipe.steps):
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        clean = datasets.augmented(images, recipe.batch, rng, **recipe.vary)
        sigma = torch.exp(low + (high - low) * torch.rand(recipe.batch, generator=rng))
        yield clean, sigma, torch.randn(clean.shape, generator=rng)


def train(name: str, *, progress: bool = True) -> Path:
    """Train recipe `name` (Adam, cosine rate, averaged weights, bfloat16 where that is faster), and return its file.

    The file holds the averaged weights in float16 and, as metadata, the recipe and the course of the loss. A run that
    was interrupted goes on from its last checkpoint, with the batches it would have had.
    """
    recipe, folder = RECIPES[name], files.folder("build", "training")
    path, checkpoint = folder / f"{name}.safetensors", folder / f"{name}.ckpt"
    if path.exists():
        return path
    torch.manual_seed(recipe.seed)
    net = NETWORKS[name]()
    if not recipe.steps:
        return _solve(net, recipe, name, path)
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    step, losses, seconds = 0, [], 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        average, step, losses, seconds = (saved[k] for k in ("average", "step", "losses", "seconds"))
    began, recent = time.perf_counter(), []
    for clean, sigma, noise in batches(recipe, step):
        warm, cool = min(1.0, (step + 1) / WARMUP), 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimiser.param_groups[0]["lr"] = recipe.rate * warm * max(cool, 0.01)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bfloat16()):
            loss = net.loss(clean, sigma, noise)  # type: ignore[operator]
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        decay = min(DECAY, (1 + step) / (10 + step))
        for k, v in net.state_dict().items():
            average[k].lerp_(v.detach(), 1 - decay)
        step += 1
        recent.append(float(loss.detach()))
        if step % EVERY == 0 or step == recipe.steps:
            losses.append((step, sum(recent) / len(recent)))
            recent = []
            state: dict[str, Any] = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            state |= {"step": step, "losses": losses, "seconds": seconds + time.perf_counter() - began}
            with files.replacing(checkpoint) as aside:
                torch.save(state, aside)
            if progress:
                print(
                    f"{name}: step {step} of {recipe.steps}, loss {losses[-1][1]:.4f}, {state['seconds']:.0f} s",
                    flush=True,
                )
    facts = {"recipe": name, "data": recipe.data, "steps": recipe.steps, "batch": recipe.batch, "sigma": recipe.sigma}
    facts |= {"losses": losses, "seconds": round(seconds + time.perf_counter() - began)}
    small = {k: v.to(torch.float16).contiguous() for k, v in average.items()}
    with files.replacing(path) as aside:
        save_file(small, aside, metadata={"training": json.dumps(facts)})
    return path


def _solve(net: nn.Module, recipe: Recipe, name: str, path: Path) -> Path:
    began, rng = time.perf_counter(), torch.Generator().manual_seed(recipe.seed)
    images = datasets.augmented(datasets.DATASETS[recipe.data](), SOLVED, rng, **recipe.vary)
    net.solve(images)  # type: ignore[operator]
    facts = {"recipe": name, "data": recipe.data, "steps": 0, "seconds": round(time.perf_counter() - began)}
    small = {k: v.to(torch.float16).contiguous() for k, v in net.state_dict().items()}
    with files.replacing(path) as aside:
        save_file(small, aside, metadata={"training": json.dumps(facts)})
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fusionlib.training", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), help="recipes, in this order")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in parser.parse_args(argv).names:
        print(f"{name}: {train(name)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
