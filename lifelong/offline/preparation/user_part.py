"""The events of a part of the users, with the items and the counts of the whole log.

    whole log --CRC-32 of the user, modulo N, is k--> events of the part --> histories, examples
              `--one aggregate by item--> all items, vocabularies, popularity

A log that is too large to train on is trained on by a part of its users: each has her whole history, and the artifact
knows every item, as often as the whole log has it. The rule is that of the parts of a store.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ibis
import numpy as np
import pyarrow as pa

from lifelong.errors import UsageError
from lifelong.offline.preparation.engine import batches, materialise, stage
from lifelong.offline.preparation.settings import Job, Whole


def take_part(job: Job, protocol: str, cut_times: tuple[int, ...], since: int | None) -> Job:
    """The job with the events of the users of `settings.part` alone, and what is known of the whole log.

    Args:
        job: of the whole log.
        protocol: that of the job.
        cut_times: of the whole log.
        since: negatives of training are drawn from events from this time on; None for all of its period.

    Raises:
        UsageError: the protocol does not cut by time.
    """
    assert job.settings.part is not None
    if protocol not in ("temporal", "impressions"):
        raise UsageError(
            f"a part of the users with the protocol {protocol!r}, whose training period is not the same for all users",
            expected="temporal or impressions",
            fix="choose protocol=temporal, or leave out part",
        )
    connection, log, shown = job.connection, job.log, job.log.impressions
    tables = [log.events] if shown is None else [log.events, shown]
    job.progress(f"counting the items of all users, and taking part {'/'.join(map(str, job.settings.part))} of them")
    chosen = _users_of(connection, _together(tables, "user").distinct(), *job.settings.part)

    def part(table: Any) -> Any:
        # Written once, so that later steps read as few rows as they keep.
        return materialise(connection, "lifelong_part", table.semi_join(chosen, "user"))

    mine = replace(log, events=part(log.events), impressions=None if shown is None else part(shown))
    whole = _whole(job, _together(tables, "item", "time"), cut_times[0], since)
    return replace(job, log=mine, cut_times=cut_times, whole=whole)


def _whole(job: Job, rows: Any, end: int, since: int | None) -> Whole:
    """What is counted before the training period's end."""
    log, trained = job.log, rows["time"] < end
    drawn = trained if since is None else trained & (rows["time"] >= since)
    items = rows.group_by("item").aggregate(trained=trained.sum(), drawn=drawn.sum())
    before, types, profiles = log.events.filter(log.events["time"] < end), dict[str, int](), None
    if log.event_types:
        of_type = log.events.group_by("event_type").aggregate(n=(log.events["time"] < end).sum())
        types = {
            row["event_type"]: row["n"] for row in of_type.to_pyarrow().to_pylist() if row["event_type"] is not None
        }
    if log.users is not None:
        known = before.select("user").distinct().inner_join(log.users, "user")
        profiles = materialise(job.connection, "lifelong_trained", known)
    return Whole(materialise(job.connection, "lifelong_counted", items), types, profiles)


def _together(tables: Sequence[Any], *columns: str) -> Any:
    """Some columns of all rows of several tables."""
    chosen = [table.select(*columns) for table in tables]
    return ibis.union(*chosen) if len(chosen) > 1 else chosen[0]


def _users_of(connection: Any, users: Any, number: int, of: int) -> Any:
    """The users of a part, as a table.

    The engine has no CRC-32: it is taken of each user once, and not in each row.
    """
    kept = []
    for batch in batches(connection, users):
        names = batch.column(0).to_pylist()
        hash_U = np.fromiter((zlib.crc32(name.encode()) for name in names), np.uint32, len(names))
        kept.append(batch.filter(pa.array(hash_U % of == number)))
    schema = pa.schema([("user", pa.string())])
    return stage(connection, kept, schema)
