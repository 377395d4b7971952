"""Milliseconds per image and iteration of every prior of a bank, and what the data step and the closed-form gate add.

`python tests/benchmarks/priors.py [bank] [threads]`: 32 images of 64 pixels, the best of five calls each. No test: the
numbers are of the machine and its load.
"""

import sys
import time
from collections.abc import Callable

import torch

from fusionlib import Interferometer, black_holes
from fusionlib.gates.closed_form import ALL, ClosedForm
from fusionlib.priors import zoo

BATCH = 32


def best(call: Callable[[], object], times: int = 5) -> float:
    """Milliseconds per image."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds) / BATCH * 1e3


@torch.inference_mode()
def main(bank_name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    bank, array = zoo.bank(zoo.BANKS[bank_name]), Interferometer.eht2017(window=60)
    sky = black_holes(4, 1)
    x, y = sky.image.repeat(BATCH // 4, 1, 1, 1), array.observe(sky.fine, 0).repeat(BATCH // 4, 1)
    print(f"bank {bank_name}, {threads} threads, batch {BATCH}: milliseconds per image and iteration")
    total = 0.0
    for name, prior in zip(bank.names, bank.priors, strict=True):
        taken = best(lambda prior=prior: prior(x, 0.1))
        total += taken
        print(f"  {name:20s} {taken:6.2f}")
    print(f"  {'the bank':20s} {total:6.2f}")
    step = best(lambda: array.prox(x, y, 10.0))
    outputs = bank(x, 0.1)
    features = sum(f(x[:1], outputs[:, :1], x[:1], torch.ones(1, 1, 1, 1)).shape[1] for f in ALL)
    gate = ClosedForm(torch.tensor([0.1]), torch.zeros(1, len(bank), features), torch.ones(1, 2, features))
    weigh = best(lambda: gate(x, 0.1, outputs, lambda v: array.prox(v, y, 10.0)))
    for name, taken in (("data step", step), ("closed-form gate", weigh)):
        print(f"  {name:20s} {taken:6.2f}  {100 * taken / total:.1f} % of the bank")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "main", int(sys.argv[2]) if len(sys.argv) > 2 else 2)
