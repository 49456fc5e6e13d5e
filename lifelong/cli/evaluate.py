"""`lifelong evaluate`: artifact + dataset -> result record."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.options import ArtifactPath, DataPath, names
from lifelong.cli.terminal import Reply, Terminal, rich_table
from lifelong.errors import UsageError

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.evaluation.ranking import Ranking
    from lifelong.offline.evaluation.results import Result

Split = Literal["train", "validation", "test", "vault"]
MaxUsers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="With --ranking: baskets of this many users, drawn at random (100)."),
]
MaxItems = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --ranking: only the N most popular items and those that the user had before, which takes a fraction"
        " of the time; other items count as not found.",
    ),
]


def evaluate(
    terminal: Terminal,
    artifact: ArtifactPath,
    data: DataPath,
    *,
    split: Annotated[
        Split, typer.Option(help="Examples to score; the vault only once for an artifact and all continued from it.")
    ] = "test",
    stored: Annotated[
        bool, typer.Option("--stored", help="Show the stored result of the vault; compute nothing.")
    ] = False,
    delay: Annotated[
        str, typer.Option(metavar="DURATION,...", help="Hide events younger than each of these, as in 0s,1m,1h,1d.")
    ] = "0s",
    claim: Annotated[
        str | None,
        typer.Option(metavar="SENTENCE", help="With --split vault: what this reading is to decide; it is kept."),
    ] = None,
    in_sample: Annotated[
        bool,
        typer.Option("--in-sample", help="Allow a test period that the model was trained on, and mark the result."),
    ] = False,
    ranking: Annotated[
        str,
        typer.Option(metavar="N,...", help="Also rank all items for each basket: hits among the first N, as in 10,20."),
    ] = "",
    max_users: MaxUsers = None,
    max_items: MaxItems = None,
) -> Reply:
    """Measure an artifact on the examples of one split."""
    from lifelong.artifact.folder import Artifact
    from lifelong.dataset.examples import VAULT
    from lifelong.dataset.folder import Dataset
    from lifelong.dataset.times import parse_duration
    from lifelong.offline.evaluation import evaluate as evaluation
    from lifelong.offline.evaluation.vault import stored_result

    delays = [parse_duration(text) for text in names(delay)]
    asked = _ranking(ranking, max_users, max_items)
    opened, dataset = Artifact.open(artifact), Dataset(data)
    if stored:
        if split != VAULT:
            raise UsageError(f"--stored with the split {split!r}", expected="--split vault", fix="leave out --stored")
        result = stored_result(dataset, opened)
    else:
        terminal.say(f"scoring the {split} examples")
        result = evaluation.evaluate(
            opened,
            dataset,
            split=split,
            delays=delays,
            in_sample=in_sample,
            ranking=asked,
            claim=claim,
        )
    vault = _opened(dataset) if split == VAULT else []
    return Reply(result.model_dump(mode="json"), [*_summary(result), *vault, *_next(opened, data, split)])


def _opened(dataset: Dataset) -> list[str]:
    """Who has opened the vault of a dataset, and what it was read for."""
    from lifelong.dataset.readings import in_words
    from lifelong.offline.evaluation.vault import openings, readings_of

    read, found = [opening.in_words() for opening in openings(dataset)], readings_of(dataset)
    opened = [f"This vault has been opened {len(read)} time(s): {'; '.join(read)}."] if read else []
    return [*opened, *([in_words(found)] if found else [])]


def _next(artifact: Artifact, data: Path, split: str) -> list[str]:
    """The command that fills a store, after the figure of the test split."""
    if split != "test" or artifact.config.memory is None:
        return []
    return [f"Next: lifelong backfill {quote(str(artifact.path))} {quote(str(data))} --store rocksdb://store"]


def _ranking(text: str, users: int | None, popular: int | None) -> Ranking | None:
    """The ranking that is asked for.

    Raises:
        UsageError: its places are none, or options of a ranking are given without them.
    """
    from lifelong.offline.evaluation.ranking import USERS, Ranking

    places = _places(text)
    for option, value in (("--max-users", users), ("--max-items", popular)):
        if value is not None and not places:
            raise UsageError(
                f"{option} without --ranking",
                expected="--ranking N,..., as in --ranking 10,20",
                fix=f"add --ranking 10,20, or leave out {option}",
            )
    return Ranking(places, users or USERS, popular) if places else None


def _places(text: str) -> list[int]:
    """The places of `--ranking`.

    Raises:
        UsageError: something else than whole numbers from 1 on.
    """
    words = names(text)
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(
            f"--ranking {text!r}",
            expected="places from 1 on, as in 10,20",
            fix="separate the places by commas, without spaces",
        )
    return [int(word) for word in words]


def _summary(result: Result) -> list[Any]:
    from lifelong.offline.reports.tables import (
        calibration_table,
        delays_table,
        metrics_table,
        ranking_table,
        slices_table,
        tasks_table,
    )

    counts = result.counts
    meaning = "scores (negatives were sampled)" if result.kind == "score" else "probabilities (labels are logged)"
    head = (
        f"{result.title} on the {result.split} split of {result.dataset}: {counts.examples:,} examples of "
        f"{counts.users:,} users; the numbers are {meaning}."
    )
    notes = (
        [f"{'IN SAMPLE' if result.in_sample else 'Note'}: {result.in_sample_note}."] if result.in_sample_note else []
    )
    tables = [
        metrics_table(result),
        tasks_table(result),
        slices_table(result),
        delays_table(result),
        calibration_table([result]),
        ranking_table([result]),
    ]
    return [head, *notes, *(shown for table in tables if table is not None for shown in rich_table(table))]
