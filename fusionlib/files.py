"""Where files live, how they are written, and what they depend on.

Everything computed goes under `build/` of the project (or of the folder named by `FUSIONLIB_HOME`). Writing is aside,
then rename: a reader sees a whole file or none. A result is named by a hash of what it was asked for and of the code
that computes it, comments and docstrings aside.
"""

import ast
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def home() -> Path:
    """The project folder: `FUSIONLIB_HOME`, else the checkout this package lies in, else the working folder."""
    if env := os.environ.get("FUSIONLIB_HOME"):
        return Path(env)
    return PACKAGE.parent if (PACKAGE.parent / "notebooks").is_dir() else Path.cwd()


def source(*parts: str) -> Path:
    """A file of the project that is read, not made: in `home()`, else in the checkout this package lies in."""
    path = home().joinpath(*parts)
    return path if path.exists() else PACKAGE.parent.joinpath(*parts)


def folder(*parts: str) -> Path:
    """`home()/parts`, made if missing. Raises ValueError where it cannot be written."""
    path = home().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"folder {path} cannot be written ({error.strerror}); "
            "make it writable or point FUSIONLIB_HOME to a folder that is"
        ) from None
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well, removed when it does not."""
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def digest(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of `value` written as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _imports(module: str) -> tuple[str, str, frozenset[str]]:
    """(hash of the code, path, fusionlib modules it imports) of the module `fusionlib.<module>`."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fusionlib":
            base = node.module.split(".")[1:]
            for name in [base, *[[*base, alias.name] for alias in node.names]]:
                stem = PACKAGE.joinpath(*name)
                if name and (stem.is_dir() or stem.with_suffix(".py").exists()):
                    found.add(".".join(name))
    return hashlib.sha256(ast.unparse(_without_docstrings(tree)).encode()).hexdigest(), str(path), frozenset(found)


def code_alone(module: str) -> str:
    """Hash of one module, whatever it imports."""
    return _imports(module)[0]


def function_hash(module: str, name: str) -> str:
    """Hash of one function of a module, whatever it calls."""
    tree = _without_docstrings(ast.parse(Path(_imports(module)[1]).read_text()))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return digest(ast.unparse(found))


@cache
def code_hash(*modules: str) -> str:
    """Hash of fusionlib modules (names without the package), of all they import, and of the packaged tables."""
    todo, seen = list(modules), set()
    while todo:
        if (module := todo.pop()) not in seen:
            seen.add(module)
            todo.extend(_imports(module)[2])
    tables = {p.name: sha256(p) for p in sorted((PACKAGE / "data").glob("*.csv"))}
    return digest([sorted((m, _imports(m)[0]) for m in seen), tables])
