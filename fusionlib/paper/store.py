"""Records: what was computed, named by what it is, and found again.

A record is a dict of arrays, its name a digest of what was asked for and of declared versions, never of source. Those
computed here lie in `build/scores`, a file each. Those that ship lie in `figures/scores`, packed:

- `index.csv`: a line per record: what was asked for, versions, settings, single values, and what computed it;
- `scores/<kind>.parquet`: a line per image and list of scans;
- `fits/<family>.safetensors`, `other/<family>.safetensors`: all other arrays, named `<record>/<array>`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from fusionlib import files
from fusionlib.paper.manifest import git_state

Record = dict[str, np.ndarray]
Facts = dict[str, Any]  # of a record: `asked` (readable fields), `versions`, `commit`, `dirty`
FIT = "fit_"  # arrays that a method has learned
SETTING = "set_"
TEXT = ":text"  # an array of words, as bytes
ASKED = ("method", "priors", "coverage", "regime", "n_train", "n_test", "split", "seed")
SAID = (
    "more",
    "versions",
    "settings",
    "values",
    "scores",
    "mean_psnr",
    "seconds",
    "device",
    "torch",
    "commit",
    "dirty",
)
COLUMNS = ("record", *ASKED, *SAID)

SHOWN = {"seconds": float, "device": str, "torch": str}  # single values with a column of their own


def here(key: str) -> Path:
    """Where a record lies that was computed here."""
    return files.home() / "build" / "scores" / f"{key}.safetensors"


def packed() -> Path:
    """The folder of the records that ship."""
    return files.home() / "figures" / "scores"


def has(key: str) -> bool:
    return here(key).exists() or key in index()


def load(key: str) -> Record:
    """A record that is stored."""
    return read(here(key))[0] if here(key).exists() else unpacked(key)


def stored(key: str, compute: Callable[[], Record], facts: Callable[[], Facts]) -> Record:
    """The record `key`, from a store if it is there, else computed and stored with its `facts`."""
    if has(key):
        return load(key)
    record = compute()
    files.folder("build", "scores")
    write(here(key), record, facts() | git_state())
    return record


def write(path: Path, record: Record, facts: Facts) -> None:
    """One record as a file: arrays as tensors, single values and facts as JSON in its header."""
    arrays = {k: v for k, v in record.items() if np.ndim(v)}
    values = {k: v.item() for k, v in record.items() if not np.ndim(v)}
    header = {"values": json.dumps(values), "facts": json.dumps(facts)}
    with files.replacing(path) as aside:
        save_file(dict(map(_as_numbers, arrays.items())), aside, header)


def read(path: Path) -> tuple[Record, Facts]:
    """A record computed here, and its facts. Raises ValueError where the file is broken."""
    try:
        with safe_open(path, "np") as file:
            header = file.metadata()
            arrays = dict(_as_words(name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            values = {k: np.array(v) for k, v in json.loads(header["values"]).items()}
            return values | arrays, json.loads(header["facts"])
    except Exception as error:
        raise ValueError(f"record {path} is broken ({error}); delete it, it is computed anew") from None


def _as_numbers(item: tuple[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Words as bytes, one row each, all else as it is: safetensors hold numbers."""
    name, v = item
    if v.dtype.kind not in "UO":
        return name, np.ascontiguousarray(v)
    words = np.char.encode(v.astype(str), "utf-8")
    return name + TEXT, np.frombuffer(words.tobytes(), np.uint8).reshape(*v.shape, words.itemsize)


def _as_words(name: str, v: np.ndarray) -> tuple[str, np.ndarray]:
    if not name.endswith(TEXT):
        return name, v
    words = np.ascontiguousarray(v).view(f"S{v.shape[-1]}")[..., 0]
    return name.removesuffix(TEXT), np.char.decode(words, "utf-8")


# --- packed ---


def index() -> dict[str, dict[str, Any]]:
    """The lines of the packed index, by record."""
    path = packed() / "index.csv"
    return _index(path, path.stat().st_mtime_ns) if path.exists() else {}


@lru_cache(2)
def _index(path: Path, when: int) -> dict[str, dict[str, Any]]:
    with _naming(path):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["record"], table.to_dict("records"), strict=True))  # type: ignore[arg-type]


def unpacked(key: str) -> Record:
    """A record of the packed store. Raises ValueError, naming the file, where one of it is broken."""
    line = index()[key]
    record = {k: np.array(v) for k, v in json.loads(line["values"]).items()}
    record |= {k: np.array(make(line[k])) for k, make in SHOWN.items() if line[k]}
    record |= {SETTING + k: np.array(v) for k, v in json.loads(line["settings"]).items()}
    if line["scores"]:
        path = scores_file(line, record)
        with _naming(path):
            table, rows = _table(path, path.stat().st_mtime_ns)
            part = table.slice(*rows[key])
            shape = (part["list"][-1].as_py() + 1, part["image"][-1].as_py() + 1)
            record |= {name: part[name].to_numpy().reshape(shape) for name in line["scores"].split()}
    path = arrays_file(line)
    if path.exists():
        with _naming(path):
            file = _open(path, path.stat().st_mtime_ns)
            for name in _names(path, path.stat().st_mtime_ns).get(key, ()):
                name, value = _as_words(name, file.get_tensor(f"{key}/{name}"))
                record[name] = value
    return record


def scores_file(line: dict[str, Any], record: Record) -> Path:
    """Where the scores per image of a record are packed: by kind of method."""
    return packed() / "scores" / f"{record['kind']}.parquet"


def arrays_file(line: dict[str, Any]) -> Path:
    """Where its other arrays are packed: by the first word of its method."""
    family = line["method"].partition(":")[0].partition("_")[0]
    return packed() / ("fits" if line["n_train"] else "other") / f"{family}.safetensors"


@lru_cache(32)
def _table(path: Path, when: int) -> tuple[Any, dict[str, tuple[int, int]]]:
    """A table of scores, and by record where its rows start and how many there are."""
    from pyarrow import parquet  # only those who read scores need it

    table = parquet.read_table(path)
    names = table["record"].to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    counts = np.diff(np.r_[starts, len(names)])
    return table, {str(names[s]): (int(s), int(n)) for s, n in zip(starts, counts, strict=True)}


@lru_cache(64)
def _open(path: Path, when: int) -> Any:
    return safe_open(path, "np")


@lru_cache(64)
def _names(path: Path, when: int) -> dict[str, list[str]]:
    arrays: dict[str, list[str]] = {}
    for name in _open(path, when).keys():  # noqa: SIM118
        key, _, array = name.partition("/")
        arrays.setdefault(key, []).append(array)
    return arrays


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"packed records {path} cannot be read ({error}); `git checkout {path.parent}` brings them back, or delete "
            f"{packed()}: what is missing is computed anew"
        ) from None


def pack(add: Iterable[str], drop: Iterable[str] = ()) -> tuple[int, int]:
    """Pack records that were computed here into figures/scores, and drop some. Returns how many came and went.

    Killed at any time it loses nothing: a line of the index leaves before its arrays do and comes after them, files
    change by renaming, and `build/scores` is only read.
    """
    old = index()
    lines = {key: line for key, line in old.items() if key not in set(drop)}
    new: dict[str, Record] = {}
    for key in add:
        new[key], facts = read(here(key))
        lines[key] = _line(key, new[key], facts)
    if len(lines) < len(old | new):
        _write_index({key: line for key, line in old.items() if key in lines})
    arrays: dict[Path, Record] = {}
    scores: dict[Path, dict[str, Record]] = {}
    for key in sorted(lines):
        record, line = new.get(key) or unpacked(key), lines[key]
        names = line["scores"].split()
        if names:
            scores.setdefault(scores_file(line, record), {})[key] = {name: record[name] for name in names}
        for name, v in record.items():
            if np.ndim(v) and name not in names:
                arrays.setdefault(arrays_file(line), {})[f"{key}/{name}"] = v
    for path, records in scores.items():
        _write_scores(path, records)
    for path, some in arrays.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as aside:
            save_file(dict(map(_as_numbers, some.items())), aside)
    _write_index(lines)
    for path in [*packed().glob("*/*"), *packed().glob(".*")]:  # what a killed run left, too
        if path not in {*scores, *arrays}:
            path.unlink()
    return len(set(lines) - set(old)), len(set(old) - set(lines))


def _line(key: str, record: Record, facts: Facts) -> dict[str, Any]:
    """A record's line of the index; what was asked for and has no column of its own is in `more`."""
    asked = dict(facts["asked"])
    line = {name: asked.pop(name, "") for name in ASKED}
    values = {k: v.item() for k, v in record.items() if not np.ndim(v)}
    settings = {k.removeprefix(SETTING): values.pop(k) for k in list(values) if k.startswith(SETTING)}
    shown = {name: values.pop(name) for name in SHOWN if name in values}
    scores = [name for name, v in record.items() if "psnr" in record and np.shape(v) == np.shape(record["psnr"])]
    scores = sorted(scores) if np.ndim(record.get("psnr", 0)) else []
    line |= {"priors": "+".join(line["priors"])} if line["priors"] else {}
    line |= {"record": key, "more": _json(asked), "versions": _json(facts["versions"])}
    line |= {"settings": json.dumps(settings), "values": _json(values), "scores": " ".join(scores)} | shown
    line |= {"mean_psnr": f"{record['psnr'].mean():.4f}"} if scores else {}
    line |= {name: facts.get(name, "") for name in ("commit", "dirty")}
    return {name: str(line.get(name, "")) for name in COLUMNS}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if value else "{}"


def _write_index(lines: dict[str, dict[str, Any]]) -> None:
    packed().mkdir(parents=True, exist_ok=True)
    with files.replacing(packed() / "index.csv") as aside:
        pd.DataFrame([lines[key] for key in sorted(lines)], columns=list(COLUMNS)).to_csv(aside, index=False)


def _write_scores(path: Path, records: dict[str, Record]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = sorted({name for record in records.values() for name in record})
    columns: dict[str, list[Any]] = {name: [] for name in ("record", "list", "image", *names)}
    for key, record in records.items():
        lists, images = record["psnr"].shape
        n = lists * images
        columns["record"].append(np.full(n, key))
        columns["list"].append(np.repeat(np.arange(lists, dtype=np.uint8), images))
        columns["image"].append(np.tile(np.arange(images, dtype=np.uint16), lists))
        for name in names:
            columns[name].append(pa.array(record[name].ravel()) if name in record else pa.nulls(n))
    arrays = {
        name: pa.concat_arrays(_alike(parts)) if name in names else pa.array(np.concatenate(parts))
        for name, parts in columns.items()
    }
    floats = [name for name, v in arrays.items() if pa.types.is_floating(v.type)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as aside:
        parquet.write_table(
            pa.table(arrays), aside, compression="zstd", use_dictionary=["record"], use_byte_stream_split=floats
        )


def _alike(parts: list[Any]) -> list[Any]:
    """Missing scores take the type of those that are there."""
    kind = next(part.type for part in parts if str(part.type) != "null")
    return [part.cast(kind) for part in parts]
