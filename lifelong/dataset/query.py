"""Queries of a mapping: one SELECT of DuckDB over tables of a log, cut off from all else."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lifelong.dataset.mapping import LOG
from lifelong.errors import ConfigError, require
from lifelong.tables import is_clock, quoted, utc_seconds

SANDBOX = ("enable_external_access = false", "lock_configuration = true")
"""Settings of an engine that can reach no file, network or setting any more."""
_ROW_BY_ROW = {"PROJECTION", "FILTER", "ORDER_BY", "EMPTY_RESULT"}
"""Operators of a plan that make one row, or none, of each row; next to scans."""


@contextmanager
def running(query: str, *, setting: str = "query", tables: Collection[str], fix: str = "") -> Iterator[str]:
    """The query, which is checked; what the engine says against it becomes an error about the setting.

    Args:
        query: of a mapping.
        setting: its name in the mapping.
        tables: that it may read.
        fix: what else to do.

    Raises:
        ConfigError: it is not one SELECT, or cannot be computed.
    """
    duckdb = require("duckdb", extra="train", purpose="a mapping with a query")
    try:
        if [each.type for each in duckdb.extract_statements(query)] != [duckdb.StatementType.SELECT]:
            raise ConfigError([f"{setting} is not a single SELECT"], fix="write one SELECT over the tables")
        yield query.rstrip().rstrip(";")
    except duckdb.Error as error:
        message = str(error).partition("\n")[0]
        raise ConfigError(
            [f"{setting}: {message}"],
            fix=f"correct the query: it is SQL of DuckDB over the tables {', '.join(tables)};"
            f" values of text files are texts: TRY_CAST(price AS DOUBLE){fix}",
        ) from error


class RowQuery:
    """A query that makes at most one row of each row of the log, whichever others come with it.

    Args:
        query: of a mapping; the columns of its result are looked at when it first runs.

    Raises:
        MissingExtraError: DuckDB is not installed.
    """

    def __init__(self, query: str) -> None:
        duckdb = require("duckdb", extra="train", purpose="a mapping with a query")
        self._connection = duckdb.connect(config={"threads": 1})
        # The plan would show an IN of many values as a join.
        for setting in ("TimeZone = 'UTC'", "disabled_optimizers = 'in_clause'", *SANDBOX):
            self._connection.execute(f"SET {setting}")
        self._query = query
        with self._running() as checked:
            self._query = checked

    def names(self, table: Any) -> list[str]:
        """The columns that it gives of rows of this form.

        Args:
            table: of Arrow, also without rows.

        Raises:
            ConfigError: it cannot be computed, or not row by row.
        """
        with self._running():
            self._register(table.slice(0, 0), "", 0)
            if "sequence" not in self._connection.sql(self._query).columns:
                self._query = self._with_sequence()
            ((_, text),) = self._connection.execute(f"EXPLAIN (FORMAT json) {self._query}").fetchall()
            several = {name for plan in json.loads(text) for name in _operators(plan)} - _ROW_BY_ROW
            if any(not name.endswith("_SCAN") for name in several):
                raise ConfigError(
                    [f"query: it needs several rows of the log at once ({', '.join(sorted(several)).lower()})"],
                    fix="write the events as the query gives them, and read them with a mapping that has no query",
                )
            names: list[str] = self._connection.sql(self._query).columns
        return names

    def rows(self, table: Any, *, file: str, first: int, texts: Iterable[str]) -> dict[str, list[Any]]:
        """What it gives of some rows, as columns; timestamps and dates as UTC seconds.

        Args:
            table: of Arrow.
            file: name of the file, which queries may read, too.
            first: the `sequence` of the first row.
            texts: columns that are wanted as text.

        Raises:
            ConfigError: it cannot be computed.
        """
        with self._running():
            self._register(table, file, first)
            casts = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in map(quoted, dict.fromkeys(texts)))
            chosen = f"SELECT * REPLACE ({casts}) FROM ({self._query}) ORDER BY sequence"
            found = self._connection.sql(chosen).to_arrow_table()
        columns = {name: found.column(name).combine_chunks() for name in found.column_names}
        return {
            name: (utc_seconds(column) if is_clock(column.type) else column).to_pylist()
            for name, column in columns.items()
        }

    def _register(self, table: Any, file: str, first: int) -> None:
        """Make a table the log, with the columns `file` and `sequence`, which `prepare` gives to queries, too."""
        arrow = require("pyarrow", extra="train", purpose="a mapping with a query")
        names = arrow.array([file] * len(table), arrow.string())
        places = arrow.array(range(first, first + len(table)), arrow.int64())
        self._connection.register(LOG, table.append_column("file", names).append_column("sequence", places))

    def _running(self) -> AbstractContextManager[str]:
        return running(self._query, tables=[LOG], fix="; files of another form need a mapping of their own")

    def _with_sequence(self) -> str:
        """The query with `sequence` among what it selects, which says of which line a row is."""
        ((text,),) = self._connection.execute("SELECT json_serialize_sql(?)", [self._query]).fetchall()
        tree = json.loads(text)
        selected = tree["statements"][0]["node"].get("select_list")
        if selected is None:
            raise ConfigError(["query: it does not keep `sequence`"], fix="add sequence to each SELECT")
        kind = "COLUMN_REF"
        selected.append({"class": kind, "type": kind, "alias": "", "column_names": ["sequence"]})
        made = self._connection.execute("SELECT json_deserialize_sql(CAST(? AS JSON))", [json.dumps(tree)])
        ((query,),) = made.fetchall()
        return str(query)


def _operators(plan: Any) -> Iterator[str]:
    yield plan["name"].strip()
    for part in plan.get("children", ()):
        yield from _operators(part)
