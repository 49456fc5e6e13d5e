"""`lifelong train`: dataset + model, or an artifact to start from -> artifact."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import DataPath, Settings
from lifelong.cli.terminal import Reply, Terminal, columns

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact


def train(
    terminal: Terminal,
    data: DataPath,
    *,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="See `lifelong models`; not needed with --start.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="ARTIFACT", help="Folder of the artifact.")],
    start: Annotated[
        Path | None,
        typer.Option(metavar="ARTIFACT", help="Start from its model and weights, matched by id."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML.")] = None,
    changes: Settings = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")] = False,
) -> Reply:
    """Train a model, keep its best state on validation, calibrate its scores, and write the artifact."""
    from lifelong.config import load_config
    from lifelong.dataset.folder import Dataset
    from lifelong.errors import UsageError
    from lifelong.offline.models import check_config
    from lifelong.offline.training import trainer
    from lifelong.offline.training.trainer import ElsewhereError

    if model is None and start is None:
        raise UsageError(
            "neither --model nor --start is given",
            expected="a model, or an artifact to start from",
            fix="add --model tally; `lifelong models` lists all",
        )

    # With --start the trainer compares the settings with the artifact's.
    check = functools.partial(check_config, model) if model is not None and start is None else None
    settings = load_config(config, changes, check_model=check)
    try:
        artifact = trainer.train(
            Dataset(data),
            model,
            out,
            config=settings,
            start=start,
            resume=resume,
            overwrite=overwrite,
            progress=True,
        )
    except ElsewhereError:
        # The run succeeded; the first process, on another machine, prints the reply.
        return Reply(None)
    return Reply(_document(artifact), _summary(artifact, data))


def _document(artifact: Artifact) -> dict[str, Any]:
    return {"artifact": str(artifact.path), "id": artifact.id, "metrics": artifact.metrics}


def _summary(artifact: Artifact, data: Path) -> list[Any]:
    lines: list[Any] = []
    if "shares" in artifact.metrics:
        lines.append(_time(artifact.metrics))
    lines.append(f"Artifact {artifact.id[:12]} is in {artifact.path}")
    if "start" in artifact.metrics:
        lines += _change(artifact.metrics)
    return [*lines, f"Next: lifelong evaluate {shlex.join([str(artifact.path), str(data)])}"]


def _time(measured: Mapping[str, Any]) -> str:
    """How the training time was spent."""
    words = {"wait": "waiting for batches", "validate": "validation", "optimiser": "optimiser", "other": "other"}
    shares = {stage: measured["shares"].get(stage, 0.0) for stage in ("forward", "backward", *words)}
    parts = ", ".join(f"{words.get(stage, stage)} {share:.1%}" for stage, share in shares.items())
    return f"{measured['examples_per_second']:,.0f} examples a second in steps; of the time: {parts}"


def _change(measured: Mapping[str, Any]) -> list[Any]:
    """What has changed since the artifact that training started from."""
    start, now = measured["start"], measured["validation"]
    rows = []
    for field, change in start["fields"].items():
        before, after = change["buckets"]
        buckets = f"{before:,}" if before == after else f"{before:,} -> {after:,}"
        rows.append([field, f"{change['kept']:,}", f"{change['new']:,}", f"{change['gone']:,}", buckets])
    table = columns("field", "ids kept", "new", "gone", "hash buckets", rows=rows)
    lines = [f"It started from the weights of artifact {start['artifact'][:12]}", table]
    if start["validation"] and now.get("auc") is not None:
        before = start["validation"]
        lines.append(
            f"On {now['examples']:,} validation examples: AUC {before['auc']:.4f} before, {now['auc']:.4f} now; "
            f"log loss {before['log_loss']:.4f} before, {now['log_loss']:.4f} now"
        )
    if (measured.get("best") or {}).get("examples") == 0:
        lines.append("No validation was better than the one before training: the earlier weights were kept")
    return lines
