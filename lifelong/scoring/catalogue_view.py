"""What there is to recommend: a search over the catalogue, and a user's best items in it.

A model that learns from negatives drawn by popularity has scores of log p(item | user) - log q(item), which say how
much more likely an item is than its popularity: rare items would come first. So log q, which the artifact keeps, is
added to order items (`data.negatives.log_popularity`), as `lifelong evaluate --ranking` does; the scores themselves
stay what a request gets.

Shapes: C items, V catalogue rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, with_config

from lifelong.artifact.folder import Artifact
from lifelong.data.catalogue import FIRST_ROW
from lifelong.data.negatives import log_popularity
from lifelong.dtypes import FloatArray
from lifelong.scoring.answer import ScoreRequest
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
    popularity: Annotated[
        float | None,
        Field(description="what is added to the score to order items; null where the score alone orders them"),
    ]
    rank: Annotated[int, Field(description="1 for the first of those that were scored")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class TopItems:
    """A user's best items."""

    user: str
    known_user: Annotated[bool, Field(description="false: scored from the empty memory")]
    items: Annotated[list[RankedItem], Field(description="the best first, see `order`")]
    order: Annotated[str, Field(description="how they are ordered, in words")]
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
    """A user's best items: of a catalogue of up to `RANKED` items all are scored, of a larger one this many.

    Those are the most popular ones where the artifact says which these are, else its first ones.

    Args:
        scorer: artifact and store.
        user: her id; an unknown user is scored from the empty memory.
        most: how many items are given.
        time: moment of the request, UTC seconds; now if None.
    """
    index, order = scorer.artifact.catalogue.ids, _order(scorer.artifact)
    items = _ranked_items(scorer.artifact)
    if not items:
        return TopItems(user, scorer.states([user])[1][0], [], order, 0, 0)
    answer = scorer.answer([ScoreRequest(user, items, time)])[0]
    score_C = np.array([score.score for score in answer.scores])
    more_C = popularity_of(scorer.artifact, items)
    best = np.argsort(-(score_C if more_C is None else score_C + more_C), kind="stable")[:most].tolist()
    listed = _listed(scorer, [items[at] for at in best])
    ranked = [
        RankedItem(one.item, one.fields, float(score_C[at]), None if more_C is None else float(more_C[at]), rank)
        for rank, (one, at) in enumerate(zip(listed, best, strict=True), start=1)
    ]
    return TopItems(user, answer.known_user, ranked, order, len(items), len(index))


def popularity_of(artifact: Artifact, items: Sequence[str]) -> FloatArray | None:
    """What is added to the scores of items to order them, `[C]`; None where the scores alone order them.

    Args:
        artifact: of a model that is served: all of these learn from drawn negatives, where such are drawn.
        items: ids; one that the catalogue lacks was never drawn.
    """
    return None if artifact.drawn is None else log_popularity(artifact.drawn[artifact.catalogue.rows(items)])


def _ranked_items(artifact: Artifact) -> list[str]:
    index = artifact.catalogue.ids
    if artifact.drawn is None or len(index) <= RANKED:
        return index.search("", RANKED)
    popular = np.argsort(-artifact.drawn[FIRST_ROW:], kind="stable")[:RANKED]
    return [index.id_at(at) for at in popular.tolist()]


def _order(artifact: Artifact) -> str:
    """How a list over the catalogue is ordered, in words."""
    if artifact.drawn is not None:
        return (
            "by the score plus the log of how often an item came in the training period: the score says how much more "
            "likely an item is than its popularity, so by the score alone rare items would come first"
        )
    if artifact.config.negatives.rule in ("none", "uniform"):
        return "by the score"
    return (
        "by the score, which says how much more likely an item is than its popularity: rare items come first; this "
        "artifact is of a release that did not keep how popular items are, train again for a list that heeds it"
    )


def _listed(scorer: Scorer, items: Sequence[str]) -> list[ListedItem]:
    number_CF = scorer.online_items.numbers(items)
    columns = {
        name: scorer.online_items.texts(name, items, number_CF[:, column])
        for column, name in enumerate(scorer.schema.item_fields[1:], start=1)
    }
    return [ListedItem(item, {name: values[at] for name, values in columns.items()}) for at, item in enumerate(items)]
