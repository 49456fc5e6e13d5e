"""Lines of a file, and which of them a mapping makes events of: those that its query gives, those with a label above 0.

A line that is left out is no bad line; positions move past it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lifelong.dataset.mapping import TableMapping
from lifelong.dataset.query import RowQuery
from lifelong.dtypes import IntArray
from lifelong.errors import ConfigError, require
from lifelong.online.ingestion.rows import COLUMNS, Problem

Row = Mapping[str, Any] | Problem


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a file.

    Args:
        number: number of each line.
        columns: values by column, one per line; None if a line is not a row of values.
        row: gives one line by its place, or what is wrong with it.
        done: how far the file was read with these lines.
        through: number of the last line that was read, if lines were left out; else None.
    """

    number: Sequence[int] | IntArray
    columns: Mapping[str, Sequence[Any]] | None
    row: Callable[[int], Row]
    done: int = 0
    through: int | None = None

    @property
    def last(self) -> int:
        """Number of the last line that was read."""
        return int(self.number[-1]) if self.through is None else self.through


class Selection:
    """Leaves out lines that are no events.

    Args:
        mapping: says which are.
        path: of the file.

    Raises:
        MissingExtraError: the mapping has a query, and DuckDB is not installed.
    """

    def __init__(self, mapping: TableMapping, path: Path) -> None:
        self._mapping, self._path, self._seen = mapping, path, 0
        self._query = None if mapping.query is None else RowQuery(mapping.query)
        self._names: list[str] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that say which rows are events."""
        return () if self._mapping.history == "all" else self._mapping.labels

    def check(self, table: Any) -> None:
        """Check that a query gives the columns that the mapping names.

        Args:
            table: of Arrow, with the columns of the file.

        Raises:
            ConfigError: it does not, or cannot be computed row by row.
        """
        if self._query is None or self._names is not None:
            return
        self._names = self._query.names(table)
        mapping = self._mapping
        roles = (*(getattr(mapping, name) for name in COLUMNS), mapping.event_id)
        wanted = [*filter(None, roles), *mapping.fields.values(), *self.labels]
        if absent := [name for name in wanted if name not in self._names]:
            raise ConfigError(
                [f"query gives no column {name}" for name in absent],
                fix=f"it gives {', '.join(self._names)}: name one of these, or add the column to the SELECT",
            )

    def of_rows(self, lines: Lines) -> Lines:
        """The events among lines of text."""
        if self._query is not None:
            rows = [lines.row(place) for place in range(len(lines.number))]
            good = {place: row for place, row in enumerate(rows) if not isinstance(row, Problem)}
            if not good:
                # Without rows, a table would have no columns for the query.
                return lines
            arrow = require("pyarrow", extra="train", purpose="a mapping with a query")
            number = [int(lines.number[place]) for place in good]
            found = self.of_table(arrow.Table.from_pylist(list(good.values())), number, lines.done)
            if len(good) == len(rows):
                return found
            bad = {int(number): row for number, row in zip(lines.number, rows, strict=True) if isinstance(row, Problem)}
            made = dict(zip(map(int, found.number), map(found.row, range(len(found.number))), strict=True))
            # In the order of the file, so that a bad line ends the run at its place.
            merged = dict(sorted((bad | made).items()))
            return replace(lines, number=list(merged), columns=None, row=list(merged.values()).__getitem__)
        return self._labelled(lines) if self.labels else lines

    def of_table(self, table: Any, number: Sequence[int], done: int) -> Lines:
        """The events that the query makes of rows.

        Args:
            table: of Arrow.
            number: of the line of each row.
            done: see `Lines`.

        Raises:
            ConfigError: it cannot be computed.
        """
        assert self._query is not None
        first, mapping = self._seen, self._mapping
        self.check(table)
        texts = [mapping.user, mapping.item, mapping.event_type, mapping.event_id, *mapping.fields.values()]
        wanted = [name for name in texts if name is not None]
        columns = self._query.rows(table, file=self._path.name, first=first, texts=wanted)
        self._seen += len(table)
        # The query counts rows over all batches, of which `first` came before this one.
        numbers = [number[place - first] for place in columns["sequence"]]
        # Also where the query leaves out the last lines, the position moves past them.
        through = number[-1] if number else None
        lines = Lines(numbers, columns, row_of(columns), done, through=through)
        return self._labelled(lines) if self.labels else lines

    def _labelled(self, lines: Lines) -> Lines:
        """The lines with a label that makes them events, and those of which none can tell."""
        rows = {int(number): self._checked(lines.row(place)) for place, number in enumerate(lines.number)}
        kept = {number: row for number, row in rows.items() if row is not None}
        return replace(lines, number=list(kept), columns=None, row=list(kept.values()).__getitem__, through=lines.last)

    def _checked(self, row: Row) -> Row | None:
        """A row that is an event, or what is wrong with it; None if it is none."""
        if isinstance(row, Problem):
            return row
        if self._mapping.history == "unlabelled":
            return row if row.get(self.labels[0]) is None else None
        numbers = []
        for name in self.labels:
            try:
                numbers.append(float(row[name]))
            except (KeyError, TypeError, ValueError):
                return Problem(f"{row.get(name)!r} is not a number", "a number", name)
        return row if max(numbers) > 0 else None


def row_of(columns: Mapping[str, Sequence[Any]]) -> Callable[[int], Row]:
    """Rows of columns by their places."""
    return lambda place: {name: values[place] for name, values in columns.items()}
