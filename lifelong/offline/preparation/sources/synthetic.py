"""Worlds with known answers (see `worlds.py`) as a raw log without files; the record holds the best possible AUC.

Options: `world` and every other setting of `WorldSettings`, such as `world=period`, `users=500`, `seed=7`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.engine import stage
from lifelong.offline.preparation.sources import staging
from lifelong.offline.preparation.sources.rawlog import RawLog
from lifelong.offline.preparation.sources.worlds import BLOCK, KNOWN_BY, WorldSettings, best_auc, blocks, categories

OPTIONS = None
"""They are the settings of a world, which are checked here."""
START, STEP = 1_577_836_800, 3600
"""Midnight before every user's first event (2020-01-01), and seconds between two events."""
EVENTS = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64()), ("sequence", pa.int64())])
IMPRESSIONS = EVENTS.append(pa.field("response", pa.float64()))


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Make a world."""
    if paths:
        raise UsageError(
            f"files were named: {', '.join(map(str, paths))}",
            expected="none: this source makes its rows",
            fix="leave the files out",
        )
    settings = world_settings(options)
    events = stage(connection, _event_batches(settings), EVENTS)
    impressions = stage(connection, _impression_batches(settings), IMPRESSIONS)
    items = pa.table({"item": [f"i{number}" for number in range(settings.items)], "category": categories(settings)})
    # The blocks are made a second time, from their seeds: a large world need not be held at once.
    probability_Q = np.concatenate([block.probability_Q for block in blocks(settings)])
    record: dict[str, Any] = {**asdict(settings), "impressions": len(probability_Q)}
    record |= {"known_by": KNOWN_BY[settings.world], "best_auc": best_auc(probability_Q)}
    return RawLog(
        name=f"synthetic world {settings.world}",
        events=events,
        items=stage(connection, [items], items.schema),
        item_fields=("category",),
        impressions=impressions,
        protocol="impressions",
        record=record,
    )


def world_settings(options: Mapping[str, str]) -> WorldSettings:
    """Settings from the texts of options.

    Raises:
        ConfigError: one is unknown, not a number, or out of range; lists all of them.
    """
    defaults = WorldSettings()
    default_texts = {field.name: str(getattr(defaults, field.name)) for field in fields(defaults)}
    values: dict[str, Any] = {}
    problems = []
    for name, text in staging.check_options(options, default_texts, source="synthetic").items():
        try:
            values[name] = type(getattr(defaults, name))(text)
        except ValueError:
            problems.append(f"{name} = {text!r} is not a number")
    problems += WorldSettings(**values).problems()
    if problems:
        raise ConfigError(problems, fix=f"settings and their defaults: {default_texts}")
    return WorldSettings(**values)


def _event_batches(settings: WorldSettings) -> Iterator[pa.RecordBatch]:
    """Events, batch by batch of users."""
    for at, block in enumerate(blocks(settings)):
        users, events = block.item_UN.shape
        # All users have equally many events, so that the place of a block's first event follows from the users before
        # it.
        first = at * BLOCK
        user_N = np.repeat(np.arange(first, first + users), events)
        time_N = (START + STEP * (block.start_U[:, None] + np.arange(events))).ravel()
        yield _batch(EVENTS, user_N, block.item_UN.ravel(), time_N, first * events + np.arange(len(user_N)))


def _impression_batches(settings: WorldSettings) -> Iterator[pa.RecordBatch]:
    """Impressions, each half a step after the event before it."""
    done = 0
    for at, block in enumerate(blocks(settings)):
        # Half a step later, so that no question shares its moment with an event, which would then be hidden from it.
        time_Q = START + STEP * (block.start_U[block.user_Q] + block.position_Q - 1) + STEP // 2
        sequence_Q = done + np.arange(len(time_Q))
        yield _batch(IMPRESSIONS, at * BLOCK + block.user_Q, block.item_Q, time_Q, sequence_Q, block.label_Q)
        done += len(time_Q)


def _batch(schema: pa.Schema, user_N: Any, item_N: Any, *columns: Any) -> pa.RecordBatch:
    """One batch, with ids in place of numbers."""
    ids = [[f"{letter}{number}" for number in numbers.tolist()] for letter, numbers in (("u", user_N), ("i", item_N))]
    return pa.record_batch([*ids, *(pa.array(column) for column in columns)], schema=schema)
