"""Parquet files, checked by their schema; rows stay in the engine."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from lifelong.errors import SourceError
from lifelong.offline.preparation import engine
from lifelong.tables import TYPES, ColumnKind, check_types, is_of

Kind = Literal["any", "integer", "number", "time"] | ColumnKind


_TESTS: dict[Kind, tuple[str, Any]] = {
    "any": ("any type", lambda kind: True),
    "integer": ("whole numbers", pa.types.is_integer),
    **{kind: (words, partial(is_of, kind=kind)) for kind, words in TYPES.items()},
    "number": ("numbers", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind)),
    "time": ("timestamps", pa.types.is_timestamp),
}


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """One file and what its footer says."""

    path: Path
    schema: pa.Schema
    rows: int

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def open(cls, path: Path) -> ParquetFile:
        """Read the footer.

        Raises:
            SourceError: it is not a parquet file.
        """
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(
                f"cannot be read: {error}",
                file=str(path),
                expected="a whole parquet file",
                fix="fetch or write the file again",
            ) from error
        return cls(path, metadata.schema.to_arrow_schema(), metadata.num_rows)

    def require(self, columns: Mapping[str, Kind]) -> None:
        """Check that columns exist and have the right type.

        Raises:
            SourceError: one is missing, or of another type.
        """
        for name, kind in columns.items():
            words, test = _TESTS[kind]
            if name not in self.schema.names:
                raise SourceError(
                    f"there is no such column (there are {', '.join(self.schema.names)})",
                    file=str(self.path),
                    column=name,
                    expected=f"the columns {', '.join(columns)}",
                    fix='say which column is what: --column user=NAME (user="NAME"), or a mapping file',
                )
            if kind in TYPES:
                check_types(self.schema, {name: cast(ColumnKind, kind)}, file=str(self.path))
            elif not test(found := self.schema.field(name).type):
                raise SourceError(
                    f"its type is {found}",
                    file=str(self.path),
                    column=name,
                    expected=words,
                    fix="write the column again with this type",
                )


def is_parquet(path: Path) -> bool:
    """Whether a file begins like parquet."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def scan(
    connection: Any,
    files: Sequence[ParquetFile],
    columns: Mapping[str, Kind],
    *,
    names: Mapping[str, str] | None = None,
    optional: Container[str] = (),
) -> Any:
    """Rows of several files of one shape, with `sequence`: the running row number over all of them.

    Args:
        connection: of `open_engine`.
        columns: wanted columns and their kinds.
        names: column of the file -> name in the result, where it is another.
        optional: columns that may have no value in some rows.

    Raises:
        SourceError: a file lacks a column, has it in another type, or has a row without a value.
    """
    tables, first = [], 0
    for file in files:
        file.require(columns)
        table = engine.read_parquet(connection, file.path)
        chosen = {(names or {}).get(name, name): table[name] for name in columns}
        tables.append(table.select(**chosen, sequence=table["file_row_number"] + first))
        # The engine numbers the rows of each file from 0; `sequence` goes on over all files.
        first += file.rows
    rows = ibis.union(*tables) if len(tables) > 1 else tables[0]
    for column in columns:
        if column not in optional:
            value = rows[(names or {}).get(column, column)]
            # An empty text is no id either; a number cannot be compared with a text.
            none = (
                value.isnull() | (value == "")
                if columns[column] == "id" and value.type().is_string()
                else value.isnull()
            )
            refuse(rows.filter(none), files, column, "no value", expected="a value in every row")
    return rows


def refuse(rows: Any, files: Sequence[ParquetFile], column: str, found: str, *, expected: str) -> None:
    """Check that there are no such rows.

    Args:
        rows: the wrong ones, with their `sequence`.
        files: that were scanned.
        column: that is wrong.
        found: what is wrong in the row.
        expected: see `LifelongError`.

    Raises:
        SourceError: there is one.
    """
    # The smallest number is the first wrong row, in whatever order the engine reads.
    sequence = rows["sequence"].min().to_pyarrow().as_py()
    if sequence is not None:
        path, row = locate(files, sequence)
        raise SourceError(
            f"row {row} has {found}",
            file=path,
            column=column,
            expected=expected,
            fix="correct the value, or remove the row",
        )


def locate(files: Sequence[ParquetFile], sequence: int) -> tuple[str, int]:
    """File and row (from 1) of a sequence."""
    for file in files:
        if sequence < file.rows:
            return str(file.path), sequence + 1
        sequence -= file.rows
    raise IndexError(sequence)
