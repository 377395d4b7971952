"""Tables of baselines: who observed when, where in the (u, v) plane, and with what noise.

A table is a frame with columns `u`, `v` [wavelengths], `sigma` [Jy per real or imaginary part], and where known `scan`,
`t1`, `t2` (stations), `ut` [h], `seconds`, `vis` [complex Jy].
"""

import contextlib
import io
import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from fusionlib import files

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


def eht2017_table() -> pd.DataFrame:
    """All 216 baselines of the packaged schedule: scan, t1, t2, u, v [wavelengths], sigma [Jy], ut [h], seconds.

    u, v from station positions, J2000 direction and IAU 1982 sidereal time; sigma for Stokes I from
    SEFDs S: sqrt(S1 S2 / (2 bandwidth seconds)) / 0.88 / sqrt 2.
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
    dec = math.radians(DEC_DEG)
    sefd = sites.sefd.loc[pairs.site1].to_numpy() * sites.sefd.loc[pairs.site2].to_numpy()
    return pd.DataFrame(
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


def read_uvfits(path: str | Path, systematic: float = 0.0) -> pd.DataFrame:
    """Scan-averaged table (columns as `eht2017_table`, and `vis` [Jy]) of a UVFITS file, through ehtim."""
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
        with contextlib.redirect_stdout(quiet), warnings.catch_warnings(action="ignore"):
            obs = ehtim.obsdata.load_uvfits(str(path))
            obs.add_scans()
            scans = np.asarray(obs.scans)
            rows = obs.avg_coherent(0.0, scan_avg=True).data
    except Exception as error:
        raise ValueError(f"from_uvfits: {path} is no readable UVFITS ({type(error).__name__}: {error})") from None
    if not len(rows):
        raise ValueError(f"from_uvfits: {path} has no visibilities")
    scan = np.searchsorted(scans[:, 0], rows["time"] + 1e-4) - 1
    return pd.DataFrame(
        {
            "scan": scan,
            "t1": rows["t1"].astype(str),
            "t2": rows["t2"].astype(str),
            "u": rows["u"],
            "v": rows["v"],
            "sigma": np.hypot(rows["sigma"], systematic * np.abs(rows["vis"])),
            "ut": rows["time"],
            "seconds": rows["tint"],
            "vis": rows["vis"],
        }
    )


RELEASED = "SR1_M87_2017_101_lo_hops_netcal_StokesI.uvfits"  # M87 on 11 April 2017, low band


def released_data() -> list[Path]:
    """The released observation, if it was put into the folder `data` of the project."""
    path = files.home() / "data" / RELEASED
    return [path] if path.is_file() else []


def read_observation(path: str | Path, systematic: float = 0.0) -> pd.DataFrame:
    """The table of a `.csv` file, or of a UVFITS file with any other ending."""
    return read_csv(Path(path)) if Path(path).suffix == ".csv" else read_uvfits(path, systematic)


def read_csv(path: Path) -> pd.DataFrame:
    """A table from CSV; complex `vis` as Python writes them. Raises ValueError for an unreadable file."""
    try:
        frame = pd.read_csv(path)
    except Exception as error:
        raise ValueError(f"from_table: {path} cannot be read as CSV ({error})") from None
    if "vis" in frame:
        frame["vis"] = np.array([complex(v) for v in frame.vis])
    return frame


def check_table(table: pd.DataFrame) -> None:
    """Raises ValueError for missing columns, no rows, non-finite entries, or sigma <= 0."""
    if missing := {"u", "v", "sigma"} - set(table.columns):
        raise ValueError(f"baseline table lacks the column(s) {sorted(missing)}")
    if not len(table):
        raise ValueError("baseline table is empty (is every baseline shorter than min_baseline?)")
    for name in ("u", "v", "sigma", "vis"):
        if name in table and not np.isfinite(np.asarray(table[name])).all():
            raise ValueError(f"baseline table: column {name} has NaN or infinite entries; drop those rows")
    if (table["sigma"] <= 0).any():
        raise ValueError("baseline table: sigma must be positive (Jy, per real or imaginary part)")
