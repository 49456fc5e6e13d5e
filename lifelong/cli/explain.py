"""`lifelong explain`: attention over time scales or events, and the events behind a score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import ArtifactPath, BaseRate, ProfileOption, StoreUrl, base_rate_of, names, profile_of
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from lifelong.serving.counted import Counted
    from lifelong.serving.explain import CandidateExplanation, Explanation, Related, Seen

_BAR = 24


def explain(
    terminal: Terminal,
    artifact: ArtifactPath,
    *,
    store: StoreUrl,
    user: Annotated[str, typer.Option("--user", help="Id of the user.")],
    items: Annotated[str, typer.Option("--items", help="Candidates, as in I1,I2.")],
    data: Annotated[Path | None, typer.Option("--data", metavar="DATA", help="Dataset that holds her events.")] = None,
    time: Annotated[int | None, typer.Option("--time", min=0, help="Moment of the request, UTC seconds; now.")] = None,
    profile: ProfileOption = None,
    base_rate: BaseRate = None,
) -> Reply:
    """Say which time scales and which past events stand behind a score."""
    from lifelong.cli.opening import open_scorer
    from lifelong.data.dataset import Dataset
    from lifelong.serving.schemas import ExplainReply

    dataset = None if data is None else Dataset(data)
    with open_scorer(artifact, store, base_rate=base_rate_of(base_rate)) as scorer:
        explanation = scorer.explain(user, names(items), time=time, profile=profile_of(profile), dataset=dataset)
    document = ExplainReply.model_validate(explanation).model_dump(mode="json")
    return Reply(document, _summary(explanation))


def _summary(explanation: Explanation) -> list[Any]:
    known = "" if explanation.known_user else " (not known: the empty memory)"
    note = explanation.attention_note
    lines: list[Any] = [
        f"User {explanation.user}{known}: {explanation.count:,} events; {explanation.events_note}.",
        f"{note[0].upper()}{note[1:]}.",
    ]
    for candidate in explanation.candidates:
        lines += _candidate(explanation, candidate)
    return lines


def _candidate(explanation: Explanation, candidate: CandidateExplanation) -> list[Any]:
    lines: list[Any] = [f"\n{candidate.item}: score {candidate.score:.4f}"]
    if candidate.counted is not None:
        lines.append(_counted(candidate.counted))
    if explanation.attention_over is not None:
        over_slots = explanation.attention_over == "slots"
        lines.append(_slots(explanation, candidate) if over_slots else _events(candidate))
    return lines


def _counted(counted: Counted) -> Table:
    from rich.table import Table

    table = Table(*COUNTED)
    for row in counted_rows(counted):
        table.add_row(*row)
    return table


COUNTED = ("field", "value", "met", "last", "effect on the score")
"""Head of `counted_rows`."""


def counted_rows(counted: Counted) -> list[list[str]]:
    """What a memory counted of a candidate's values, in words, one row a field; then its slots."""
    rows = []
    for value in counted.values:
        met = {"counted": _times(value.times), "faded": "long ago", "new": "never", "unknown": "not counted"}
        last = {None: "", 1: "the last event"}.get(value.events_ago, f"{value.events_ago} events ago")
        rows.append([value.field, value.value or "?", met[value.state], last, f"{value.effect:+.3f}"])
    if counted.slots_effect is not None:
        rows.append(["slots", "", "", "", f"{counted.slots_effect:+.3f}"])
    return rows


def _times(times: int) -> str:
    from lifelong.data.cell_plan import MOST

    if times == MOST:
        return f"{MOST} times or more"
    return "once" if times == 1 else f"{times} times"


def _slots(explanation: Explanation, candidate: CandidateExplanation) -> Table:
    from rich.table import Table

    table = Table("slot", "written", "attention", "", "events behind it")
    # The slots that are read come first; a memory may hold more.
    for slot, part in zip(explanation.slots, candidate.slots, strict=False):
        written = slot.written + (", empty" if slot.empty else "")
        bar = "█" * round(part.attention * _BAR)
        behind = "\n".join(_event(event) for event in part.related[:3]) or "-"
        table.add_row(f"{slot.field} {slot.slot + 1}", written, f"{part.attention:.3f}", bar, behind)
    return table


def _event(event: Related) -> str:
    return f"{event.item} (same {', '.join(event.same)}, {_when(event)})"


def _when(event: Seen) -> str:
    return f"at {event.time}" if event.seconds_ago is None else f"{ago_words(event.seconds_ago)} ago"


def _events(candidate: CandidateExplanation) -> Table | str:
    from rich.table import Table

    if not candidate.events:
        return "No event has a weight."
    table = Table("event", "item", "when", "attention", "")
    largest = abs(candidate.events[0].attention)
    for event in candidate.events:
        bar = "█" * round(abs(event.attention) / largest * _BAR)
        table.add_row(f"{event.position:,}", event.item or "?", _when(event), f"{event.attention:.3g}", bar)
    if candidate.rest is not None and candidate.rest.events:
        table.add_row("", f"{candidate.rest.events:,} others", "", f"{candidate.rest.attention:.3g}", "")
    return table


def ago_words(seconds: int) -> str:
    """A span of time in its largest whole unit."""
    for name, size in (("year", 31_557_600), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if abs(seconds) >= size:
            number = seconds // size
            return f"{number} {name}{'' if number == 1 else 's'}"
    return f"{seconds} seconds"
