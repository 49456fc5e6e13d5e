"""`lifelong.plugin` is all that a part of another package needs."""

import ast
import re
import runpy
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import lifelong.plugin
from lifelong import plugins
from lifelong.testing.store_contract import checks_for

ROOT = Path(__file__).parents[1]
TEMPLATE = {part.name: part.read_text() for part in files("lifelong.cli").joinpath("model").iterdir()}
PAGES = ["docs/own-parts.md", "docs/reference/testing.md", "docs/reference/plugin.md"]
METRIC = """
from lifelong.plugin import Sample, register


def spread(sample: Sample):
    return abs(sample.logit)


register("metrics", "spread", spread)
"""
CODE = {
    **{name: text for name, text in TEMPLATE.items() if name.endswith(".py.txt")},
    **{f"examples/{name}.py": (ROOT / "examples" / f"{name}.py").read_text() for name in ("own_model", "own_store")},
    "an own metric": METRIC,
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_REGISTERED", {kind: {} for kind in plugins._REGISTERED})


def imported(code: str) -> set[str]:
    """The modules of this package that some code imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
    return {name for name in found if name.partition(".")[0] == "lifelong"}


def is_public(module: str) -> bool:
    return module in {"lifelong", "lifelong.plugin"} or module.partition(".testing")[0] == "lifelong"


@pytest.mark.parametrize("name", CODE)
def test_an_own_part_imports_public_modules_alone(name: str) -> None:
    found = imported(CODE[name])
    assert found and all(map(is_public, found)), found


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_for_authors_import_public_modules_alone(page: str) -> None:
    blocks = re.findall(r"```py(?:thon)?\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        assert all(map(is_public, imported(block))), block


def test_a_store_and_a_metric_load_no_torch() -> None:
    code = "import sys\nfrom lifelong.plugin import Commit, Sample, register\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ibis", "duckdb", "pandas", "pyarrow", "onnxruntime", "scipy"} & set(done.stdout.split())


@pytest.mark.torch
@pytest.mark.parametrize("name", lifelong.plugin.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(lifelong.plugin, name) is not None
    assert name in dir(lifelong.plugin)


def test_a_name_that_it_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'lifelong\.plugin' has no attribute 'nonsense'"):
        _ = lifelong.plugin.nonsense


def test_the_reference_has_every_name() -> None:
    shown = re.findall(r"^::: (lifelong\.[\w.]+)$", (ROOT / "docs/reference/plugin.md").read_text(), flags=re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in shown) == sorted(lifelong.plugin.__all__)


@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_store_of_the_example_keeps_the_contract(check, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    opened = runpy.run_path(str(ROOT / "examples/own_store.py"))["opened"]
    check(lambda: opened(f"sqlite://{tmp_path}/memories.db"))


def test_a_second_owner_of_the_example_is_refused(tmp_path: Path) -> None:
    opened = runpy.run_path(str(ROOT / "examples/own_store.py"))["opened"]
    first = opened(f"sqlite://{tmp_path}/memories.db")
    with pytest.raises(lifelong.plugin.StoreLockedError, match="another process owns"):
        opened(f"sqlite://{tmp_path}/memories.db")
    first.close()
