"""Seconds from a slider to the reconstruction, and to all plots beside it, over 20 moves at the settings the explorer
starts with."""

import statistics
import time

from fusionlib.explorer.widget import Explorer

page = Explorer()
page.wait()
shown, whole = [], []
page.pictures["reconstruction"].observe(lambda _: shown.append(time.perf_counter() - began), "value")
for k in range(20):
    name, values = (("inclination", range(20, 60, 2)), ("noise", (1.0, 1.5, 2.0, 3.0)))[k % 2]
    began = time.perf_counter()
    page.controls[name].value = float(values[k % len(values)] + k / 100)
    page.wait()
    whole.append(time.perf_counter() - began)
assert len(shown) == len(whole)
for what, seconds in (("picture", shown), ("all plots", whole)):
    print(f"{what}: median {statistics.median(seconds):.2f} s, greatest {max(seconds):.2f} s")
