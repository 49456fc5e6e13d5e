"""`lifelong init`: a folder with a small log and all files of a project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from lifelong.cli.terminal import Reply, Terminal, runnable
from lifelong.errors import UsageError


def init(
    terminal: Terminal,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder of the project.")],
) -> Reply:
    """Create a project: a log of 200 purchases, its mapping, settings, and a README with commands that work."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists and is not empty", expected="a new or empty folder", fix="choose another name"
        )
    templates = sorted(
        (part for part in files("lifelong.cli").joinpath("project").iterdir()), key=lambda part: part.name
    )
    folder.mkdir(parents=True, exist_ok=True)
    for part in templates:
        text = part.read_text(encoding="utf-8")
        # Its commands are typed in the new folder.
        written = runnable(text, elsewhere=True) if part.name == "README.md" else text
        (folder / part.name).write_text(written, encoding="utf-8", newline="\n")
    names = [part.name for part in templates]
    lines: list[Any] = [
        f"Made {folder} with {', '.join(names)}",
        f"Next: cd {quote(str(folder))}, and follow README.md",
    ]
    return Reply({"folder": str(folder), "files": names}, lines)
