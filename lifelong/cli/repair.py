"""`lifelong repair`: continues without a damaged part of a store's log, and says what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lifelong.cli.options import StorePlace
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.store.repair import Loss


def repair(
    terminal: Terminal,
    store: StorePlace,
    *,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Continue without the lost records; otherwise, only report them."),
    ] = False,
) -> Reply:
    """Report what a rocksdb:// store loses by a damaged write-ahead log; accept the loss and continue."""
    from lifelong.store import repair as repairing
    from lifelong.store.opening import local_folder

    folder = local_folder(store)
    losses = repairing.accept_loss(folder) if accept_loss else repairing.examine(folder)
    document = {"damaged": bool(losses), "accepted": accept_loss, "losses": [*map(repairing.as_document, losses)]}
    if not losses:
        return Reply(document, ["The write-ahead log is whole; nothing was changed."])
    lines = [line for loss in losses for line in _shown(loss)]
    end = "The store opens again." if accept_loss else "Nothing was changed. To continue without it: --accept-loss."
    return Reply(document, [*lines, end], exit_code=0 if accept_loss else 1)


def _shown(loss: Loss) -> list[str]:
    """A loss in words."""
    lines = [f"{loss.file} is damaged at byte {loss.place:,}: {loss.what}."]
    if loss.commits:
        first = "" if loss.first is None else f"changes {loss.first:,} to {loss.last:,}; "
        lines.append(
            f"Lost: what is damaged, and {loss.commits:,} whole commits after it ({first}{len(loss.users):,} users,"
            f" {len(loss.items):,} items; --json names them)."
        )
    for (source, partition), (kept, reached) in loss.watermarks.items():
        lines.append(
            f"Source {source!r}, partition {partition}: back at offset {kept} from {reached}; ingest it again."
        )
    lines.append("Events over HTTP and erasures since then are lost, too: send them again.")
    return lines
