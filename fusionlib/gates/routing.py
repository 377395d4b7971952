"""Gates that learn: selections, heads, routers on the image, voters on the outputs, gates of gates."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.gates.gate import DataStep, given

Select = Callable[[Tensor], Tensor]  # logits (N, B, h, w) to weights that sum to 1 over N
BOUND = 0.5


# --- from logits to weights ---


def dense(logits: Tensor) -> Tensor:
    """Softmax over the priors: all of them, on the simplex (Jacobs et al. 1991; the combine half of Soft MoE)."""
    return logits.softmax(0)


def affine(logits: Tensor) -> Tensor:
    """Affine weights: they sum to one: 1 / N + logits less their mean, the logits bounded by `BOUND`.

    Unbounded ones blow up on single images, iteration after iteration.
    """
    bounded = BOUND * torch.tanh(logits / BOUND)
    return bounded - bounded.mean(0, keepdim=True) + 1 / len(logits)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Softmax over the k largest, the others exactly 0. With k = 1 no gradient reaches the logits."""
    if not 1 <= k <= len(logits):
        raise ValueError(f"top_k: k must be in 1 .. {len(logits)}, the number of priors, got {k}")
    return _softmax_of(logits, _rank(logits) < k)


def top_p(logits: Tensor, p: float, least: int = 1) -> Tensor:
    """Softmax over the smallest set whose probabilities reach p (Huang et al., ACL 2024), renormalised.

    The one that crosses p is in; `least` priors at the least: 2 while training, since of one alone the weight is 1
    whatever its logit.
    """
    if not (0 <= p <= 1 and least >= 1):
        raise ValueError(f"top_p: p in [0, 1] and least >= 1 are needed, got p = {p}, least = {least}")
    probability, order = logits.softmax(0).sort(0, descending=True)
    before = probability.cumsum(0) - probability
    keep = (before < p) | (torch.arange(len(logits), device=logits.device).view(-1, 1, 1, 1) < least)
    return _softmax_of(logits, torch.zeros_like(keep).scatter(0, order, keep))


def soft_top_p(logits: Tensor, p: float, width: float = 0.05, least: int = 2) -> Tensor:
    """`top_p` with a smooth edge: each probability is multiplied by sigmoid((p - what comes before it) / width)."""
    probability, order = logits.softmax(0).sort(0, descending=True)
    before = probability.cumsum(0) - probability
    edge = torch.sigmoid((p - before) / width)
    edge = torch.where(torch.arange(len(logits), device=logits.device).view(-1, 1, 1, 1) < least, 1.0, edge)
    w = torch.zeros_like(logits).scatter(0, order, probability * edge)
    return w / w.sum(0, keepdim=True)


def expert_choice(logits: Tensor, l: int, shared: int) -> Tensor:
    """Each prior chooses the l patches where its logit is largest and has weight nowhere else; `shared` serves all.

    Softmax among those that chose a patch and the shared prior, so that a gradient reaches every logit that is used
    (after Zhou et al. 2022, expert choice routing). Raises ValueError unless l is in 1 .. h x w.
    """
    patches = logits.flatten(2)
    if not 1 <= l <= patches.shape[2]:
        raise ValueError(f"expert_choice: l must be in 1 .. {patches.shape[2]}, the number of patches, got {l}")
    keep = torch.zeros_like(patches, dtype=torch.bool).scatter(2, patches.topk(l, 2).indices, True)
    keep[shared] = True
    return _softmax_of(logits, keep.view_as(logits))


def masked(select: Select, keep: Tensor) -> Select:
    """`select` among the priors `keep` (N,) alone: masked logits, weights exactly 0 for the others."""
    if not bool(keep.any()):
        raise ValueError("masked: no prior is kept; keep at least one")

    def chosen(logits: Tensor) -> Tensor:
        w = select(logits[keep])
        return torch.zeros_like(logits).index_copy(0, keep.nonzero().flatten(), w)

    return chosen


def _rank(logits: Tensor) -> Tensor:
    """0 for the largest along the first dimension; ties by order."""
    return logits.argsort(stable=True, dim=0, descending=True).argsort(stable=True, dim=0)


def _softmax_of(logits: Tensor, keep: Tensor) -> Tensor:
    return logits.masked_fill(~keep, -math.inf).softmax(0)


# --- learned weights ---


class Encoder(nn.Module):
    """Maps (B, M, H, W) to features (B, C, H / cell, W / cell); with `cell` None one vector per image, (B, C, 1, 1).

    Three 3 x 3 convolutions with strides up to `cell`, on padding by reflection; per image mean and deviation.
    """

    def __init__(self, maps: int, channels: int = 12, cell: int | None = None):
        super().__init__()
        if cell is not None and (cell < 1 or cell & (cell - 1)):
            raise ValueError(f"Encoder: cell must be a power of 2 or None (one per image), got {cell}")
        strides = {1: (1, 1, 1), 2: (2, 1, 1)}.get(cell or 8, (2, 2, 1))
        widths = [maps, channels, channels, channels]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=s, padding=1, padding_mode="reflect")
            for (a, b), s in zip(pairwise(widths), strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in strides)
        self.cell, self.pool, self.channels = cell, (cell or 8) // math.prod(strides), channels * (1 + (cell is None))

    def forward(self, maps: Tensor) -> Tensor:
        h = maps
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.silu(norm(conv(h)))
        if self.cell is None:
            return torch.cat([h.mean((2, 3), keepdim=True), h.std((2, 3), keepdim=True)], 1)
        return F.avg_pool2d(h, self.pool)


class Pixels(nn.Module):
    """Maps (B, M, H, W) to their own means over a `grid` x `grid`, (B, M grid^2, 1, 1): no encoder, nothing learned."""

    def __init__(self, maps: int, grid: int = 8):
        super().__init__()
        self.grid, self.channels = grid, maps * grid**2

    def forward(self, maps: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(maps, self.grid).flatten(1)[:, :, None, None]


class Linear(nn.Module):
    """Logits (N, B, h, w) from features (B, C, h, w): a dot product with a vector per prior, and a bias."""

    def __init__(self, channels: int, n: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, n, 1)
        nn.init.normal_(self.layer.weight, std=0.01)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h).transpose(0, 1)


class Cosine(nn.Module):
    """Logits (N, B, h, w): cosine of projected features and an embedding per prior, over a learned temperature.

    cos = <h, e> / ((|h| + eps) (|e| + eps)): the perturbed norms of Nguyen et al. (ICLR 2025); temperature from 0.5
    (Tutel), never below 0.01. |logit| <= 1 / temperature.
    """

    def __init__(self, channels: int, n: int, dimension: int = 16, temperature: float = 0.5, eps: float = 1e-6):
        super().__init__()
        self.project = nn.Conv2d(channels, dimension, 1, bias=False)
        self.embeddings = nn.Parameter(torch.randn(n, dimension))
        self.log_inverse = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.eps = eps

    @property
    def temperature(self) -> Tensor:
        return torch.exp(-self.log_inverse.clamp(max=math.log(100)))

    def forward(self, h: Tensor) -> Tensor:
        return self.cosines(self.project(h)) / self.temperature

    def cosines(self, h: Tensor) -> Tensor:
        """Cosines (N, B, h, w) of vectors (B, dimension, h, w) with the embeddings."""
        unit = h / (h.norm(dim=1, keepdim=True) + self.eps)
        mine = self.embeddings / (self.embeddings.norm(dim=1, keepdim=True) + self.eps)
        return torch.einsum("bdhw,nd->nbhw", unit, mine)


class Learned(nn.Module):
    """A gate that can be trained: `weigh(look(x, sigma, outputs, data_step))`.

    `look` gives maps, images along the first dimension, that do not depend on anything trained; `weigh` the weights
    (N, B, h, w) from them. A `sharp` one has one weight up to the edge of a patch.
    """

    reads_outputs, skips, sharp = False, False, False

    look: Callable[..., Tensor]
    weigh: Callable[[Tensor], Tensor]

    def forward(
        self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step: DataStep | None = None
    ) -> Tensor:
        return self.weigh(self.look(x, sigma, outputs, data_step))


def router_maps(x: Tensor, sigma: float | Tensor, outputs: Tensor | None, data_step: DataStep | None) -> Tensor:
    """What a Router's encoder sees, (B, 3, H, W): x, what the data step would change in it over sigma, log sigma."""
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).view(-1, 1, 1, 1)
    moved = (data_step(x) - x) / s if data_step is not None else torch.zeros_like(x)
    return torch.cat([x, moved.clamp(-5, 5), (s.log() / 4).expand_as(x)], 1)


def voter_maps(x: Tensor, sigma: float | Tensor, outputs: Tensor | None, data_step: DataStep | None) -> Tensor:
    """What a Voter's encoder sees of each prior, (B, N, 5, H, W)."""
    o = given(outputs)
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)).view(-1, 1, 1, 1)
    dy, dx = torch.gradient(o, dim=(3, 4))
    moved = torch.stack([data_step(u) - u for u in o]) if data_step is not None else torch.zeros_like(o)
    maps = [(o - x) / s, (o - o.mean(0)) / s, (dy**2 + dx**2).sqrt() / s, moved / s]
    return torch.cat([*(m.clamp(-5, 5) for m in maps), (s.log() / 4).expand_as(o)], 2).transpose(0, 1)


class Router(Learned):
    """Weights from the image: encoder, head, selection. `shared` adds a null slot whose weight goes to that prior.

    Outside a loop the data step changes nothing. With `shared` that prior's own weight takes the null slot's, so that
    the fused image is P_s + a sum_i w_i (P_i - P_s), a in [0, 1] from 0.1: flux not doubled, P_s not cancelled.
    """

    maps = 3

    def __init__(
        self,
        encoder: Encoder | Pixels,
        head: nn.Module,
        select: Select = dense,
        shared: int | None = None,
        skips: bool = False,
        sharp: bool = False,
    ):
        super().__init__()
        self.encoder, self.head, self.select, self.shared = encoder, head, select, shared
        self.skips, self.sharp = skips, sharp
        if shared is not None:
            self.open = nn.Conv2d(encoder.channels, 1, 1)
            nn.init.zeros_(self.open.weight)
            nn.init.constant_(self.open.bias, -2.2)  # type: ignore[arg-type]

    look = staticmethod(router_maps)

    def weigh(self, maps: Tensor) -> Tensor:
        h = self.encoder(maps)
        w = self.select(self.head(h))
        if self.shared is None:
            return w
        a = torch.sigmoid(self.open(h)).transpose(0, 1)
        null = torch.zeros_like(w)
        null[self.shared] = 1
        return a * w + (1 - a) * null


class Voter(Learned):
    """Weights from the outputs: the same small network judges each prior's output against the others'.

    Permuting the priors permutes the weights, and any number of priors can vote, unseen ones too (Deep Sets). Per prior
    it sees: its change of x, its distance from the mean output, its gradient, what the data step would change in it,
    all over sigma; and the mean of these over the priors.
    """

    reads_outputs = True
    maps = 5

    def __init__(self, encoder: Encoder, select: Select = dense):
        super().__init__()
        self.encoder, self.select = encoder, select
        self.judge = nn.Sequential(
            nn.Conv2d(2 * encoder.channels, encoder.channels, 1), nn.SiLU(), nn.Conv2d(encoder.channels, 1, 1)
        )
        nn.init.normal_(self.judge[2].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(self.judge[2].bias)  # type: ignore[arg-type]

    look = staticmethod(voter_maps)

    def weigh(self, maps: Tensor) -> Tensor:
        h = self.encoder(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        h = torch.cat([h, h.mean(1, keepdim=True).expand_as(h)], 2)
        logits = self.judge(h.flatten(0, 1)).unflatten(0, maps.shape[:2])[:, :, 0]
        return self.select(logits.transpose(0, 1))


class MultiGate(Learned):
    """MGPF: a gate per group of priors, and a gate over the groups; weights are the products (Jordan & Jacobs 1994).

    With one prior per group this is the gate over the groups alone. Raises ValueError unless `groups` part the priors.
    """

    maps = 3

    def __init__(self, groups: Sequence[Sequence[int]], channels: int = 8, cell: int | None = None):
        super().__init__()
        self.groups = [list(g) for g in groups]
        members = sorted(i for g in self.groups for i in g)
        if members != list(range(len(members))) or not all(self.groups):
            raise ValueError(f"MultiGate: groups must part the priors 0 .. N - 1, none of them empty; got {groups}")
        self.within = nn.ModuleList(cosine_router(len(g), cell, channels) for g in self.groups)
        self.top = cosine_router(len(self.groups), cell, channels)

    look = staticmethod(router_maps)

    def weigh(self, maps: Tensor) -> Tensor:
        over = self.top.weigh(maps)
        parts = [over[k] * gate.weigh(maps) for k, gate in enumerate(self.within)]  # type: ignore[operator]
        order = torch.tensor([i for g in self.groups for i in g], device=maps.device)
        return torch.cat(parts)[order.argsort()]


def cosine_router(n: int, cell: int | None, channels: int = 12, shared: int | None = None) -> Router:
    """Cosine routing of n priors on the image, dense softmax."""
    encoder = Encoder(Router.maps, channels, cell)
    return Router(encoder, Cosine(encoder.channels, n), shared=shared)
