"""What bounded structures keep of exact counts: LightGBM on what each of them knows of a target, by bytes a user.

    python benchmarks/counting_structures.py --data DATA --examples 200000 --threads 1

Every structure counts the same item fields, within the same bytes, shared out in the same way:

    exact       count, and events since the last one, of every value; grows with the history
    cells       `lifelong.nn.cells`: about 3 bytes a cell as stored, the stalest gives way; no faded bits to speak of
    cells+bits  the same with two fifths of the bytes as faded bits, as in the model `tally`
    latest      the same, the cell with the oldest last event giving way (patience 0)
    count-min   two rows of one-byte counters, conservative update (Estan and Varghese, SIGCOMM 2002); no ages
    hashed      one row of (count, age) of two bytes, no keys: values that meet in a cell are taken for one

Beside these LightGBM sees, in every row, what is not kept for a user's values: activity, popularity, small categories.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lifelong.data.cell_plan import CellPlan, CellScale, key_of, plan_cells, share_out
from lifelong.data.counts import count_features, feature_names
from lifelong.data.dataset import Dataset
from lifelong.data.examples import Examples
from lifelong.data.negatives import labelled_training_examples
from lifelong.data.popularity import target_counts
from lifelong.evaluation.metrics import auc
from lifelong.nn.cell_replay import cells_found
from lifelong.nn.cells import staleness
from lifelong.nn.compiled import jit

Array = npt.NDArray[Any]
SHARES = (16, 9, 5, 2, 4, 1, 0.5)
"""Of Complete Journey's fields: item, product type, category, department, manufacturer, brand, package size."""
FEW = 1000
_AGES = np.array(CellScale.FINE.ages(), np.float32)


ACTIVITY_DAYS = (1, 7, 30)
"""The user's events are counted over these numbers of days."""


def _activity(dataset: Dataset, examples: Examples) -> list[npt.NDArray[np.int64]]:
    """How many events the user had in the last days before each target."""
    time_N, position_N = np.asarray(examples.time_N), np.asarray(examples.position_N, np.int64)
    return [
        np.maximum(position_N - dataset.histories.positions(examples.user_N, time_N - days * 86_400), 0)
        for days in ACTIVITY_DAYS
    ]


class Log:
    """Keys of the histories and of examples."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sizes = list(dataset.inputs.item.values())
        tables = [np.array([key_of(number) for number in range(size)]) for size in self.sizes]
        number_VF = np.asarray(dataset.catalogue.number_VF)
        self.key_VF = np.stack([table[number_VF[:, place]] for place, table in enumerate(tables)], axis=1)

    def users(self, examples: Examples) -> Iterator[tuple[Array, Array, Array]]:
        """(examples of a user, keys of her events up to the last of their positions, keys of their items)."""
        order = np.argsort(examples.user_N, kind="stable")
        bounds = np.flatnonzero(np.diff(examples.user_N[order])) + 1
        for chosen in np.split(order, bounds):
            first = int(self.dataset.histories.offset_U[examples.user_N[chosen[0]]])
            last = first + int(examples.position_N[chosen].max())
            yield (
                chosen,
                self.key_VF[self.dataset.histories.row_N[first:last]],
                self.key_VF[examples.row_N[chosen]],
            )


def cells(log: Log, examples: Examples, plan: CellPlan) -> Array:
    """Count, age (-1 without a cell) and faded of each field: `[N, 3 F]`."""
    found_NFX = np.zeros((len(examples), len(log.sizes), 3), np.float32)
    stale_N = staleness(plan)
    for chosen, key_LF, asked_CF in log.users(examples):
        position_C = torch.from_numpy(examples.position_N[chosen].astype(np.int64))
        keys, asked = torch.from_numpy(key_LF)[None], torch.from_numpy(asked_CF)[None]
        found, _ = cells_found(keys, position_C[None], asked, stale_N, plan)
        count, age, faded = (part[0].numpy() for part in found)
        found_NFX[chosen] = np.stack([count, np.where(count > 0, _AGES[age], -1), faded], axis=-1)
    return found_NFX.reshape(len(examples), -1)


@jit
def _sketch(
    key_L: Array, position_C: Array, order_C: Array, asked_C: Array, size: Any, rows: Any, found_CX: Array
) -> None:
    """Count-min with conservative update (two rows), or one row of counts and last events."""
    count_RK, last_RK = np.zeros((rows, size), np.int64), np.zeros((rows, size), np.int64)
    place_R = np.zeros(rows, np.int64)
    n = 0
    for c in order_C:
        while n < position_C[c]:
            key = key_L[n]
            n += 1
            if key < 0:
                continue
            low = np.int64(1) << 40
            for r in range(rows):
                place_R[r] = (key * (40_503 + 7_919 * r) + 12_345 * r) % 1_000_003 % size
                low = min(low, count_RK[r, place_R[r]])
            for r in range(rows):
                count_RK[r, place_R[r]] = max(count_RK[r, place_R[r]], min(low + 1, 255))
                last_RK[r, place_R[r]] = n
        found_CX[c, 1] = -1
        if asked_C[c] >= 0:
            low = np.int64(1) << 40
            for r in range(rows):
                place = (asked_C[c] * (40_503 + 7_919 * r) + 12_345 * r) % 1_000_003 % size
                low = min(low, count_RK[r, place])
                if count_RK[r, place]:
                    found_CX[c, 1] = n - last_RK[r, place]
            found_CX[c, 0] = low


def sketch(log: Log, examples: Examples, total: int, *, rows: int) -> Array:
    """Counts, and with one row ages, of each field: `[N, 2 F]` or `[N, F]`."""
    cells_F = share_out(total // 2, [max(1, size - 2) for size in log.sizes], SHARES)
    found_NFX = np.zeros((len(examples), len(log.sizes), 2), np.float32)
    for chosen, key_LF, asked_CF in log.users(examples):
        position_C = examples.position_N[chosen].astype(np.int64)
        order_C = np.argsort(position_C, kind="stable")
        for field, size in enumerate(cells_F):
            found_CX = np.zeros((len(chosen), 2), np.float32)
            _sketch(key_LF[:, field].copy(), position_C, order_C, asked_CF[:, field].copy(), size, rows, found_CX)
            found_NFX[chosen, field] = found_CX
    return found_NFX[..., 0] if rows > 1 else found_NFX.reshape(len(examples), -1)


def exact(log: Log, examples: Examples) -> Array:
    """Counts and events since, of each field."""
    names = feature_names(log.dataset.schema)
    kept = [place for place, name in enumerate(names) if name.endswith((".count", ".events_since"))]
    return count_features(log.dataset, examples)[:, kept]


def known(log: Log, examples: Examples, name: str, total: int) -> Array:
    """What a structure of `total` bytes knows."""
    if name == "exact":
        return exact(log, examples)
    if name in ("count-min", "hashed"):
        return sketch(log, examples, total, rows=2 if name == "count-min" else 1)
    faded, patience = (0.4 if name == "cells+bits" else 0.0), (0 if name == "latest" else 400)
    return cells(log, examples, plan_cells(total, log.sizes, faded=faded, shares=SHARES, patience=patience))


class Rest:
    """What is not kept for a user's values."""

    def __init__(self, log: Log) -> None:
        self.log, self.popularity_F = log, list(map(np.log1p, target_counts(log.dataset).values()))
        self.few = [place for place, size in enumerate(log.sizes) if size < FEW]

    def inputs(self, examples: Examples) -> Array:
        """Activity, popularity, small categories."""
        number_NF = self.log.dataset.catalogue.number_VF[examples.row_N]
        popularity = [values[number_NF[:, place]] for place, values in enumerate(self.popularity_F)]
        columns = [examples.position_N, *_activity(self.log.dataset, examples), *popularity, *number_NF[:, self.few].T]
        return np.stack(columns, axis=1).astype(np.float32)


def boost(train: tuple[Array, Array], test: tuple[Array, Array], threads: int) -> float:
    """Test AUC of 150 trees."""
    import lightgbm

    options = {"objective": "binary", "learning_rate": 0.15, "num_leaves": 63, "min_data_in_leaf": 50}
    options |= {"num_threads": threads, "verbose": -1, "seed": 0, "deterministic": True}
    trees = lightgbm.train(options, lightgbm.Dataset(*train), 150)
    return float(auc(test[1], np.asarray(trees.predict(test[0], num_threads=threads))))


def some(examples: Examples, limit: int) -> Examples:
    """At most so many, drawn at random."""
    if len(examples) <= limit:
        return examples
    return examples.take(np.sort(np.random.default_rng(0).choice(len(examples), limit, replace=False)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Complete Journey, prepared")
    parser.add_argument("--examples", type=int, default=200_000, help="training examples")
    parser.add_argument("--test-examples", type=int, default=100_000)
    parser.add_argument("--bytes", default="1024,2048,4096,8192,16384")
    parser.add_argument("--structures", default="cells,cells+bits,latest,count-min,hashed")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    dataset = Dataset(arguments.data)
    log, found = Log(dataset), {}
    rest = Rest(log)
    sets = [
        labelled_training_examples(dataset, seed=0, limit=arguments.examples),
        some(dataset.examples("test"), arguments.test_examples),
    ]
    sizes = [int(size) for size in arguments.bytes.split(",")]
    rows = [("exact", 0), *((name, size) for name in arguments.structures.split(",") for size in sizes)]
    for name, size in rows:
        started = time.monotonic()
        inputs = [np.concatenate([rest.inputs(part), known(log, part, name, size)], axis=1) for part in sets]
        pairs = [(values, part.label_NT[:, 0]) for values, part in zip(inputs, sets, strict=True)]
        found[f"{name} {size}".removesuffix(" 0")] = value = boost(pairs[0], pairs[1], arguments.threads)
        print(f"{name:12} {size:6} bytes  AUC {value:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    print(json.dumps({"data_hash": dataset.manifest.data_hash, "examples": arguments.examples, "auc": found}))


if __name__ == "__main__":
    main()
