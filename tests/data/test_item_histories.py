"""Events by item: what `prepare` writes, against a loop, and what it refuses."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ibis")
pytest.importorskip("pyarrow")

from lifelong.data.dataset import Dataset
from lifelong.data.item_histories import ItemHistories
from lifelong.errors import DatasetError, UsageError


def log_of(num: int, *, seed: int = 0) -> list[tuple[str, str, int, str]]:
    """Many events of several users share item and time."""
    rng = random.Random(seed)
    return [(f"u{rng.randrange(20)}", f"i{rng.randrange(15)}", rng.randrange(60), rng.choice("ab")) for _ in range(num)]


def naive(dataset: Dataset, log: list[tuple[str, str, int, str]]) -> dict[int, list[tuple[int, int, int]]]:
    """Catalogue row -> (user, time, event type), in order of the time and then of the place in the log."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    users = dataset.users.ids()
    for user, item, time, kind in sorted(log, key=lambda event: event[2]):
        row = int(dataset.catalogue.rows([item])[0])
        found.setdefault(row, []).append((users.index(user), time, int(dataset.event_types.numbers([kind])[0])))
    return found


def test_every_item_has_the_events_of_all_its_users_in_order(make: Any) -> None:
    log = log_of(500)
    dataset = make(log, settings={"item_histories": True})
    items, expected = dataset.item_histories, naive(dataset, log)
    rows = len(items.offset_V) - 1
    assert rows == len(dataset.catalogue.number_VF)
    for row in range(rows):
        part = slice(items.offset_V[row], items.offset_V[row + 1])
        columns = (items.user_N[part].tolist(), items.time_N[part].tolist(), items.event_type_N[part].tolist())
        assert list(zip(*columns, strict=True)) == expected.get(row, [])


def test_a_log_without_event_types_has_item_histories_without_them(make: Any) -> None:
    dataset = make([event[:3] for event in log_of(100)], settings={"item_histories": True})
    assert dataset.item_histories.event_type_N is None
    assert len(dataset.item_histories.user_N) == 100


def test_users_with_an_event_in_the_training_period_alone_have_numbers(make: Any) -> None:
    log = [("late", "i0", 99, "a"), ("early", "i0", 0, "a"), *log_of(300)]
    dataset = make(log, settings={"item_histories": True})
    late, early = (dataset.users.ids().index(user) for user in ("late", "early"))
    assert dataset.item_histories.numbers(np.array([late, early])).tolist() == [1, early + 2]
    first = dataset.manifest.cut_times[0]
    trained = {user for user, _, time, _ in log if time < first}
    assert dataset.item_histories.trained_U.tolist() == [user in trained for user in dataset.users.ids()]


def test_positions_are_counts_of_strictly_earlier_events_of_all_users(make: Any) -> None:
    log = log_of(300)
    dataset = make(log, settings={"item_histories": True})
    rows, times = np.repeat(np.arange(2, 17), 60), np.tile(np.arange(60), 15)
    of_item = naive(dataset, log)
    expected = [
        sum(event_time < time for _, event_time, _ in of_item.get(row, []))
        for row, time in zip(rows.tolist(), times.tolist(), strict=True)
    ]
    assert dataset.item_histories.positions(rows, times).tolist() == expected


def test_nothing_else_of_a_dataset_depends_on_item_histories(make: Any) -> None:
    plain, more = (make(log_of(300), out=f"d{on}", settings={"item_histories": on}) for on in (False, True))
    assert "item_histories" not in (plain.folder / "dataset.json").read_text()
    assert not plain.has_item_histories
    paths = [path.relative_to(plain.folder) for path in plain.folder.rglob("*") if path.suffix == ".npy"]
    assert paths
    assert all((plain.folder / path).read_bytes() == (more.folder / path).read_bytes() for path in paths)
    assert more.manifest.data_hash != plain.manifest.data_hash


def test_the_same_log_gives_the_same_item_histories_whatever_the_threads(make: Any) -> None:
    one, two = (
        make(log_of(3000), out=f"d{threads}", settings={"threads": threads, "item_histories": True})
        for threads in (1, 2)
    )
    assert one.manifest.data_hash == two.manifest.data_hash


def test_a_dataset_without_item_histories_says_how_to_get_them(make: Any) -> None:
    with pytest.raises(DatasetError, match=r"no item histories.*prepare the data again with --set item_histories=true"):
        _ = make(log_of(100)).item_histories


def test_events_that_each_user_counts_for_herself_have_no_order_by_item(make: Any) -> None:
    with pytest.raises(UsageError, match="no clock times, so events of different users have no order"):
        make(log_of(100), time_unit="ordinal", settings={"item_histories": True})


def test_item_histories_come_back_as_they_were_saved(make: Any, tmp_path: Path) -> None:
    items = make(log_of(100), settings={"item_histories": True}).item_histories
    items.save(tmp_path / "copy")
    copy = ItemHistories.open(tmp_path / "copy")
    for name in ("offset_V", "user_N", "time_N", "trained_U", "event_type_N"):
        assert np.array_equal(getattr(copy, name), getattr(items, name))


@pytest.mark.parametrize(("name", "problem"), [("user", "has 3 values"), ("offset", "cannot read")])
def test_damaged_item_histories_are_named(make: Any, tmp_path: Path, name: str, problem: str) -> None:
    make(log_of(100), settings={"item_histories": True}).item_histories.save(tmp_path / "copy")
    if name == "user":
        np.save(tmp_path / "copy" / "user.npy", np.zeros(3, np.int32))
    else:
        (tmp_path / "copy" / "offset.npy").unlink()
    with pytest.raises(DatasetError, match=problem):
        ItemHistories.open(tmp_path / "copy")
