"""XLong: one history of 1,000 events a line, with one positive and one negative item; the split is given.

A line has 7 fields, separated by tabs: line index, user, items (comma-separated, oldest first), positive item, negative
item, and 184 neighbour items of each. There are no times: event i of a line has the ordinal time i, and the two
labelled targets come after the last event. There are no item fields. The neighbours are not read: no model here takes
them.

The split of a file follows from its name (`train...` or `test...`). Every line is a history of its
own: the first line of a user keeps the id, the k-th is called `user#k`. Otherwise the histories of a user who is in
both files would become one. An item 0 is kept as an item: here no number is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from lifelong.errors import SourceError
from lifelong.offline.preparation.engine import materialise, scalars, stage
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.text import Column, Layout, Places, rows

OPTIONS: dict[str, str] = {}
LONGEST = 1 << 20
"""The sequence of an event is line * LONGEST + its place, so no line may have more events."""
LAYOUT = Layout(
    (
        Column("user", "id"),
        Column("history", "id"),
        Column("positive", "id"),
        Column("negative", "id"),
    ),
    names=("index", "user", "history", "positive", "negative", "near_positive", "near_negative"),
    delimiter="\t",
)


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open train and test files."""
    splits = _splits(paths)
    places, schema = Places(LAYOUT), LAYOUT.schema().append(pa.field("split", pa.string()))
    table = stage(connection, _lines(splits, places), schema)
    items = table["history"].split(",")
    lines = _named(table.mutate(history_item=items, length=items.length().cast("int64")))
    each = lines.unnest("history_item", offset="time")
    _check(lines, each, places)
    events = each.select(
        "user",
        item=each["history_item"],
        time=each["time"].cast("int64"),
        sequence=each["sequence"] * LONGEST + each["time"],
    )
    return RawLog(
        name="XLong",
        # Computed once: every later query would split all histories again.
        events=materialise(connection, "lifelong_xlong", events),
        time_unit="ordinal",
        impressions=_targets(lines),
        protocol="given",
        record=dict(places.record()),
    )


def _lines(splits: Mapping[Path, str], places: Places) -> Iterator[pa.Table]:
    """The lines of all files, each with its split."""
    for path, split in splits.items():
        for table in rows([path], LAYOUT, places):
            yield table.append_column("split", pa.array([split] * len(table)))


def _check(lines: Any, each: Any, places: Places) -> None:
    """Refuse an empty item, and a history that is too long."""
    long, empty = lines.filter(lines["length"] > LONGEST), each.filter(each["history_item"] == "")
    line = scalars(long.aggregate(line=long["sequence"].min()))["line"]
    found = f"more than {LONGEST} items"
    if line is None:
        at = scalars(empty.aggregate(at=(empty["sequence"] * LONGEST + empty["time"]).min()))["at"]
        if at is None:
            return
        line, found = at // LONGEST, f"item {at % LONGEST + 1} of the history is empty"
    file, number = places.locate(line)
    raise SourceError(
        found,
        file=file,
        line=number,
        column="3 (history)",
        expected=f"at most {LONGEST} items, comma-separated",
        fix="fetch the file again, or remove the line",
    )


def _named(lines: Any) -> Any:
    """Lines under the name of their history: the user, or `user#k` for her k-th line."""
    turn = ibis.row_number().over(ibis.window(group_by="user", order_by="sequence"))
    turned = lines.mutate(turn=turn)
    again = turned["user"] + "#" + (turned["turn"] + 1).cast("string")
    return turned.mutate(user=ibis.ifelse(turned["turn"] > 0, again, turned["user"]))


def _targets(lines: Any) -> Any:
    """Two labelled targets a line, after its last event."""
    both = [
        lines.select(
            "user", "split", item=lines[column], time=lines["length"], sequence=lines["sequence"] * 2 + turn,
            response=ibis.literal(label, type="float64"),
        )
        for turn, (column, label) in enumerate((("positive", 1.0), ("negative", 0.0)))
    ]  # fmt: skip
    return ibis.union(*both).select("user", "item", "time", "sequence", "response", "split")


def _splits(files: Sequence[Path]) -> dict[Path, str]:
    """Split of each file."""
    splits: dict[Path, str] = {}
    for path in files:
        named = [split for split in ("train", "test") if split in path.name.lower()]
        if len(named) != 1:
            raise SourceError(
                "its name does not say which split it is",
                file=str(path),
                expected="`train` or `test` in the name",
                fix="rename it, as in train_corpus.txt or test_corpus.txt",
            )
        splits[path] = named[0]
    return splits
