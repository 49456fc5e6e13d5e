"""A source made of a few literal rows, so that `prepare` is tested without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lifelong.dataset.folder import Dataset
from lifelong.offline.preparation.prepare import PrepareSettings, prepare
from lifelong.offline.preparation.sources import SOURCES, RawLog

Event = tuple[Any, ...]
Make = Callable[..., Dataset]


def read_rows(connection: Any, events: Sequence[Event], **log: Any) -> RawLog:
    """A log of literal rows: (user, item, time) or (user, item, time, event_type); the sequence is the row's place."""
    import pyarrow as pa

    from lifelong.offline.preparation.engine import stage

    def table(columns: Mapping[str, Any], rows: Sequence[Event]) -> Any:
        arrays = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(columns.values())]
        given = pa.table(arrays, names=list(columns))
        return stage(connection, [given], given.schema)

    base = {"user": pa.string(), "item": pa.string(), "time": pa.int64()}
    types = log.pop("event_types", bool(events) and len(events[0]) == 4)
    columns = base | ({"event_type": pa.string()} if types else {}) | {"sequence": pa.int64()}
    order = log.pop("sequence", range(len(events)))
    log["events"] = table(columns, [(*event, place) for event, place in zip(events, order, strict=True)])
    if log.get("items") is not None:
        fields = {"item": pa.string()} | dict.fromkeys(log["item_fields"], pa.string())
        log["items"] = table(fields, log["items"])
    if log.get("impressions") is not None:
        shown, tasks = log["impressions"], log.get("tasks", ("response",))
        columns = base | dict.fromkeys(tasks, pa.float64())
        if len(shown[0]) > len(columns):
            columns["split"] = pa.string()
        log["impressions"] = table(
            columns | {"sequence": pa.int64()}, [(*row, place) for place, row in enumerate(shown)]
        )
    if log.get("ratings") is not None:
        columns = base | {"rating": pa.float64(), "sequence": pa.int64()}
        log["ratings"] = table(columns, [(*row, place) for place, row in enumerate(log["ratings"])])
    return RawLog(name="rows", event_types=types, **log)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Prepare literal rows; keyword arguments are those of `RawLog`, and `settings` those of `PrepareSettings`."""

    def prepare_rows(
        events: Sequence[Event],
        *,
        out: str = "data",
        settings: Mapping[str, Any] | None = None,
        progress: Any = None,
        **log: Any,
    ) -> Dataset:
        monkeypatch.setitem(
            SOURCES, "rows", lambda connection, paths, options: read_rows(connection, events, **dict(log))
        )
        chosen = PrepareSettings(**{"threads": 1, **(settings or {})})
        return prepare("rows", [], tmp_path / out, settings=chosen, progress=progress)

    return prepare_rows
