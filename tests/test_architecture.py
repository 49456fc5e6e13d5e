"""The import graph, the import contracts, the registry and the layout of the folders."""

import re
import tomllib
from pathlib import Path

from support.imports import find_circle, import_graph

from lifelong.offline.models import MODELS, PRESETS

ROOT = Path(__file__).parents[1]


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


def test_every_room_has_its_tests() -> None:
    rooms = {
        path.parent.name for half in ("offline", "online") for path in (ROOT / "lifelong" / half).glob("*/__init__.py")
    }
    for room in rooms - {"export"} | {"artifact", "tally", "cli"}:
        assert list((ROOT / "tests" / room).glob("test_*.py")), f"tests/{room} has no test"


def test_every_model_file_is_in_the_contract_that_keeps_models_apart() -> None:
    (listed,) = (set(contract["modules"]) for contract in _contracts() if contract["type"] == "independence")
    assert listed == {entry.__module__ for entry in [*MODELS.values(), *(preset.entry for preset in PRESETS.values())]}


def test_the_zoo_is_imported_by_no_module_of_another_room() -> None:
    for module, imported in import_graph().items():
        if not module.startswith("lifelong.zoo"):
            assert not [name for name in imported if name.startswith("lifelong.zoo")], module


def test_every_package_says_what_it_is_for() -> None:
    for init in (ROOT / "lifelong").rglob("__init__.py"):
        assert init.read_text().lstrip().startswith('"""'), init


def test_folders_are_at_most_three_deep() -> None:
    deepest = max(len(path.relative_to(ROOT / "lifelong").parts) for path in (ROOT / "lifelong").rglob("*.py"))
    assert deepest <= 4


def test_the_page_of_the_architecture_shows_the_layers_of_the_contracts() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text().partition("```text\n")[2].partition("```")[0]
    rows = [set(re.findall(r"\w+", line)) for line in page.splitlines()]
    for contract in _contracts():
        layers = [{name.rpartition(".")[2] for name in layer.split(" | ")} for layer in contract.get("layers", ())]
        places = [next(at for at, row in enumerate(rows) if row >= layer) for layer in layers]
        assert places == sorted(places)


def _contracts() -> list[dict[str, object]]:
    contracts: list[dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return contracts


def test_no_module_imports_itself_by_way_of_others() -> None:
    circle = find_circle(import_graph())
    assert not circle, "a circle of imports: " + " -> ".join(circle)
