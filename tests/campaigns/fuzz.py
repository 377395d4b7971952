"""Mutated inputs: `python tests/campaigns/fuzz.py [count] [seed]`, 500 by default.

Each is one of: UVFITS (bytes, or its tables), CSV, images (.npy, .npz, .fits, bytes or contents), parameters of a run,
weights (.safetensors), priors that return rubbish. It must end in a result that is finite or in a ValueError of one
line that names the file, argument or prior; never in another exception, a NaN picture, or a hang (20 s).
"""

import math
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusionlib import FusedPrior, Interferometer, PriorBank, Uncalibrated, black_holes, hqs, schedule
from fusionlib.gates import average
from fusionlib.interferometer import eht2017_table, read_observation
from fusionlib.paper import run
from fusionlib.priors import Function, Identity, networks, zoo
from fusionlib.sky import from_folder

WORDS = ["nan", "inf", "-inf", "", "1e400", "1e308", "1e-320", "-1", "0", "abc", "1+2i", "é", "\x00", "NA", "#", "1;2"]
NAMED = ("a.", "mine", "parameter", "priors", "profile", "-p", "bank")  # and the folder


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, lost, doubled, or the end cut off."""
    b = bytearray(data)
    for _ in range(chance.choice((1, 3, 30, 300))):
        at = chance.randrange(max(1, len(b)))
        match chance.randrange(4):
            case 0:
                b[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del b[at : at + chance.choice((1, 8, 2880))]
            case 2:
                b[at:at] = b[at : at + chance.choice((1, 8, 2880))]
            case _:
                b[at : at + 4] = np.float32(chance.choice((np.nan, np.inf, 1e38, -1e-40, 0))).tobytes()
    return bytes(b[: chance.randrange(len(b)) if chance.random() < 0.1 and b else len(b)])


def image_of(path: Path) -> Any:
    return from_folder(path.parent).image


def seen(path: Path) -> Any:
    """An observation, imaged."""
    table = read_observation(path)
    plain = Interferometer.from_table(table, min_baseline=1e8, window=60)
    if "vis" not in table:
        return plain.singular
    image = hqs(plain.data, plain, Identity(), sigmas=schedule(0.2, 0.1, 2), lam=0.1).image
    if not {"scan", "t1", "t2"} <= set(table):
        return image
    array = Uncalibrated(plain, window=60)
    y = array.measure(torch.tensor(plain.table.vis.to_numpy(complex))[None], torch.tensor([0.6]))
    return torch.cat([image, hqs(y, array, Identity(), sigmas=schedule(0.2, 0.1, 2), lam=0.1).image])


def csv(folder: Path, chance: random.Random) -> Callable[[], Any]:
    table = eht2017_table().query("scan in [15, 16, 17]").assign(vis=0.5 + 0.1j).astype(object)
    for _ in range(chance.choice((0, 1, 5, 50))):
        table.iloc[chance.randrange(len(table)), chance.randrange(table.shape[1])] = chance.choice(WORDS)
    if chance.random() < 0.3:
        table = table.drop(columns=chance.choice(list(table)))
    path = folder / "a.csv"
    data = table.to_csv(index=False).encode()
    path.write_bytes(flipped(data, chance) if chance.random() < 0.5 else data)
    return lambda: seen(path)


def uvfits(folder: Path, chance: random.Random, good: Path) -> Callable[[], Any]:
    from astropy.io import fits

    path = folder / "a.uvfits"
    if chance.random() < 0.5:
        path.write_bytes(flipped(good.read_bytes(), chance))
        return lambda: seen(path)
    with fits.open(good, memmap=False) as file:
        groups = file[0].data
        name = chance.choice([*groups.parnames, "DATA"])
        values = groups["DATA"] if name == "DATA" else groups.par(name)
        part = values.reshape(-1)
        for _ in range(chance.choice((1, 20, 500))):
            part[chance.randrange(len(part))] = chance.choice((np.nan, np.inf, 0, -1, 1e30, 256))
        if chance.random() < 0.3:
            file[0].header.pop(chance.choice([k for k in file[0].header if k and k not in ("SIMPLE", "BITPIX")]), None)
        file.writeto(path, output_verify="ignore")
    return lambda: seen(path)


def picture(folder: Path, chance: random.Random) -> Callable[[], Any]:
    from astropy.io import fits

    image = np.random.default_rng(chance.randrange(10**6)).random(
        chance.choice(((64, 64), (3, 32, 32), (64, 63), (4, 1, 32, 32), (8,), (0, 0), (200, 200)))
    )
    image = image * chance.choice((1, 1e40, 1e-42, -1, 0, np.nan, 1e300))
    image = image.astype(chance.choice((np.float64, np.float32, np.float16, complex, np.int8, ">f8")))
    kind = chance.choice((".npy", ".npz", ".fits", ".FITS", ".fits.gz"))
    path = folder / f"a{kind}"
    if kind == ".npy":
        np.save(path, image)
    elif kind == ".npz":
        np.savez(path, **chance.choice(({"x": image}, {}, {"x": "words"})))
    else:
        hdu = fits.PrimaryHDU(image.real.astype(np.float64))
        for key in chance.sample(("CDELT1", "CDELT2", "CROTA2", "CRVAL3", "CDELT3", "CD1_1", "CD1_2"), 3):
            hdu.header[key] = chance.choice((1e-9, -1e-9, 7e-10, 0.0, 1e9, -1.0))
        for key in chance.sample(("CTYPE1", "CTYPE3", "CTYPE4", "BUNIT", "CUNIT1"), 2):
            hdu.header[key] = chance.choice(("STOKES", "FREQ", "JY/PIXEL", "deg", "rad", "furlong", ""))
        hdu.writeto(path)
    if chance.random() < 0.5:
        path.write_bytes(flipped(path.read_bytes(), chance))
    return lambda: image_of(path)


def parameter(folder: Path, chance: random.Random) -> Callable[[], Any]:
    word = "".join(chance.choice("[]{}:,#'\"&*!|>%@`ab1 -?\t\\/") for _ in range(chance.randrange(12)))
    name = chance.choice(("sky", "observation", "priors", "train", "flux", "profile", "", "nothing"))
    given = f"{name}={chance.choice((word, '[' + word + ']', '3', 'null', '[tv,tv]', '[identity]'))}"

    def read() -> Any:
        parameters = run.read_parameters([given])
        zoo.available(parameters.get("priors", ("identity",)))
        return torch.zeros(1)

    return read


def weights(folder: Path, chance: random.Random) -> Callable[[], Any]:
    path = folder / "torus.safetensors"
    path.write_bytes(flipped((networks.WEIGHTS / "local_torus.safetensors").read_bytes(), chance))
    (folder / "mine.py").write_text(
        "from fusionlib.priors.networks import NETWORKS\nfrom safetensors.torch import load_file\n"
        f"def prior():\n    net = NETWORKS['local_torus']()\n    net.load_state_dict("
        f"{{k: v.float() for k, v in load_file({str(path)!r}).items()}})\n    return net\n"
    )
    return lambda: looped(zoo.load(f"{folder / 'mine.py'}:prior"))


SCENE = black_holes(2, 3)
ARRAY = Interferometer.eht2017(0.1, window=60)
CLOSURES = Uncalibrated(Interferometer.eht2017(0.1), window=60)
DATA = ARRAY.observe(SCENE.fine, 0)
CLOSURE_DATA = CLOSURES.observe(SCENE.fine, 0)


def looped(prior: torch.nn.Module) -> Any:
    fused = FusedPrior(PriorBank({"identity": Identity(), "mine": prior}), average(2))
    options = {"sigmas": schedule(0.2, 0.1, 3), "lam": 0.1}
    first = hqs(DATA, ARRAY, fused, **options).image
    return torch.cat([first, hqs(CLOSURE_DATA, CLOSURES, prior, **options).image])


RUBBISH: list[Callable[[torch.Tensor, torch.Tensor], Any]] = [
    lambda x, s: x * math.nan,
    lambda x, s: x / 0,
    lambda x, s: 0 * x,
    lambda x, s: -x,
    lambda x, s: 1e30 * x,
    lambda x, s: x.clamp_(0, 0.1),
    lambda x, s: x.resize_(1, 1, 8, 8),
    lambda x, s: x.mean(),
    lambda x, s: [x],
    lambda x, s: None,
    lambda x, s: x.double(),
    lambda x, s: x.int(),
    lambda x, s: x.numpy(),
    lambda x, s: x.requires_grad_() * 1,
    lambda x, s: x.repeat(2, 1, 1, 1),
    lambda x, s: x.transpose(2, 3),
    lambda x, s: torch.where(s.view(-1, 1, 1, 1) < 0.15, x * math.inf, x),
    lambda x, s: x.to_sparse(),
    lambda x, s: x + torch.randn_like(x),
    lambda x, s: 1 // 0,
    lambda x, s: x.relu_().set_(),
    lambda x, s: x[..., :32],
]


def prior(folder: Path, chance: random.Random) -> Callable[[], Any]:
    rubbish = chance.choice(RUBBISH)
    return lambda: looped(Function(rubbish))


def outcome(work: Callable[[], Any]) -> tuple[str, str]:
    """`result`, `error` or `fault`, and what was said."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    try:
        image = work()
        return ("result", "") if bool(torch.isfinite(image).all()) else ("fault", "not finite")
    except ValueError as error:
        return ("error", str(error)) if "\n" not in str(error) else ("fault", f"not one line: {error}")
    except Exception as error:
        return "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def main(count: int = 500, seed: int = 0) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kinds: list[Callable[..., Callable[[], Any]]] = [csv, picture, parameter, weights, prior]
    with tempfile.TemporaryDirectory() as place:
        good = Path(place) / "good.uvfits"
        try:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from test_reports import integrations, write_uvfits

            write_uvfits(good, integrations(2))
            kinds.append(lambda folder, chance: uvfits(folder, chance, good))
        except ImportError:
            print("ehtim is not installed: no UVFITS")
        told: Counter[tuple[str, str]] = Counter()
        faults = 0
        for k in range(count):
            chance, kind = random.Random(f"{seed} {k}"), kinds[k % len(kinds)]
            folder = Path(place) / str(k)
            folder.mkdir()
            what, said = outcome(kind(folder, chance))
            name = getattr(kind, "__name__", "").replace("<lambda>", "uvfits")
            named = any(word in said for word in (str(folder), *NAMED))
            if what == "error" and not named and name != "prior":
                what, said = "fault", f"names nothing: {said}"
            told[name, what] += 1
            if what == "fault":
                faults += 1
                print(f"{k} {name}: {said}", flush=True)
    for (name, what), n in sorted(told.items()):
        print(f"{name:10s} {what:7s} {n}")
    print(f"{count} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
