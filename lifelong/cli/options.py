"""Options of several commands, and how their values are read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lifelong.errors import UsageError

Late = Literal["apply", "refuse"]
ArtifactPath = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Folder that `lifelong train` wrote.")]
DataPath = Annotated[Path, typer.Argument(metavar="DATA", help="Folder that `lifelong prepare` wrote.")]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="rocksdb://folder, redis://host:port/database or memory:// (not kept)."
    ),
]
StoreOrService = Annotated[
    str,
    typer.Option("--store", metavar="URL", help="The store; or the service that owns it, as in http://127.0.0.1:8000."),
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="Holds that service's admin key.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")]


def moment_of(text: str) -> int:
    """A time of the command line in UTC seconds: a whole number, or ISO 8601.

    Raises:
        typer.BadParameter: it is neither.

    >>> moment_of("1764547200"), moment_of("2025-12-01T01:00+01:00")
    (1764547200, 1764547200)
    """
    from lifelong.dataset.times import seconds_of

    try:
        seconds = int(text) if text.isdecimal() else seconds_of(text)
    except UsageError:
        seconds = -1
    if seconds < 0:
        # Click puts the name of the option before it.
        raise typer.BadParameter(f"{text!r} is no time from 1970 on: give {_TIME}")
    return seconds


def duration_of(text: str) -> float:
    """A duration of the command line in seconds; `inf` is endless.

    Raises:
        typer.BadParameter: it is none.

    >>> duration_of("30m"), duration_of("inf")
    (1800.0, inf)
    """
    from lifelong.dataset.times import parse_duration

    try:
        return math.inf if text == "inf" else float(parse_duration(text))
    except UsageError as error:
        raise typer.BadParameter(f"{error.found}: give {error.expected}") from None


def duration_option(name: str, said: str) -> Any:
    """An option whose value is a duration."""
    return typer.Option(name, parser=duration_of, metavar="DURATION", help=said)


_TIME = "UTC seconds, or ISO 8601 as in 2025-12-01T18:00 (UTC without a zone)"
Until = Annotated[
    int | None,
    typer.Option("--until", parser=moment_of, metavar="TIME", help=f"Use only events before this time: {_TIME}."),
]
Time = Annotated[
    int | None,
    typer.Option("--time", parser=moment_of, metavar="TIME", help=f"Time of the request: {_TIME}; by default now."),
]
BaseRate = Annotated[
    str | None,
    typer.Option(
        "--base-rate",
        metavar="SHARE",
        help="True share of positives, for probabilities; per task as in buy=0.01,any=0.2.",
    ),
]
NewCodec = Annotated[
    Literal["fp32", "fp16", "int8"] | None,
    typer.Option("--codec", help="Number format of memories in a new store; later commands use the store's codec."),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="FIELD=VALUE", help="A field of the user's profile; repeatable."),
]
Column = Annotated[
    list[str],
    typer.Option(
        "--column",
        metavar="KEY=VALUE",
        help="A line of the mapping: a column, as in user=visitor, or a setting, as in time_unit=ms.",
    ),
]
MappingFile = Annotated[
    Path | None,
    typer.Option(
        "--mapping",
        metavar="FILE",
        help="Mapping file of `prepare table`, in place of the one that the artifact keeps.",
    ),
]
OnBad = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-bad", help="What to do with a line or message that is not an event."),
]
DeadLetter = Annotated[
    str | None,
    typer.Option(
        "--dead-letter",
        metavar="FILE",
        help="Where to keep what --on-bad skip drops: a .jsonl file.",
    ),
]
OnGap = Annotated[
    Literal["stop", "skip"],
    typer.Option("--on-gap", help="What to do if Kafka deleted messages before they were applied."),
]
MaxWait = Annotated[float, duration_option("--max-wait", "How long to wait for a server that does not answer.")]
MaxAhead = Annotated[
    float, duration_option("--max-ahead", "How far ahead of the clock an event may be, as in 1d or 30m, or inf.")
]
MaxTime = Annotated[float | None, duration_option("--max-time", "Time limit of one training, as in 30m or 2h.")]


def pairs(words: Sequence[str], *, option: str) -> dict[str, str]:
    """The mapping of `KEY=VALUE` words.

    Raises:
        UsageError: a word has no `=`, or a key is given twice.

    >>> pairs(["user=visitor"], option="--column")
    {'user': 'visitor'}
    """
    value_of: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {word}", expected="KEY=VALUE", fix=f"write {option} key=value")
        if key in value_of:
            raise UsageError(f"{option} gives {key!r} twice", expected="each key once", fix="leave one of them out")
        value_of[key.strip()] = value
    return value_of


def source_options(changes: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`--set` words without those of a source's options, and these.

    >>> source_options(["seed=1", "options.brand=drop"])
    (['seed=1'], {'brand': 'drop'})
    """
    own = [word.removeprefix("options.") for word in changes if word.startswith("options.")]
    return [word for word in changes if not word.startswith("options.")], pairs(own, option="--set options.")


def base_rate_of(text: str | None) -> float | dict[str, float] | None:
    """The value of `--base-rate`: one share, or one per task.

    Raises:
        UsageError: a share is not a number between 0 and 1.

    >>> base_rate_of("buy=0.01,any=0.2")
    {'buy': 0.01, 'any': 0.2}
    """
    if text is None:
        return None
    text_of = pairs(names(text), option="--base-rate") if "=" in text else {"": text}
    share_of = {}
    for task, share in text_of.items():
        try:
            share_of[task] = float(share)
        except ValueError:
            share_of[task] = -1.0
        if not 0 < share_of[task] < 1:
            raise UsageError(
                f"a base rate of {share}",
                expected="a share above 0 and below 1",
                fix="give the share of positives in production, such as 0.02",
            )
    return share_of.get("", share_of)


def check_request(user: str | None, time: int | None, *, time_unit: str) -> None:
    """Check the user, if there is one, and the moment of a request, before the empty memory answers for them.

    Raises:
        UsageError: the user's id is empty or too long, or the time is one that no event can have.
    """
    from lifelong.online.memory.event import check_user, last_time

    if user is not None:
        check_user(user)
    latest = last_time(time_unit)
    if time is not None and time > latest:
        expected = f"UTC seconds, 0 to {latest} (not milliseconds)" if time_unit == "seconds" else f"at most {latest}"
        raise UsageError(f"--time {time}", expected=expected, fix="give the moment of the request, or leave --time out")


def profile_of(words: Sequence[str] | None) -> dict[str, str | None] | None:
    """The profile of `--profile FIELD=VALUE` words; an empty value is unknown."""
    return {field: value or None for field, value in pairs(words, option="--profile").items()} if words else None


def literal(text: str) -> Any:
    """A value from the command line: parsed as JSON if it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def names(text: str) -> list[str]:
    """The parts of a comma-separated list.

    >>> names("hpmn, counts")
    ['hpmn', 'counts']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def is_service(url: str) -> bool:
    """Whether a URL names a service, and not a store.

    >>> is_service("http://127.0.0.1:8000"), is_service("rocksdb://store")
    (True, False)
    """
    return url.startswith(("http://", "https://"))
