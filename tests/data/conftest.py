"""Literal rows through `prepare`."""

from support.rows import make

__all__ = ["make"]
