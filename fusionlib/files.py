"""Where files live, and how they are written.

Everything computed goes under `build/` of the project (or of the folder named by `FUSIONLIB_HOME`). Writing is aside,
then rename: a reader sees a whole file or none.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
PIPELINE = 1  # version of what all results rest on: skies, arrays, the packaged tables, the loop, the scores


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
    """Sixteen hex digits of the SHA-256 of `value` as canonical JSON. Raises TypeError for what JSON does not know."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
