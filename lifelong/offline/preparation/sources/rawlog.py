"""What a source gives to `prepare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lifelong.dataset.mapping import TITLE, TableMapping


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
        titled: whether `items` has a column `TITLE`: the items' names for people.
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
        target_types: event types that make a positive target when labels are sampled; None = every event.
        protocol: the protocol that fits this source when the user names none.
        negatives: the rule of negatives that fits this source when the user names none; None = the protocol's.
        mapping: by which the rows were read, for new events of the same form; None where none said so.
        record: counts of every quirk seen, for the preparation record.
    """

    name: str
    events: Any
    items: Any | None = None
    items_within: Callable[[Callable[[Any], Any]], Any] | None = None
    item_fields: tuple[str, ...] = ()
    number_fields: tuple[str, ...] = ()
    titled: bool = False
    users: Any | None = None
    user_fields: tuple[str, ...] = ()
    event_types: bool = False
    time_unit: Literal["seconds", "ordinal"] = "seconds"
    impressions: Any | None = None
    tasks: tuple[str, ...] = ("response",)
    ratings: Any | None = None
    target_types: tuple[str, ...] | None = None
    protocol: Literal["temporal", "paper", "impressions", "given"] = "temporal"
    negatives: Literal["popularity", "uniform", "windowed", "following"] | None = None
    mapping: TableMapping | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def item_columns(self) -> tuple[str, ...]:
        """Columns of `items` other than the id."""
        return (*self.item_fields, TITLE) if self.titled else self.item_fields


class Source(Protocol):
    """Reads one raw format."""

    def __call__(self, connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
        """Open files.

        Args:
            connection: an Ibis backend, in which a source creates tables.
            paths: files, in the user's order, globs already expanded; what roles they have is the source's business.
            options: `--set options.key=value` of the command line.

        Raises:
            SourceError: a file is not what it should be; names file, line and column.
            ConfigError: an option is unknown or has a wrong value; lists all of them.
        """
