"""Arrays in files, some of them too long for memory; and the places of runs in an array.

Long arrays are written by appending and read by chunks, which keeps the process small: appended pages belong to the
system's cache, and a chunk's mapping ends with the chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import BoolArray, IntArray
from lifelong.errors import DatasetError

CHUNK = 1 << 20
"""Events per chunk; a constant, since negatives are drawn chunk by chunk."""
AGAIN = "prepare the dataset again"
"""What to do about a damaged dataset."""


def open_arrays(folder: Path, names: Iterable[str], what: str) -> dict[str, npt.NDArray[Any]]:
    """Map the arrays of a folder, one file each; nothing is read yet.

    Args:
        folder: where they are.
        names: of the files, without `.npy`.
        what: the folder holds, in words.

    Raises:
        DatasetError: a file is missing, not a numpy array, or shorter than its header says.
    """
    try:
        return {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r") for name in names}
    # numpy reads a header as a Python literal, which can fail in many ways; a size beyond the file's is one of them.
    except Exception as error:
        raise DatasetError(f"cannot read the {what} in {folder}: {error}", fix=AGAIN) from error


def save_arrays(folder: Path, arrays: Mapping[str, npt.NDArray[Any] | None]) -> None:
    """Write one file per array into `folder`; those that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        if values is not None:
            np.save(folder / f"{name}.npy", values)


def check_lengths(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], length: int) -> None:
    """Check that arrays of a folder have the length that its offsets say.

    Raises:
        DatasetError: one has not.
    """
    for name, values in arrays.items():
        if len(values) != length:
            raise DatasetError(
                f"{folder / name}.npy has {len(values)} values", expected=f"{length}, as the offsets say", fix=AGAIN
            )


class ArrayWriter:
    """A `.npy` file that grows at its end.

    Args:
        path: the file.
        dtype: of the values.
        width: length of the second axis; 0 for one axis.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, *, width: int = 0) -> None:
        self._dtype, self._width, self._length = np.dtype(dtype), width, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._header()

    def _header(self) -> None:
        shape = (self._length, self._width) if self._width else (self._length,)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        # numpy leaves room in the header for the first axis to grow, so that a longer header fits over the first one.
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})

    def append(self, values: npt.NDArray[Any]) -> None:
        """Write values after the ones that are there."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write the final length and close."""
        with self._file:
            # After an error the header still says that there are no values, so nobody takes half a file for a whole
            # one.
            if kind is None:
                self._file.seek(0)
                self._header()


def read_slice(path: Path, part: slice) -> npt.NDArray[Any]:
    """A copy of some values of a `.npy` file."""
    # A copy, so that the mapping and its descriptor end here.
    values: npt.NDArray[Any] = np.array(np.load(path, mmap_mode="r")[part])
    return values


def user_chunks(offset_U: IntArray, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Cut users into ranges `[first, last)` of about `size` events; a user is never cut.

    >>> list(user_chunks(np.array([0, 3, 4, 9]), size=5))
    [(0, 2), (2, 3)]
    """
    first, users = 0, len(offset_U) - 1
    while first < users:
        last = int(np.searchsorted(offset_U, offset_U[first] + size, side="right")) - 1
        # A user with more events than a chunk is one of her own; otherwise `first` would never move.
        last = min(max(last, first + 1), users)
        yield first, last
        first = last


def event_chunks(offset_U: IntArray) -> Iterator[tuple[IntArray, slice]]:
    """The user of each event, and where the events are, for chunks of whole users."""
    for first, last in user_chunks(offset_U):
        user_N = np.repeat(np.arange(first, last), np.diff(offset_U[first : last + 1]))
        yield user_N, slice(int(offset_U[first]), int(offset_U[last]))


def ranges(start_G: npt.NDArray[np.integer], length_G: npt.NDArray[np.integer]) -> IntArray:
    """The places `start, start + 1, ...` of G runs, one run after another.

    >>> ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist()
    [5, 6, 9, 10, 11]
    """
    # A run begins in the result after all runs before it; the difference of both places is the same along the run.
    begin_G = np.cumsum(length_G) - length_G
    places: IntArray = np.arange(length_G.sum(), dtype=np.int64) + np.repeat(start_G - begin_G, length_G)
    return places


def is_first(*columns_N: npt.NDArray[Any]) -> BoolArray:
    """Where a run of equal rows begins: True where a row differs from the one before it in any column.

    >>> is_first(np.array([7, 7, 8, 8]), np.array([1, 1, 1, 2])).tolist()
    [True, False, True, True]
    """
    first_N = np.ones(len(columns_N[0]), bool)
    first_N[1:] = np.logical_or.reduce([column_N[1:] != column_N[:-1] for column_N in columns_N])
    return first_N


def ranks(first_N: BoolArray) -> IntArray:
    """Place of each row in its run, from where runs begin.

    >>> ranks(np.array([True, False, True, True])).tolist()
    [0, 1, 0, 0]
    """
    place_N = np.arange(len(first_N), dtype=np.int64)
    # The place of the latest beginning of a run is the largest one so far.
    return place_N - np.maximum.accumulate(np.where(first_N, place_N, 0))
