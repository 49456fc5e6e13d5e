"""`lifelong forget`: users are taken out, with all that is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, ServiceUrl, StoreOrNone, one_of
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.memory.store import MemoryStore


def forget(
    terminal: Terminal,
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="Their ids.")] = [],  # noqa: B006
    *,
    store: StoreOrNone = None,
    service: ServiceUrl = None,
    key_file: KeyFile = None,
    impressions_log: Annotated[
        Path | None, typer.Option("--impressions-log", metavar="DIR", help="Take them out of these files, too.")
    ] = None,
    inactive: Annotated[
        float | None, typer.Option("--inactive", metavar="DAYS", help="All who had no event for so long.")
    ] = None,
) -> Reply:
    """Erase users: memories of every artifact, events, event ids, impressions; then rewrite the store's files."""
    one_of(store=store, service=service)
    if bool(users) == (inactive is not None):
        raise UsageError(
            "found neither users nor --inactive" if not users else "found users and --inactive",
            expected="USER..., or --inactive DAYS",
        )
    if service is not None:
        if inactive is not None:
            raise UsageError("--inactive with --service", fix="start the service with --forget-after DAYS")
        return _told(_asked(service, key_file, users))
    from lifelong.memory.store import open_store

    opened = open_store(store or "")
    try:
        return _told(_inactive(opened, inactive) if inactive is not None else _named(opened, users, impressions_log))
    finally:
        opened.close()


def _asked(service: str, key_file: Path | None, users: list[str]) -> dict[str, Any]:
    from lifelong.cli.remote import Remote

    remote = Remote.of(service, key_file)
    replies = [remote.ask("DELETE", f"/v1/admin/users/{quote(user, safe='')}") for user in users]
    return {
        "users": len(users),
        "erased": sum(reply["erased"] for reply in replies),
        "impressions": sum(reply["impressions"] for reply in replies),
        "purged": all(reply["purged"] for reply in replies),
    }


def _named(store: MemoryStore, users: list[str], log: Path | None) -> dict[str, Any]:
    from lifelong.memory.forgetting import forget
    from lifelong.serving.impressions import forget_impressions

    erased = sum(forget(store, user) for user in users)
    rows = 0 if log is None else sum(forget_impressions(log, user) for user in users)
    return {"users": len(users), "erased": erased, "impressions": rows, "purged": store.purge()}


def _inactive(store: MemoryStore, days: float) -> dict[str, Any]:
    from lifelong.memory.forgetting import forget_inactive, moment_before

    sweep = forget_inactive(store, moment_before(days))
    return {"users": sweep.users, "erased": sweep.forgotten, "impressions": 0, "purged": store.purge()}


def _told(document: dict[str, Any]) -> Reply:
    lines = [f"Erased {document['erased']:,} of {document['users']:,} users."]
    if not document["purged"]:
        lines.append("The server keeps files of its own: BGREWRITEAOF, and its next snapshot, take them out of those.")
    return Reply(document, [*lines])
