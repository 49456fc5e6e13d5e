"""The lines of a text, counted and fed to a digest; a last line without its end is held back."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from itertools import chain, islice

from lifelong.online.ingestion.prefix import Digest

UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error)
"""What is raised where a text cannot be read."""
EVERY = 2**62
"""A number of lines that no file has."""
_SOME = 1_024


class TextLines:
    r"""Lines one by one, or some at a time; they are fed to a digest before they are given.

    A line ends with LF, CRLF, or a CR that something follows: a CR at the end of the file may be half of a CRLF.

    Args:
        text: with all line ends as they are.
        digest: of the lines.
        upto: a last line without its end is given if its number is at most this one.

    Attributes:
        number: of the last line that was read; some of them may still be to come.
        held: number of the last line, if it has no end and was held back.
        unended: number of the last line, if it has no end and was given.

    >>> lines = TextLines(io.StringIO("ada,tea,1\nbob,te", newline=""), Digest())
    >>> list(lines), lines.number, lines.held
    (['ada,tea,1\n'], 1, 2)
    """

    number: int
    held: int | None
    unended: int | None

    def __init__(self, text: io.TextIOBase, digest: Digest, *, upto: int = 0) -> None:
        self.number, self.held, self.unended = 0, None, None
        self._text, self._feed = text, digest.feed
        self._upto, self._ahead = upto, list[str]()

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.parts())

    def parts(self, size: int = _SOME) -> Iterator[list[str]]:
        """The next lines, so many at once: reading them one by one takes twice as long.

        Raises:
            OSError, EOFError, UnicodeDecodeError, zlib.error: what follows the lines that came cannot be read.
        """
        error: Exception | None = None
        while error is None:
            lines, error = self._read(size)
            if not lines and error is None:
                return
            self._feed(lines)
            self.number += len(lines)
            yield lines
        raise error

    def _read(self, most: int) -> tuple[list[str], Exception | None]:
        """The next lines from the text, of which the last one certainly has its end or is to be given without it."""
        lines, self._ahead = self._ahead, []
        try:
            # The line that was read ahead is one of these.
            lines.extend(islice(self._text, most - len(lines)))
            if not lines or lines[-1].endswith("\n"):
                return lines, None
            # Whether a CR is a line end, only the next line tells.
            self._ahead = list(islice(self._text, 1))
        except UNREADABLE as error:
            if lines and not lines[-1].endswith("\n"):
                del lines[-1]
            if not _within_last_character(error) or self._upto == EVERY:
                return lines, error
            self.held = self.number + len(lines) + 1
            return lines, None
        if self._ahead:
            return lines, None
        # Nothing follows: the last of them has no end, or ends in a CR.
        number = self.number + len(lines)
        if number <= self._upto:
            self.unended = number
            return [*lines[:-1], lines[-1].removesuffix("\r")], None
        self.held = number
        return lines[:-1], None


def _within_last_character(error: Exception) -> bool:
    """Whether a text ends within a character: its last line is being written."""
    return isinstance(error, UnicodeDecodeError) and error.reason == "unexpected end of data"
