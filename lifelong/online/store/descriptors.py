"""How many files and connections this process may have open: what RocksDB's files and the service's clients share."""

from __future__ import annotations

import contextlib

_LEAST, _OTHERS = 32, 32
"""Files of a store that are open at least, and those that are no tables: logs, lists, locks."""
_MOST = 1_048_576
"""Descriptors that are asked for at most, where the system has no limit."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and give what may be open now.

    The usual soft limit of 1,024 is the half of it 30 GB of RocksDB's files, of about 64 MB each.

    >>> raise_descriptor_limit() >= 64
    True
    """
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return _MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MOST if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def files_of_a_store(stores: int = 1) -> int:
    """How many files a store keeps open at most: its part of half of the descriptors, the other half is for clients.

    The limit is raised first. A store with more files opens them as they are read.

    >>> files_of_a_store(1_000_000)
    32

    Args:
        stores: that share this half.
    """
    return max(_LEAST, raise_descriptor_limit() // 2 // stores - _OTHERS)
