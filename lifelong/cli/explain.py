"""What `lifelong score --explain` shows: counters, attention over slots or events, and the events behind a score."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.cli.terminal import Reply, columns

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.explanation import (
        CandidateExplanation,
        Counted,
        CountedValue,
        Explanation,
        PastEvent,
        RelatedEvent,
    )
    from lifelong.online.scoring.scorer import Scorer

_BAR = 24


def explanation_reply(scorer: Scorer, request: ScoreRequest, data: Path | None) -> Reply:
    """Which counters, slots and past events are behind a score."""
    from pydantic import TypeAdapter

    from lifelong.dataset.folder import Dataset
    from lifelong.online.scoring.explain import explain
    from lifelong.online.scoring.explanation import Explanation

    explanation = explain(scorer, request, dataset=None if data is None else Dataset(data))
    return Reply(TypeAdapter(Explanation).dump_python(explanation, mode="json"), _summary(explanation))


def _summary(explanation: Explanation) -> list[Any]:
    remark = "" if explanation.known_user else " (not known: the empty memory)"
    note = explanation.attention_note
    lines: list[Any] = [
        f"User {explanation.user}{remark}: {explanation.count:,} events; {explanation.events_note}.",
        f"{note[0].upper()}{note[1:]}.",
    ]
    for candidate in explanation.candidates:
        lines += candidate_lines(explanation, candidate)
    return lines


def candidate_lines(explanation: Explanation, candidate: CandidateExplanation, *, attention: bool = True) -> list[Any]:
    """What is behind the score of a candidate, for a terminal; `attention` too, where the model has one."""
    name = candidate.item if candidate.title is None else f"{candidate.title} ({candidate.item})"
    lines: list[Any] = [f"\n{name}: score {candidate.score:.4f}"]
    if candidate.counted is not None:
        lines.append(columns(*COUNTED, rows=counted_rows(candidate.counted)))
    if attention and explanation.attention_over is not None:
        over_slots = explanation.attention_over == "slots"
        lines.append(_slots(explanation, candidate) if over_slots else _events(candidate))
    return lines


COUNTED = ("field", "value", "seen", "last", "effect on the score")
"""Column names of `counted_rows`."""


def counted_rows(counted: Counted) -> list[list[str]]:
    """What a memory knows of a candidate, in words: a row per field, one per affinity, and one for slots."""
    rows = []
    for value in counted.values:
        new = "never" if value.logged == 0 else "never or long ago"
        met = {"counted": _times(value), "new": new, "unknown": "not counted"}
        rows.append([value.field, _counted_as(value), met[value.state], _last(value), _signed(value.effect)])
    for of in counted.affinities:
        fit, lately = f"fits {_signed(of.cosine, 2)}", f"lately {_signed(of.cosine_lately, 2)}"
        rows.append([f"{of.field}, by other users", "", fit, lately, _signed(of.effect)])
    if counted.slots_effect is not None:
        rows.append(["slots", "", "", "", _signed(counted.slots_effect)])
    return rows


def _last(value: CountedValue) -> str:
    """When a value was last met: by the events where they are known, else as the memory has it, in steps.

    >>> from lifelong.online.scoring.explanation import CountedValue
    >>> _last(CountedValue("item", "tea", "counted", 2, 10, "exact", 0.0))
    'about 10 events ago'
    """
    if value.events_ago is None or value.events_ago == 1:
        return "the last event" if value.events_ago else ""
    if value.seconds_ago is not None:
        return ago_words(value.seconds_ago)
    return f"{'about ' if value.events_ago > 2 else ''}{value.events_ago} events ago"


def _signed(value: float, digits: int = 3) -> str:
    """A number with its sign; one that rounds to zero has none, as on the service's page.

    >>> _signed(0.25), _signed(-0.25, 1), _signed(-0.0004), _signed(0.0, 2)
    ('+0.250', '-0.2', '0.000', '0.00')
    """
    shown = f"{value:+.{digits}f}"
    return shown if float(shown) else shown[1:]


def _shown(value: str) -> str:
    """A value; a number, which is known as a group of similar ones, with three digits."""
    return f"about {float(value):.3g}" if re.fullmatch(r"\d+\.\d{5,}", value) else value


def _counted_as(value: CountedValue) -> str:
    """A candidate's own value; of a number also what is counted together with it, as on the service's page.

    >>> from lifelong.online.scoring.explanation import CountedValue
    >>> _counted_as(CountedValue("price", "1.25", "new", 0, None, "exact", 0.0, 1.155, 1.385))
    '1.25 (counted as 1.16–1.39)'
    """
    shown = _shown(value.value or "?")
    return shown if value.low is None else f"{shown} (counted as {_range(value.low, value.high)})"


def _range(low: float, high: float | None) -> str:
    """Numbers from one to another, each with three digits.

    >>> _range(0, 0.0009), _range(1130.2, 1344.1), _range(1e10, None)
    ('0–0.0009', '1,130–1,340', '10,000,000,000 or more')
    """
    first, last = (None if end is None else f"{float(f'{end:.3g}'):,.12g}" for end in (low, high))
    return f"{first} or more" if last is None else f"{first}–{last}"


def _times(value: CountedValue) -> str:
    """How often a value was met: by all events where they are known, else as the memory counts.

    >>> from lifelong.online.scoring.explanation import CountedValue
    >>> _times(CountedValue("item", "tea", "counted", 28, 1, "at_least", 0.0))
    '28 times or more'
    >>> _times(CountedValue("item", "tea", "counted", 28, 1, "at_least", 0.0, logged=82))
    '82 times'
    """
    if value.logged is None and value.precision == "at_least":
        return f"{value.times} times or more"
    times = value.times if value.logged is None else value.logged
    about = "about " if value.logged is None and value.precision == "about" else ""
    return "once" if times == 1 else f"{about}{times} times"


def _slots(explanation: Explanation, candidate: CandidateExplanation) -> RenderableType:
    rows = []
    # A memory may have more slots than are read; those that are read come first.
    for slot, share in zip(explanation.slots, candidate.slots, strict=False):
        written = slot.written + (", empty" if slot.empty else "")
        bar = "█" * round(share.attention * _BAR)
        behind = "\n".join(_event(event) for event in share.related[:3]) or "-"
        rows.append([f"{slot.field} {slot.slot + 1}", written, f"{share.attention:.3f}", bar, behind])
    return columns("slot", "written", "attention", "", "events behind it", rows=rows)


def _event(event: RelatedEvent) -> str:
    return f"{event.item} (same {', '.join(event.same)}, {_when(event)})"


def _when(event: PastEvent) -> str:
    return f"at {event.time}" if event.seconds_ago is None else ago_words(event.seconds_ago)


def _events(candidate: CandidateExplanation) -> RenderableType:
    if not candidate.events:
        return "No event has a weight."
    rows, largest = [], abs(candidate.events[0].attention)
    for event in candidate.events:
        bar = "█" * round(abs(event.attention) / largest * _BAR)
        rows.append([f"{event.position:,}", event.item or "?", _when(event), f"{event.attention:.3g}", bar])
    if candidate.rest is not None and candidate.rest.events:
        rows.append(["", f"{candidate.rest.events:,} others", "", f"{candidate.rest.attention:.3g}", ""])
    return columns("event", "item", "when", "attention", "", rows=rows)


def ago_words(seconds: int) -> str:
    """How long before the request an event was, in the largest whole unit; a clock may be wrong, or a request earlier.

    >>> ago_words(7200), ago_words(-31_557_600 * 74)
    ('2 hours ago', 'in 74 years')
    """
    sizes = (("year", 31_557_600), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
    number, name = next(((abs(seconds) // size, name) for name, size in sizes if abs(seconds) >= size), (0, "second"))
    span = f"{number} {name}{'' if number == 1 else 's'}"
    return f"in {span}" if seconds < 0 else f"{span} ago"
