"""Tables of baselines: who observed when, where in the (u, v) plane, and with what noise.

A table is a frame with columns `u`, `v` [wavelengths], `sigma` [Jy per real or imaginary part], and where known `scan`,
`t1`, `t2` (stations), `ut` [h], `seconds`, `vis` [complex Jy].
"""

import contextlib
import io
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fusionlib import files

HUGE = 1e15  # what is larger, or a sigma smaller than its inverse, is no measurement
DATA = Path(__file__).parent / "data"
# M87 on 11 April 2017, low band: header of the released file (EHTC 2019-D01-01)
RA_HOURS, DEC_DEG, MJD, FREQUENCY, BANDWIDTH = 12.513728717168174, 12.39112323919932, 57854, 227.070703125e9, 1.856e9
QUANTIZATION = 0.88  # two-bit efficiency
# Scans of at least five stations, spread over the track; three lists each
COVERAGE = {
    1.0: [list(range(22))],
    0.3: [[7, 9, 12, 14, 16, 18, 20], [7, 11, 13, 15, 17, 19, 21], [9, 11, 14, 15, 17, 18, 20]],
    0.1: [[9, 15, 19], [11, 16, 20], [7, 14, 18]],
}


def eht2017_table(declination: float = DEC_DEG) -> pd.DataFrame:
    """All 216 baselines of the packaged schedule: scan, t1, t2, u, v [wavelengths], sigma [Jy], ut [h], seconds.

    u, v from station positions, J2000 direction and IAU 1982 sidereal time; sigma for Stokes I from
    SEFDs S: sqrt(S1 S2 / (2 bandwidth seconds)) / 0.88 / sqrt 2. For a source at another `declination` [deg], of the
    same right ascension, baselines are left out one of whose stations has it below 10 degrees.
    """
    sites = pd.read_csv(DATA / "eht2017_sites.csv").set_index("site")
    windows = pd.read_csv(DATA / "eht2017_april11_scans.csv")
    pairs = windows.merge(windows, on="scan", suffixes=("1", "2"))
    pairs = pairs[pairs.site1 < pairs.site2].reset_index(drop=True)
    start, stop = pairs[["start1", "start2"]].max(axis=1), pairs[["stop1", "stop2"]].min(axis=1)
    ut = (start + stop) / 7200
    xyz = sites[["x", "y", "z"]]
    lx, ly, lz = ((xyz.loc[pairs.site1].to_numpy() - xyz.loc[pairs.site2].to_numpy()) * FREQUENCY / 299792458.0).T
    t = (MJD - 51544.5) / 36525
    gmst = math.radians((24110.54841 + 8640184.812866 * t + 0.093104 * t**2 - 6.2e-6 * t**3) % 86400 / 240)
    hour = gmst + 1.00273790935 * np.radians(ut.to_numpy() * 15) - math.radians(RA_HOURS * 15)
    dec = math.radians(declination)
    sefd = sites.sefd.loc[pairs.site1].to_numpy() * sites.sefd.loc[pairs.site2].to_numpy()
    source = np.stack(
        [math.cos(dec) * np.cos(hour), -math.cos(dec) * np.sin(hour), np.full_like(hour, math.sin(dec))], 1
    )
    up = np.ones(len(pairs), bool)
    for site in (pairs.site1, pairs.site2) if declination != DEC_DEG else ():
        zenith = xyz.loc[site].to_numpy()
        up &= (zenith * source).sum(1) > math.sin(math.radians(10)) * np.linalg.norm(zenith, axis=1)
    table = pd.DataFrame(
        {
            "scan": pairs.scan,
            "t1": pairs.site1,
            "t2": pairs.site2,
            "u": np.sin(hour) * lx + np.cos(hour) * ly,
            "v": math.sin(dec) * (np.sin(hour) * ly - np.cos(hour) * lx) + math.cos(dec) * lz,
            "sigma": np.sqrt(sefd / (2 * BANDWIDTH * (stop - start))) / QUANTIZATION / math.sqrt(2),
            "ut": ut,
            "seconds": stop - start,
        }
    )
    return table[up].reset_index(drop=True)


def eht2017_april10_table() -> pd.DataFrame:
    """The 91 scan-averaged baselines of M87 on 10 April 2017, low band, with the noise of the release (EHTC
    2019-D01-01, public domain): 7 scans; columns as `eht2017_table`."""
    return pd.read_csv(DATA / "eht2017_april10.csv")


def turned_table(table: pd.DataFrame, degrees: float) -> pd.DataFrame:
    """The same array turned on the sky, from north to east."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return table.assign(u=c * table.u + s * table.v, v=c * table.v - s * table.u)


def read_uvfits(path: str | Path, systematic: float = 0.0) -> pd.DataFrame:
    """Scan-averaged table (columns as `eht2017_table`, and `vis` [Jy]) of a UVFITS file, through ehtim.

    Scans are those of the file (AIPS NX), or where it states none, parted by gaps. `attrs` has `source`, `date`,
    `frequency` [Hz], `ra` and `dec` [deg]. Visibilities that are not finite are left out, with a warning. Raises
    ValueError, naming the file, for one that cannot be read or has nothing in it.
    """
    quiet = io.StringIO()  # ehtim reports on stdout
    try:
        with contextlib.redirect_stdout(quiet), warnings.catch_warnings(action="ignore"):
            import ehtim
    except ImportError:
        raise ValueError(
            "reading UVFITS needs ehtim; in the checkout: pip install -e '.[eht]'; or use a CSV table"
        ) from None
    if not Path(path).is_file():
        raise ValueError(f"from_uvfits: there is no file {path}")
    try:
        with (
            contextlib.redirect_stdout(quiet),
            warnings.catch_warnings(action="ignore"),
            _flagged(Path(path)) as flagged,
        ):
            clean, missing, total = flagged
            obs = ehtim.obsdata.load_uvfits(str(clean))
    except Exception as error:
        line = " ".join(str(error).split())
        raise ValueError(f"from_uvfits: {path} is no readable UVFITS ({type(error).__name__}: {line})") from None
    if missing:
        warnings.warn(f"{path}: {missing} of {total} visibilities are not finite and are left out", stacklevel=2)
    if not len(obs.data):
        raise ValueError(f"from_uvfits: {path} has no visibilities")
    data = obs.data
    rows = pd.DataFrame({"t1": data["t1"].astype(str), "t2": data["t2"].astype(str), "u": data["u"], "v": data["v"]})
    rows = rows.assign(sigma=data["sigma"], ut=data["time"], seconds=data["tint"], vis=data["vis"])
    stated = None if obs.scans is None or not len(obs.scans) else np.atleast_2d(np.asarray(obs.scans, float))
    table = average_scans(rows.assign(scan=scans_of(rows.ut, rows.seconds, stated)), systematic)
    table.attrs = {"source": str(obs.source), "date": _date(obs.mjd), "frequency": float(obs.rf)}
    table.attrs |= {"ra": 15 * float(obs.ra), "dec": float(obs.dec)}
    return _checked(table, path)


@contextlib.contextmanager
def _flagged(path: Path) -> Iterator[tuple[Path, int, int]]:
    """The file, or a copy where visibilities that are not finite have no weight; how many those are, and all."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as file, tempfile.TemporaryDirectory() as folder:
        groups = file[0].data
        data = groups["DATA"]
        weighed = data[..., 2] > 0
        weighed[..., 2:] = False  # cross hands do not enter
        wrong = weighed & ~np.isfinite(data).all(-1)
        names = [n for n in groups.parnames if n.upper()[:2] in ("UU", "VV") or n.upper() in ("DATE", "_DATE")]
        lost = ~np.isfinite(np.stack([np.asarray(groups.par(n), float) for n in names])).all(0)
        wrong |= weighed & lost.reshape(-1, *[1] * (wrong.ndim - 1))
        if not wrong.any():
            yield path, 0, int(weighed.sum())
            return
        data[wrong] = 0
        for name in names:
            np.copyto(groups.par(name), 0, where=lost)
        clean = Path(folder) / "flagged.uvfits"
        file.writeto(clean)
        yield clean, int(wrong.sum()), int(weighed.sum())


def scans_of(ut: pd.Series, seconds: pd.Series, stated: np.ndarray | None = None) -> np.ndarray:
    """Number of the scan of each row, from its time [h] and integration [s]: of the `stated` ones (K, 2) [h] if all
    rows lie in them, else parted by gaps of more than 59 s, or of one and a half integrations where these are long.

    A single stated scan with more than ten minutes of nothing inside is none: some programs write that for a file whose
    scans they do not know.
    """
    time = ut.to_numpy(float)
    order = np.unique(time)
    pause = np.diff(order)
    if stated is not None and not (len(stated) == 1 and len(order) > 1 and pause.max() > 1 / 6):
        stated, margin = stated[np.argsort(stated[:, 0])], seconds.to_numpy(float) / 7200 + 1 / 3600
        scan = np.searchsorted(stated[:, 0], time + margin, side="right") - 1
        if (scan >= 0).all() and (time - margin <= stated[scan, 1]).all():
            return scan
        warnings.warn("rows lie outside the scans that the file states; scans are parted by gaps", stacklevel=3)
    gap = max(0.0165, 1.5 * float(seconds.median()) / 3600)
    return np.searchsorted(order[np.r_[False, pause > gap]], time, side="right")


def average_scans(rows: pd.DataFrame, systematic: float = 0.0) -> pd.DataFrame:
    """One row for each baseline of each `scan`: the mean visibility and (u, v), sigma of that mean, the first time, the
    sum of the integrations; `systematic` x |V| is added to sigma in quadrature. Rows may name a pair either way."""
    turned = (rows.t1 > rows.t2).to_numpy()
    rows = rows.assign(
        t1=np.where(turned, rows.t2, rows.t1),
        t2=np.where(turned, rows.t1, rows.t2),
        u=np.where(turned, -rows.u, rows.u),
        v=np.where(turned, -rows.v, rows.v),
        vis=np.where(turned, np.conj(rows.vis), rows.vis),
        variance=rows.sigma**2,
        n=1,
    )
    how = {"u": "mean", "v": "mean", "variance": "sum", "n": "sum", "ut": "min", "seconds": "sum"}
    parts = rows.assign(re=np.real(rows.vis), im=np.imag(rows.vis)).groupby(["scan", "t1", "t2"], sort=True)
    table = parts.agg({**how, "re": "mean", "im": "mean"}).reset_index()
    vis = table.re.to_numpy() + 1j * table.im.to_numpy()
    sigma = np.hypot(np.sqrt(table.variance) / table.n, systematic * np.abs(vis))
    return table[["scan", "t1", "t2", "u", "v"]].assign(sigma=sigma, ut=table.ut, seconds=table.seconds, vis=vis)


def _date(mjd: float) -> str:
    return str(np.datetime64("1858-11-17") + np.timedelta64(int(mjd), "D"))


M87_FLUX = 0.6  # Jy in the compact source; the short baselines see 1.2 with the jet (EHTC 2019 Paper IV)


def compact_flux(table: pd.DataFrame) -> tuple[float, str]:
    """The flux [Jy] to take for the source of a table with `t1`, `t2`, `vis`, and why.

    Of M87 what the EHT's analyses take; otherwise the mean amplitude between ALMA and APEX, or of the shortest
    baselines: an upper bound where there is flux on larger scales.
    """
    if table.attrs.get("source", "").upper() == "M87":
        return M87_FLUX, "of EHTC 2019 Paper IV"
    length = np.hypot(table.u.to_numpy(), table.v.to_numpy())
    pair = np.array([{a, b} == {"AA", "AP"} for a, b in zip(table.t1, table.t2, strict=True)])
    word = "the ALMA-APEX amplitude" if pair.any() else f"the amplitude at {length.min() / 1e9:.2g} Gλ, the shortest"
    chosen = pair if pair.any() else length <= 1.1 * length.min()
    amplitude, weight = np.abs(table.vis.to_numpy()[chosen]), 1 / table.sigma.to_numpy()[chosen] ** 2
    return float((amplitude * weight).sum() / weight.sum()), word


RELEASED = "SR1_M87_2017_101_lo_hops_netcal_StokesI.uvfits"  # M87 on 11 April 2017, low band


def released_data() -> list[Path]:
    """The released observation, if it was put into the folder `data` of the project."""
    path = files.home() / "data" / RELEASED
    return [path] if path.is_file() else []


def read_observation(path: str | Path, systematic: float = 0.0) -> pd.DataFrame:
    """The table of a `.csv` file, or of a UVFITS file with any other ending."""
    csv = Path(path).suffix.lower() == ".csv"
    return read_csv(Path(path), systematic) if csv else read_uvfits(path, systematic)


def read_csv(path: Path, systematic: float = 0.0) -> pd.DataFrame:
    """A table from CSV: of columns as above, complex `vis` as `1+2j` or `1+2i`; or as the EHT releases its data (a line
    of source and date, then time, stations, u, v, amplitude, phase, sigma), which are averaged over scans.

    Rows with a missing number are left out, with a warning. Raises ValueError, naming file and line, for what is no
    number, and for a file that cannot be read or has nothing in it.
    """
    try:
        text = path.read_text()
        released = text.startswith("#SRC:")
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, skiprows=int(released))
    except Exception as error:
        line = " ".join(str(error).split())
        raise ValueError(f"from_table: {path} cannot be read as CSV ({type(error).__name__}: {line})") from None
    frame.columns = [str(c).strip() for c in frame.columns]
    numbers = {c for c in frame if c not in ("t1", "t2", "#time(UTC)", "T1", "T2", "vis")}
    first = 2 + released
    for name in frame.columns:
        if name in numbers or name == "#time(UTC)":
            frame[name] = [_number(v, float, path, k + first, name) for k, v in enumerate(frame[name])]
        elif name == "vis":
            frame[name] = [_number(v, _complex, path, k + first, name) for k, v in enumerate(frame[name])]
    if released:
        return _released(path, text, frame, systematic)
    there = np.ones(len(frame), bool)
    for name in {"u", "v", "sigma", "vis"} & set(frame):
        there &= np.isfinite(frame[name].to_numpy())
    if not there.all():
        warnings.warn(f"{path}: {(~there).sum()} of {len(there)} rows lack a number and are left out", stacklevel=2)
    if "scan" in frame and np.equal(np.mod(frame.scan, 1), 0).all():
        frame["scan"] = frame.scan.astype(int)
    if "vis" in frame and systematic:
        frame["sigma"] = np.hypot(frame.sigma, systematic * frame.vis.abs())
    return _checked(frame[there].reset_index(drop=True), path)


MISSING = {"", "na", "nan", "null", "none", "-", "--"}


def _number(text: str, make: Callable[[str], Any], path: Path, line: int, name: str) -> Any:
    text = text.strip()
    if text.lower() in MISSING:
        return make("nan")
    try:
        return make(text)
    except ValueError:
        raise ValueError(f"from_table: {path}, line {line}: {name} is {text[:40]!r}, a number is needed") from None


def _complex(text: str) -> complex:
    return complex(text.replace(" ", "").replace("i", "j").replace("I", "j").replace("*", "").replace("jnf", "inf"))


def _released(path: Path, text: str, rows: pd.DataFrame, systematic: float) -> pd.DataFrame:
    """The table of a CSV file of the EHT's data releases, averaged over scans parted by gaps."""
    facts = dict(part.partition(":")[::2] for part in text.partition("\n")[0][1:].split(","))
    columns = {"#time(UTC)": "ut", "T1": "t1", "T2": "t2", "U(lambda)": "u", "V(lambda)": "v"}
    columns |= {"Iamp(Jy)": "amp", "Iphase(d)": "phase", "Isigma(Jy)": "sigma"}
    if lacking := sorted(set(columns) - set(rows)):
        raise ValueError(f"from_table: {path} has no column(s) {lacking} of a released observation")
    rows = rows.rename(columns=columns)
    there = np.isfinite(rows[["ut", "u", "v", "amp", "phase", "sigma"]].to_numpy(float)).all(1)
    if not there.all():
        warnings.warn(f"{path}: {(~there).sum()} of {len(there)} rows lack a number and are left out", stacklevel=3)
    rows = rows[there].reset_index(drop=True)
    if not len(rows):
        raise ValueError(f"from_table: {path} has no visibilities")
    steps = np.diff(np.unique(rows.ut))
    rows["seconds"] = 3600 * (np.median(steps) if len(steps) else 0.0)
    rows["vis"] = rows.amp * np.exp(1j * np.radians(rows.phase))
    table = average_scans(rows.assign(scan=scans_of(rows.ut, rows.seconds)), systematic)
    mjd = facts.get("DATE(MJD)", "")
    table.attrs = {"source": facts.get("SRC", ""), "date": _date(float(mjd)) if mjd.replace(".", "").isdigit() else ""}
    frequency = facts.get("FREQ", "").removesuffix("GHz")
    table.attrs |= {"frequency": 1e9 * float(frequency)} if frequency.replace(".", "").isdigit() else {}
    return _checked(table, path)


def _checked(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The table, if it is one. Raises ValueError, naming the file."""
    try:
        check_table(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return table


def check_table(table: pd.DataFrame) -> None:
    """Raises ValueError for missing columns, no rows, entries that are no finite numbers, or sigma <= 0."""
    if missing := {"u", "v", "sigma"} - set(table.columns):
        raise ValueError(f"baseline table lacks the column(s) {sorted(missing)}")
    if not len(table):
        raise ValueError("baseline table is empty (is every baseline shorter than min_baseline?)")
    for name in ("u", "v", "sigma", "vis"):
        if name not in table:
            continue
        try:
            values = np.asarray(table[name], complex if name == "vis" else float)
        except (TypeError, ValueError):
            raise ValueError(f"baseline table: column {name} must hold numbers, not {table[name].dtype}") from None
        if not np.isfinite(values).all():
            raise ValueError(f"baseline table: column {name} has NaN or infinite entries; drop those rows")
        if (np.abs(values) > HUGE).any():
            raise ValueError(f"baseline table: column {name} has entries beyond {HUGE:g}")
    if (np.asarray(table["sigma"], float) < 1 / HUGE).any():
        raise ValueError("baseline table: sigma must be positive (Jy, per real or imaginary part)")
