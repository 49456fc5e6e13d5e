"""What is asked of a scorer, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

Fields = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One user and her candidates.

        >>> request = ScoreRequest("u1", ["i1", "i2"], time=1_700_000_000)

    Args:
        user: her id; need not be known.
        items: item ids; need not be known.
        time: moment of the request, UTC seconds; now if None.
        fields: per item the fields that came with the request, or None; newer statistics of it (`item.reviews`) too.
        profile: what is known of the user apart from her events: user field -> value, None where it is not known. No
            store keeps it.
    """

    user: str
    items: Sequence[str]
    time: int | None = None
    fields: Sequence[Fields | None] | None = None
    profile: Fields | None = None


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One candidate's answer for one of several tasks."""

    score: Annotated[float, Field(description="raw logit")]
    probability: Annotated[float | None, Field(description="calibrated; null where no base rate is known")]
    reason: Annotated[str | None, Field(description="why there is no probability")]


@dataclass(frozen=True, slots=True)
class Score:
    """One candidate's answer; of several tasks, score, probability and reason are the first one's."""

    item: str
    score: Annotated[float, Field(description="raw logit; orders the candidates of one user")]
    probability: Annotated[float | None, Field(description="calibrated; null where no base rate is known")]
    reason: Annotated[str | None, Field(description="why there is no probability")]
    tasks: Annotated[
        Mapping[str, TaskScore] | None,
        Field(exclude_if=lambda value: value is None, description="each task's answer, of a model with several"),
    ] = None
    known_item: Annotated[
        bool, Field(description="false: training did not have the item; scored by its hash bucket and fields")
    ] = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Args:
        user: her id.
        known_user: False where the empty memory was read.
        count: events in the memory that was read.
        last_time: time of the last of them, None without events.
        scores: one per candidate, in order.
        artifact: id of the one that scored; memory and weights are both its own.
        attention_CS: first-hop attention over the slots, or over the events of a recent history and the padding after
            them; None if the model has none, or none was asked for.
        unknown_items: candidates that training did not know.
        request_id: under which the request is in the impressions log; None where there is none.
    """

    user: str
    known_user: bool
    count: int
    last_time: int | None
    scores: list[Score]
    artifact: str
    attention_CS: npt.NDArray[np.float32] | None
    unknown_items: int = 0
    request_id: str | None = None
