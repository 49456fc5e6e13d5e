"""Writes `docs/errors.md` from `lifelong/errors.py`.

PYTHONPATH=tests python -m support.errors_page > docs/errors.md      writes it anew
"""

from __future__ import annotations

import inspect
import re
import sys
from types import ModuleType

from lifelong import errors
from lifelong.errors import LifelongError
from lifelong.online.serving import errors as serving

_HEAD = """# Errors

Every error says what was found, what was expected and what to do:

```text
{example}
```

From Python it is a `LifelongError` with the attributes `found`, `expected` and `fix`; a command prints it, with
`--json` in the shape that the service has as well, and ends with 1, or 2 for a `UsageError`.
The service has others for [its statuses](serving.md#errors).

| error | kind of | HTTP | what it means |
| --- | --- | --- | --- |
"""


def describe_errors() -> str:
    """The page."""
    example = errors.UsageError("there is no model 'hpm'", expected="one of hpmn, tally", fix="check the name")
    kinds = [kind for kind in defined_in(errors) if kind is not LifelongError]
    return _HEAD.format(example=example) + "\n".join(map(_row, kinds)) + "\n"


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


def _row(kind: type[LifelongError]) -> str:
    summary = re.sub(r"\s+", " ", inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0])
    return f"| `{kind.__name__}` | `{kind.__mro__[1].__name__}` | {_status(kind)} | {summary} |"


def _status(kind: type[LifelongError]) -> int:
    """The status of the service's reply."""
    error = kind.__new__(kind)
    LifelongError.__init__(error, "anything")
    return serving.error_response(error).status_code


if __name__ == "__main__":
    sys.stdout.write(describe_errors())
