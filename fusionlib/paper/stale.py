"""Which code a chapter runs: what its cells reach, by name, so that an edit re-renders the chapters it touches.

This never names a result. It only tells, on one machine, whether a notebook is to be run again.
"""

import re
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

PACKAGE = "fusionlib"
IMPORT = re.compile(r"^from fusionlib\S* import (?:\([^)]*\)|.*)$", re.MULTILINE)
TOP_LEVEL_AWAIT = 0x2000  # flag of `compile`: cells may await
BOUNDARY = ("scores", "tuned")  # what lies behind is named by its versions


def reached(script: str) -> dict[str, Any]:
    """The functions, classes and constants of this package that the cells of a chapter reach, each with its bytecode or
    value."""
    namespace: dict[str, Any] = {}
    exec("\n".join(IMPORT.findall(script)), namespace)
    code: dict[str, Any] = {}
    _follow(compile(script, "chapter", "exec", flags=TOP_LEVEL_AWAIT), namespace, code)
    return code


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _bytecode(code: CodeType) -> list[Any]:
    """What a function does, wherever it stands in its file."""
    parts = [_bytecode(c) if isinstance(c, CodeType) else _text(c) for c in code.co_consts]
    return [code.co_code.hex(), code.co_names, code.co_varnames, parts]


def _follow(code: CodeType, namespace: dict[str, Any], seen: dict[str, Any]) -> None:
    """What the names in `code` stand for, in its module or, after a dot, in any module that it names."""
    names = list(dict.fromkeys(_names(code)))
    values = [(f"{namespace.get('__name__')}.{name}", namespace[name]) for name in names if name in namespace]
    for where, value in values:
        if not isinstance(value, ModuleType):
            _visit(where, value, seen)
        elif value.__name__.startswith(PACKAGE):
            values += [
                (f"{value.__name__}.{name}", getattr(value, name))
                for name in names
                if hasattr(value, name) and name not in namespace
            ]


def _visit(where: str, value: Any, seen: dict[str, Any]) -> None:
    while isinstance(value, partial) or hasattr(value, "__wrapped__"):
        if isinstance(value, partial):
            _visit(where, [*value.args, value.keywords], seen)
        value = value.func if isinstance(value, partial) else value.__wrapped__
    if isinstance(value, FunctionType | type):
        name = f"{value.__module__}.{value.__qualname__}"
        if not value.__module__.startswith(PACKAGE) or name in seen or value.__name__ in BOUNDARY:
            return
        if isinstance(value, FunctionType):
            seen[name] = _bytecode(value.__code__)
            _follow(value.__code__, value.__globals__, seen)
            for part in [*(value.__defaults__ or ()), *(cell.cell_contents for cell in value.__closure__ or ())]:
                _visit(name, part, seen)
            return
        seen[name] = [base.__qualname__ for base in value.__mro__]
        for member in [*vars(value).values(), *value.__bases__]:
            _visit(name, getattr(member, "fget", None) or getattr(member, "__func__", member), seen)
    elif isinstance(value, dict | list | tuple | set | frozenset):
        for part in value.values() if isinstance(value, dict) else value:
            _visit(where, part, seen)
        if where.startswith(PACKAGE):
            seen.setdefault(where, _text(value))
    elif isinstance(value, str | int | float | bool | None) and where.startswith(PACKAGE):
        seen.setdefault(where, _text(value))


def _text(value: Any) -> str:
    """A constant in words: sets in order, and without the addresses of what it holds."""
    text = repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
