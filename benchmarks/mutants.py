"""Do the tests notice mistakes? Changes one operator, constant or condition at a time and runs the module's own tests.

The places are comparisons, arithmetic, `and` and `or`, `not`, conditions, numbers and truth values; `--mutants` of them
are chosen by `--seed`, or all that stand on `--lines`. Tests run on a copy of the package, and stop at their first
failure; a mutant that runs into `--timeout` counts as noticed. What survives is printed with its line, to be looked at:
some change nothing that a user could see.

    python benchmarks/mutants.py lifelong/offline/data/counts.py tests/data/test_counts.py --mutants 8 --seed 0

The last line is JSON.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}


def _changed(node: ast.AST) -> ast.AST | None:
    """The node with one mistake, None where it has no place for one."""
    new: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        new.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        new = new.operand
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.BoolOp):
        new.test = ast.UnaryOp(ast.Not(), new.test)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        new.value = not node.value
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        new.value = node.value + 1
    else:
        return None
    return ast.fix_missing_locations(ast.copy_location(new, node))


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """(parent, field, index, node) of what runs: annotations do not, docstrings hold no mistake."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns"):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST) and not _inside_annotation(tree, node):
                    yield parent, field, index, node


def _inside_annotation(tree: ast.Module, node: ast.AST) -> bool:
    """Whether the node stands in a type, which nothing evaluates."""
    known: set[int] | None = getattr(tree, "typed", None)
    if known is None:
        owners = [getattr(one, name, None) for one in ast.walk(tree) for name in ("annotation", "returns")]
        known = {id(inner) for owner in owners if owner is not None for inner in ast.walk(owner)}
        tree.typed = known  # type: ignore[attr-defined]
    return id(node) in known


def mutants(source: str) -> list[tuple[int, str, str]]:
    """Line, what stands there instead, and the whole changed source of every place."""
    tree, found = ast.parse(source), []
    for parent, field, index, node in list(_places(tree)):
        new = _changed(node)
        if new is None:
            continue
        holder = getattr(parent, field)
        if index is None:
            setattr(parent, field, new)
        else:
            holder[index] = new
        words = ast.unparse(new).splitlines()[0]
        found.append(
            (getattr(node, "lineno", 0), f"{ast.unparse(node).splitlines()[0]}  ->  {words}", ast.unparse(tree))
        )
        if index is None:
            setattr(parent, field, node)
        else:
            holder[index] = node
    return found


def noticed(folder: Path, module: Path, source: str, tests: list[str], timeout: float) -> bool:
    """Whether a test fails with the changed source."""
    (folder / module).write_text(source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--doctest-modules", str(module)]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run([*command, *tests], cwd=folder, env=environment, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("module", type=Path, help="file of the package, from the repository's root")
    parser.add_argument("tests", nargs="+", help="test files that should notice")
    parser.add_argument("--mutants", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=int, nargs="*", default=[], help="all places on these lines instead")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of one run of the tests")
    options = parser.parse_args()
    original = (ROOT / options.module).read_text()
    every = mutants(original)
    chosen = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
    if options.lines:
        chosen = [one for one in every if one[0] in options.lines]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("lifelong", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        if noticed(folder, options.module, original, options.tests, options.timeout):
            raise SystemExit("the tests fail without a mistake")
        survived = []
        for line, words, source in sorted(chosen):
            seen = noticed(folder, options.module, source, options.tests, options.timeout)
            print(f"{'noticed ' if seen else 'SURVIVED'} {options.module}:{line}  {words}", flush=True)
            survived += [] if seen else [{"line": line, "change": words}]
    print(json.dumps({"places": len(every), "mutants": len(chosen), "survived": survived}))


if __name__ == "__main__":
    main()
