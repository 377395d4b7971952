"""What a run was made with."""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fusionlib import files
from fusionlib.priors import zoo

CODE = ("fusionlib", "notebooks/*.py")
PACKAGES = ("fusionlib", "torch", "numpy", "scipy", "pandas", "matplotlib", "torchmetrics", "papermill", "snakemake")


def output(profile: str) -> Path:
    """The folder of a profile's figures, tables and notebooks: `build/<profile>`."""
    return files.folder("build", profile)


def git_state() -> dict[str, Any]:
    """Commit, and whether library or chapters differ from it; empty outside a git checkout."""

    def git(*args: str) -> str | None:
        run = subprocess.run(["git", "-C", str(files.PACKAGE.parent), *args], capture_output=True, text=True)
        return run.stdout.strip() if run.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        return (
            {}
            if commit is None
            else {"commit": commit, "dirty": bool(git("status", "--porcelain", "-uno", "--", *CODE))}
        )
    except FileNotFoundError:
        return {}


def provenance(**facts: Any) -> dict[str, Any]:
    """Facts of this run: versions, device, git state, weights in use, and whatever is given."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    weights = files.home() / "build" / "cache" / "weights"
    return {
        **facts,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": device,
        "processor": f"{torch.cpu.get_capabilities().get('cpu_name', 'unknown')}, {os.cpu_count()} cores",
        "bfloat16": zoo.native_bfloat16(),
        "date": datetime.now(UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "weights": {p.name: files.sha256(p)[:16] for p in sorted(weights.glob("*"))},
        **git_state(),
    }


def show(facts: dict[str, Any]) -> pd.DataFrame:
    """`facts` as a table of two columns, for the last cell of a chapter."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return pd.DataFrame({"value": {k: str(v) for k, v in flat.items()}})


def write(path: Path, facts: dict[str, Any]) -> None:
    with files.replacing(path) as aside:
        aside.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
