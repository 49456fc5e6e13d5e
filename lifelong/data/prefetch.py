"""Makes items ahead of their use, in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def prefetched(items: Iterator[T], size: int) -> Iterator[T]:
    """The given items, in their order, made ahead in a thread.

    An error of the thread is raised here, and the thread ends when this generator is closed.

    Args:
        items: made lazily.
        size: how many wait at most.

    >>> list(prefetched(iter("abc"), size=2))
    ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(1, "lifelong-batches") as pool:
        waiting = deque[Future[Any]](pool.submit(next, items, _END) for _ in range(size))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, items, _END))
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
