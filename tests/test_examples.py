"""The examples in docstrings run as they stand."""

import doctest
import importlib
from pathlib import Path

import pytest

import lifelong

PACKAGE = Path(lifelong.__file__).parent
MODULES = [
    ".".join((lifelong.__name__, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.torch
@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
