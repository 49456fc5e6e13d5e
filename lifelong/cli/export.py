"""`lifelong export`: everything that a store keeps of a user, or the event log of all users."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, StoreOrService, is_service
from lifelong.cli.remote import Remote
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.online.store.contract import MemoryStore

_USERS = 1_000


def export(
    terminal: Terminal,
    *,
    store: StoreOrService,
    key_file: KeyFile = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="All that is kept of this user, as JSON.")] = None,
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Export all users' event logs to this .csv file."),
    ] = None,
) -> Reply:
    """Export everything about one user as JSON, or all events as a log that `prepare` reads."""
    if user == "":
        raise UsageError("--user is empty", expected="the id of a user", fix="--user ID")
    if (user is None) == (events is None):
        raise UsageError(
            "found neither or both of --user and --events",
            expected="--user USER, or --events FILE",
            fix="name a user for her record, or a file for the whole event log",
        )
    if is_service(store):
        if user is None:
            raise UsageError(
                "--events with a service", fix="name the store itself, which can be read while the service runs"
            )
        export = Remote.of(store, key_file).ask("GET", f"/v1/admin/users/{quote(user, safe='')}")
        return Reply(export, [json.dumps(export, indent=2)])
    from lifelong.online.store.opening import open_store

    with contextlib.closing(open_store(store, read_only=True)) as opened:
        if user is not None:
            from lifelong.online.memory.forgetting import export as everything

            export = everything(opened, user)
            return Reply(export, [json.dumps(export, indent=2)])
        assert events is not None
        number = write_log(opened, events)
        return Reply({"events": number, "out": str(events)}, [f"Wrote {number:,} events into {events}"])


def write_log(store: MemoryStore, path: Path) -> int:
    """Write all events, and say how many; the file appears only when it is complete.

    Raises:
        UsageError: the ending names no format, or the file cannot be there.
    """
    from lifelong.atomic import check_file
    from lifelong.online.scoring.tables import format_of, written_rows

    format_of(path, ("csv",))
    check_file(path)
    number, columns = 0, ["user", "item", "time", "event_type", *_fields(store)]
    with written_rows(path, dict.fromkeys(columns, "string")) as write:
        for row in _rows(store):
            fields = row.pop("fields") or {}
            write([row | fields])
            number += 1
    return number


def _fields(store: MemoryStore) -> list[str]:
    """Item fields given with any event."""
    return sorted({name for row in _rows(store) for name in row["fields"] or ()})


def _rows(store: MemoryStore) -> Iterator[dict[str, Any]]:
    """Events of all users, each user's oldest first."""
    from lifelong.online.memory.event import decode_event

    served = store.artifact_list().served
    users = iter(()) if served is None else (user for user, _ in store.scan(served.space))
    # In batches, so that the logs of all users are never in RAM together.
    while batch := list(islice(users, _USERS)):
        for user, log in zip(batch, store.logs([(user, 0) for user in batch]), strict=True):
            for _, value in log:
                event = decode_event(value)
                parts = {"item": event.item, "time": event.time, "event_type": event.event_type}
                yield {"user": user, **parts, "fields": event.fields}
