"""`lifelong forget`: deletes users, with everything that is kept of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, StoreOrService, duration_option, is_service
from lifelong.cli.remote import Remote
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.online.store.contract import MemoryStore


def forget(
    terminal: Terminal,
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="Ids of users.")] = [],  # noqa: B006
    *,
    store: StoreOrService,
    key_file: KeyFile = None,
    impressions_log: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also delete them from these files.")
    ] = None,
    dead_letter: Annotated[
        Path | None,
        typer.Option("--dead-letter", metavar="FILE", help="Also delete them from this file of dead letters."),
    ] = None,
    inactive: Annotated[
        float | None, duration_option("--inactive", "Forget users without an event for so long, as in 365d.")
    ] = None,
) -> Reply:
    """Erase users from the store, and from impressions and dead letters if given; then rewrite the store's files."""
    from lifelong.online.memory.event import check_user

    if bool(users) == (inactive is not None):
        raise UsageError(
            "found neither users nor --inactive" if not users else "found users and --inactive",
            expected="USER..., or --inactive DURATION",
            fix="name the users to erase, or erase all who were inactive for so long",
        )
    for user in users:
        check_user(user)
    if is_service(store):
        if impressions_log is not None or dead_letter is not None:
            option = "--dead-letter" if impressions_log is None else "--impressions-log"
            raise UsageError(
                f"{option} with a service",
                fix="leave it out: the service takes them out of its own impressions and dead letters",
            )
        if inactive is not None:
            raise UsageError("--inactive with a service", fix="start the service with --set forget_after=365d")
        return _reply(_asked(store, key_file, users))
    from lifelong.online.store.opening import node_of, open_store

    if node_of(store) is not None:
        raise UsageError(
            f"{store} is the store of a node, whose standbys would keep the users",
            expected="the address of its service, which erases them through the topic",
            fix="lifelong forget USER --store http://HOST:PORT",
        )
    outside = _Outside(impressions_log, dead_letter)
    with contextlib.closing(open_store(store)) as opened:
        document = _named(opened, users, outside) if inactive is None else _inactive(opened, inactive / 86_400, outside)
    return _reply(document, _left_copies(store))


def _left_copies(store: str) -> list[Path]:
    """Unfinished copies of stores next to this one, which a killed backup or restore left, or one that runs builds."""
    if not store.startswith("rocksdb://"):
        return []
    from lifelong.online.store.folder import left_copies
    from lifelong.online.store.opening import local_folder

    return left_copies(local_folder(store).parent)


def _asked(service: str, key_file: Path | None, users: list[str]) -> dict[str, Any]:
    remote = Remote.of(service, key_file)
    replies = [remote.ask("DELETE", f"/v1/admin/users/{quote(user, safe='')}") for user in users]
    return {
        "users": len(users),
        "erased": sum(reply["erased"] for reply in replies),
        "impressions": sum(reply["impressions"] for reply in replies),
        "dead_letters": sum(reply.get("dead_letters", 0) for reply in replies),
        "purged": all(reply["purged"] for reply in replies),
    }


class _Outside:
    """What is kept of users outside of the store.

    Args:
        impressions: folder of a service's log, or None.
        letters: file of dead letters, or None.
    """

    def __init__(self, impressions: Path | None, letters: Path | None) -> None:
        self._impressions, self._letters = impressions, letters
        self.rows = {"impressions": 0, "dead_letters": 0}

    def clean(self, users: Sequence[str]) -> None:
        """Take users out, and count the rows."""
        if self._impressions is not None:
            from lifelong.online.serving.impressions import forget_impressions

            self.rows["impressions"] += forget_impressions(self._impressions, users)
        if self._letters is not None:
            from lifelong.online.ingestion.dead_letters import forget_letters

            self.rows["dead_letters"] += forget_letters(self._letters, users)


def _named(store: MemoryStore, users: list[str], outside: _Outside) -> dict[str, Any]:
    from lifelong.online.memory.forgetting import forget

    # Before the store: after a kill in between, the store still knows the users, and shows that they are not forgotten
    # yet.
    outside.clean(users)
    erased = sum(forget(store, user) for user in users)
    return {"users": len(users), "erased": erased, **outside.rows, "purged": store.purge()}


def _inactive(store: MemoryStore, days: float, outside: _Outside) -> dict[str, Any]:
    from lifelong.online.memory.forgetting import forget_inactive, moment_before

    sweep = forget_inactive(store, moment_before(days), clean=outside.clean)
    return {"users": sweep.users, "erased": sweep.forgotten, **outside.rows, "purged": store.purge()}


def _reply(document: dict[str, Any], copies: Sequence[Path] = ()) -> Reply:
    lines = [f"Erased {document['erased']:,} of {document['users']:,} users."]
    for key, name in (("impressions", "rows of impressions"), ("dead_letters", "dead letters")):
        lines += [f"Removed {document[key]:,} {name}."] * (document[key] > 0)
    for copy in copies:
        lines.append(f"{copy} is an unfinished copy of a store: remove it, or run the backup again; then forget again.")
    if not document["purged"] and not copies:
        lines.append(
            "Old files of the store are still there. Those of a server go at BGREWRITEAOF and its next snapshot, those "
            "of rocksdb:// when what reads them (an export, a build for a new artifact) ends: then forget them again."
        )
    return Reply(document, [*lines])
