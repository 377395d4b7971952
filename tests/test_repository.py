"""The house itself: what is pinned, published, packaged and said."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml
from matplotlib.testing.compare import compare_images
from nbconvert import HTMLExporter

from fusionlib.paper import figures, plots
from fusionlib.paper.chapter import CHAPTERS
from fusionlib.paper.profiles import PROFILES

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted((ROOT / "figures").glob("fig*.json"))
MANIFEST = json.loads((ROOT / "figures" / "manifest.json").read_text())["chapters"]
IN_PRINT = [c for c in CHAPTERS if c.name in MANIFEST]  # a new chapter is published once it is computed


def test_environment_yml_is_python_pip_and_the_same_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, tail = environment["dependencies"]
    assert python == "python=3.11" and pip == "pip"
    assert tail == {"pip": ["--constraint constraints.txt", "--editable .[paper]"]}


def test_every_dependency_is_pinned_without_local_tags():
    pins = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    missing = {re.split(r"[<>=]", d)[0].lower() for d in wanted} - names - {"pip", "fusionlib[paper]"}
    assert not missing


def test_imports_point_downward():
    floors = "files sky interferometer metrics pmoe priors gates fusion pnp rml fitting paper explorer"
    floor = {name: height for height, name in enumerate(floors.split())}
    for path in (ROOT / "fusionlib").rglob("*.py"):
        mine = path.relative_to(ROOT / "fusionlib").parts[0].removesuffix(".py")
        lines = re.findall(r"^\s*from fusionlib(?:\.(\w+)\S*)? import (.+)", path.read_text(), re.MULTILINE)
        named = {name for module, names in lines for name in ([module] if module else re.findall(r"\w+", names))}
        above = [name for name in named if name in floor and mine in floor and floor[name] > floor[mine]]
        assert not above, (path, above)


def test_notebooks_are_those_of_the_manifest():
    assert {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")} == set(MANIFEST) <= {c.name for c in CHAPTERS}


@pytest.mark.parametrize("chapter", IN_PRINT, ids=lambda c: c.name)
def test_published_notebook_is_its_source_run(chapter):
    source = jupytext.read(ROOT / "notebooks" / f"{chapter.name}.py")
    published = nbformat.read(ROOT / "notebooks" / f"{chapter.name}.ipynb", as_version=4)
    cells = [c for c in published.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert [c.source for c in cells] == [c.source for c in source.cells]
    code = [c for c in published.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert (ROOT / "notebooks" / f"{chapter.name}.ipynb").stat().st_size < 1_000_000
    assert not re.search(r"[\"' >](/home|/root|/tmp|/work|/Users)/", nbformat.writes(published))
    assert "parameters" in [t for c in source.cells for t in c.metadata.get("tags", [])]
    assert set(chapter.budget) >= set(PROFILES) - {"wide"}  # which is of chapter 03 alone


@pytest.mark.parametrize("chapter", IN_PRINT, ids=lambda c: c.name)
def test_published_notebook_shows_in_a_plain_viewer(chapter):
    published = nbformat.read(ROOT / "notebooks" / f"{chapter.name}.ipynb", as_version=4)
    assert "widgets" not in published.metadata
    outputs = [o for c in published.cells if c.cell_type == "code" for o in c.outputs]
    assert not any("widget" in kind for o in outputs for kind in o.get("data", {}))
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(published)
    pictures = sum("image/png" in o.get("data", {}) for o in outputs)
    assert pictures and page.count("<img") == pictures and f"{chapter.name[:2]} · " in page


@pytest.mark.parametrize("facts", PUBLISHED, ids=lambda p: p.stem)
def test_published_figure_redraws_from_its_data(facts, tmp_path):
    data = next(p for p in facts.parent.glob(f"{facts.stem}.*") if p.suffix in (".csv", ".npz"))
    drawn = tmp_path / f"{facts.stem}.png"
    figure = plots.redraw(getattr(figures, json.loads(facts.read_text())["drawn_by"]), data)
    figure.savefig(drawn, metadata={"Software": None})
    plt.close(figure)
    assert compare_images(str(facts.with_suffix(".png")), str(drawn), tol=5) is None


def test_every_picture_the_readme_shows_is_published():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert shown and PUBLISHED
    for path in shown:
        assert (ROOT / path).is_file(), path


def test_readme_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) > 1
    names: dict = {}
    for block in blocks:
        exec(block, names)


HEAVY = "papermill snakemake IPython ipykernel jupyterlab nbformat jupytext ipywidgets jinja2 seaborn matplotlib"
HEAVY += " skimage sklearn torchmetrics pyarrow msgpack yaml"


def test_the_core_needs_no_more_than_its_own_dependencies():
    """README's first example where nothing of the extras can be imported."""
    example = re.findall(r"```python\n(import fusionlib.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    block = f"import sys\nfor name in {HEAVY.split()!r}:\n    sys.modules[name] = None\n"
    block += "import torch\ntorch.set_num_threads(1)\ntorch.set_flush_denormal(True)\n"
    seen = (
        "\nassert image.shape == (4, 1, 64, 64), image.shape\nassert 'pandas.plotting._matplotlib' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", block + example + seen], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


def test_wheel_carries_its_tables(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "fusionlib", source / "fusionlib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {
        "fusionlib/interferometer/data/eht2017_sites.csv",
        "fusionlib/interferometer/data/eht2017_april11_scans.csv",
    } <= names
    assert {"fusionlib/paper/run.py", "fusionlib/py.typed", "fusionlib/priors/weights/torus.safetensors"} <= names
