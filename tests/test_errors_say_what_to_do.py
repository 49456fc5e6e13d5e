"""Every error about data, artifacts, stores, streams and requests, and every one of a command, says what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lifelong import errors
from lifelong.errors import LifelongError, SourceError, UsageError

PACKAGE = Path(errors.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LifelongError)}
CALLS = {"UsageError"}
"""Of a function's argument of the wrong type or value, `expected` says it all; not so in a command."""


def made(path):
    """Errors that a file makes: kind, line, and whether each has something to do."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
            yield node.func.id, node.lineno, any(word.arg in ("fix", None) for word in node.keywords)


def test_errors_have_a_fix():
    without, found = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        of_command = path.parent.name == "cli"
        for kind, line, has_fix in made(path):
            found += 1
            if not has_fix and (of_command or kind not in CALLS):
                without.append(f"{path.relative_to(PACKAGE)}:{line} {kind}")
    assert found > 400
    assert without == []


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("mapping", SourceError, "To do: correct the line"),
        ("seeds", UsageError, "To do: give whole numbers, such as --seeds 3"),
        ("address", UsageError, "To do: begin it with http:// or https://"),
        ("ranking", UsageError, "To do: separate the places by commas"),
    ],
)
def test_it_is_part_of_the_message(tmp_path, call, kind, words):
    from lifelong.cli.compare import seed_counts
    from lifelong.cli.evaluate import _places
    from lifelong.cli.remote import Remote
    from lifelong.config import read_mapping

    (tmp_path / "mapping.json").write_text("{user: 1}")
    calls = {
        "mapping": lambda: read_mapping(tmp_path / "mapping.json"),
        "seeds": lambda: seed_counts("two"),
        "address": lambda: Remote.of("localhost", None),
        "ranking": lambda: _places("ten"),
    }
    with pytest.raises(kind, match=words):
        calls[call]()
