"""XLong: one history of 1,000 events a line, with one positive and one negative item; the split is given.

A line has 7 fields, separated by tabs: line index, user, items (comma-separated, oldest first), positive item, negative
item, and 184 neighbour items of either. There are no times: event i of a line has the ordinal time i, and the two
labelled targets stand after the last event. There are no item fields. The neighbours and the optional file of graph
embeddings are counted and not used: no model here takes them.

Which split a file is, is told by its name (`train...` or `test...`), or by the options. Every line is a history of its
own: the first line of a user keeps her id, the k-th is called `user#k` (else the histories of a user who stands in both
files would run into one). An item 0 is kept as an item: here no number is padding.

Options:
    train, test: names of files (without folders), comma-separated, where the names do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lifelong.data.sources.rawlog import RawLog
from lifelong.data.sources.staging import check_files, check_options, count_quirks, require_events, stage
from lifelong.data.sources.text import Column, Layout, Places, open_text, rows
from lifelong.errors import SourceError

OPTIONS = {"train": "", "test": ""}
LONGEST = 1 << 20
"""Sequence of an event = line * LONGEST + its place, so no line may hold more events."""
LAYOUT = Layout(
    (
        Column("user", "id"),
        Column("history", "id"),
        Column("positive", "id"),
        Column("negative", "id"),
        Column("near_positive"),
        Column("near_negative"),
    ),
    names=("index", "user", "history", "positive", "negative", "near_positive", "near_negative"),
    delimiter="\t",
)
LINES = pa.schema(
    [(name, pa.string()) for name in ("user", "positive", "negative", "split")]
    + [(name, pa.int64()) for name in ("length", "line")]
)
EVENTS = pa.schema([("line", pa.int64()), ("item", pa.string()), ("time", pa.int64())])


@dataclass(slots=True)
class _Reader:
    """Turns checked lines into lines without history, kept aside, and events, passed on.

    Args:
        splits: file -> "train" or "test".
    """

    splits: Mapping[Path, str]
    places: Places = field(default_factory=Places)
    lines: list[pa.Table] = field(default_factory=list)
    neighbours: int = 0

    def events(self) -> Iterator[pa.RecordBatch]:
        """Events of all files.

        Raises:
            SourceError: a line is wrong.
        """
        for path, split in self.splits.items():
            for table in rows([path], LAYOUT, self.places):
                item = pc.split_pattern(table["history"].combine_chunks(), ",")
                length = pc.list_value_length(item)
                line_N = np.repeat(table["sequence"].to_numpy(), length.to_numpy(zero_copy_only=False))
                start = item.offsets.to_numpy()
                time_N = np.arange(len(line_N)) - np.repeat(start[:-1] - start[0], np.diff(start))
                flat = item.flatten()
                self._check(flat, line_N, time_N)
                self._keep(table, length, split)
                yield pa.record_batch([pa.array(line_N), flat, pa.array(time_N)], schema=EVENTS)

    def _keep(self, table: pa.Table, length: pa.Array, split: str) -> None:
        """Keep lines without their histories."""
        for name in ("near_positive", "near_negative"):
            self.neighbours += pc.sum(pc.count_substring(table[name], ",")).as_py() + len(table)
        columns = [table["user"], table["positive"], table["negative"], pa.array([split] * len(table))]
        columns += [length.cast("int64"), table["sequence"]]
        self.lines.append(pa.table(columns, schema=LINES))

    def _check(self, item: pa.Array, line_N: Any, time_N: Any) -> None:
        """Check the items of histories.

        Raises:
            SourceError: one is empty, or a history is too long.
        """
        empty = np.flatnonzero(pc.equal(item, "").to_numpy(zero_copy_only=False))
        if len(empty) or (len(time_N) and time_N.max() >= LONGEST):
            at = int(empty[0]) if len(empty) else int(time_N.argmax())
            file, line = self.places.locate(int(line_N[at]))
            found = f"item {time_N[at] + 1} of the history is empty" if len(empty) else f"{time_N[at] + 1} items"
            raise SourceError(
                found, file=file, line=line, column="3 (history)", expected=f"at most {LONGEST} items, comma-separated"
            )


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open train and test files.

    Raises:
        SourceError: a line is not what it should be, or the split of a file is unknown.
        ConfigError: an option is unknown.
    """
    settings = check_options(options, OPTIONS, source="xlong")
    splits, graphs = _roles(check_files(paths, source="xlong"), settings)
    reader = _Reader(splits)
    staged = stage(connection, reader.events(), EVENTS)
    lines = _named(stage(connection, reader.lines, LINES))
    joined = staged.join(lines, "line")
    events = joined.select(
        "user", "item", "time", sequence=joined["line"] * LONGEST + joined["time"]
    )  # fmt: skip
    record: dict[str, Any] = reader.places.record() | count_quirks(events)
    require_events(record, source="xlong", files=list(splits))
    again = lines.aggregate(renamed=(lines["turn"] > 0).sum()).to_pyarrow().to_pylist()[0]["renamed"]
    record |= {"lines_of_a_user_met_before": int(again or 0), "neighbours_not_used": reader.neighbours}
    record["graph_embedding_files_not_used"] = len(graphs)
    return RawLog(
        name="XLong",
        events=events,
        time_unit="ordinal",
        impressions=_targets(lines),
        protocol="given",
        record=record,
    )


def _named(lines: Any) -> Any:
    """Lines under the name of their history: the user, or `user#k` for her k-th line."""
    turn = ibis.row_number().over(ibis.window(group_by="user", order_by="line"))
    turned = lines.mutate(turn=turn)
    again = turned["user"] + "#" + (turned["turn"] + 1).cast("string")
    return turned.mutate(user=ibis.ifelse(turned["turn"] > 0, again, turned["user"]))


def _targets(lines: Any) -> Any:
    """Two labelled targets a line, after its last event."""
    both = [
        lines.select(
            "user", "split", item=lines[column], time=lines["length"], sequence=lines["line"] * 2 + turn,
            response=ibis.literal(label, type="float64"),
        )
        for turn, (column, label) in enumerate((("positive", 1.0), ("negative", 0.0)))
    ]  # fmt: skip
    return ibis.union(*both).select("user", "item", "time", "sequence", "response", "split")


def _roles(files: Sequence[Path], settings: Mapping[str, str]) -> tuple[dict[Path, str], list[Path]]:
    """Split of each corpus file, and the files of graph embeddings.

    Raises:
        SourceError: the split of a file cannot be told.
    """
    told = {name.strip(): split for split in ("train", "test") for name in settings[split].split(",") if name.strip()}
    splits: dict[Path, str] = {}
    graphs: list[Path] = []
    for path in files:
        if path.name not in told and _is_graph(path):
            graphs.append(path)
            continue
        named = [split for split in ("train", "test") if split in path.name.lower()]
        split = told.get(path.name) or (named[0] if len(named) == 1 else None)
        if split is None:
            raise SourceError(
                "its name does not tell the split",
                file=str(path),
                expected="`train` or `test` in the name",
                fix=f"--option train={path.name} or --option test={path.name}",
            )
        splits[path] = split
    return splits, graphs


def _is_graph(path: Path) -> bool:
    """Whether the first line looks like graph embeddings: no tabs between 7 fields, but numbers with points."""
    with open_text(path) as stream:
        first = bytes(stream.read(1 << 16)).split(b"\n", 1)[0]
    values = first.replace(b",", b" ").split()
    return first.count(b"\t") != 6 and len(values) >= 16 and any(b"." in value for value in values)
