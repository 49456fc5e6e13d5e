"""Writes `docs/cli.md` from the commands' own help.

PYTHONPATH=tests python -m support.commands > docs/cli.md      writes it anew
"""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from lifelong.cli.examples import EXAMPLES
from lifelong.cli.program import build

_JOINT = "\x1f"
"""For a space at which no line ends."""
_HEAD = """# Commands

Made from the commands' own help by `make pictures`.

Every command takes `--json` (one JSON document on stdout, everything else on stderr) and `--debug`. Exit codes: 0 done,
1 failed or the answer is no, 2 bad usage, 130 interrupted. An error says what was found, what was expected and what to
do; with `--json` it is `{"error": {"type", "found", "expected", "fix"}}`. The examples from `prepare` to `doctor` run
in the folder that `lifelong new project shop` makes.
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
    words = " ".join(_usage(parameter) for parameter in shown)
    lines = [f"## {name}", "", command.help, "", *_wrapped(f"lifelong {name} {words}".rstrip()), ""]
    if shown:
        lines += [
            "| argument or option | meaning | default |",
            "| --- | --- | --- |",
            *(_row(parameter) for parameter in shown),
            "",
        ]
    lines += ["Example:", "", f"    {EXAMPLES[name]}", ""]
    return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    """Lines of code that fit the page; an option stays with its value."""
    kept = textwrap.wrap(
        line, 88, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )
    return [part.replace(_JOINT, " ") for part in kept]


def _usage(parameter: Any) -> str:
    """The parameter in a command line."""
    word = _name(parameter).replace(" ", _JOINT)
    return word if parameter.required else f"[{word}]"


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


def _row(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is False or default == [] or callable(default) or default == "":
        shown = ""
    else:
        shown = f"`{default}`"
    # In code between backticks, the site shows the backslash that GitHub wants before a bar.
    name = _name(parameter)
    code = f"<code>{name.replace('|', '&#124;')}</code>" if "|" in name else f"`{name}`"
    return f"| {code} | {parameter.help or ''} | {shown} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
