"""`lifelong switch`: which artifact is served from a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, ServiceUrl, StoreOrNone, one_of
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError


def switch(
    terminal: Terminal,
    artifact: Annotated[
        str | None, typer.Argument(metavar="ARTIFACT", help="Serve this one: its folder, its id, or how its id begins.")
    ] = None,
    *,
    store: StoreOrNone = None,
    service: ServiceUrl = None,
    key_file: KeyFile = None,
    back: Annotated[bool, typer.Option("--back", help="Serve the artifact that was served before.")] = False,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="ARTIFACT", help="Drop the memories of one that is not served.")
    ] = None,
) -> Reply:
    """Serve another artifact whose memories `backfill` has built; go back; drop memories; or list them."""
    one_of(store=store, service=service)
    if (artifact is not None) + back + (drop is not None) > 1:
        raise UsageError("found several things to do", expected="one of ARTIFACT, --back, --drop ARTIFACT, or none")
    if service is not None:
        from lifelong.cli.remote import Remote

        return shown(_remote(Remote.of(service, key_file), artifact, back=back, drop=drop))
    return shown(_local(store or "", artifact, back=back, drop=drop))


def _remote(remote: Any, artifact: str | None, *, back: bool, drop: str | None) -> dict[str, Any]:
    if drop is not None:
        found = remote.ask("DELETE", f"/v1/admin/artifacts/{quote(_id_of(drop), safe='')}")
    elif back or artifact is not None:
        body = {"back": True} if artifact is None else {"artifact": _id_of(artifact)}
        found = remote.ask("POST", "/v1/admin/switch", body)
    else:
        found = remote.ask("GET", "/v1/admin/artifacts")
    document: dict[str, Any] = found
    return document


def _local(url: str, artifact: str | None, *, back: bool, drop: str | None) -> dict[str, Any]:
    from lifelong.memory import takeover
    from lifelong.memory.store import open_store

    changes = back or artifact is not None or drop is not None
    store = open_store(url, read_only=not changes)
    try:
        if drop is not None:
            takeover.drop(store, _id_of(drop))
        elif back:
            takeover.back(store)
        elif artifact is not None:
            takeover.switch(store, _id_of(artifact))
        return listed(store)
    finally:
        store.close()


def listed(store: Any) -> dict[str, Any]:
    """A store's artifacts, as the service lists them."""
    roster = store.roster()
    members = [
        {
            "id": member.id,
            "path": member.identity.path,
            "codec": member.identity.codec,
            "phase": member.phase,
            "served": member.id == roster.active,
        }
        for member in roster.members
    ]
    return {"served": roster.active, "previous": roster.previous or None, "artifacts": members}


def _id_of(text: str) -> str:
    """The id of an artifact's folder; any other text as it is."""
    if not (Path(text) / "manifest.json").is_file():
        return text
    from lifelong.artifact.folder import read_manifest

    return read_manifest(Path(text)).id


def shown(document: dict[str, Any]) -> Reply:
    """The list for people."""
    from rich.table import Table

    table = Table("artifact", "", "memories", "codec", "folder")
    for one in document["artifacts"]:
        role = "served" if one["served"] else "before" if one["id"] == document["previous"] else ""
        phase = f"{one['phase']}: {one['error']}" if one.get("error") else one["phase"]
        table.add_row(one["id"][:12], role, phase, one["codec"], one["path"])
    return Reply(document, [table] if document["artifacts"] else ["The store is new: no artifact has claimed it."])
