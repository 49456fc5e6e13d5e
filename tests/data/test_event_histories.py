from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.dataset.histories import Histories
from lifelong.errors import DatasetError


def _histories(times: list[list[int]]) -> Histories:
    """One list of sorted times per user."""
    length = [len(part) for part in times]
    time_N = np.array([time for part in times for time in part], np.int64)
    offset_U = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    return Histories(offset_U, np.arange(len(time_N), dtype=np.int32), time_N, np.arange(len(time_N), dtype=np.int64))


def test_position_counts_strictly_earlier_events() -> None:
    histories = _histories([[10, 10, 20, 20, 20, 30], [], [20]])
    asked = [(0, 5), (0, 10), (0, 11), (0, 20), (0, 21), (0, 30), (0, 99), (1, 20), (2, 20), (2, 21)]
    user, time = np.array(asked).T
    assert histories.positions(user, time).tolist() == [0, 0, 2, 2, 5, 5, 6, 0, 0, 1]


@given(
    times=st.lists(st.lists(st.integers(-5, 5), max_size=12).map(sorted), min_size=1, max_size=6),
    asked=st.lists(st.tuples(st.integers(0, 5), st.integers(-6, 6)), max_size=20),
)
def test_position_equals_a_plain_count(times: list[list[int]], asked: list[tuple[int, int]]) -> None:
    asked = [(user % len(times), time) for user, time in asked]
    user = np.array([pair[0] for pair in asked], np.int64)
    time = np.array([pair[1] for pair in asked], np.int64)
    expected = [sum(event < moment for event in times[who]) for who, moment in asked]
    assert _histories(times).positions(user, time).tolist() == expected


def test_events_of_a_user_are_a_slice() -> None:
    histories = _histories([[1, 2], [], [3]])
    assert [histories.time_N[histories.of(user)].tolist() for user in range(3)] == [[1, 2], [], [3]]


def test_what_was_saved_is_opened_again(tmp_path: Path) -> None:
    _histories([[1, 2], [3]]).save(tmp_path)
    opened = Histories.open(tmp_path)
    assert (opened.num_users, opened.num_events, opened.event_type_N) == (2, 3, None)
    assert opened.time_N.tolist() == [1, 2, 3]


def test_a_file_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    _histories([[1, 2], [3]]).save(tmp_path)
    np.save(tmp_path / "time.npy", np.zeros(2, np.int64))
    with pytest.raises(DatasetError, match=r"time\.npy has 2 values.*Expected: 3"):
        Histories.open(tmp_path)


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    _histories([[1, 2], [3]]).save(tmp_path)
    whole = (tmp_path / "row.npy").read_bytes()
    (tmp_path / "row.npy").write_bytes(whole[:-4])
    with pytest.raises(DatasetError, match="cannot read the histories"):
        Histories.open(tmp_path)
