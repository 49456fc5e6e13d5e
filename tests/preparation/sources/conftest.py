from __future__ import annotations

import contextlib
import gzip
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ibis = pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.offline.preparation.sources import SOURCES, RawLog  # noqa: E402


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Opens an engine in a database file of its own, as `prepare` does."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def opened() -> Any:
            path = tmp_path / f"tables{next(numbers)}.duckdb"
            connection = ibis.duckdb.connect(str(path), temp_directory=str(tmp_path / "spill"))
            stack.callback(connection.disconnect)
            return connection

        yield opened


@pytest.fixture
def connection(connect: Callable[[], Any]) -> Any:
    """An engine in a database file, as `prepare` opens it."""
    return connect()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write text or bytes under a name; gzip where the name says so."""

    def written(name: str, content: str | bytes) -> Path:
        data = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return written


@pytest.fixture
def read(connect: Callable[[], Any]) -> Callable[..., RawLog]:
    """Read files with a source: `read("taobao", path, window="all")`."""

    def opened(source: str, *paths: Path, **options: str) -> RawLog:
        return SOURCES[source](connect(), paths, options)

    return opened


@pytest.fixture
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    """Rows of an Ibis table as tuples, by `sequence` where it has one, else sorted."""

    def listed(table: Any, *columns: str) -> list[tuple[Any, ...]]:
        ordered = table.order_by("sequence") if "sequence" in table.columns else table
        found = [tuple(row[name] for name in columns) for row in ordered.to_pyarrow().to_pylist()]
        return found if "sequence" in table.columns else sorted(found, key=repr)

    return listed
