"""Chapter 10: the released observation of M87 and its simulated twin, under methods tuned on simulated skies."""

import contextlib
import io
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fusionlib import metrics
from fusionlib.interferometer import (
    KINDS,
    MIN_BASELINE,
    Uncalibrated,
    released_data,
)
from fusionlib.metrics import rings
from fusionlib.paper.experiment import SYSTEMATIC, WINDOW, method_of, reconstructed, scores, tuned
from fusionlib.paper.methods.method import Settings, with_truth
from fusionlib.paper.spec import Spec
from fusionlib.paper.specs import closure_specs
from fusionlib.paper.store import Record
from fusionlib.paper.studies.sources import Source, source_of, sources
from fusionlib.paper.tasks import Task, recorded
from fusionlib.sky import FOV, NPIX

FOLDS = 5


@recorded(version=1)
def reconstruct(spec: Spec, name: str, observation: str, flux: float = 0.0) -> Record:
    """`reconstructed_source` of the source `name`."""
    return reconstructed_source(spec, source_of(name, observation, flux))


def reconstructed_source(spec: Spec, source: Source, *, heldout: bool = True, progress: bool = False) -> Record:
    """What the method of `spec`, with the settings tuned on simulated skies, makes of a source.

    Images `denoised` and `data_step` (H, W) (for RML `fitted`), their chi-squares, with `heldout` those of scans left
    out of the fit, five folds together (fewer of fewer scans, none of one), and the seconds of one reconstruction;
    where it calibrates, gains `log_amplitude` and `phase` of every station in every scan."""
    settings, (array, y) = tuned(spec)[0], source.array()
    result = reconstructed(spec, array, y)
    images = _images(settings, array, y, result.image)
    record: dict[str, Any] = {"seconds": result.seconds}
    record |= {k: result.record[k][-1, 0].cpu().numpy() for k in ("log_amplitude", "phase") if k in result.record}
    for kind, image in images.items():
        record[kind] = image[0, 0].cpu().numpy()
        record |= {f"{kind}_{k}": float(v) for k, v in array.chi2s(image, y).items()}
    table = source.table
    scans = tuple(sorted(set(table.scan[np.hypot(table.u, table.v) >= MIN_BASELINE])))
    folds = min(FOLDS, len(scans)) if heldout and len(scans) > 1 else 0
    misfits: dict[str, list[float]] = {}
    for fold in tqdm(range(folds), "held-out scans", leave=False, disable=not progress):
        left = scans[fold::folds]
        fit, y_fit = source.array(without=left)
        rest, y_rest = source.array(without=tuple(s for s in scans if s not in left))
        for kind, image in _images(settings, fit, y_fit, reconstructed(spec, fit, y_fit).image).items():
            for term, chi2 in rest.chi2s(image, y_rest).items():
                count = getattr(y_rest, term).shape[1]
                misfits.setdefault(f"{kind}_{term}_heldout", []).extend([float(chi2)] * count)
    record |= {k: float(np.mean(v)) for k, v in misfits.items() if v}
    return {k: np.array(v) for k, v in record.items()}


def tasks(profile: str, priors: Sequence[str], observation: str = "", flux: float = 0.0, **_: Any) -> list[Task]:
    """`reconstruct` of every source under every method of chapter 10."""
    imaged = sources(observation or next(map(str, released_data()), ""), flux)[0]
    methods = [s for s in closure_specs(profile, priors) if not s.family]
    return [task_of(s, source, flux) for source in imaged for s in methods]


CREDIBLE = 3.0  # reduced chi-square of closures beyond which a picture says nothing about the source


def credible(cphase: float, logcamp: float) -> bool:
    """Whether a picture fits the closures: a ring in one that does not is none."""
    return cphase < CREDIBLE and logcamp < CREDIBLE


TOLD = ("cphase", "logcamp", "cphase_heldout", "logcamp_heldout")


def task_of(spec: Spec, source: Source, flux: float = 0.0) -> Task:
    """`reconstruct` of a source; a flux that was given is part of it, but for a twin, which has its own."""
    given = {"flux": flux} if flux and source.truth is None else {}
    return reconstruct.task(spec, source.name, source.observation, **given)


def _images(settings: Settings, array: Uncalibrated, y: Any, image: Tensor) -> dict[str, Tensor]:
    if "lam" not in settings:
        return {"fitted": image}
    return {"denoised": image, "data_step": array.prox(image, y, settings["lam"] / settings["sigma_min"] ** 2)}


def m87_table(
    specs: Sequence[Spec], imaged: Sequence[Source], flux: float = 0.0
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row per source, method and image; and the denoised (for RML, fitted) images and ridge profiles by source."""
    rows: list[dict[str, Any]] = []
    pictures: dict[str, np.ndarray] = {}
    methods = [s for s in specs if not s.family]
    for source in imaged:
        shown, profiles, scored = [], [], []
        for spec in methods:
            record = task_of(spec, source, flux).result()
            assert isinstance(record, dict)
            for kind in ("denoised", "data_step", "fitted"):
                if kind not in record:
                    continue
                image = torch.from_numpy(record[kind])[None, None]
                ring = rings.measure(image)
                rows.append(
                    {"source": source.name, "prior": spec.method, "image": kind}
                    | {f"chi2_{k}": float(record[f"{kind}_{k}"]) for k in ("cphase", "logcamp")}
                    | {
                        f"chi2_{k}_heldout": float(record.get(f"{kind}_{k}_heldout", np.nan))
                        for k in ("cphase", "logcamp")
                    }
                    | {"diameter_uas": float(ring.diameter), "width_uas": float(ring.width)}
                    | {"position_angle_deg": float(ring.position_angle), "asymmetry": float(ring.asymmetry)}
                    | {"ring": bool(ring.is_ring), "seconds": float(record["seconds"])}
                )
                if kind != "data_step":
                    shown.append(record[kind])
                    profiles.append((ring.profile / ring.profile.mean())[0].numpy())
                    if source.truth is not None:
                        best = metrics.best_shift(image, source.truth)
                        scored.append(float(metrics.psnr(best, source.truth)))
        pictures |= {f"image_{source.name}": np.stack(shown), f"profile_{source.name}": np.stack(profiles)}
        if source.truth is not None:
            truth = rings.measure(source.truth).profile[0]
            pictures |= {"truth": source.truth[0, 0].numpy(), "psnr": np.array(scored)}
            pictures |= {"profile_truth": (truth / truth.mean()).numpy()}
    pictures |= {"source": np.array([s.name for s in imaged]), "label": np.array([s.label for s in imaged])}
    pictures["method"] = np.array([s.method for s in methods])
    return pd.DataFrame(rows), pictures


def spread_table(table: pd.DataFrame) -> pd.DataFrame:
    """Median ring features over methods, with their range, by source; denoised or fitted images that show a ring."""
    rows = []
    shown = table[(table.image != "data_step") & table.ring]
    for source, part in shown.groupby("source", sort=False):
        turn = np.exp(1j * np.radians(part.position_angle_deg))
        middle = np.degrees(np.angle(turn.mean())) % 360
        off = (part.position_angle_deg - middle + 180) % 360 - 180
        angles = ("position_angle_deg", middle + off)
        for name, values in (("diameter_uas", part.diameter_uas), ("width_uas", part.width_uas), angles):
            told = {"source": source, "feature": name, "methods": len(part), "median": values.median()}
            rows.append(told | {"least": values.min(), "most": values.max(), "std": values.std()})
    return pd.DataFrame(rows)


def closures_alone(spec: Spec, source: Source) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The same method on fewer and more data and knowledge, each from three starting images."""
    method, (settings, _, fitted) = with_truth(method_of(spec)), tuned(spec)
    rows, images = [], []
    for name, use, window in (
        ("closures, flux", ("cphase", "logcamp", "flux"), np.inf),
        ("with amplitudes", KINDS, np.inf),
        ("and a window", KINDS, WINDOW),
    ):
        array, y = source.array(use=use, window=window)
        for label, start in starts(array, y).items():
            image = method.run(settings, fitted, array, y, start).image
            ring = rings.measure(image)
            chi2 = array.chi2s(image, y)
            rows.append(
                {"source": source.name, "data": name, "start": label}
                | {f"chi2_{k}": float(chi2[k]) for k in ("cphase", "logcamp", "amp")}
                | {"ring": bool(ring.is_ring), "diameter_uas": float(ring.diameter)}
                | {"position_angle_deg": float(ring.position_angle)}
            )
            images.append(image[0, 0].cpu().numpy())
    table = pd.DataFrame(rows)
    return table, {"image": np.stack(images), **{k: table[k].to_numpy(str) for k in ("data", "start")}}


def starts(array: Uncalibrated, y: Any) -> dict[str, Tensor]:
    """Starting images of the measured flux: the usual Gaussian, one twice as wide, and a ring of 42 microarcseconds."""
    usual = array.start(y)
    n, pixel = array.npix, array.array.fov / array.npix
    t = (torch.arange(n, device=usual.device) - (n - 1) / 2) * pixel
    ring = torch.exp(-((torch.hypot(t[:, None], t) - 21) ** 2) / (2 * 6**2)).expand_as(usual)
    wide = metrics.blur(usual, 70.0)
    total = usual.sum((1, 2, 3), keepdim=True)
    return {name: x * total / x.sum((1, 2, 3), keepdim=True) for name, x in {
        "Gaussian, 40 µas": usual, "Gaussian, 80 µas": wide, "ring, 42 µas": ring}.items()}  # fmt: skip


def family_table(specs: Sequence[Spec]) -> pd.DataFrame:
    """How often each method shows a ring, by family of objects, with the 95 % interval of Wilson; and PSNR."""
    rows = []
    for s in specs:
        r = scores(s)
        seen, n = float(r["ring"].mean()), r["ring"].size
        middle, half = (seen + 1.92 / n) / (1 + 3.84 / n), np.sqrt(seen * (1 - seen) / n + 0.96 / n**2)
        half *= 1.96 / (1 + 3.84 / n)
        rows.append(
            {
                "family": s.family or "black hole",
                "method": s.method,
                "n": n,
                "rings_true": float(r["ring_truth"].mean()),
            }
            | {"rings_seen": seen, "lo": max(0.0, middle - half), "hi": min(1.0, middle + half)}
            | {"psnr": float(r["psnr"].mean()), "chi2_cphase": float(r["chi2_cphase"].mean())}
        )
    return pd.DataFrame(rows)


def eht_imaging_seconds(observation: str | Path, flux: float) -> float:
    """CPU seconds of eht-imaging's own imager on an observation.

    Three rounds of maximum entropy, total variation, total squared variation and l1 on the data terms used here, 64 px,
    each round starting from the blurred last one.
    """
    import ehtim as eh

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        obs = eh.obsdata.load_uvfits(str(observation))
        obs.add_scans()
        obs = obs.avg_coherent(0.0, scan_avg=True).flag_uvdist(uv_min=MIN_BASELINE).add_fractional_noise(SYSTEMATIC)
        size = 40 * eh.RADPERUAS
        blob = eh.image.make_square(obs, NPIX, FOV * eh.RADPERUAS).add_gauss(flux, (size, size, 0, 0, 0))
        began, image = time.process_time(), blob
        for _ in range(3):
            imager = eh.imager.Imager(
                obs,
                image,
                prior_im=blob,
                flux=flux,
                data_term={"amp": 0.2, "cphase": 1, "logcamp": 1},
                reg_term={"simple": 100, "tv": 1, "tv2": 1, "l1": 1, "flux": 1e4},
                maxit=100,
                ttype="direct",
            )
            image = imager.make_image_I(show_updates=False).blur_circ(size / 2)
        return time.process_time() - began


def speed_table(spec: Spec, source: Source, observation: str | Path) -> pd.DataFrame:
    """CPU seconds of one reconstruction of a source, beside eht-imaging's where that is installed."""
    method, (settings, _, fitted) = with_truth(method_of(spec)), tuned(spec)
    array, y = source.array()
    began = time.process_time()
    method.run(settings, fitted, array, y, None)
    seconds = {spec.method: time.process_time() - began}
    if observation and Path(observation).suffix.lower() != ".csv":
        seconds["eht-imaging"] = eht_imaging_seconds(observation, source.flux)
    table = pd.DataFrame({"method": list(seconds), "cpu_seconds": list(seconds.values())})
    return table.assign(ratio=table.cpu_seconds / table.cpu_seconds[0])
