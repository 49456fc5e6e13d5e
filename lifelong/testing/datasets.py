"""A small prepared dataset, written directly (without `prepare`), for tests of everything that stands behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lifelong.data.catalogue import FIRST_ROW, Catalogue
from lifelong.data.dataset import FORMAT_VERSION, Dataset, Manifest, NegativeRule, array_hash, write_manifest
from lifelong.data.events import Schema
from lifelong.data.examples import SPLITS, Examples
from lifelong.data.histories import Histories
from lifelong.data.vocabulary import IdIndex, Vocabulary

_START = 1_600_000_000


def tiny_dataset(
    folder: Path, *, num_users: int = 40, num_items: int = 60, mean_events: int = 40, seed: int = 0
) -> Dataset:
    """Write and open a dataset of users who come back to their own few items.

    Items `i0..`, of which the last tenth are not in the vocabulary (they use hash buckets); categories `c0..c9`; event
    types `view` and `buy`; baskets share their time; one user has no event in training, one has only one event. Every
    event from the second moment on is a target, with one popularity negative in validation and test.

    Args:
        folder: where to write.
        num_users: U.
        num_items: items in the catalogue.
        mean_events: expected events of a user.
        seed: of everything drawn.
    """
    rng = np.random.default_rng(seed)
    known = num_items - num_items // 10
    items = Vocabulary.build([f"i{i}" for i in range(known)], buckets=8)
    categories = Vocabulary.build([f"c{i}" for i in range(10)])
    types = Vocabulary.build(["view", "buy"])
    names = [f"i{i}" for i in range(num_items)]
    number_VF = np.zeros((FIRST_ROW + num_items, 2), np.int32)
    number_VF[1] = 1
    number_VF[FIRST_ROW:, 0] = items.numbers(names)
    number_VF[FIRST_ROW:, 1] = categories.numbers([f"c{i % 10}" for i in range(num_items)])
    vocabularies = {"item": items, "category": categories}

    length_U = rng.poisson(mean_events, num_users) + 1
    length_U[0] = 1
    offset_U = np.concatenate([[0], np.cumsum(length_U)])
    rows, times = [], []
    for user, length in enumerate(length_U):
        taste = rng.choice(num_items, 6, replace=False)
        rows.append(
            FIRST_ROW
            + np.where(rng.random(length) < 0.8, rng.choice(taste, length), rng.integers(0, num_items, length))
        )
        start = _START + (80_000_000 if user == 1 else int(rng.integers(0, 1_000_000)))
        times.append(np.sort(start + rng.integers(0, max(2, 2 * length // 3), length) * 1_000_000))
    num_events = int(offset_U[-1])
    histories = Histories(
        offset_U.astype(np.int64),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.arange(num_events, dtype=np.int64),
        rng.integers(2, 4, num_events).astype(np.int16),
    )
    first, second = (int(np.sort(histories.time_N)[int(share * num_events)]) for share in (0.8, 0.9))
    user_N = np.repeat(np.arange(num_users, dtype=np.int32), length_U)
    position_N = histories.positions(user_N, histories.time_N).astype(np.int32)
    counts = {"users": num_users, "events": num_events, "items": num_items}

    folder.mkdir(parents=True, exist_ok=True)
    for field, vocabulary in {**vocabularies, "event_type": types}.items():
        vocabulary.save(folder / "vocabulary" / field)
    Catalogue(IdIndex.build(names), number_VF, vocabularies).save(folder / "catalogue")
    IdIndex.build([f"u{user}" for user in range(num_users)]).save(folder / "users")
    histories.save(folder / "histories")
    windows = ((-(2**62), first), (first, second), (second, 2**62))
    for split, (low, high) in zip(SPLITS, windows, strict=True):
        inside = (histories.time_N >= low) & (histories.time_N < high)
        chosen = np.flatnonzero(inside & (position_N > 0))
        label = np.ones((len(chosen), 1), np.float32)
        row = histories.row_N[chosen]
        if split != "train":
            chosen = np.repeat(chosen, 2)
            drawn = rng.choice(histories.row_N[inside], len(row)).astype(np.int32)
            row = np.stack([row, drawn], 1).reshape(-1)
            label = np.tile(np.array([1, 0], np.float32), len(drawn))[:, None]
        Examples(user_N[chosen], row, histories.time_N[chosen], position_N[chosen], label).save(
            folder / "examples" / split
        )
        counts |= {f"{split}_examples": len(label), f"{split}_positives": int(label.sum())}
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            name="tiny",
            source="tiny",
            protocol="temporal",
            dataset_schema=Schema(item_fields=("item", "category"), event_types=True),
            negatives=NegativeRule(rule="popularity"),
            cut_times=(first, second),
            counts=counts,
            base_rate=None,
            data_hash=array_hash(folder),
            record={},
        ),
    )
    return Dataset(folder)
