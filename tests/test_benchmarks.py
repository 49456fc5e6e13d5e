"""Benchmarks are run by hand: what they take from the package has to be there."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def taken(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from the package, those of scripts in strings too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lifelong":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nfrom lifelong" in node.value:
            yield from taken(node.value)


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_what_a_benchmark_imports_is_there(script: Path) -> None:
    for module, name in taken(script.read_text()):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.import_module(f"{module}.{name}"), f"{module} has no {name}"


def test_there_are_benchmarks() -> None:
    assert any(taken(script.read_text()) for script in SCRIPTS)


def test_the_settings_of_the_comparison_are_settings_of_its_models() -> None:
    from lifelong.cli.model_settings import model_configs
    from lifelong.offline.models import all_names

    names = [*all_names(), "hpmn_counts"]
    configs = model_configs(names, [FOLDER / "completejourney.toml"], [])
    # HPMN is trained on whole histories; those of its rows with counts are in windows.
    assert configs["hpmn"].train.max_history > configs["hpmn_counts"].train.max_history
