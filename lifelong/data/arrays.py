"""Arrays that are too long for memory: written by appending, read by chunks.

Both keep the process small: appended pages belong to the system's cache, and a chunk's mapping ends with the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 20
"""Events per chunk; a constant, since negatives are drawn chunk by chunk."""


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
        # numpy leaves room in the header for the first axis to grow, so that it can be written again over itself.
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})

    def append(self, values: npt.NDArray[Any]) -> None:
        """Write values behind the ones that are there."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._length += len(values)

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Write the final length and close."""
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._header()


def read_slice(path: Path, start: int, stop: int) -> npt.NDArray[Any]:
    """A copy of some values of a `.npy` file."""
    values: npt.NDArray[Any] = np.array(np.load(path, mmap_mode="r")[start:stop])
    return values


def user_chunks(offset_U: npt.NDArray[np.int64], size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Cut users into ranges `[first, last)` of about `size` events; a user is never cut."""
    first, users = 0, len(offset_U) - 1
    while first < users:
        last = int(np.searchsorted(offset_U, offset_U[first] + size, side="right")) - 1
        last = min(max(last, first + 1), users)
        yield first, last
        first = last
