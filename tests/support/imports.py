"""Which module of the package imports which, read from the files.

Every import counts: at the top of a file, inside a function, and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "lifelong"

Graph = dict[str, set[str]]


def import_graph(root: Path = ROOT, package: str = PACKAGE) -> Graph:
    """Module -> the modules of the package that it imports, itself left out."""
    files = {_dotted(path.relative_to(root)): path for path in (root / package).rglob("*.py")}
    graph: Graph = {}
    for name, path in files.items():
        home = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = {_module(target, files) for target in _targets(ast.parse(path.read_text()), home)}
        graph[name] = {target for target in imported if target in files} - {name}
    return graph


def find_circle(graph: Graph) -> list[str]:
    """The modules of one circle, in the order of their imports, the first one again at the end; empty if none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        # The sorter lists predecessors first: what is imported before what imports it.
        return circle[::-1]
    return []


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _targets(tree: ast.Module, home: str) -> Iterator[str]:
    """What the file imports; of `from a import b`, `a.b`, which may be a module or a name of `a`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = home.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _module(target: str, files: dict[str, Path]) -> str:
    return target if target in files else target.rpartition(".")[0]
