"""`lifelong evaluate`: artifact + dataset -> result record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.options import ArtifactPath, DataPath, Threads, names
from lifelong.cli.rendering import rich_table
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.evaluation.results import Result

Split = Literal["train", "validation", "test"]


def evaluate(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: DataPath,
    *,
    split: Annotated[Split, typer.Option("--split", help="Which examples.")] = "test",
    delay: Annotated[str, typer.Option(help="Hide events younger than each of these, as in 0s,1m,1h,1d.")] = "0s",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of the users for the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    threads: Threads = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="JSON", help="Keep the result record here.")] = None,
) -> Reply:
    """Measure an artifact on the examples of one split."""
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.evaluation import evaluate as evaluation
    from lifelong.evaluation.results import parse_duration
    from lifelong.launch import launch

    delays = [parse_duration(part) for part in names(delay)]

    terminal.say(f"scoring the {split} examples")
    result = evaluation.evaluate(
        Artifact.open(artifact),
        Dataset(data),
        split=split,
        delays=delays,
        bootstrap=bootstrap,
        seed=seed,
        threads=threads,
    )
    if out is not None and launch().first:
        result.save(out)
    return Reply(result.model_dump(mode="json"), _summary(result))


def _summary(result: Result) -> list[Any]:
    from lifelong.reports.tables import (
        calibration_table,
        delays_table,
        graded_table,
        metrics_table,
        slices_table,
        tasks_table,
    )

    counts = result.counts
    meaning = "scores (negatives were sampled)" if result.kind == "score" else "probabilities (labels are logged)"
    head = (
        f"{result.title} on the {result.split} split of {result.dataset}: {counts.examples:,} examples of "
        f"{counts.users:,} users; the numbers speak of {meaning}."
    )
    tables = [
        metrics_table([result]),
        tasks_table(result),
        graded_table(result),
        slices_table([result]),
        delays_table([result]),
        calibration_table([result]),
    ]
    return [head, *(part for table in tables if table is not None for part in rich_table(table))]
