"""`lifelong doctor`: what is installed, and which commands can run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lifelong.cli.extras import COMMANDS, EXTRAS
from lifelong.cli.terminal import Reply, Terminal, columns, runnable
from lifelong.launch import cores
from lifelong.version import __version__


def doctor(
    terminal: Terminal,
    *,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Check this store instead: its format, and which failures it survives."),
    ] = None,
) -> Reply:
    """Show what is installed, the machine, and which commands can run; or check a store."""
    if store is not None:
        return _store(store)
    missing = {extra: [name for name in modules if not _installed(name)] for extra, modules in EXTRAS.items()}
    commands = {name: [extra for extra in extras if missing[extra]] for name, extras in COMMANDS.items()}
    document = {
        "lifelong": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores(),
        "memory_bytes": _memory(),
        "packages": {name: _version(name) for modules in EXTRAS.values() for name in modules},
        "extras": {extra: {"installed": not names, "missing": names} for extra, names in missing.items()},
        "commands": {name: {"possible": not extras, "needs": extras} for name, extras in commands.items()},
    }
    return Reply(document, _summary(document))


def _store(url: str) -> Reply:
    """Which failures a store survives; the exit code is 1 if something should be changed."""
    from lifelong.online.store.checkup import check_store, describe
    from lifelong.online.store.redis_address import without_password

    checkup = check_store(url)
    document = {"store": without_password(url), **asdict(checkup)}
    return Reply(document, [document["store"], *describe(checkup)], exit_code=1 if checkup.problems else 0)


def _summary(document: dict[str, Any]) -> list[Any]:
    memory = document["memory_bytes"]
    words = {True: "yes", False: "no"}
    extras = [
        (name, words[state["installed"]], ", ".join(state["missing"])) for name, state in document["extras"].items()
    ]
    commands = []
    for name, state in document["commands"].items():
        fix = runnable(f"pip install 'lifelong[{','.join(state['needs'])}]'") if state["needs"] else ""
        commands.append((name, words[state["possible"]], fix))
    return [
        f"lifelong {document['lifelong']}, Python {document['python']}, {document['platform']}",
        f"{document['cores']} cores, {f'{memory / 2**30:.1f} GiB' if memory else 'unknown'} memory",
        columns("extra", "installed", "missing", rows=extras),
        columns("command", "possible", "to do", rows=commands),
    ]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        # A package that it would be in is not there.
        return False


def distribution_of(module: str) -> str:
    """The distribution that brings a module.

    >>> distribution_of("ibis"), distribution_of("confluent_kafka")
    ('ibis-framework', 'confluent-kafka')
    """
    others = {"ibis": "ibis-framework", "mlflow": "mlflow-skinny", "yaml": "pyyaml"}
    return others.get(module, re.sub(r"[_.]", "-", module).lower())


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(distribution_of(module))
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Memory of the machine in bytes, or of the container where that is less."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(physical, int(text)) if text.isdigit() else physical
