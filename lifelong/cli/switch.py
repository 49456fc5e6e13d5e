"""`lifelong switch`: which artifact is served from a store."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lifelong.cli.options import KeyFile, StoreOrService, is_service
from lifelong.cli.remote import Remote
from lifelong.cli.terminal import Reply, Terminal, columns
from lifelong.errors import UsageError


def switch(
    terminal: Terminal,
    artifact: Annotated[
        str | None,
        typer.Argument(metavar="ARTIFACT", help="Artifact to serve: its folder, its id, or the start of its id."),
    ] = None,
    *,
    store: StoreOrService,
    key_file: KeyFile = None,
    back: Annotated[bool, typer.Option("--back", help="Serve the artifact that was served before.")] = False,
    drop: Annotated[
        str | None, typer.Option(metavar="ARTIFACT", help="Delete the memories of an artifact that is not served.")
    ] = None,
) -> Reply:
    """Serve another artifact, once `backfill` has built its memories; go back; drop memories; or list the artifacts."""
    if (artifact is not None) + back + (drop is not None) > 1:
        raise UsageError(
            "found more than one action",
            expected="one of ARTIFACT, --back and --drop ARTIFACT, or none",
            fix="do one after the other",
        )
    if is_service(store):
        return shown(_remote(Remote.of(store, key_file), artifact, back=back, drop=drop))
    return shown(_local(store, artifact, back=back, drop=drop))


def _remote(remote: Remote, artifact: str | None, *, back: bool, drop: str | None) -> dict[str, Any]:
    if drop is not None:
        return remote.ask("DELETE", f"/v1/admin/artifacts/{quote(_id_of(drop), safe='')}")
    if back or artifact is not None:
        return remote.ask(
            "POST", "/v1/admin/switch", {"back": True} if artifact is None else {"artifact": _id_of(artifact)}
        )
    return remote.ask("GET", "/v1/admin/artifacts")


def _local(url: str, artifact: str | None, *, back: bool, drop: str | None) -> dict[str, Any]:
    from lifelong.online.memory import takeover
    from lifelong.online.store.opening import open_store

    changes = back or artifact is not None or drop is not None
    with contextlib.closing(open_store(url, read_only=not changes)) as store:
        if drop is not None:
            takeover.drop(store, _id_of(drop))
        elif back:
            takeover.back(store)
        elif artifact is not None:
            takeover.switch(store, _id_of(artifact))
        return listed(store)


def listed(store: Any) -> dict[str, Any]:
    """A store's artifacts, as the service lists them."""
    artifact_list = store.artifact_list()
    artifacts = [
        {
            "id": stored.id,
            "path": stored.identity.path,
            "codec": stored.identity.codec,
            "phase": stored.phase,
            "served": stored.id == artifact_list.active,
        }
        for stored in artifact_list.artifacts
    ]
    return {"served": artifact_list.active, "previous": artifact_list.previous or None, "artifacts": artifacts}


def _id_of(text: str) -> str:
    """The id of an artifact's folder; any other text as it is."""
    if not (Path(text) / "manifest.json").is_file():
        return text
    from lifelong.artifact.manifest import read_manifest

    return read_manifest(Path(text)).id


def shown(document: dict[str, Any]) -> Reply:
    """The reply with the list of artifacts."""
    rows = []
    for entry in document["artifacts"]:
        role = "served" if entry["served"] else "before" if entry["id"] == document["previous"] else ""
        phase = f"{entry['phase']}: {entry['error']}" if entry.get("error") else entry["phase"]
        rows.append((entry["id"][:12], role, phase, entry["codec"], entry["path"]))
    table = columns("artifact", "", "memories", "codec", "folder", rows=rows)
    return Reply(document, [table] if rows else ["The store is new: it belongs to no artifact yet."])
