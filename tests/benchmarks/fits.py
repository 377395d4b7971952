"""Seconds to fit gates to 100 labelled images along the trajectory, prior calls included.

`python tests/benchmarks/fits.py [n]`, on a machine that does nothing else.
"""

import sys
import time

import torch

from fusionlib.paper import Spec, arrays, observed
from fusionlib.paper.methods import make
from fusionlib.priors import zoo

SETTINGS = {"sigma_max": 0.2, "sigma_min": 0.02, "lam": 0.1}

n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
bank = zoo.BANKS["main"]
spec = Spec("average", bank, 1.0, n, 1, "dev")
array = arrays(spec)[0]
x, y = observed(spec, "train", n, 0, array)
for name, limit in (("closed_form", 300), ("a:image", 900), ("gradient:pixel", 900), ("b:image", 900)):
    method = make(name, bank, 16, x.device)
    began = time.perf_counter()
    assert method.fit is not None
    method.fit(SETTINGS, [(array, x, y)])
    seconds = time.perf_counter() - began
    threads = torch.get_num_threads()
    print(f"{name:16s} n = {n}: {seconds:6.1f} s with {threads} threads (limit {limit})", flush=True)
