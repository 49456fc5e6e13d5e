"""Rows of a parquet file, batch by batch; a time column of timestamps or dates comes as UTC seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from lifelong.errors import SourceError, require
from lifelong.online.ingestion.opened_file import OpenedFile, OverwrittenError, overwritten
from lifelong.online.ingestion.rows import check_columns
from lifelong.tables import ColumnKind, check_types, is_clock, time_in_seconds, with_folder_columns


class ParquetRows:
    """Reads one parquet file.

    Args:
        file: the file.
        time: name of its time column; None where a query gives it.
    """

    def __init__(self, file: OpenedFile, time: str | None) -> None:
        self._file, self._path, self._time = file, file.path, time

    def count(self) -> int:
        """How many rows there are.

        Raises:
            SourceError: it is not a parquet file.
        """
        with self._open() as file:
            return int(file.metadata.num_rows)

    def check(self, needed: Sequence[str], kinds: Mapping[str, ColumnKind]) -> bool:
        """Check columns; whether times are timestamps or dates, which say their unit themselves.

        Args:
            needed: columns of the file that hold user, item and time, in this order.
            kinds: what these columns and others hold.

        Raises:
            SourceError: a column does not exist, or has a type that `prepare` refuses, or it is not a parquet file.
        """
        schema = self.empty().schema
        assert self._time is not None
        check_columns(schema.names, needed, file=self._path, expected=f"the columns {', '.join(needed)}")
        check_types(schema, kinds, file=str(self._path))
        return is_clock(schema.field(self._time).type)

    def batches(self, size: int) -> Generator[Any]:
        """The rows, this many at once, as record batches.

        Raises:
            SourceError: they cannot be read.
        """
        with self._open() as file:
            for rows in file.iter_batches(batch_size=size):
                # A column that a folder names, as in day=2025-01-31, is in no file of it.
                batch = with_folder_columns(rows, self._path)
                yield batch if self._time is None else time_in_seconds(batch, self._time)

    def empty(self) -> Any:
        """A table of Arrow with its columns, and no rows."""
        with self._open() as file:
            # Made of the schema: no row is read to know the columns.
            return with_folder_columns(file.schema_arrow.empty_table(), self._path)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        arrow = require("pyarrow", extra="train", purpose="reading parquet")
        parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet")
        try:
            with self._file.stream() as stream, parquet.ParquetFile(stream) as file:
                yield file
        except OverwrittenError as error:
            raise overwritten(self._path) from error
        except OSError as error:
            found = f"cannot be read: {error.strerror or error}"
            raise SourceError(found, file=str(self._path), fix="check the path") from error
        except (ValueError, arrow.ArrowException) as error:
            raise SourceError(
                f"not a parquet file: {error}",
                file=str(self._path),
                fix="fetch or write the file again; a csv or JSON file needs a name that ends so",
            ) from error


def values_of(column: Any) -> list[Any]:
    """The values of a column of Arrow.

    Equal texts are one object: it is made and hashed once, and texts come again and again.

    >>> import pyarrow
    >>> values_of(pyarrow.array(["tea", None, "tea"])), values_of(pyarrow.array([1, None]))
    (['tea', None, 'tea'], [1, None])
    """
    arrow: Any = require("pyarrow", extra="train", purpose="reading parquet")
    if not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
        values: list[Any] = column.to_pylist()
        return values
    coded = column.dictionary_encode()
    # The place -1 is that of a text that is not there.
    texts = [*coded.dictionary.to_pylist(), None]
    return list(map(texts.__getitem__, coded.indices.fill_null(-1).to_numpy().tolist()))
