"""`lifelong new`: a folder to begin with: a project with a small log, or a package with a model of one's own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import keyword
import re
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from lifelong.cli.terminal import Reply, Terminal, python, runnable
from lifelong.errors import UsageError


def new(
    terminal: Terminal,
    kind: Annotated[Literal["project", "model"], typer.Argument(metavar="project|model", help="What to create.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder; a model has its name, such as my_model.")],
) -> Reply:
    """Create a project with a small log and commands that work, or a package with a working model of your own."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists and is not empty", expected="a new or empty folder", fix="choose another name"
        )
    name = folder.name
    meanings = {} if kind == "project" else _meanings(name)
    templates = {
        template.name: template.read_text(encoding="utf-8")
        for template in files("lifelong.cli").joinpath(kind).iterdir()
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, text in sorted(templates.items()):
        # The commands of a README are typed in the new folder.
        text = runnable(text, elsewhere=True) if file == "README.md" else text
        for word, meaning in meanings.items():
            text, file = text.replace(word, meaning), file.replace(word, meaning)
        written.append(file.removesuffix(".txt"))
        (folder / written[-1]).write_text(text, encoding="utf-8", newline="\n")
    follow: list[Any] = [f"Next: cd {quote(str(folder))}, and follow README.md"]
    if kind == "model":
        follow = [
            f"Next: cd {quote(str(folder))}",
            f"      {python()} -m pytest test_{name}.py",
            runnable(f"      lifelong --import {name} train DATA --model {name} --out ARTIFACT", elsewhere=True),
            f"      {python()} -m pip install -e .     # then without --import",
        ]
    return Reply({"folder": str(folder), "files": written}, [f"Made {folder} with {', '.join(written)}", *follow])


def _origin() -> str:
    """Where this package was installed from, as a dependency names it; nothing where that is an index."""
    origin = json.loads(importlib.metadata.distribution("lifelong").read_text("direct_url.json") or "{}")
    if vcs := origin.get("vcs_info"):
        return f" @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}"
    return f" @ {origin['url']}" if origin else ""


def _meanings(name: str) -> dict[str, str]:
    """What stands in a new model's files for each placeholder.

    Raises:
        UsageError: a module, a class or a distribution cannot have this name, or another one has it.
    """
    if not re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", name) or keyword.iskeyword(name):
        expected = "small letters a to z, digits and underscores, a letter first and no underscore last"
        raise UsageError(f"a model named {name!r}", expected=f"{expected}, such as my_model", fix="choose another name")
    spec = importlib.util.find_spec(name)
    # A folder without __init__.py is found as a module, too, and hides none.
    if spec is not None and spec.origin is not None:
        raise UsageError(
            f"a model named {name!r}, as a module that is installed already ({spec.origin})",
            expected="a name that no other module has",
            fix=f"for example my_{name}",
        )
    words = [word.capitalize() for word in name.split("_")]
    title = "".join(words)
    return {
        "ORIGIN": _origin(),
        "DASHED": name.replace("_", "-"),
        "CLASS": title,
        "TITLE": " ".join(words),
        "NAME": name,
    }
