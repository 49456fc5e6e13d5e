"""A file of events that is opened once: whoever reads it, in whichever process, reads the same file.

    path --open once--> descriptor, its size and first bytes at that moment
                           |-- reader that compares what was applied
                           `-- readers that fold events in, here or in workers, each with a position of its own

A file that is renamed or replaced meanwhile is still read to its end. One that is cut or overwritten in place is
noticed: what was read before is compared again after each read.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import SourceError

_BUFFER = 2**17
_COMPARED = 4_096
"""Bytes at the beginning of a file, and before each place that is read, which must stay as they are."""


class OverwrittenError(OSError):
    """A file was cut or overwritten in place while it was read."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that is open.

    Args:
        path: under which it was opened; another file may be there by now.
        descriptor: of the file, also in workers.
        end: bytes that it had when it was opened; what is appended later is left for another run.
        head: its first bytes then.
    """

    path: Path
    descriptor: int
    end: int
    head: bytes

    def stream(self) -> io.BufferedReader:
        """Its bytes, from the beginning."""
        return io.BufferedReader(_Bytes(self), _BUFFER)

    def check(self) -> None:
        """Check that it still begins as it did.

        Raises:
            OverwrittenError: it does not.
        """
        # In between it may have been cut and have grown again, so its size alone says too little.
        cut = os.fstat(self.descriptor).st_size < self.end
        if cut or os.pread(self.descriptor, len(self.head), 0) != self.head:
            raise OverwrittenError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[OpenedFile]:
    """Open a file; it is closed at the end of the context.

    Raises:
        SourceError: it cannot be opened, or can be read only once, as a pipe.
    """
    try:
        # Without waiting: a pipe that nobody writes to would never open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            folder = stat.S_ISDIR(found.st_mode)
            fix = "name the files in it" if folder else "write its content into a file"
            raise SourceError(
                f"is a {'folder' if folder else 'pipe or device'}", file=str(path), expected="a file", fix=fix
            )
        head = os.pread(descriptor, min(_COMPARED, found.st_size), 0)
        yield OpenedFile(path, descriptor, found.st_size, head)
    finally:
        os.close(descriptor)


class _Bytes(io.RawIOBase):
    """The bytes of an opened file, with a position of its own: processes that share a descriptor share its position."""

    def __init__(self, file: OpenedFile) -> None:
        self._file, self._position, self._before = file, 0, b""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.end}[whence]
        if base + offset != self._position:
            self._position, self._before = base + offset, b""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what fits.

        Raises:
            OverwrittenError: what was read before is no longer there.
        """
        file, at = self._file, self._position
        # Up to the end that it had when it was opened, whatever was appended since.
        wanted = min(len(buffer), max(0, file.end - at))
        read = os.pread(file.descriptor, wanted, at)
        # Compared afterwards: whatever happened to the file before or during this read is seen now.
        file.check()
        before = os.pread(file.descriptor, len(self._before), at - len(self._before))
        if before != self._before or (wanted and not read):
            raise OverwrittenError
        buffer[: len(read)] = read
        self._position += len(read)
        self._before = (self._before + read)[-_COMPARED:]
        return len(read)


def overwritten(path: Path) -> SourceError:
    """The error of a file that was cut or overwritten in place while it was read."""
    return SourceError(
        "the file was cut or overwritten while it was read; the lines before are applied",
        file=str(path),
        expected="a file that is only appended to, or replaced by another one",
        fix="run again: the lines that are there now are compared with those that were applied",
    )


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error of a file that the operating system cannot open or read."""
    return SourceError(f"cannot be read: {error.strerror or error}", file=str(path), fix="check the path")
