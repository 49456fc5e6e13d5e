"""What the C library does with memory that this process has freed."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD = -1
"""Parameter of glibc's `mallopt`: free bytes at the heap's end, from which on they are returned to the system."""
_MMAP_THRESHOLD = -3
"""Its parameter: bytes from which on a block is mapped by itself, and unmapped when it is freed."""
_MMAP_MAX = -4
"""Its parameter: how many blocks may be mapped by themselves at a time."""
_DEFAULT_MMAP_MAX = 65_536
_GROWN_THRESHOLD = 32 * 2**20
"""What glibc raises its threshold to as large blocks are freed. It no longer does once a parameter has been set."""

_OWN = ("MALLOC_", "GLIBC_TUNABLES")
"""How the names of environment variables begin by which users set up glibc's allocator."""


class _Keeping:
    """How many contexts of this process want freed memory kept."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0
        self._library = ctypes.CDLL(None)

    def begin(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._set({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._set(
                    {
                        _MMAP_MAX: _DEFAULT_MMAP_MAX,
                        _MMAP_THRESHOLD: _GROWN_THRESHOLD,
                        _TRIM_THRESHOLD: 2 * _GROWN_THRESHOLD,
                    }
                )
                if self._may_set():
                    self._library.malloc_trim(0)

    def _set(self, value_of: dict[int, int]) -> None:
        if self._may_set():
            for parameter, value in value_of.items():
                self._library.mallopt(parameter, value)

    def _may_set(self) -> bool:
        # Other C libraries have no such functions, and need none of this. A user's own settings stay.
        return all(hasattr(self._library, name) for name in ("mallopt", "malloc_trim")) and not any(
            name.startswith(_OWN) for name in os.environ
        )


_keeping = _Keeping()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory that is freed in this context for the next allocations, and return it at the end.

    The steps of a training, or the batches of a scoring, allocate and free tensors of about the same sizes. By default
    glibc returns large ones to the system at once, and the next step waits until the system has cleared new pages: a
    tenth of the processor time for some models (`benchmarks/freed_memory.py`). The settings are those of the whole
    process, so that contexts in several threads, or within each other, share them until the last one ends. An allocator
    that environment variables set up (`MALLOC_...`, `GLIBC_TUNABLES`) is left as it is.

    >>> with freed_memory_kept():
    ...     total = sum(len(bytes(2**20)) for _ in range(3))
    >>> total
    3145728
    """
    _keeping.begin()
    try:
        yield
    finally:
        _keeping.end()
