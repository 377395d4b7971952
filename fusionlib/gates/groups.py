"""How to part the priors into groups for a gate of gates (`routing.MultiGate`): by how they err, or at random."""

import numpy as np
import torch
from torch import Tensor


def clustered(correlation: Tensor, count: int = 2) -> list[list[int]]:
    """`count` groups at most of priors whose errors go together, from their correlation (N, N), `oracles`.

    Hierarchical clustering with average linkage, distance 1 - correlation. A group may be a single prior.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import
    from scipy.spatial.distance import squareform

    _check(len(correlation), count)
    if len(correlation) == 1:
        return [[0]]
    apart = (1 - correlation.double().cpu().numpy()).clip(min=0)
    apart = (apart + apart.T) / 2
    np.fill_diagonal(apart, 0)
    labels = fcluster(linkage(squareform(apart, checks=False), "average"), count, "maxclust")
    return [np.flatnonzero(labels == k).tolist() for k in np.unique(labels)]


def at_random(n: int, count: int = 2, seed: int = 0) -> list[list[int]]:
    """`count` groups of n priors, of sizes as equal as can be."""
    _check(n, count)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [sorted(part.tolist()) for part in order.tensor_split(count)]


def _check(n: int, count: int) -> None:
    if not 1 <= count <= n:
        raise ValueError(f"groups: count must be in 1 .. {n}, the number of priors, got {count}")
