"""Is everything there? `python -m fusionlib.paper.check_env` prints a line per requirement; exits 1 if one fails."""

import importlib.metadata
import os
import re
import shutil
import sys

import torch
from jupyter_client.kernelspec import KernelSpecManager

from fusionlib import files
from fusionlib.priors import zoo


def checks() -> list[tuple[bool, str]]:
    """(fine, what was found) for Python, pinned packages, kernel, build folder, disk, priors, device."""
    results = [(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 is the reference)")]
    pins = files.source("constraints.txt")
    wanted = dict(re.findall(r"^([\w.-]+)==(\S+)$", pins.read_text() if pins.exists() else "", re.MULTILINE))
    needed = {
        re.split(r"[<>=\[; ]", r)[0] for r in importlib.metadata.requires("fusionlib") or [] if "extra ==" not in r
    }
    for name in sorted(needed, key=str.lower):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            results.append((False, f"{name} is not installed"))
            continue
        pin = next((v for k, v in wanted.items() if k.lower() == name.lower()), "")
        note = f" (reference run: {pin})" if pin and version.split("+")[0] != pin else ""
        results.append((True, f"{name} {version}{note}"))
    results.append(("python3" in KernelSpecManager().find_kernel_specs(), "Jupyter kernel python3"))
    try:
        free = shutil.disk_usage(files.folder("build")).free / 2**30
        results.append((free > 1, f"build folder writable, {free:.0f} GiB free"))
    except ValueError as error:
        results.append((False, str(error)))
    _, lacking = zoo.available(zoo.PRIORS)
    results += [
        (name not in lacking, f"prior {name}" + f": {lacking.get(name)}" * (name in lacking)) for name in zoo.PRIORS
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: the CPU is used"
    return [*results, (True, f"GPU: {device}; {os.cpu_count()} cores")]


if __name__ == "__main__":
    results = checks()
    for fine, text in results:
        print(f"[{'OK' if fine else 'FAIL'}] {text}")
    sys.exit(not all(fine for fine, _ in results))
