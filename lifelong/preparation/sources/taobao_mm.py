"""Taobao-MM: one history of up to 1,000 events a user, and impressions of ads after it; the split is given.

The files of the folder `raw`, each with the role that its columns give it: `*_samples.parquet` (label, user, item),
`*_user_features.parquet` (histories of items and of their categories, oldest first) and, optionally,
`item_features.parquet` (categories). The joined shards of the folders `train` and `test` copy a user's history into
each sample and are refused; the embeddings of the items are not used. Columns have numbers for names, as published:
129_1 is the user, 205 the item, 206 its category, 150_2_180 and 151_2_180 the histories.

There are no times: event i of a history has the ordinal time i, and all samples of the user come after the last event.
The split of a file follows from its name, `train...` or `test...`. A user in both has a history in each: that of
training keeps the id, that of testing is called `user#2`. The id 0 means "no value": such places of a history are
dropped and counted, such a category is missing.

Source: Wu et al., "MUSE: A Simple Yet Effective Multimodal Search-Based Framework for Lifelong User Interest Modeling",
2025; columns as in the authors' notebook, run on its demonstration files of ten rows and not on the whole dataset.

Options:
    demographics: `drop` (default) or `keep`: the user columns 130_1 to 130_5, published without names, as profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis

from lifelong.errors import SourceError
from lifelong.preparation.engine import count, materialise
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.parquet import Kind, ParquetFile, refuse, scan
from lifelong.preparation.sources.rawlog import RawLog

OPTIONS = {"demographics": ("drop", "keep")}
LONGEST = 1 << 20
"""Sequence of an event = row * LONGEST + its place, so no history may be longer."""
SAMPLES: dict[str, Kind] = {"129_1": "id", "205": "id", "label_0": "ids"}
HISTORIES: dict[str, Kind] = {"129_1": "id", "150_2_180": "ids", "151_2_180": "ids"}
ITEMS: dict[str, Kind] = {"205": "id", "206": "id"}
PROFILE_FIELDS = ("130_1", "130_2", "130_3", "130_4", "130_5")
MARKERS = {"samples": "label_0", "histories": "150_2_180", "items": "206"}
"""Role -> the column that only files of this role have."""
NOTHING = "0"


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open samples, histories and items."""
    files = [ParquetFile.open(path) for path in paths]
    _refuse_joined(files)
    roles = staging.by_marker(
        ((file, file.schema.names) for file in files),
        MARKERS,
        dict.fromkeys(("samples", "histories"), "name train_ and test_ files of both"),
        expected="raw/*_samples, raw/*_user_features or raw/item_features, by their columns; embeddings are not used",
    )
    samples, of_users = (_in_order(roles[role]) for role in ("samples", "histories"))
    record: dict[str, Any] = {f"{role}_rows": sum(file.rows for file in of) for role, of in roles.items()}
    histories = _histories(connection, of_users)
    each = _events(connection, of_users, histories)
    events = each.select("user", "item", "time", "sequence").filter(each["item"] != NOTHING)
    record["places_without_item"] = count(each) - count(events)
    raw = RawLog(
        name="Taobao-MM",
        events=events,
        time_unit="ordinal",
        impressions=_targets(connection, samples, histories, record),
        protocol="given",
        record=record,
    )
    staging.add_fields(raw, _categories(connection, roles["items"], each), ["category"])
    if options["demographics"] == "keep":
        raw.users, raw.user_fields = _profiles(connection, of_users, histories), PROFILE_FIELDS
    return raw


def _refuse_joined(files: Sequence[ParquetFile]) -> None:
    for file in files:
        if {"label_0", "150_2_180"} <= set(file.schema.names):
            raise SourceError(
                "it is a shard of joined rows, with a copy of the history in each sample",
                file=str(file),
                expected="the files of the folder raw",
                fix="name raw/*_samples.parquet, raw/*_user_features.parquet and raw/item_features.parquet",
            )


def _in_order(files: Sequence[ParquetFile]) -> list[ParquetFile]:
    """The files of training, then those of testing."""
    for file in files:
        if _is_test(file) == ("train" in file.path.name.lower()):
            raise SourceError(
                "its name does not say which split it is",
                file=str(file),
                expected="`train` or `test` in the name",
                fix="give the file its name of the release again",
            )
    return sorted(files, key=_is_test)


def _is_test(file: ParquetFile) -> bool:
    return "test" in file.path.name.lower()


def _of_splits(connection: Any, files: Sequence[ParquetFile], columns: Mapping[str, Kind], **more: Any) -> Any:
    """Rows of files in order, with `split`."""
    rows = scan(connection, files, columns, **more)
    last = sum(file.rows for file in files if not _is_test(file))
    return rows.mutate(split=ibis.ifelse(rows["sequence"] < last, "train", "test"))


def _histories(connection: Any, files: Sequence[ParquetFile]) -> Any:
    """One row per history: id, split, user (the name of the history), items, categories, length, sequence."""
    rows = _of_splits(connection, files, HISTORIES)
    uneven = rows.filter(rows["150_2_180"].length() != rows["151_2_180"].length())
    refuse(uneven, files, "151_2_180", "more or fewer categories than items", expected="one for each item")
    long = rows.filter(rows["150_2_180"].length() > LONGEST)
    refuse(long, files, "150_2_180", f"more than {LONGEST} items", expected=f"at most {LONGEST}")
    turn = ibis.row_number().over(ibis.window(group_by=["129_1", "split"], order_by="sequence"))
    numbered = rows.mutate(turn=turn)
    again = numbered.filter(numbered["turn"] > 0)
    refuse(again, files, "129_1", "a user that is there already", expected="one history of each user and split")
    place = ibis.row_number().over(ibis.window(group_by="129_1", order_by="sequence"))
    named = rows.mutate(id=rows["129_1"].cast("string"), place=place)
    return named.select(
        "id", "split", "sequence",
        user=named["id"] + ibis.ifelse(named["place"] > 0, "#2", ""),
        items=named["150_2_180"],
        categories=named["151_2_180"],
        length=named["150_2_180"].length().cast("int64"),
    )  # fmt: skip


def _events(connection: Any, files: Sequence[ParquetFile], histories: Any) -> Any:
    """One row per place of a history: user, item, category, time, sequence."""
    places = histories.unnest("items", offset="time")
    events = places.select(
        user=places["user"],
        item=places["items"].cast("string"),
        category=places["categories"][places["time"]].cast("string"),
        time=places["time"].cast("int64"),
        sequence=places["sequence"] * LONGEST + places["time"],
    )
    # Computed once: every later query would unfold all histories again.
    each = materialise(connection, "lifelong_taobao_mm", events)
    missing = each.filter(each["item"].isnull())
    missing = missing.mutate(sequence=missing["sequence"] // LONGEST)
    refuse(missing, files, "150_2_180", "an absent value", expected="an item at each place")
    return each


def _targets(connection: Any, files: Sequence[ParquetFile], histories: Any, record: dict[str, Any]) -> Any:
    """Labelled samples, after the last event of their user."""
    rows = _of_splits(connection, files, SAMPLES)
    label = rows["label_0"]
    wrong = rows.filter((label.length() != 2) | (label[0] + label[1] != 1))
    refuse(wrong, files, "label_0", "a label that is not [1, 0] or [0, 1]", expected="[0, 1] for a click")
    samples = rows.select(
        "split", "sequence",
        id=rows["129_1"].cast("string"),
        item=rows["205"].cast("string"),
        response=label[1].cast("float64"),
    )  # fmt: skip
    known = histories.select("id", "split", "user", "length")
    joined = samples.left_join(known, ["id", "split"])
    record["samples_without_history"] = count(joined.filter(joined["user"].isnull()))
    targets = joined.select(
        user=ibis.coalesce(joined["user"], joined["id"]),
        item=joined["item"],
        time=ibis.coalesce(joined["length"], ibis.literal(0, "int64")),
        sequence=joined["sequence"],
        response=joined["response"],
        split=joined["split"],
    )
    # A table, since Ibis would take later joins into this one.
    return materialise(connection, "lifelong_taobao_mm_samples", targets)


def _categories(connection: Any, files: Sequence[ParquetFile], each: Any) -> Any:
    """Item, category and sequence: of the histories, and then of the file of items."""
    parts = [each.select("item", "category", "sequence").filter(each["item"] != NOTHING)]
    if files:
        rows = scan(connection, files, ITEMS, optional=["206"])
        last = 1 << 62
        parts.append(
            rows.select(
                item=rows["205"].cast("string"),
                category=rows["206"].cast("string"),
                sequence=rows["sequence"] + last,
            )
        )
    table = ibis.union(*parts) if len(parts) > 1 else parts[0]
    return table.mutate(category=table["category"].nullif(NOTHING))


def _profiles(connection: Any, files: Sequence[ParquetFile], histories: Any) -> Any:
    """One row per history, with the fields of its user."""
    rows = _of_splits(
        connection, files, {"129_1": "id", **dict.fromkeys(PROFILE_FIELDS, "id")}, optional=PROFILE_FIELDS
    )
    fields = {name: rows[name].cast("string").nullif(NOTHING) for name in PROFILE_FIELDS}
    table = rows.select("split", "sequence", id=rows["129_1"].cast("string"), **fields)
    named = table.join(histories.select("id", "split", "user"), ["id", "split"])
    return named.select("user", *PROFILE_FIELDS)
