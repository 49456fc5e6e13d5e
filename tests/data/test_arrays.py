from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset.arrays import ArrayWriter, read_slice, user_chunks


def test_appended_values_are_one_array(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.int32) as writer:
        writer.append(np.array([1, 2], np.int64))
        writer.append(np.array([], np.int32))
        writer.append(np.arange(100_000))
    values = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert (values.dtype, len(values), values[:3].tolist(), int(values[-1])) == (np.int32, 100_002, [1, 2, 0], 99_999)


def test_a_second_axis_keeps_its_width(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.float32, width=2) as writer:
        writer.append(np.array([[1, 2], [3, 4]]))
    assert np.load(tmp_path / "a.npy").tolist() == [[1, 2], [3, 4]]


def test_nothing_appended_is_an_empty_array(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.int32):
        pass
    assert np.load(tmp_path / "a.npy").shape == (0,)


def test_an_interrupted_array_has_no_length(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ArrayWriter(tmp_path / "a.npy", np.int32) as writer:
        writer.append(np.array([1, 2]))
        raise KeyError
    assert np.load(tmp_path / "a.npy").shape == (0,)


def test_a_slice_is_a_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    part = read_slice(tmp_path / "a.npy", slice(1, 3))
    part[0] = 9
    assert (part.tolist(), np.load(tmp_path / "a.npy").tolist()) == ([9, 2], [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("lengths", "size", "chunks"),
    [
        ([2, 2, 2], 4, [(0, 2), (2, 3)]),
        ([9, 1, 1], 4, [(0, 1), (1, 3)]),
        ([0, 0, 5, 0], 4, [(0, 2), (2, 3), (3, 4)]),
        ([], 4, []),
    ],
)
def test_chunks_never_cut_a_user(lengths: list[int], size: int, chunks: list[tuple[int, int]]) -> None:
    offset = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    assert list(user_chunks(offset, size)) == chunks
