"""A small prepared dataset, written directly (without `prepare`), for tests of what comes after preparation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.events import Schema, user_context
from lifelong.dataset.examples import SPLITS, Examples
from lifelong.dataset.folder import FORMAT_VERSION, PROFILE, Dataset, Manifest, NegativeRule, array_hash, write_manifest
from lifelong.dataset.histories import Histories
from lifelong.dataset.vocabulary import IdIndex, Vocabulary

_START = 1_600_000_000


def tiny_dataset(
    folder: Path,
    *,
    num_users: int = 40,
    num_items: int = 60,
    mean_events: int = 40,
    seed: int = 0,
    profiles: bool = False,
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
        profiles: whether users have an age (`young` where their index is even, `old` of the others but every fifth) and
            a region (`north`, `south`).
    """
    rng = np.random.default_rng(seed)
    catalogue, types = _catalogue(num_items), Vocabulary.build(["view", "buy"])
    histories = _histories(rng, num_users, num_items, mean_events)
    folder.mkdir(parents=True, exist_ok=True)
    for field, vocabulary in {**catalogue.vocabularies, "event_type": types}.items():
        vocabulary.save(folder / "vocabulary" / field)
    catalogue.save(folder / "catalogue")
    IdIndex.build([f"u{user}" for user in range(num_users)]).save(folder / "users")
    histories.save(folder / "histories")
    if profiles:
        _save_profiles(folder, num_users)
    first, second = (int(np.sort(histories.time_N)[int(share * histories.num_events)]) for share in (0.8, 0.9))
    counts = {"users": num_users, "events": histories.num_events, "items": num_items}
    windows = ((-(2**62), first), (first, second), (second, 2**62))
    for split, window in zip(SPLITS, windows, strict=True):
        examples = _examples(rng, histories, window, negatives=split != "train")
        examples.save(folder / "examples" / split)
        counts |= {f"{split}_examples": len(examples), f"{split}_positives": int(examples.label_NT.sum())}
    _write_manifest(
        folder,
        (first, second),
        counts,
        user_fields=("age", "region") if profiles else (),
    )
    return Dataset(folder)


def _catalogue(num_items: int) -> Catalogue:
    in_vocabulary = num_items - num_items // 10
    items = Vocabulary.build([f"i{i}" for i in range(in_vocabulary)], buckets=8)
    categories = Vocabulary.build([f"c{i}" for i in range(10)])
    names = [f"i{i}" for i in range(num_items)]
    number_VF = np.zeros((FIRST_ROW + num_items, 2), np.int32)
    number_VF[1] = 1
    number_VF[FIRST_ROW:, 0] = items.numbers(names)
    number_VF[FIRST_ROW:, 1] = categories.numbers([f"c{i % 10}" for i in range(num_items)])
    return Catalogue(IdIndex.build(names), number_VF, {"item": items, "category": categories})


def _histories(rng: np.random.Generator, num_users: int, num_items: int, mean_events: int) -> Histories:
    length_U = rng.poisson(mean_events, num_users) + 1
    length_U[0] = 1
    rows, times = [], []
    for user, length in enumerate(length_U):
        taste = rng.choice(num_items, 6, replace=False)
        rows.append(
            FIRST_ROW
            + np.where(rng.random(length) < 0.8, rng.choice(taste, length), rng.integers(0, num_items, length))
        )
        # The second user begins after all the others have ended, and so has no event in training.
        start = _START + (80_000_000 if user == 1 else int(rng.integers(0, 1_000_000)))
        # There are fewer moments than events, so that some events share one.
        times.append(np.sort(start + rng.integers(0, max(2, 2 * length // 3), length) * 1_000_000))
    num_events = int(length_U.sum())
    return Histories(
        np.concatenate([[0], np.cumsum(length_U)]).astype(np.int64),
        np.concatenate(rows).astype(np.int32),
        np.concatenate(times).astype(np.int64),
        np.arange(num_events, dtype=np.int64),
        rng.integers(2, 4, num_events).astype(np.int16),
    )


def _examples(rng: np.random.Generator, histories: Histories, window: tuple[int, int], *, negatives: bool) -> Examples:
    """The events of a period that have one before them, each with a popularity negative if asked."""
    user_N = np.repeat(np.arange(histories.num_users, dtype=np.int32), np.diff(histories.offset_U))
    position_N = histories.positions(user_N, histories.time_N).astype(np.int32)
    inside = (histories.time_N >= window[0]) & (histories.time_N < window[1])
    chosen = np.flatnonzero(inside & (position_N > 0))
    row, label = histories.row_N[chosen], np.ones((len(chosen), 1), np.float32)
    if negatives:
        drawn = rng.choice(histories.row_N[inside], len(row)).astype(np.int32)
        row = np.stack([row, drawn], 1).reshape(-1)
        label = np.tile(np.array([1, 0], np.float32), len(drawn))[:, None]
        chosen = np.repeat(chosen, 2)
    return Examples(user_N[chosen], row, histories.time_N[chosen], position_N[chosen], label)


def _save_profiles(folder: Path, num_users: int) -> None:
    ages, regions = Vocabulary.build(["young", "old"]), Vocabulary.build(["north", "south"])
    for name, vocabulary in (("age", ages), ("region", regions)):
        vocabulary.save(folder / "vocabulary" / user_context(name))
    age = ["young" if user % 2 == 0 else None if user % 5 == 0 else "old" for user in range(num_users)]
    region = [("north", "south")[user // 2 % 2] for user in range(num_users)]
    number_UF = np.stack([ages.numbers(age), regions.numbers(region)], axis=1)
    np.save(folder / PROFILE, number_UF.astype(np.int32))


def _write_manifest(folder: Path, cut_times: tuple[int, int], counts: dict[str, int], **fields: Any) -> None:
    write_manifest(
        folder,
        Manifest(
            format_version=FORMAT_VERSION,
            name="tiny",
            source="tiny",
            protocol="temporal",
            dataset_schema=Schema(item_fields=("item", "category"), event_types=True, **fields),
            negatives=NegativeRule(rule="popularity"),
            cut_times=cut_times,
            counts=counts,
            base_rate=None,
            data_hash=array_hash(folder),
            record={},
        ),
    )
