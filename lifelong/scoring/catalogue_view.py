"""What there is to recommend: a search over the catalogue, and a user's best items in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import ConfigDict, Field, with_config

from lifelong.scoring.answer import ScoreRequest

if TYPE_CHECKING:
    from lifelong.scoring.scorer import Scorer

RANKED = 5_000
"""Items that are scored for a list of the best ones, at most."""


@dataclass(frozen=True, slots=True)
class ListedItem:
    """One item of the catalogue."""

    item: str
    fields: Annotated[Mapping[str, str | None], Field(description="its fields; null where not known")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class FoundItems:
    """Items with a text in their id."""

    items: list[ListedItem]
    catalogue: Annotated[int, Field(description="items of the whole catalogue")]


@dataclass(frozen=True, slots=True)
class RankedItem(ListedItem):
    """One item and its score."""

    score: Annotated[float, Field(description="raw logit")]
    rank: Annotated[int, Field(description="1 for the highest score of those that were scored")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class TopItems:
    """A user's best items."""

    user: str
    known_user: Annotated[bool, Field(description="false: scored from the empty memory")]
    items: Annotated[list[RankedItem], Field(description="the highest score first")]
    scored: Annotated[int, Field(description="items that were scored")]
    catalogue: Annotated[int, Field(description="items of the whole catalogue")]


def find_items(scorer: Scorer, text: str, *, most: int) -> FoundItems:
    """Items of the catalogue with a text in their id; an item put online under this very id comes first.

    Args:
        scorer: artifact and store.
        text: what is looked for; empty for the first items.
        most: how many are given.
    """
    index = scorer.artifact.catalogue.ids
    found = index.search(text, most)
    if text and text not in found and (scorer.online_items.of(text) is not None or index.find([text])[0] >= 0):
        found = [text, *found][:most]
    return FoundItems(_listed(scorer, found), len(index))


def top_items(scorer: Scorer, user: str, *, most: int, time: int | None = None) -> TopItems:
    """A user's best items: of a catalogue of up to `RANKED` items all are scored, of a larger one its first ones.

    Args:
        scorer: artifact and store.
        user: her id; an unknown user is scored from the empty memory.
        most: how many items are given.
        time: moment of the request, UTC seconds; now if None.
    """
    index = scorer.artifact.catalogue.ids
    items = index.search("", RANKED)
    if not items:
        return TopItems(user, scorer.states([user])[1][0], [], 0, 0)
    answer = scorer.answer([ScoreRequest(user, items, time)])[0]
    score_C = np.array([score.score for score in answer.scores])
    best = np.argsort(-score_C, kind="stable")[:most].tolist()
    listed = _listed(scorer, [items[at] for at in best])
    ranked = [
        RankedItem(one.item, one.fields, float(score_C[at]), rank)
        for rank, (one, at) in enumerate(zip(listed, best, strict=True), start=1)
    ]
    return TopItems(user, answer.known_user, ranked, len(items), len(index))


def _listed(scorer: Scorer, items: Sequence[str]) -> list[ListedItem]:
    number_CF = scorer.online_items.numbers(items)
    columns = {
        name: scorer.online_items.texts(name, items, number_CF[:, column])
        for column, name in enumerate(scorer.schema.item_fields[1:], start=1)
    }
    return [ListedItem(item, {name: values[at] for name, values in columns.items()}) for at, item in enumerate(items)]
