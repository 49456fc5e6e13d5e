"""Raw formats: one mapping file per source, or one module where a format is no table.

A source checks its files while it stages them, from disk to disk in bounded memory, and records what it saw. `SOURCES`
maps the names on the command line to a `Source`; the module of a format, and the libraries that it needs, are loaded
when it is used.

    files --text.py | parquet.py--> tables in the connection --one module per format--> RawLog --> prepare
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lifelong.errors import SourceError, UsageError, require
from lifelong.plugins import Registry

__all__ = ["MAPPINGS", "SOURCES", "RawLog", "Source", "is_mapped"]

MAPPINGS: Path = Path(__file__).parents[1] / "mappings"
"""Folder of the mapping files of public logs, one a source."""


@dataclass(slots=True)
class RawLog:
    """One raw log, opened and checked. Tables are Ibis expressions on the given connection.

    Args:
        name: for people, such as "Taobao UserBehavior".
        events: columns `user` string, `item` string, `time` int64, `sequence` int64 (place in the source, total), and
            `event_type` string where `event_types`.
        items: one row per item: `item` string and `item_fields`, strings, null where missing; None if there are only
            ids.
        items_within: where fields come with the events, the item table of a part of the log: called with a function
            that leaves some rows of a table with the columns `user` and `time`. None where they have files of their
            own.
        item_fields: item fields other than `item`, in order.
        number_fields: item fields that hold numbers of at least 0, as texts.
        users: one row per user about whom something is known: `user` string and `user_fields`, strings, null where
            missing; None if there are only ids.
        user_fields: fields of the users' profiles, in order.
        event_types: whether events have types.
        time_unit: "ordinal" for sources without times.
        impressions: logged labels: `user`, `item`, `time`, `sequence`, one float column per task; where the split is
            given also `split` ("train" or "test"). None if labels must be sampled.
        tasks: names of the label columns.
        ratings: `user`, `item`, `time`, `sequence` and `rating` (a number) of every rated row, from which `--tasks` can
            make labels; None if there are none.
        grades: values of a rating, ascending, if all its steps are tasks (`lifelong.preparation.ratings`).
        target_types: event types that make a positive target when labels are sampled; None = every event.
        protocol: the protocol that fits this source when the user names none.
        negatives: the rule of negatives that fits this source when the user names none; None = the protocol's.
        record: counts of every quirk seen, for the preparation record.
    """

    name: str
    events: Any
    items: Any | None = None
    items_within: Callable[[Callable[[Any], Any]], Any] | None = None
    item_fields: tuple[str, ...] = ()
    number_fields: tuple[str, ...] = ()
    users: Any | None = None
    user_fields: tuple[str, ...] = ()
    event_types: bool = False
    time_unit: Literal["seconds", "ordinal"] = "seconds"
    impressions: Any | None = None
    tasks: tuple[str, ...] = ("response",)
    ratings: Any | None = None
    grades: tuple[float, ...] = ()
    target_types: tuple[str, ...] | None = None
    protocol: Literal["temporal", "paper", "impressions", "given"] = "temporal"
    negatives: Literal["popularity", "uniform", "windowed", "following"] | None = None
    record: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Reads one raw format."""

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        """Open files.

        Args:
            connection: an Ibis backend, in which a source creates tables.
            paths: files, in the user's order, globs already expanded; what roles they have is the source's business.
            options: `--option key=value` of the command line.

        Raises:
            SourceError: a file is not what it should be; names file, line and column.
            ConfigError: an option is unknown or has a wrong value; lists all of them.
        """


@dataclass(frozen=True, slots=True)
class _Format:
    """A source with a module that is imported at its first call.

    Args:
        module: name of the source, and of its module in this package if it has no mapping; the module's `OPTIONS` are
            the names and defaults of its options, or the possible values, the default first. None: it checks them
            itself.
        summary: what it reads, for the help of the command line.
        finds_files: whether it may be given no file, or folders.
        mapping: the mapping file that `table` reads it by, if there is one.
    """

    module: str
    summary: str
    finds_files: bool = False
    mapping: Path | None = None

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        for library in ("ibis", "pyarrow"):
            require(library, extra="train", purpose="reading raw logs")
        from lifelong.preparation.engine import count
        from lifelong.preparation.sources.staging import check_files, check_options

        module = importlib.import_module(f"{__name__}.{'table' if self.mapping else self.module}")
        files = [Path(path) for path in paths]
        if self.mapping is not None:
            options = {**options, "mapping": str(self._own_mapping(options))}
        if module.OPTIONS is not None:
            options = check_options(options, module.OPTIONS, source=self.module)
        reader: Source = module.read
        log = reader(connection, files if self.finds_files else check_files(files, source=self.module), options)
        if not count(log.events):
            named = ", ".join(map(str, files))
            raise SourceError(
                f"the source {self.module!r} has no events",
                file=named,
                expected="at least one event",
                fix="check the files: they hold no row that is an event",
            )
        return log

    def _own_mapping(self, options: Mapping[str, str]) -> Path:
        """The mapping that comes with the package.

        Raises:
            UsageError: another one is given.
        """
        if "mapping" in options:
            raise UsageError(
                f"the source {self.module!r} has a mapping of its own, and {options['mapping']} was given",
                expected="--mapping with the source table",
                fix=f"lifelong prepare table ... --mapping {options['mapping']}",
            )
        assert self.mapping is not None
        return self.mapping


def is_mapped(source: str) -> bool:
    """Whether a source is a mapping file of this package."""
    return (MAPPINGS / f"{source}.toml").exists()


def _summary(mapping: Path) -> str:
    """The first line of a mapping file, which is a comment."""
    with mapping.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


SOURCES: MutableMapping[str, Source] = Registry[Source](
    "sources",
    {
        source.module: source
        for source in (
            *(_Format(path.stem, _summary(path), mapping=path) for path in sorted(MAPPINGS.glob("*.toml"))),
            _Format("taobao", "Taobao UserBehavior csv: user, item, category, behaviour, time"),
            _Format("amazon", "Amazon 2014 reviews and meta, JSON and Python-literal lines"),
            _Format("xlong", "XLong: 1,000 events a line, given positive, negative and split"),
            _Format("completejourney", "The Complete Journey: the parquet files of the pip package", finds_files=True),
            _Format("table", "any csv or parquet with a mapping file"),
            _Format("served", "the impressions log of `lifelong serve`, with events or labels", finds_files=True),
            _Format("synthetic", "worlds with known answers; no files", finds_files=True),
        )
    },
)
