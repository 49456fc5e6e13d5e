"""Benchmarks are run by hand: what they take from the package has to be there."""

import ast
import importlib
import json
import re
import runpy
import sys
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


def test_the_capacity_of_the_page_is_what_its_script_prints(tmp_path: Path, capsys, monkeypatch) -> None:
    rows = {"cells": {"events/s": 200_000}, "memories and log, 2 shards, ready": {"events/s": 90_146}}
    (tmp_path / "measured.txt").write_text("a table\n" + json.dumps({"uniform": {"tally": rows}}))
    monkeypatch.setattr(sys, "argv", ["capacity.py", "--measured", str(tmp_path / "measured.txt"), "--requests", "1e4"])
    runpy.run_path(str(FOLDER / "capacity.py"), run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["nodes"], found["partitions of the topic"], found["scoring processes"]) == (23, 92, 50)
    assert found["memories, TB"] == pytest.approx(1.513)
    page = " ".join((FOLDER.parent / "docs" / "capacity.md").read_text().split())
    assert "about 23 nodes of two cores, 1.5 TB of memories" in page and "a topic of 92 partitions" in page


def test_the_bytes_of_a_user_in_a_server_are_those_of_the_page(needs_valkey, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["server_bytes.py", "--users", "400", "--events", "100"])
    monkeypatch.syspath_prepend(str(FOLDER))
    runpy.run_path(str(FOLDER / "server_bytes.py"), run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    page = (FOLDER.parent / "docs" / "capacity.md").read_text()
    number = r"([\d,]+), [\d,]+"
    for way, words in {"alone": r"everything in Valkey, .*", "logged": "the same with the event log"}.items():
        row = re.search(rf"\| {words} \| {number}; {number} \|", page)
        assert row is not None
        said = [int(value.replace(",", "")) for value in row.groups()]
        assert [found[model]["100"][way] for model in ("tally", "hpmn")] == pytest.approx(said, rel=0.05)
