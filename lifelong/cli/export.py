"""`lifelong export`: all that a store keeps of a user, or the event log of all users."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, ServiceUrl, StoreOrNone, one_of
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.memory.store import MemoryStore

_USERS = 1_000


def export(
    terminal: Terminal,
    *,
    store: StoreOrNone = None,
    service: ServiceUrl = None,
    key_file: KeyFile = None,
    user: Annotated[str | None, typer.Option("--user", help="All that is kept of this user, as JSON.")] = None,
    events: Annotated[
        Path | None, typer.Option("--events", metavar="FILE", help="The event log of all users: .csv or .jsonl.")
    ] = None,
) -> Reply:
    """Write out what a store keeps: of one user as JSON, or everyone's events as a log that `prepare` reads."""
    one_of(store=store, service=service)
    if (user is None) == (events is None):
        raise UsageError("found neither --user nor --events, or both", expected="--user USER, or --events FILE")
    if service is not None:
        if user is None:
            raise UsageError("--events with --service", fix="name the store: --store URL reads beside the service")
        from lifelong.cli.remote import Remote

        found = Remote.of(service, key_file).ask("GET", f"/v1/admin/users/{quote(user, safe='')}")
        return Reply(found, [json.dumps(found, indent=2)])
    from lifelong.memory.store import open_store

    opened = open_store(store or "", read_only=True)
    try:
        if user is not None:
            from lifelong.memory.forgetting import export as everything

            found = everything(opened, user)
            return Reply(found, [json.dumps(found, indent=2)])
        assert events is not None
        number = write_log(opened, events)
        return Reply({"events": number, "out": str(events)}, [f"Wrote {number:,} events into {events}"])
    finally:
        opened.close()


def write_log(store: MemoryStore, path: Path) -> int:
    """Write all events, and say how many; the file appears only when it is complete.

    Raises:
        UsageError: the ending names no format.
    """
    writers = {".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in writers:
        raise UsageError(f"{path}: the ending says no known format", expected=".csv or .jsonl", fix="rename it")
    draft = path.with_name(path.name + ".new")
    rows = list(_fields(store))
    number = writers[path.suffix](draft, _rows(store), rows)
    draft.rename(path)
    return number


def _csv(path: Path, rows: Iterator[dict[str, Any]], fields: list[str]) -> int:
    number = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time", "event_type", *fields])
        for row in rows:
            number += 1
            given = row["fields"] or {}
            values = [row["user"], row["item"], row["time"], row["event_type"], *map(given.get, fields)]
            writer.writerow(["" if value is None else value for value in values])
    return number


def _jsonl(path: Path, rows: Iterator[dict[str, Any]], fields: list[str]) -> int:
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            number += 1
            plain = {name: value for name, value in row.items() if name != "fields"}
            file.write(json.dumps({**plain, **(row["fields"] or {})}, ensure_ascii=False) + "\n")
    return number


def _fields(store: MemoryStore) -> list[str]:
    """Item fields that came with any event."""
    return sorted({name for row in _rows(store) for name in row["fields"] or ()})


def _rows(store: MemoryStore) -> Iterator[dict[str, Any]]:
    """Events of all users, of each the oldest first."""
    from lifelong.memory.event import decode_event

    served = store.roster().served
    users = iter(()) if served is None else (user for user, _ in store.users(slot=served.slot))
    while some := list(islice(users, _USERS)):
        for user, log in zip(some, store.logs([(user, 0) for user in some]), strict=True):
            for _, value in log:
                event = decode_event(value)
                parts = {"item": event.item, "time": event.time, "event_type": event.event_type}
                yield {"user": user, **parts, "fields": event.fields}
