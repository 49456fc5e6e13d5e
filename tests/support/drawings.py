"""Draws the pictures of the pages in `docs/understand`, from the settings and the code that they show.

    PYTHONPATH=tests python -m support.drawings docs/understand      writes them anew

Every picture is 400 wide, so that its letters can be read on a narrow screen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from html import escape
from math import floor
from pathlib import Path

from lifelong.offline.models.hpmn import HpmnConfig
from lifelong.offline.models.tally import TallyConfig
from lifelong.offline.preparation.settings import PrepareSettings
from lifelong.tally.spec import Memory
from lifelong.zoo.caser import CaserConfig
from lifelong.zoo.sim import SimConfig

WIDTH = 400
STYLE = """
text { font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1d2433 }
.small { font-size: 11px; fill: #4a5266 } .middle { text-anchor: middle } .right { text-anchor: end }
.blue { fill: #dfe8f6; stroke: #4a6fa5 }
.orange { fill: #ffd890; stroke: #b36b00 } .green { fill: #cfe8cf; stroke: #3b7d3b }
.empty { fill: none; stroke: #b9c0d0 } .line { fill: none; stroke: #70778a } .cut { stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e8eaf0 } .small { fill: #b9c0d0 }
  .blue { fill: #26344d; stroke: #7f9fd0 } .orange { fill: #7a5410; stroke: #e0a23c }
  .green { fill: #234a2a; stroke: #7cc487 } .empty { stroke: #5a6376 } .line { stroke: #a3aabb }
}
"""


def lifelong() -> str:
    """What three kinds of model still know of a history of 2,000 events."""
    events, left, right = 2000, 10.0, 390.0
    step = (right - left) / events
    recent, searched, state = CaserConfig().recent, SimConfig().recent, TallyConfig().state
    ticks = "".join(f"M{left + step * place:.1f} 30v14" for place in _bursts(events))
    parts = [_text(left, 18, "first event"), _text(right, 18, f"event {events:,}", "right")]
    parts.append(f'<path class="line" d="{ticks}"/>')
    for row, (label, seen, kind) in enumerate(
        (
            (f"the last {recent} events", recent, "blue"),
            (f"a search in the last {searched:,} events", searched, "blue"),
            (f"a memory of {state:,} bytes, updated at every event", events, "orange"),
        )
    ):
        y = 76 + 52 * row
        parts.append(_text(left, y, label))
        parts.append(_box(left, y + 8, right - left, 16, "empty"))
        parts.append(_box(right - step * seen, y + 8, step * seen, 16, kind))
    return _picture("How far back three kinds of model see in a history of 2,000 events", 216, parts)


def memory() -> str:
    """Which slot is written at which event, and which events it has seen by the last one."""
    periods, events, left, cell = HpmnConfig().periods, 32, 76.0, 10.0
    parts = [_text(left + cell * (n - 0.5), 14, str(n), "small middle") for n in (1, 8, 16, 24, 32)]
    for slot, period in enumerate(periods, start=1):
        y = 22 + 24 * (slot - 1)
        parts.append(_text(left - 8, y + 13, f"slot {slot}", "right"))
        for n in range(1, events + 1):
            kind = "orange" if n % period == 0 else "empty"
            parts.append(_box(left + cell * (n - 1) + 1, y + 2, cell - 2, 14, kind))
    bottom = 22 + 24 * len(periods) + 14
    parts.append(_text(left, bottom, "events of one user, the oldest on the left; full: written", "small"))
    return _picture("Slot j of a memory is written at every periods[j]-th event", bottom + 8, parts)


VALUES = ("tea", "soap", "rice", "figs", "salt")
EVENTS = ("soap", "tea", "rice", "tea", "figs", "tea", "rice", "tea")


def counting() -> str:
    """Three cells over eight events by `lifelong.tally.spec`, and what is then found of four candidates."""
    memory, columns = Memory((3,), levels=1, width=0), list[int]()
    parts = [_text(10, 16, "event", "small"), _text(96, 16, "the three cells after it: value, count, age", "small")]
    for place, value in enumerate(EVENTS, start=1):
        memory.write([VALUES.index(value)], 0)
        # A new key takes the column of the one that gave way.
        for new in memory.cells[0].keys() - columns:
            columns = [key if key in memory.cells[0] else new for key in columns]
            columns += [] if new in columns else [new]
        y = 24 + 28 * (place - 1)
        parts.append(_text(10, y + 16, f"{place}  {value}"))
        for column in range(3):
            x, name = 96 + 100 * column, VALUES[columns[column]] if column < len(columns) else ""
            parts.append(_box(x, y, 94, 22, "orange" if name == value else "blue" if name else "empty"))
            if name:
                look = memory.look(0, columns[column])
                parts.append(_text(x + 47, y + 15, f"{name}  {look.times} \u00d7, {look.events}", "middle"))
    y = 24 + 28 * len(EVENTS) + 20
    parts.append(_text(10, y, "candidate", "small"))
    parts.append(_text(96, y, "what a request finds", "small"))
    for row, value in enumerate(("tea", "rice", "soap", "salt")):
        look = memory.look(0, VALUES.index(value))
        said = f"met {look.times} times, {_ago(look.events)}" if look.times else "no cell: never met, or gave way"
        parts += [_text(10, y + 22 + 20 * row, value), _text(96, y + 22 + 20 * row, said)]
    return _picture("A table of three cells over eight events", y + 92, parts)


def protocols() -> str:
    """Which events are targets of which split, under the protocols `temporal` and `paper`."""
    cuts, left, right = PrepareSettings().cuts, 60.0, 390.0
    users = {"user A": (2, 9, 17, 30, 38, 47, 55), "user B": (6, 22, 41, 52, 58), "user C": (12, 15, 27, 33, 44)}
    times = sorted(time for each in users.values() for time in each)
    first, second = (times[floor(share * len(times))] for share in cuts)
    parts, y = [_text(8, 14, "temporal: every event is a target; two moments cut all users")], 24.0
    for user, each in users.items():
        kinds = ["blue" if time < first else "green" if time < second else "orange" for time in each]
        parts += _line(user, each, kinds, y, left, right)
        y += 24
    for time in (first, second):
        x = left + (right - left) * (time - 1) / 60
        parts.append(f'<path class="line cut" d="M{x:.1f} 24V{y:.0f}"/>')
    y += 26
    parts.append(_text(8, y, "paper: the last event of each user is a target"))
    y += 10
    last = sorted(users, key=lambda user: users[user][-1])
    for user, each in users.items():
        kind = "blue" if user == last[0] else "green" if user == last[1] else "orange"
        parts += _line(user, each, ["empty"] * (len(each) - 1) + [kind], y, left, right)
        y += 24
    y += 16
    for x, kind, word in (
        (60, "blue", "training"),
        (140, "green", "validation"),
        (230, "orange", "test"),
        (290, "empty", "history only"),
    ):
        parts += [_box(x, y - 10, 10, 10, kind), _text(x + 15, y, word, "small")]
    return _picture("Targets of training, validation and test under two protocols", y + 10, parts)


PICTURES: dict[str, Callable[[], str]] = {
    "lifelong-modelling.svg": lifelong,
    "memory.svg": memory,
    "counting.svg": counting,
    "protocols.svg": protocols,
}


def _bursts(events: int) -> list[int]:
    """Places of a part of the events, in groups as people come and go."""
    return [place for place in range(0, events, 8) if (place // 56) % 3 or place > events - 120]


def _ago(age: int) -> str:
    return f"last {age} event{'s' if age > 1 else ''} ago" if age else "also by the last event"


def _line(user: str, times: Sequence[int], kinds: Sequence[str], y: float, left: float, right: float) -> list[str]:
    """A user's events on a line."""
    places = [left + (right - left) * time / 60 for time in times]
    dots = [
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y + 10:.1f}" r="6"/>' for x, kind in zip(places, kinds, strict=True)
    ]
    return [_text(8, y + 14, user), f'<path class="line" d="M{left:.0f} {y + 10:.1f}H{right:.0f}"/>', *dots]


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def _picture(label: str, height: float, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
            f'aria-label="{escape(label)}">',
            f"<style>{STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        Path(sys.argv[1], name).write_text(draw())
