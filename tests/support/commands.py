"""Writes `docs/cli.md` from the commands' own help.

PYTHONPATH=tests python -m support.commands > docs/cli.md      writes it anew
"""

from __future__ import annotations

import sys
from typing import Any

from lifelong.cli.extras import EXAMPLES
from lifelong.cli.program import build

_HEAD = """# Commands

Every command takes `--json` (one JSON document on stdout, everything else on stderr) and `--debug` (logs, tracebacks).
Exit codes: 0 done, 1 failed or the answer is no, 2 bad usage, 130 interrupted. The examples from `prepare` to `doctor`
run in the folder that `lifelong new project shop` makes.
"""


def reference() -> str:
    """The page."""
    program = build()
    parts = [_HEAD]
    for name, command in program.commands.items():
        parts.append(_section(name, command))
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    shown = [parameter for parameter in command.params if parameter.name not in ("help", "as_json", "debug")]
    listed = [_item(parameter) for parameter in shown]
    return "\n".join([f"## {name}", "", command.help, "", f"    {EXAMPLES[name]}", "", *listed, ""])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    flag = parameter.opts[0]
    return str(flag) if parameter.is_flag else f"{flag} {_value(parameter)}"


def _value(parameter: Any) -> str:
    """The placeholder of an option's value."""
    if parameter.metavar:
        return str(parameter.metavar)
    # Typer's own parameters describe their type; Click's carry it.
    described = getattr(parameter, "type_descriptor", None) or parameter.type
    choices = getattr(described, "choices", None)
    return "|".join(str(choice) for choice in choices) if choices else str(parameter.name).upper()


def _item(parameter: Any) -> str:
    said = parameter.help or ""
    if parameter.param_type_name != "argument":
        default = parameter.default
        if parameter.required:
            said += " Required."
        elif not (default is None or default is False or default == [] or callable(default) or default == ""):
            said += f" Default: `{default}`."
    return f"* `{_name(parameter)}`: {said}"


if __name__ == "__main__":
    sys.stdout.write(reference())
