"""Options of the commands that follow a topic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lifelong.memory.dead_letters import DeadLetters

Column = Annotated[
    list[str],
    typer.Option(
        "--column",
        metavar="OURS=THEIRS",
        help="A column with another name, as in user=visitor; event_id=ID names the clients' own ids.",
    ),
]
OnBad = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-bad", help="What happens at a line or message that is no event."),
]
DeadLetter = Annotated[
    str | None,
    typer.Option(
        "--dead-letter", metavar="FILE|URL", help="Where what --on-bad skip leaves out is kept: jsonl, or kafka://..."
    ),
]
OnGap = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-gap", help="What happens where Kafka has deleted messages that were not applied."),
]
Patience = Annotated[
    float, typer.Option("--patience", min=0, help="Seconds for which a server that does not answer is waited for.")
]


@contextlib.contextmanager
def open_letters(place: str | None) -> Iterator[DeadLetters | None]:
    """Where dead letters are kept, if they are."""
    from lifelong.memory.dead_letters import FileLetters
    from lifelong.memory.kafka_client import is_kafka, parse

    if place is None:
        yield None
        return
    letters: DeadLetters
    if is_kafka(place):
        from lifelong.memory.kafka_letters import TopicLetters

        letters = TopicLetters(parse(place))
    else:
        letters = FileLetters(Path(place))
    with contextlib.closing(letters):
        yield letters
