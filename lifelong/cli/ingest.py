"""`lifelong ingest`: events of files or a topic -> memories in a store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lifelong.cli.opening import lasting, open_letters, open_pair
from lifelong.cli.options import (
    ArtifactPath,
    Column,
    DeadLetter,
    Late,
    MappingFile,
    MaxAhead,
    MaxWait,
    NewCodec,
    OnBad,
    OnGap,
    StoreUrl,
    duration_option,
    pairs,
)
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import UsageError, require

if TYPE_CHECKING:
    from lifelong.online.ingestion.kafka import Followed, Stream
    from lifelong.online.ingestion.kafka_client import KafkaAddress
    from lifelong.online.memory.updater import Applied


Places = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...|URL",
        help="Events: files or patterns of csv, jsonl (also .gz) or parquet; or"
        " kafka://host:port,host:port/topic?group=NAME.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the source, for a single file or topic; by default its path or name."),
]
LateEvents = Annotated[Late, typer.Option(help="What to do with an event older than the user's last one.")]
Backfilled = Annotated[
    Literal["skip", "apply"],
    typer.Option(help="What to do with an event from before the end of a backfill."),
]
EventLog = Annotated[
    bool,
    typer.Option("--event-log/--no-event-log", help="Whether the store keeps the events, for explanations."),
]
LastLine = Annotated[
    Literal["leave", "complete"],
    typer.Option(
        help="A file's last line that has no line end: leave it for the next run, or take it, as it is complete."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Processes for a store with shards: by default its shards, at most the cores."
    ),
]
MaxIdle = Annotated[float | None, duration_option("--max-idle", "End when a topic has had no message for so long.")]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, metavar="PORT", help="Port for Prometheus while a topic is followed.")
]


def ingest(
    terminal: Terminal,
    artifact: ArtifactPath,
    places: Places,
    *,
    store: StoreUrl,
    mapping: MappingFile = None,
    column: Column = [],  # noqa: B006
    source: Source = None,
    late: LateEvents = "apply",
    backfilled: Backfilled = "skip",
    codec: NewCodec = None,
    event_log: EventLog = True,
    on_bad: OnBad = "stop",
    dead_letter: DeadLetter = None,
    on_gap: OnGap = "stop",
    last_line: LastLine = "leave",
    max_ahead: MaxAhead = "1d",  # type: ignore[assignment]
    max_wait: MaxWait = "1m",  # type: ignore[assignment]
    workers: Workers = None,
    max_idle: MaxIdle = None,
    metrics_port: MetricsPort = None,
) -> Reply:
    """Add events of files or a Kafka topic to the memories, each exactly once, also after a restart.

    Files are read as the log was that the artifact's dataset was prepared from, unless --mapping says otherwise; in the
    order given, and those of a pattern by name. Each file is a source of its own.
    A topic is followed until SIGTERM or Ctrl-C; the current batch is finished first.
    """
    from lifelong.dataset.mapping import mapping_from
    from lifelong.launch import collect_rarely
    from lifelong.online.ingestion import files

    collect_rarely()
    columns = pairs(column, option="--column")
    topic = _topic(places, last_line=last_line, workers=workers, idle=max_idle, metrics_port=metrics_port)
    with (
        open_pair(artifact, lasting(store), read_only=False) as (opened, memories),
        open_letters(dead_letter) as letters,
    ):
        folding: dict[str, Any] = {"late": late, "codec": codec, "backfilled": backfilled, "event_log": event_log}
        reading: dict[str, Any] = {"source": source, "columns": columns, "on_bad": on_bad}
        reading |= {"patience": max_wait, "max_ahead": max_ahead / 86_400}
        if topic is not None:
            from lifelong.online.ingestion.kafka import FILLING, Stream, StreamSettings
            from lifelong.online.memory.updater import Updater
            from lifelong.online.store.opening import node_of

            apply = Updater(opened, memories, **folding).apply_table
            known = None if mapping is None else mapping_from(mapping)
            reading |= {"batch": FILLING, "share": node_of(store)}
            settings = StreamSettings(on_gap=on_gap, idle=max_idle, mapping=known, **reading)
            stream = Stream(topic, memories, apply, opened.config.dataset_schema, settings=settings, letters=letters)
            return _of_topic(terminal, stream, metrics_port)
        of_files: dict[str, Any] = {"last_line": last_line, "mapping": mapping, "workers": workers}
        with terminal.progress("reading") as advance:
            applied = files.ingest(
                opened, memories, places, progress=advance, dead_letters=letters, **folding, **reading, **of_files
            )
    return Reply(asdict(applied), [_sentence(applied)])


def _topic(
    places: Sequence[str], *, last_line: str, workers: int | None, idle: float | None, metrics_port: int | None
) -> KafkaAddress | None:
    """The topic that is followed; None where files are read.

    Raises:
        UsageError: a topic among files, or an option of the other kind of source.
    """
    from lifelong.online.ingestion.kafka_client import is_kafka, parse

    topics = [url for url in places if is_kafka(url)]
    if not topics:
        for option, value in (("--max-idle", idle), ("--metrics-port", metrics_port)):
            if value is not None:
                raise UsageError(
                    f"{option} with a file",
                    expected=f"{option} with kafka://...",
                    fix=f"leave out {option}: a file has no partitions to follow",
                )
        return None
    if len(places) > 1:
        raise UsageError(
            f"{topics[0]} among {len(places)} sources",
            expected="files, or one topic alone",
            fix="ingest the files first, then follow the topic with a command of its own",
        )
    if last_line != "leave":
        fix = "leave it out: messages are whole"
        raise UsageError("--last-line with a topic", expected="--last-line with files", fix=fix)
    if workers is not None and workers > 1:
        raise UsageError(
            f"--workers {workers} with a topic",
            expected="one process, or over a shared store several that share the topic",
            fix="leave out --workers; over redis:// start this command several times",
        )
    return parse(topics[0])


def _of_topic(terminal: Terminal, stream: Stream, metrics_port: int | None) -> Reply:
    """Follow a topic."""
    with _metrics(terminal, stream, metrics_port):
        followed = _follow(terminal, stream)
    return Reply(_document(followed), [_sentence(followed.applied), *_places(followed)])


def _follow(terminal: Terminal, stream: Stream) -> Followed:
    """Follow a topic until the end or a signal, and show the progress."""
    from lifelong.online.serving.run import signals_end_here

    terminal.say(f"Following {stream.address.name} as group {stream.address.group}  (Ctrl-C stops)")
    with signals_end_here(stream.stop), terminal.progress("messages") as advance:
        return stream.run(lambda followed: advance(*_progress(followed)))


@contextlib.contextmanager
def _metrics(terminal: Terminal, stream: Stream, port: int | None) -> Iterator[None]:
    """Publish the counts for Prometheus."""
    if port is None:
        yield
        return
    prometheus = require("prometheus_client", extra="serve", purpose="--metrics-port")
    from lifelong.online.ingestion.following import StreamCollector

    registry = prometheus.CollectorRegistry()
    registry.register(StreamCollector(stream.report, lambda: True))
    try:
        # For this machine alone, since it asks for no key.
        server, thread = prometheus.start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UsageError(f"cannot listen on 127.0.0.1:{port}: {error.strerror or error}", fix="another port") from error
    terminal.say(f"Metrics at http://127.0.0.1:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _progress(followed: Followed) -> tuple[int, int]:
    counts = asdict(followed.applied)
    done = sum(counts[name] for name in ("applied", "duplicates", "refused", "bad"))
    return done, done + sum(state.lag or 0 for state in followed.places.values())


def _document(followed: Followed) -> dict[str, Any]:
    places = {str(partition): asdict(state) for partition, state in sorted(followed.places.items())}
    return {**asdict(followed.applied), "lost": followed.lost, "partitions": places}


def _sentence(applied: Applied) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in asdict(applied).items())


def _places(followed: Followed) -> list[str]:
    lost = [f"lost {followed.lost:,}: Kafka had deleted them"] if followed.lost else []
    return lost + [
        f"partition {partition}: through offset {state.offset:,}, {'?' if state.lag is None else f'{state.lag:,}'} left"
        for partition, state in sorted(followed.places.items())
    ]
