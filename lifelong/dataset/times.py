"""Times as a file or a caller has them -> UTC seconds, by the rules of `prepare`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from numbers import Integral
from typing import Any

from lifelong.errors import UsageError
from lifelong.tables import PER_SECOND

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Unit of a duration -> seconds."""


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How times are written.

    Args:
        unit: "s", "ms", "us" or "ns" since 1970 (UTC), "iso" for texts such as 2017-11-25T18:00:00Z, or "ordinal".
        pattern: strptime pattern of a text instead, such as %d/%m/%Y %H:%M.

    >>> TimeFormat("iso").seconds("2017-11-25T18:00:00.7+01:00"), TimeFormat("ms").seconds("1511629200700")
    (1511629200, 1511629200)
    >>> TimeFormat(pattern="%d/%m/%Y").seconds("25/11/2017")
    1511568000
    """

    unit: str = "s"
    pattern: str | None = None

    @property
    def plain(self) -> bool:
        """Whether times are whole numbers that are taken as they are."""
        return self.pattern is None and self.unit in ("s", "ordinal")

    @property
    def expected(self) -> str:
        """What a time should look like, for an error."""
        if self.pattern is not None:
            return f"a time of the format {self.pattern}"
        return "a time such as 2017-11-25T18:00:00Z" if self.unit == "iso" else f"a number of {self.unit} since 1970"

    def seconds(self, value: Any) -> int:
        """UTC seconds, fractions rounded down; a text without a zone is taken as UTC.

        Raises:
            ValueError, TypeError: the value is no such time.
        """
        if self.pattern is not None:
            return whole_seconds(datetime.strptime(value, self.pattern))
        if self.unit == "iso":
            return whole_seconds(datetime.fromisoformat(value))
        if isinstance(value, bool):
            raise TypeError(value)
        # Of a whole number as it is: a float has too few digits for nanoseconds.
        number = int(value) if isinstance(value, int) or str(value).isdecimal() else float(value)
        return int(number // PER_SECOND[self.unit])


def seconds_of(time: object, name: str = "time") -> int:
    """A time as a caller gives it, in UTC seconds; an ordinal stays what it is.

    Args:
        time: a whole number, a datetime or date, or an ISO 8601 text; one without a zone is taken as UTC.
        name: of the argument, for the error.

    Raises:
        UsageError: it is none of these.

    >>> seconds_of(datetime(2025, 12, 1, tzinfo=UTC)), seconds_of("2025-12-01"), seconds_of(1_764_547_200)
    (1764547200, 1764547200, 1764547200)
    """
    if isinstance(time, Integral) and not isinstance(time, bool):
        return int(time)
    if isinstance(time, date) and not isinstance(time, datetime):
        time = time.isoformat()
    try:
        if isinstance(time, str) and not time.isdecimal():
            time = datetime.fromisoformat(time)
        if isinstance(time, datetime):
            return whole_seconds(time)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"{name} = {time!r}",
        expected="UTC seconds, a whole number; a datetime; or a text of ISO 8601; UTC without a zone",
        fix=f'give {name} as 1764547200, datetime(2025, 12, 1, tzinfo=UTC) or "2025-12-01T00:00:00Z"',
    )


def whole_seconds(moment: datetime) -> int:
    """UTC seconds of a moment, fractions rounded down; one without a zone is taken as UTC."""
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(zoned.timestamp() // 1)


def parse_duration(text: str) -> int:
    """Seconds of a duration such as 30s, 15m, 2h or 7d.

    Raises:
        UsageError: it is something else.

    >>> parse_duration("2h")
    7200
    """
    match = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if not match:
        raise UsageError(
            f"{text!r} is not a duration",
            expected="a whole number with s, m, h or d, such as 30s, 15m, 2h or 7d",
            fix="write the number and the unit without a space",
        )
    return int(match[1]) * UNITS[match[2]]
