"""Low-rank adapters inside the convolutions of frozen priors (Hu et al., ICLR 2022), and a plain router fitted with
them: the usual way to adapt several networks at once, here the baseline that has to go back through every prior."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fusionlib.fitting.descent import descend
from fusionlib.fitting.trajectory import Data, Stage, along_trajectory
from fusionlib.fusion import FusedPrior
from fusionlib.gates import Linear, PerNoiseLevel, dense
from fusionlib.priors import Identity, PriorBank
from fusionlib.priors.datasets import turned


class LoRAConv(nn.Module):
    """A frozen convolution whose weight is moved by `scale` B A: A (r k, c_in k) random, B (c_out k, r k) zero at the
    start, reshaped to (c_out, c_in, k, k); `groups` must be 1."""

    def __init__(self, conv: nn.Conv2d, rank: int = 4, scale: float = 2.0):
        super().__init__()
        if conv.groups != 1:
            raise ValueError(f"LoRAConv: convolutions with groups = 1 only, got {conv.groups}")
        k = conv.kernel_size[0]
        self.conv, self.scale = conv.requires_grad_(False), scale
        self.a = nn.Parameter(torch.empty(rank * k, conv.in_channels * k))
        self.b = nn.Parameter(torch.zeros(conv.out_channels * k, rank * k))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        moved = self.conv.weight + self.scale * (self.b @ self.a).view_as(self.conv.weight)
        return self.conv._conv_forward(x, moved, self.conv.bias)


def with_lora(prior: nn.Module, rank: int = 4, scale: float = 2.0) -> nn.Module:
    """A copy of a prior with every convolution (no transposed one) made a `LoRAConv`; all else frozen.

    Priors without any come back as they are, and have nothing to train.
    """
    prior = copy.deepcopy(prior).requires_grad_(False)
    for module in list(prior.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d:
                setattr(module, name, LoRAConv(child, rank, scale))
    return prior


class Pooled(nn.Module):
    """The plain router: softmax of a linear map of mean, deviation and log sigma of the image; one weight per image."""

    reads_outputs, skips = False, False

    def __init__(self, n: int):
        super().__init__()
        self.head = Linear(3, n)

    def forward(self, x: Tensor, sigma: float | Tensor, outputs: Tensor | None = None, data_step=None) -> Tensor:
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).log().expand(len(x)).view(-1, 1, 1, 1)
        seen = [x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True), level]
        return dense(self.head(torch.cat(seen, 1)))


class Adapted(nn.Module):
    """The priors of a bank with LoRA, called together, with gradients: `bank(x, sigma)`."""

    img_channels, img_resolution = 1, None

    def __init__(self, bank: PriorBank, rank: int = 4):
        super().__init__()
        self.names = bank.names
        self.priors = nn.ModuleList(with_lora(prior, rank) for prior in bank.priors)

    def __len__(self) -> int:
        return len(self.priors)

    def forward(self, x: Tensor, sigma: float | Tensor, keep: Tensor | None = None) -> Tensor:
        return torch.stack([prior(x, sigma) for prior in self.priors])


def make(bank: PriorBank, rank: int = 4) -> FusedPrior:
    """Router and LoRA over a bank, as they are before the fit: about the priors' average."""
    return FusedPrior(Adapted(bank, rank), Pooled(len(bank)))  # type: ignore[arg-type]


def trainable(fused: nn.Module) -> dict[str, Tensor]:
    """The parameters that are fitted, by name."""
    return {name: p for name, p in fused.named_parameters() if p.requires_grad}


class _WithState(nn.Module):
    """A module with parameters of its own in place of some of another's, which is shared."""

    def __init__(self, shared: nn.Module, state: dict[str, Tensor]):
        super().__init__()
        self.shared, self.state = [shared], state  # in a list it is not a child: it would be one of every level

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return functional_call(self.shared[0], self.state, (x, sigma))


def per_noise_level(fused: FusedPrior, sigmas: Sequence[float], states: Sequence[dict[str, Tensor]]) -> PerNoiseLevel:
    """`fused` with parameters of its own for each noise level of a loop, as a prior."""
    fused.requires_grad_(False)
    return PerNoiseLevel(sigmas, [_WithState(fused, state) for state in states], images=0)


@dataclass(frozen=True)
class Schedule:
    """AdamW steps at each iteration of the loop, `first` times as many at the first, with `batch` images each."""

    steps: int = 12
    first: int = 4
    batch: int = 4
    rate: float = 1e-3
    router: float = 1e-2  # rate of the router, which has far to go in few steps
    rank: int = 4
    seed: int = 0


USUAL = Schedule()


def fit_lora(
    bank: PriorBank, data: Data, sigmas: Sequence[float], lam: float, *, schedule: Schedule = USUAL
) -> list[dict[str, Tensor]]:
    """What is trained of `make(bank)`, router and LoRA, for each iteration of `pnp.hqs`, along the trajectory.

    Each iteration starts from the one before it. Images are mirrored and turned by right angles at random.
    Deterministic from the seed of the `schedule`.
    """
    device = data[0][1].device
    with torch.random.fork_rng([]):
        torch.manual_seed(schedule.seed)
        fused = make(bank, schedule.rank).to(device)
    rng = torch.Generator().manual_seed(schedule.seed)
    parameters = list(trainable(fused).values())
    states: list[dict[str, Tensor]] = []

    def fit(stages: list[Stage]) -> Callable[[Stage], Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            rates = [schedule.router if name.startswith("gate.") else schedule.rate for name in trainable(fused)]
            x, truth = (torch.cat([getattr(s, name) for s in stages]).clone() for name in ("x", "truth"))
            steps = schedule.steps * (1 if states else schedule.first)

            def loss(step: int) -> Tensor:
                chosen = torch.randint(len(x), (schedule.batch,), generator=rng)
                k = int(torch.randint(8, (), generator=rng))
                image = fused(turned(x[chosen], k), stages[0].sigma)
                return F.mse_loss(image, turned(truth[chosen], k))

            descend([([p], rate) for p, rate in zip(parameters, rates, strict=True)], loss, steps)
            states.append({name: p.detach().clone() for name, p in trainable(fused).items()})
        return lambda s: fused(s.x, s.sigma)

    # the bank's own outputs are not looked at
    along_trajectory(PriorBank({"identity": Identity()}), data, sigmas, lam, fit)
    return states
