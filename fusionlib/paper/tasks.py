"""What chapters compute beside scores: recorded functions, whose results are records named by their arguments."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import update_wrapper
from inspect import signature
from typing import Any, Self

import numpy as np
import pandas as pd

from fusionlib import files
from fusionlib.paper.spec import Spec, content
from fusionlib.paper.store import Record, stored

Result = pd.DataFrame | dict[str, Any]  # a table, or arrays and tables by name
RECORDED: dict[str, "Recorded"] = {}
FILES = ("sky", "observation")  # arguments that are paths: named by what the files hold


@dataclass(frozen=True)
class Task:
    """A call of a recorded function: its name, and its arguments by name."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    @property
    def specs(self) -> list[Spec]:
        """The experiments among the arguments."""
        given = [v for _, value in self.arguments for v in (value if isinstance(value, tuple) else (value,))]
        return [v for v in given if isinstance(v, Spec)]

    def asked(self) -> dict[str, Any]:
        """The arguments, for JSON; experiments as the names of their records."""
        plain = {k: content(v) if k in FILES else _plain(v, lambda s: s.key) for k, v in self.arguments}
        return {"method": self.name, **plain}

    def versions(self) -> dict[str, Any]:
        return {"pipeline": files.PIPELINE, "function": RECORDED[self.name].version}

    @property
    def key(self) -> str:
        """Name of the record."""
        return files.digest([self.asked(), self.versions()])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: a job of the graph."""
        return {"task": self.name, **{k: _plain(v, lambda s: {"spec": asdict(s)}) for k, v in self.arguments}}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Self:
        """Raises ValueError for a function that is not recorded."""
        name, *_ = (given.pop("task"),)
        if name not in RECORDED:
            raise ValueError(f"task: {name!r} is not recorded; there are {sorted(RECORDED)}")
        return cls(name, tuple((k, _arguments(v)) for k, v in given.items()))

    def result(self) -> Result:
        """From a store, else computed and stored."""
        facts = lambda: {"asked": self.asked(), "versions": self.versions()}  # noqa: E731
        return _from_record(stored(self.key, self._record, facts))

    def _record(self) -> Record:
        began = time.perf_counter()
        record = _to_record(RECORDED[self.name].function(**dict(self.arguments)))
        return record | {"job_seconds": np.array(time.perf_counter() - began)}


class Recorded:
    """A function of experiments, numbers and words, called as before; what it gives is a record."""

    def __init__(self, function: Callable[..., Any], version: int):
        self.function, self.version = function, version
        update_wrapper(self, function)
        RECORDED[function.__name__] = self

    def task(self, *args: Any, **kwargs: Any) -> Task:
        bound = signature(self.function).bind(*args, **kwargs)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in bound.arguments.items()}
        return Task(self.function.__name__, tuple(given.items()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.task(*args, **kwargs).result()


def recorded(version: int = 1) -> Callable[[Callable[..., Any]], Recorded]:
    """Makes a function's results records. Raise `version` when what it computes changes."""
    return lambda function: Recorded(function, version)


def _plain(value: Any, of_spec: Callable[[Spec], Any]) -> Any:
    if isinstance(value, tuple):
        return [_plain(v, of_spec) for v in value]
    return of_spec(value) if isinstance(value, Spec) else value


def _arguments(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_arguments, value))
    return Spec.from_dict(value["spec"]) if isinstance(value, dict) else value


def _to_record(result: Result) -> Record:
    """Arrays as they are; a table as its columns, after a dot, and their order."""
    record: Record = {}
    for name, value in (result if isinstance(result, dict) else {"": result}).items():
        if isinstance(value, pd.DataFrame):
            record[f"{name}.columns"] = np.array(value.columns, dtype=str)
            record |= {f"{name}.{c}": value[c].to_numpy() for c in value}
        else:
            record[name] = np.asarray(value)
    return record


def _from_record(record: Record) -> Result:
    tables = [name.removesuffix(".columns") for name in record if name.endswith(".columns")]
    frames = {t: pd.DataFrame({c: record[f"{t}.{c}"] for c in record[f"{t}.columns"]}) for t in tables}
    if "" in frames:
        return frames[""]
    plain = {k: v for k, v in record.items() if k != "job_seconds" and k.rpartition(".")[0] not in frames}
    return frames | plain
