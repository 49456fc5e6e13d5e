"""Writes `docs/errors.md` from `lifelong/errors.py` and the errors that are defined next to what raises them.

PYTHONPATH=tests python -m support.errors_page > docs/errors.md      writes it anew
"""

from __future__ import annotations

import inspect
import re
import sys
from types import ModuleType

from lifelong import errors
from lifelong.errors import LifelongError
from lifelong.offline.training import loop, study, trainer
from lifelong.online.serving import errors as serving

_CAUSES = "Causes, and what to do:"
_HEAD = """# Errors

Made from `lifelong/errors.py` by `make pictures`.

Every error says what was found, what was expected and what to do:

```text
{example}
```

From Python it is a `LifelongError` with the attributes `found`, `expected` and `fix`; a command prints it and ends with
the exit code below, with `--json` as `{{"error": {{"type", "found", "expected", "fix"}}}}`, the shape that the
[service](serving.md#errors) has as well. `except LifelongError` catches all of them, and each class those below it:

```text
{tree}
```
"""


def describe_errors() -> str:
    """The page."""
    tree = re.search(r"^ {4}LifelongError\n(?: {4}.*\n)+", errors.__doc__ or "", re.MULTILINE)
    assert tree is not None
    example = errors.UsageError("there is no model 'hpm'", expected="one of hpmn, tally", fix="check the name")
    parts = [_HEAD.format(example=example, tree=inspect.cleandoc(tree[0]))]
    parts += [_section(kind) for kind in defined_in(errors) if kind is not LifelongError]
    parts.append("## Of the service alone\n\n| error | HTTP | what it means |\n| --- | --- | --- |\n")
    parts[-1] += "\n".join(
        f"| `{kind.__name__}` | {_status(kind)} | {_summary(kind)} |" for kind in defined_in(serving)
    )
    parts.append("\n## Of training alone\n\n| error | what it means |\n| --- | --- |\n")
    kinds = [kind for module in (loop, study, trainer) for kind in defined_in(module)]
    parts[-1] += "\n".join(f"| `{kind.__name__}` | {_summary(kind)} |" for kind in kinds)
    return "\n".join(parts) + "\n"


def defined_in(module: ModuleType) -> list[type[LifelongError]]:
    """The public errors of a module, in the order of the file."""
    return [
        kind
        for name, kind in vars(module).items()
        if not name.startswith("_")
        and isinstance(kind, type)
        and issubclass(kind, LifelongError)
        and kind.__module__ == module.__name__
    ]


def causes(kind: type[LifelongError]) -> list[tuple[str, str]]:
    """Pairs of a cause and what to do, from the docstring."""
    text = re.sub(r"\s+", " ", _docstring(kind).partition(_CAUSES)[2].partition("\n\n")[0])
    pairs = [line.partition(" -> ") for line in text.split(" * ") if line.strip()]
    return [(cause.strip(), fix.strip()) for cause, _, fix in pairs]


def _section(kind: type[LifelongError]) -> str:
    parent = kind.__mro__[1]
    exit_code = "Exit code" if parent is LifelongError else f"A `{parent.__name__}`; exit code"
    rows = [f"| {cause} | {fix} |" for cause, fix in causes(kind)]
    return "\n".join(
        [
            f"## {kind.__name__}\n",
            f"{_summary(kind)} {exit_code} {kind.exit_code}, HTTP {_status(kind)}.\n",
            "| cause | what to do |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _summary(kind: type[LifelongError]) -> str:
    return re.sub(r"\s+", " ", _docstring(kind).partition("\n\n")[0])


def _docstring(kind: type[LifelongError]) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _status(kind: type[LifelongError]) -> int:
    """The status of the service's reply."""
    error = kind.__new__(kind)
    LifelongError.__init__(error, "anything")
    return serving.error_response(error).status_code


if __name__ == "__main__":
    sys.stdout.write(describe_errors())
