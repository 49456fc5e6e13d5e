"""Arguments that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lifelong.errors import UsageError

Late = Literal["apply", "refuse"]
ArtifactPath = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder that `lifelong train` wrote.")]
DataPath = Annotated[Path, typer.Argument(metavar="DATA", help="Folder that `lifelong prepare` wrote.")]
StoreUrl = Annotated[
    str,
    typer.Option("--store", metavar="URL", help="rocksdb:///path[?shards=N], redis://host:port/database or memory://"),
]
ServiceUrl = Annotated[
    str | None,
    typer.Option("--service", metavar="URL", help="Ask the service that owns the store, as in http://127.0.0.1:8000."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="File whose first key opens the service's administration.")
]
StoreOrNone = Annotated[str | None, typer.Option("--store", metavar="URL", help="The store, if no service owns it.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")]
Until = Annotated[int | None, typer.Option("--until", help="Only events before this time, UTC seconds.")]
BaseRate = Annotated[
    str | None,
    typer.Option(
        "--base-rate", help="Share of positives in the world, for probabilities; of tasks, as in buy=0.01,any=0.2."
    ),
]
NewCodec = Annotated[
    Literal["fp32", "fp16", "int8"] | None,
    typer.Option("--codec", help="How a new store keeps memories; each command then uses the store's own."),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="FIELD=VALUE", help="What is known of the user; repeatable."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the computation.")]


def pairs(words: Sequence[str], *, option: str) -> dict[str, str]:
    """The mapping that `KEY=VALUE` words make.

    Raises:
        UsageError: a word has no `=`, or a key stands twice.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {word}", expected="KEY=VALUE", fix=f"write {option} key=value")
        if key in found:
            raise UsageError(f"{option} names {key!r} twice", expected="each key once", fix="leave one of them out")
        found[key.strip()] = value
    return found


def base_rate_of(text: str | None) -> float | dict[str, float] | None:
    """The value of `--base-rate`: one share, or one for each task that is named.

    Raises:
        UsageError: a share is no number between 0 and 1.
    """
    if text is None:
        return None
    given = pairs(names(text), option="--base-rate") if "=" in text else {"": text}
    found = {}
    for task, share in given.items():
        try:
            found[task] = float(share)
        except ValueError:
            found[task] = -1.0
        if not 0 < found[task] < 1:
            raise UsageError(f"a base rate of {share}", expected="a share between 0 and 1, without the ends")
    return found.get("", found)


def profile_of(words: Sequence[str] | None) -> dict[str, str | None] | None:
    """The profile that `--profile FIELD=VALUE` words make; an empty value is not known."""
    return {field: value or None for field, value in pairs(words, option="--profile").items()} if words else None


def literal(text: str) -> Any:
    """A value as written on the command line: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def names(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def one_of(*, store: str | None, service: str | None) -> None:
    """Refuse a command that names neither a store nor a service, or both.

    Raises:
        UsageError: it does.
    """
    if (store is None) == (service is None):
        raise UsageError(
            "found neither --store nor --service" if store is None else "found both --store and --service",
            expected="--store URL, or --service URL where a service owns the store",
        )
