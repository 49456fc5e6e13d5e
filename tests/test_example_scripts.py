"""The scripts and notebooks in `examples` run as they stand."""

import json
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightgbm")
pytest.importorskip("ibis")

from lifelong import plugins
from lifelong.cli.extras import EXTRAS

pytestmark = [pytest.mark.torch, pytest.mark.slow]
EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTED = {
    "own_csv_to_score": "sku1-0",
    "frame_to_comparison": "report/index.html",
    "own_model": "Running sum on test",
    "own_store": "'i1'",
    "online_learning": "events  751 to 1000: AUC 0.",
    "memory_in_lightgbm": "LightGBM on the memory's columns: AUC 0.",
    "service_behind_an_app": "after:  {'i",
}
BASE = {"lifelong", "numpy", "pydantic", "typer", "rich"}
"""What is there without an extra."""
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_REGISTERED", {kind: {} for kind in plugins._REGISTERED})


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("name", PRINTED)
def test_a_script_names_what_uv_has_to_install_for_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    head = re.match(r"# /// script\n((?:#.*\n)+?)# ///\n", text)
    assert head is not None and f"uv run examples/{name}.py" in text
    metadata = tomllib.loads(re.sub(r"^# ?", "", head[1], flags=re.MULTILINE))
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    assert metadata["requires-python"] == project["requires-python"]
    # No index has the package: uv takes it from the checkout.
    assert (EXAMPLES / metadata["tool"]["uv"]["sources"]["lifelong"]["path"]).resolve() == EXAMPLES.parent
    (named,) = metadata["dependencies"]
    extras = set(named.removeprefix("lifelong[").removesuffix("]").split(","))
    assert extras <= set(EXTRAS)
    brought = {module for extra in extras for module in EXTRAS[extra]} | BASE
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)) - set(sys.stdlib_module_names)
    assert imported <= brought


@pytest.mark.parametrize("name", PRINTED)
def test_a_script_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert PRINTED[name] in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_their_order(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    known: dict[str, object] = {}
    for cell in cells:
        assert not cell["outputs"]
        exec(compile("".join(cell["source"]), path.name, "exec"), known)
    assert len(cells) >= 3


@pytest.mark.soak
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel_and_shows_tables(path: Path, tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [part for cell in book.cells for part in cell.get("outputs", ())]
    assert any("<table" in part.get("data", {}).get("text/html", "") for part in shown)
