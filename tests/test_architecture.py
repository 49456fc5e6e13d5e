"""The import graph, the import contracts, the registry and the layout of the folders."""

import tomllib
from pathlib import Path

from support.imports import NOT_MODELS, find_circle, import_graph

ROOT = Path(__file__).parents[1]
ROOMS = ("store", "data", "preparation", "memory", "ingestion", "scoring", "serving")


def test_imports_inside_functions_and_for_typing_and_relative_ones_close_a_circle(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py"):
        (package / name).write_text("")
    (package / "a.py").write_text("def load():\n    from pack.inner import b\n    return b\n")
    (package / "inner" / "b.py").write_text("if TYPE_CHECKING:\n    from .c import Name\n")
    (package / "inner" / "c.py").write_text("from .. import a\nimport os\n\nclass Name: ...\n")
    graph = import_graph(tmp_path, "pack")
    assert graph["pack.a"] == {"pack.inner.b"}
    assert sorted(find_circle(graph)[1:]) == ["pack.a", "pack.inner.b", "pack.inner.c"]


def test_every_package_is_under_the_contracts() -> None:
    contracts = {contract["name"]: contract for contract in _contracts()}
    packages = {f"lifelong.{path.parent.name}" for path in (ROOT / "lifelong").glob("*/__init__.py")}
    bytes_only = contracts["a store keeps bytes and knows nothing else"]["forbidden_modules"]
    assert packages - {"lifelong.online.store"} <= set(bytes_only)
    prepared = contracts["only the commands and the public functions prepare raw logs"]["source_modules"]
    assert packages - {"lifelong.offline.preparation", "lifelong.cli", "lifelong.testing"} <= set(prepared)


def test_every_room_has_its_tests() -> None:
    packages = {path.parent.name for path in (ROOT / "lifelong").glob("*/__init__.py")}
    assert set(ROOMS) <= packages
    for package in packages - {"testing"}:
        assert list((ROOT / "tests" / package).glob("test_*.py")), f"tests/{package} has no test"


def test_every_model_file_is_in_the_contract_that_keeps_models_apart() -> None:
    listed = {name for contract in _contracts() if contract["type"] == "independence" for name in contract["modules"]}
    files = {path.stem for path in (ROOT / "lifelong" / "models").glob("*.py")} - NOT_MODELS
    assert listed == {f"lifelong.models.{name}" for name in files}


def test_every_package_says_what_it_is_for() -> None:
    for init in (ROOT / "lifelong").rglob("__init__.py"):
        assert init.read_text().lstrip().startswith('"""'), init


def test_folders_are_at_most_two_deep() -> None:
    deepest = max(len(path.relative_to(ROOT / "lifelong").parts) for path in (ROOT / "lifelong").rglob("*.py"))
    assert deepest <= 3


def _contracts() -> list[dict[str, object]]:
    contracts: list[dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return contracts


def test_no_module_imports_itself_by_way_of_others() -> None:
    circle = find_circle(import_graph())
    assert not circle, "a circle of imports: " + " -> ".join(circle)
