"""The import contracts and the registry cover every model file."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_model_file_is_in_the_contract_that_keeps_models_apart() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = {name for contract in contracts if contract["type"] == "independence" for name in contract["modules"]}
    files = {path.stem for path in (ROOT / "lifelong" / "models").glob("*.py")} - {"__init__", "__main__", "base"}
    assert listed == {f"lifelong.models.{name}" for name in files}


def test_every_package_says_what_it_is_for() -> None:
    for init in (ROOT / "lifelong").rglob("__init__.py"):
        assert init.read_text().lstrip().startswith('"""'), init


def test_folders_are_at_most_two_deep() -> None:
    deepest = max(len(path.relative_to(ROOT / "lifelong").parts) for path in (ROOT / "lifelong").rglob("*.py"))
    assert deepest <= 3
