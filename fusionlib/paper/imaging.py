"""A stranger's observation: read, reconstructed in rounds of self-calibration, and written down in four files."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from fusionlib import __version__, files
from fusionlib.interferometer import MIN_BASELINE, S_REF, SelfCalibrated, read_observation
from fusionlib.metrics import rings
from fusionlib.paper import figures, store, style
from fusionlib.paper.experiment import rests_on, tuned
from fusionlib.paper.methods import label
from fusionlib.paper.plots import Arrays
from fusionlib.paper.shift_specs import safe, shift_rows
from fusionlib.paper.spec import Spec
from fusionlib.paper.studies import m87
from fusionlib.paper.studies.sources import Source, measured
from fusionlib.sky import FOV, NPIX

RULES = {"safe": "", "average": "average", "torus": "single:torus", "closed form": "closed_form"}
RULES |= {"static": "static_affine", "A": "a:image", "B": "b:image", "C": "c:image", "network": "unet"}
MUCH = 0.35  # of the light outside a ring


def rule_of(name: str) -> Spec:
    """The experiment whose fit, to calibrated labels, a rule is: of RULES. Raises ValueError for another, or where the
    fits are not."""
    if name not in RULES:
        raise ValueError(f"rule: one of {', '.join(map(repr, RULES))} is needed, got {name!r}")
    spec = safe("paper")
    if name != "safe":
        spec = next(s for s in shift_rows("paper") if s.method == RULES[name] and not s.fit)
    spec = replace(spec, regime="self-calibrated")
    if not all(store.has(s.key) for s in rests_on(spec)):
        raise ValueError(f"rule: the fit of {name!r} is not in {files.home()}; run inside the checkout of the project")
    return spec


def read(observation: str | Path, flux: float = 0.0) -> tuple[Source, dict[str, Any]]:
    """The source of an observation, and what was read. Raises ValueError, naming the file, for one that cannot be
    imaged."""
    if not Path(observation).is_file():
        raise ValueError(f"there is no file {observation}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = read_observation(observation)
    source, why = measured(table, Path(observation), flux)
    short = int((np.hypot(table.u, table.v) < MIN_BASELINE).sum())
    return source, {
        "observation": Path(observation).name,
        "source": source.name,
        "date": table.attrs.get("date", ""),
        "stations": sorted({*table.t1, *table.t2}),
        "scans": int(table.scan.nunique()),
        "visibilities": len(table) - short,
        "short_baselines_left_out": short,
        "warnings": [str(w.message) for w in caught if issubclass(w.category, UserWarning)],
        "flux_jy": source.flux,
        "flux_from": why,
    }


def image(source: Source, rule: str = "safe", *, heldout: bool = True) -> tuple[dict[str, Any], Arrays]:
    """What a rule makes of a source: facts, and the arrays that the figures and the FITS file are made of."""
    spec = rule_of(rule)
    record = m87.reconstructed_source(spec, source, heldout=heldout, progress=True)
    kind = "denoised" if "denoised" in record else "fitted"
    picture, calibrated = torch.from_numpy(record[kind])[None, None], SelfCalibrated(source.array()[0])
    ring = rings.measure(picture)
    amplitude, phase = np.exp(record["log_amplitude"]), np.degrees(record["phase"])
    fits = m87.credible(float(record[f"{kind}_cphase"]), float(record[f"{kind}_logcamp"]))
    facts = {
        "rule": rule,
        "method": label(spec.method),
        "fit": f"{spec.fit or 'home'}, {spec.n_train} labels",
        "settings": tuned(spec)[0],
        "seconds": round(float(record["seconds"]), 2),
        "chi2": {k: round(float(record[f"{kind}_{k}"]), 3) for k in m87.TOLD if f"{kind}_{k}" in record},
        "ring": {
            "is_ring": bool(ring.is_ring) and fits,
            "diameter_uas": round(float(ring.diameter), 2),
            "width_uas": round(float(ring.width), 2),
            "position_angle_deg": round(float(ring.position_angle), 1),
            "asymmetry": round(float(ring.asymmetry), 3),
            "light_outside": round(float(rings.light_outside(picture, ring)), 3),
        },
        "fits_the_data": fits,
        "gains": [
            {"scan": int(scan), "station": site, "amplitude": round(float(a), 4), "phase_deg": round(float(p), 2)}
            for (scan, site), a, p in zip(calibrated.stations, amplitude, phase, strict=True)
        ],
    }
    return facts, {"image": record[kind], **_data(source, calibrated, picture, amplitude)}


def _data(source: Source, calibrated: SelfCalibrated, picture: Tensor, gains: np.ndarray) -> Arrays:
    """Closure phases [deg] and calibrated amplitudes [Jy] with their errors, beside those of the picture."""
    array, y = source.array()
    model = calibrated.model(picture)[0].numpy()
    scale = np.exp(-(calibrated.ends.numpy() @ np.log(gains)))
    table, psi = array.array.table, array.psi.numpy()
    time = table.ut if "ut" in table else table.scan
    phase, measured_phase = np.angle(model) @ psi.T, y.cphase[0].numpy()
    return {
        "time": np.array([float(time[row != 0].mean()) for row in psi]),
        "cphase": np.degrees(measured_phase),
        "cphase_error": np.degrees(y.sigma_cphase[0].numpy()),
        "cphase_model": np.degrees(
            measured_phase + np.angle(np.exp(1j * (phase - measured_phase)))
        ),  # the nearest turn
        "length": np.hypot(table.u.to_numpy(), table.v.to_numpy()) / 1e9,
        "amp": y.amp[0].numpy() * scale,
        "amp_error": np.hypot(table.sigma, m87.SYSTEMATIC * y.amp[0].numpy()) * scale,
        "amp_model": np.abs(model),
        "beam": _beam(table.u.to_numpy(), table.v.to_numpy()),
        "frequency": np.array(source.table.attrs.get("frequency", np.nan)),
        "label": np.array(source.label),
        "clock": np.array("UT [h]" if "ut" in table else "scan"),
    }


def _beam(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Full widths [µas] and position angle [deg, east of north] of the Gaussian that has the curvature of the dirty
    beam at its peak, every visibility weighing the same."""
    moments = 4 * math.pi**2 * np.cov(np.stack([np.r_[u, -u], np.r_[v, -v]]), bias=True)
    values, axes = np.linalg.eigh(moments)
    widths = 2 * math.sqrt(2 * math.log(2)) / np.sqrt(values) / math.pi * 180 * 3600e6
    return np.array([*widths, math.degrees(math.atan2(*axes[:, 0])) % 180])


def write_fits(path: Path, picture: np.ndarray, source: Source) -> None:
    """A FITS image [Jy per pixel], north up, east to the left, with coordinates where the observation has them."""
    from astropy.io import fits  # slow to import

    attrs, pixel = source.table.attrs, FOV / NPIX / 3600e6
    header = fits.Header()
    header["OBJECT"], header["BUNIT"] = source.name, "JY/PIXEL"
    for axis, name, step, at in ((1, "RA---SIN", -pixel, "ra"), (2, "DEC--SIN", pixel, "dec")):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = name, "deg"
        header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = step, (NPIX + 1) / 2
        header[f"CRVAL{axis}"] = attrs.get(at, 0.0)
    if "frequency" in attrs:
        header["FREQ"] = attrs["frequency"]
    if attrs.get("date"):
        header["DATE-OBS"] = attrs["date"]
    if "ra" not in attrs:
        header["COMMENT"] = "The observation states no coordinates; these are offsets from its phase centre."
    fits.PrimaryHDU((picture * S_REF).astype(np.float32)[::-1], header).writeto(path, overwrite=True)


def write(
    observation: str | Path, out: str | Path, *, rule: str = "safe", flux: float = 0.0, compare: bool = False
) -> dict[str, Any]:
    """Read, reconstruct, and write `image.png`, `image.fits`, `data.png` and `facts.json` into the folder `out`; and
    with `compare` `compare.png`, every rule side by side. Returns the facts.

    Raises ValueError for an unknown rule, a flux that is not positive, and a file that cannot be imaged.
    """
    if flux < 0:
        raise ValueError(f"flux: a positive number of Jy is needed, got {flux}")
    rule_of(rule)
    source, told = read(observation, flux)
    facts, arrays = image(source, rule)
    facts = told | facts | {"versions": {"fusionlib": __version__, "torch": torch.__version__}}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    style.use()
    drawn = {"image": figures.observation_picture(arrays, facts), "data": figures.observation_data(arrays)}
    if compare:
        every = {name: image(source, name, heldout=False) for name in RULES if name != rule}
        pictures = {rule: (facts, arrays)} | every
        facts["compare"] = {
            name: {k: f[k] for k in ("chi2", "ring", "fits_the_data")} for name, (f, _) in pictures.items()
        }
        drawn["compare"] = figures.observation_rules(pictures)
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=200)
        plt.close(figure)
    write_fits(folder / "image.fits", arrays["image"], source)
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def summary(facts: dict[str, Any], out: str | Path) -> str:
    """What was read and found, in words."""
    chi2, ring, f = facts["chi2"], facts["ring"], facts
    stations = " ".join(f["stations"])
    lines = [
        f"{f['source']} {f['date']}: {f['visibilities']} visibilities of {f['scans']} scans, {stations}; "
        f"{f['short_baselines_left_out']} on short baselines left out",
        f"compact flux {f['flux_jy']:.3g} Jy, {f['flux_from']}",
        *f["warnings"],
        f"{f['method']}, {f['fit']}: chi-square {chi2['cphase']:.2f} of closure phases, "
        f"{chi2['logcamp']:.2f} of log closure amplitudes",
    ]
    if not f["fits_the_data"]:
        lines.append("The picture does not fit the data: do not believe it. Try another --rule, or another --flux.")
    elif ring["is_ring"]:
        lines.append(
            f"a ring of {ring['diameter_uas']:.1f} µas, {ring['width_uas']:.1f} µas wide, brightest at a position "
            f"angle of {ring['position_angle_deg']:.0f} degrees"
        )
    if f["fits_the_data"] and ring["is_ring"] and ring["light_outside"] > MUCH:
        lines.append(f"{ring['light_outside']:.0%} of the light lies outside the ring: is it all there is, or a ghost?")
    return "\n".join([*lines, f"{out}: {', '.join(sorted(p.name for p in Path(out).iterdir() if p.is_file()))}"])
