"""The page of the explorer: widgets around `state.look`.

from fusionlib.explorer.widget import Explorer
Explorer()
"""

import base64
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from fusionlib.explorer.drawing import coloured, plots, png, sky_pixels
from fusionlib.explorer.export import lines, row
from fusionlib.explorer.rules import BANKS, NETWORKS, strategies
from fusionlib.explorer.state import ALGORITHMS, ARRAYS, KERR, OBJECTS, Cancelled, State, View, look
from fusionlib.paper import style
from fusionlib.priors import zoo

SIDE, SMALL = 166, 96  # pixels on the screen
ERROR_TOP = 0.2
KEPT = ("run", "strategy", "psnr", "chi2", "family", "array", "noise", "iterations", "seconds")


class Explorer(w.VBox):
    """The page. `state` is what its controls say, `view` the last picture, `kept` the runs that were pinned.

    Every change starts a new run, which ends the one before it; `wait()` returns when the last is done.
    """

    def __init__(self, state: State | None = None):
        available, self.lacking = zoo.available(BANKS["main"])
        self.state = state or State(priors=tuple(available))
        self.view: View | None = None
        self.kept: list[View] = []
        self._turn, self._thread = 0, threading.Thread()
        self._lock, self._quiet = threading.Lock(), False
        self.controls = _controls(self.state)
        self.priors = {name: _check(name, name in self.state.priors) for name in available}
        self.zoom = w.IntSlider(
            value=1, min=1, max=4, description="zoom", continuous_update=False, style=_LABEL,
            layout=w.Layout(width="335px"),
        )  # fmt: skip
        self.across = w.IntSlider(value=50, min=0, max=100, description="first | second", style=_LABEL)
        self.first, self.second = (w.Dropdown(options=[], description=name) for name in ("first", "second"))
        self.status = w.HTML()
        self.buttons = {
            name: w.Button(description=name, tooltip=tip, layout=w.Layout(width="auto"))
            for name, tip in (
                ("cancel", "stop the run under way"),
                ("pin", "keep this run for comparison"),
                ("export", "picture, Python lines and table, below"),
            )
        }
        self.pictures = {name: _picture(SIDE) for name in ("truth", "dirty image", "beam", "reconstruction", "error")}
        self.maps = {name: _picture(SMALL) for name in (*available, *NETWORKS)}
        self.plots, self.compared = _picture(0), _picture(2 * SIDE)
        self.table, self.exported = w.HTML(), w.VBox()
        lacking = [w.HTML(_told(f"{name} is left out: {why}", "#555555")) for name, why in self.lacking.items()]
        super().__init__([self.status, *lacking, w.HBox([self._left(), self._right()])])
        for name, control in self.controls.items():
            control.observe(self._changed, "value")
            control.add_class(f"explorer-{name}")
        for box in self.priors.values():
            box.observe(self._changed, "value")
        self.zoom.observe(lambda _: self._draw(), "value")
        for control in (self.across, self.first, self.second):
            control.observe(lambda _: self._beside(), "value")
        for name, what in (("cancel", self.cancel), ("pin", self.pin), ("export", self.export)):
            self.buttons[name].on_click(lambda _, what=what: what())
        self._changed()

    def _left(self) -> w.Widget:
        c = self.controls
        parts = {
            "sky": [c[k] for k in ("observation", "flux", "truth", "family", *KERR, "seed")],
            "array": [c["array"], c["noise"]],
            "priors": [w.GridBox(list(self.priors.values()), layout=w.Layout(grid_template_columns="1fr 1fr"))],
            "fusion": [c["strategy"], c["algorithm"], c["iterations"], c["sigma_max"], c["sigma_min"], c["lam"]],
        }
        boxes = [w.VBox([w.HTML(f"<b>{name}</b>"), *controls]) for name, controls in parts.items()]
        return w.VBox(
            [*boxes, self.zoom, w.HBox(list(self.buttons.values()))],
            layout=w.Layout(flex="0 0 350px", overflow="hidden"),
        )

    def _right(self) -> w.Widget:
        flow = w.Layout(flex_flow="row wrap")
        top = w.HBox([_titled(name, image) for name, image in self.pictures.items()], layout=flow)
        weights = w.HBox([_titled(style.short(name), image) for name, image in self.maps.items()], layout=flow)
        compare = w.HBox([w.VBox([self.first, self.second, self.across]), self.compared], layout=flow)
        told = w.HTML("weights, mean over the iterations: blue below 0, white 0, red above")
        return w.VBox(
            [top, told, weights, self.plots, self.table, compare, self.exported], layout=w.Layout(min_width="0")
        )

    # --- from controls to a picture ---

    def _changed(self, _: Any = None) -> None:
        if self._quiet:
            return
        self._offer()
        values = {name: control.value for name, control in self.controls.items()}
        on = tuple(name for name, box in self.priors.items() if box.value)
        self.state = replace(self.state, **values, priors=on)
        self.run()

    def _offer(self) -> None:
        """Only strategies that there are with the priors that are on."""
        on, choice = tuple(name for name, box in self.priors.items() if box.value), self.controls["strategy"]
        there = strategies(on, "uncalibrated" if self.controls["observation"].value else "calibrated") or [choice.value]
        self._quiet = True
        wanted = choice.value if choice.value in there else there[0]
        choice.options = [(style.label(f"single:{m}") if m in on else style.label(m), m) for m in there]
        choice.value = wanted
        self._quiet = False

    def run(self) -> None:
        """Start over with the present state; what is under way ends."""
        self._turn += 1
        turn, state = self._turn, self.state
        self.status.value = _told("computing …", "#555555")
        self._thread = threading.Thread(target=self._work, args=(turn, state), daemon=True)
        self._thread.start()

    def _work(self, turn: int, state: State) -> None:
        with self._lock:
            if turn != self._turn:
                return
            try:
                view = look(state, lambda: turn != self._turn)
            except Cancelled:
                return
            except Exception as error:
                self.status.value = _told(f"{error}", "#B00020")
                return
            if turn == self._turn:
                self.view = view
                self._draw()
                said = [_score(view), f"reduced χ² {view.chi2[-1]:.2f}", *([view.note] if view.note else [])]
                self.status.value = _told(", ".join(said), "#1A1A1A")

    def cancel(self) -> None:
        """Stop what is under way; the last picture stays."""
        self._turn += 1
        self.status.value = _told("cancelled", "#555555")

    def wait(self) -> None:
        self._thread.join()

    # --- pictures ---

    def _cut(self, image: np.ndarray) -> np.ndarray:
        half = image.shape[-1] // 2 // self.zoom.value
        middle = image.shape[-1] // 2
        return image[..., middle - half : middle + half, middle - half : middle + half]

    def _draw(self) -> None:
        view: View | None = self.view
        if view is None:
            return
        error = view.image - view.truth
        shown = {
            "truth": sky_pixels(self._cut(view.truth)),
            "dirty image": coloured(self._cut(view.dirty), style.SKY, 0, 1),
            "beam": coloured(self._cut(view.beam), style.SIGNED, -1, 1),
            "reconstruction": sky_pixels(self._cut(view.image)),
            "error": coloured(self._cut(error), style.SIGNED, -ERROR_TOP, ERROR_TOP),
        }
        for name, pixels in shown.items():
            self.pictures[name].value = png(pixels, SIDE)
        mean = dict(zip(view.names, view.weights.mean(0), strict=True)) if view.weights is not None else {}
        for name, image in self.maps.items():
            weight = mean.get(name, np.full_like(view.truth, float(view.names == (name,))))
            image.value = png(coloured(self._cut(weight), style.SIGNED, -1, 1), SMALL)
        self.plots.value = plots(view)

    def pin(self) -> None:
        """Keep the present run for comparison."""
        if self.view is None:
            return
        self.kept.append(self.view)
        frame = pd.DataFrame([{"run": k + 1, **row(view)} for k, view in enumerate(self.kept)])
        self.table.value = _TABLE + frame[list(KEPT)].to_html(
            index=False, border=0, classes="runs", float_format="{:.4g}".format
        )
        before = self.first.value or 0
        for control, chosen in ((self.first, before), (self.second, len(self.kept) - 1)):
            control.options = [(f"run {k + 1}, {_score(v)}", k) for k, v in enumerate(self.kept)]
            control.value = chosen
        self._beside()

    def _beside(self) -> None:
        if not self.kept or self.first.value is None or self.second.value is None:
            return
        a, b = (sky_pixels(self._cut(self.kept[c.value].image)) for c in (self.first, self.second))
        column = round(a.shape[1] * self.across.value / 100)
        both = np.concatenate([a[:, :column], b[:, column:]], 1)
        if 0 < column < a.shape[1]:
            both[:, column] = 255
        self.compared.value = png(both, 2 * SIDE)

    def export(self) -> dict[str, bytes]:
        """The picture, the Python lines and the table of kept runs, also as links on the page."""
        if self.view is None:
            return {}
        runs = self.kept or [self.view]
        exported = {
            "picture.png": png(sky_pixels(self.view.image), 512),
            "lines.py": lines(self.view.state).encode(),
            "runs.csv": pd.DataFrame([row(view) for view in runs]).to_csv(index=False).encode(),
        }
        code = lines(self.view.state).replace("&", "&amp;").replace("<", "&lt;")
        links = "&emsp;".join(_link(name, data) for name, data in exported.items())
        self.exported.children = [w.HTML(links), w.HTML(f"<pre>{code}</pre>")]
        return exported


_LABEL = {"description_width": "125px"}
_TABLE = "<style>.runs td, .runs th {text-align: left !important; padding: 0 16px 0 0 !important}</style>"


def _controls(s: State) -> dict[str, Any]:
    def slider(name: str, low: float, high: float, step: float, words: str = "") -> w.Widget:
        kind: Callable[..., Any] = w.IntSlider if isinstance(getattr(s, name), int) else w.FloatSlider
        return kind(
            value=getattr(s, name), min=low, max=high, step=step, description=words or name,
            continuous_update=False, style=_LABEL, layout=w.Layout(width="335px"),
        )  # fmt: skip

    def logarithmic(name: str, low: float, high: float) -> w.Widget:
        return w.FloatLogSlider(
            value=getattr(s, name), base=10, min=low, max=high, step=0.05, description=name, readout_format=".3g",
            continuous_update=False, style=_LABEL, layout=w.Layout(width="335px"),
        )  # fmt: skip

    return {
        "truth": w.Text(
            value=s.truth, placeholder="image(s); empty: simulated", description="truth",
            continuous_update=False, style=_LABEL, layout=w.Layout(width="335px"),
        ),
        "observation": w.Text(
            value=s.observation, placeholder="UVFITS, CSV; empty: simulated", description="observation",
            continuous_update=False, style=_LABEL, layout=w.Layout(width="335px"),
        ),
        "flux": w.BoundedFloatText(
            value=s.flux, min=0.0, max=100.0, step=0.1, description="its flux [Jy], 0: suggested", style=_LABEL,
            layout=w.Layout(width="335px"),
        ),
        "family": w.Dropdown(options=_named(OBJECTS, "Kerr disc"), value=s.family, description="object", style=_LABEL),
        "spin": slider("spin", 0.0, 0.98, 0.02),
        "inclination": slider("inclination", 5.0, 85.0, 1.0, "inclination [°]"),
        "theta_g": slider("theta_g", 2.6, 5.0, 0.1, "M / D [µas]"),
        "position_angle": slider("position_angle", 0.0, 355.0, 5.0, "position angle [°]"),
        "turbulence": slider("turbulence", 0.0, 1.0, 0.05),
        "seed": slider("seed", 0, 99, 1),
        "array": w.Dropdown(options=_named(ARRAYS, "EHT 2017"), value=s.array, description="array", style=_LABEL),
        "noise": logarithmic("noise", -1, 2),
        "strategy": w.Dropdown(options=[s.strategy], value=s.strategy, description="strategy", style=_LABEL),
        "algorithm": w.Dropdown(options=list(ALGORITHMS), value=s.algorithm, description="algorithm", style=_LABEL),
        "iterations": slider("iterations", 1, 60, 1),
        "sigma_max": logarithmic("sigma_max", -2, 0),
        "sigma_min": logarithmic("sigma_min", -3, -0.5),
        "lam": logarithmic("lam", -2, 1),
    }  # fmt: skip


def _named(values: Iterable[str], empty: str) -> list[tuple[str, str]]:
    """Options of a menu, with a name for the empty one."""
    return [(value or empty, value) for value in values]


def _check(name: str, on: bool) -> w.Checkbox:
    return w.Checkbox(value=on, description=style.short(name), indent=False, layout=w.Layout(width="150px"))


def _picture(side: int) -> w.Image:
    return w.Image(format="png", layout=w.Layout(width=f"{side}px", height=f"{side}px") if side else w.Layout())


def _titled(title: str, image: w.Image) -> w.Widget:
    return w.VBox([w.HTML(title), image], layout=w.Layout(margin="0 6px 0 0"))


def _score(view: View) -> str:
    return "truth unknown" if np.isnan(view.psnr) else f"PSNR {view.psnr:.2f} dB"


def _told(text: str, colour: str) -> str:
    clean = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"<span class='explorer-status' style='font-size: 16px; color: {colour}'>{clean}</span>"


def _link(name: str, data: bytes) -> str:
    return (
        f"<a download='{name}' href='data:application/octet-stream;base64,{base64.b64encode(data).decode()}'>{name}</a>"
    )
