"""Finished folders appear at once, whole, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path


def put_in_place(folder: Path, out: Path) -> None:
    """Rename a finished folder to its place; what was there goes, or comes back if that fails.

    Args:
        folder: finished, on the same disk as `out`.
        out: its place.

    Raises:
        OSError: the folder cannot be renamed; what was at `out` is there again.
    """
    old = folder.with_name(f"{folder.name}.replaced")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
