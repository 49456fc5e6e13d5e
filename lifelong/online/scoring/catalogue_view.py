"""What there is to recommend: a search over the catalogue, and a user's best items in it.

A model that learns from negatives drawn by popularity has scores of log p(item | user) - log q(item), which say how
much more likely an item is than its popularity: rare items would come first. So log q, which the artifact keeps, is
added to order items (`artifact.list_order.log_popularity`), and what the memory counts of them, where the artifact has
weights for both. `lifelong evaluate --ranking` does the same; the scores themselves stay what a
request gets.

A list has a probability where a base rate is known, the share of items that a user takes at a moment. A user's values
say how likely her items are next to each other; the base rate, how likely all of them are:

    odds of an item = base rate / (1 - base rate) * items * e^value / sum of e^value over the items

That is the rule by which a calibrator goes from one rate of positives to another, for items that are drawn alike.

Shapes: C items, V catalogue rows.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, with_config

from lifelong.artifact.folder import Artifact
from lifelong.dataset.catalogue import FIRST_ROW, with_columns
from lifelong.dataset.events import gap_numbers
from lifelong.dtypes import FloatArray, IntArray
from lifelong.online.memory.state import States
from lifelong.online.memory.writer import fold, make_rounds
from lifelong.online.scoring.answer import Score, ScoreRequest
from lifelong.online.scoring.scorer import Scorer

RANKED = 5_000
"""Items that are scored for a list of the best ones, at most."""


@dataclass(frozen=True, slots=True)
class ListedItem:
    """One item of the catalogue."""

    item: str
    title: Annotated[str | None, Field(description="its name for people; null where there is none but the id")]
    fields: Annotated[Mapping[str, str | None], Field(description="its fields; null where not known")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class FoundItems:
    """Items with a text in their id or their title."""

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
    from_counts: Annotated[
        float | None,
        Field(description="what is added for what the user's memory counts of the item; null where nothing is"),
    ]
    probability: Annotated[
        float | None, Field(description="of the item to be taken at this moment; null where no base rate is known")
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
    """Items of the catalogue with a text in their id or title; an item put online under this very id comes first.

    Args:
        scorer: artifact and store.
        text: what is looked for; empty for the first items.
        most: how many are given.
    """
    index = scorer.artifact.catalogue.ids
    found = scorer.artifact.catalogue.search(text, most)
    if text and text not in found and (scorer.online_items.of(text) is not None or index.find([text])[0] >= 0):
        # Otherwise who knows an item by its id would not find it among many longer ones.
        found = [text, *found][:most]
    return FoundItems(_listed(scorer, found), len(index))


def top_items(scorer: Scorer, user: str, *, most: int, time: int | None = None, after: str | None = None) -> TopItems:
    """A user's best items: of a catalogue of up to `RANKED` items all are scored, of a larger one about this many.

    Those are the most popular ones where the artifact says which these are, else its first ones; and the items that the
    user's memory keeps.

    Args:
        scorer: artifact and store.
        user: her id; an unknown user is scored from the empty memory.
        most: how many items are given.
        time: moment of the request, UTC seconds; now if None.
        after: an item that the user is taken to have met at this moment; nothing is stored.
    """
    index, order = scorer.artifact.catalogue.ids, _order(scorer.artifact)
    states, known = scorer.states([user])
    if after is not None:
        states = _after(scorer, states, after, int(clock.time()) if time is None else time)
    items = _ranked_items(scorer, states)
    if not items:
        return TopItems(user, known[0], [], order, 0, 0)
    answer = scorer.answer_from(states, known, [ScoreRequest(user, items, time)])[0]
    score_C = np.array([score.score for score in answer.scores])
    added = scorer.added_in_lists(states, items)
    value_C = added.to(score_C)
    best = np.argsort(-value_C, kind="stable")[:most].tolist()
    probability = _probabilities(scorer, answer.scores, value_C)
    listed = _listed(scorer, [items[at] for at in best])
    ranked = [
        RankedItem(
            one.item, one.title, one.fields, float(score_C[at]), rank=rank, probability=probability[at], **added.of(at)
        )
        for rank, (one, at) in enumerate(zip(listed, best, strict=True), start=1)
    ]
    return TopItems(user, answer.known_user, ranked, order, len(items), len(index))


def _after(scorer: Scorer, states: States, item: str, time: int) -> States:
    """A user's memory as if she had met an item at a moment, by an event of the most frequent type."""
    artifact, columns = scorer.artifact, list[IntArray]()
    # Cells are written in place, and these may be those that a cache holds.
    states = states.take(np.arange(len(states)))
    plan = make_rounds(np.zeros(1, np.int64), np.array([time]), states.last_time_B, refuse=False)
    if artifact.event_types is not None:
        columns.append(np.array([[artifact.event_types.first_known]]))
    if "gap" in scorer.schema.event_fields:
        columns.append(gap_numbers(plan.time_N, plan.previous_N)[:, None])
    return fold(scorer.runtime, states, plan, with_columns(scorer.online_items.numbers([item]), *columns))


def _probabilities(scorer: Scorer, scores: Sequence[Score], value_C: FloatArray) -> Sequence[float | None]:
    """How likely each of the ranked items is taken; None for each where no base rate is known."""
    rate = scorer.base_rate.get(scorer.schema.tasks[0])
    if scorer.artifact.drawn is None or rate is None:
        # Without popularity in the list, an item's probability is that of its score.
        return [None if scorer.artifact.drawn is not None else score.probability for score in scores]
    # Less the largest, so that no power overflows.
    share_C = np.exp(value_C - value_C.max())
    odds_C = rate / (1 - rate) * len(value_C) * share_C / share_C.sum()
    return [float(probability) for probability in odds_C / (1 + odds_C)]


def _ranked_items(scorer: Scorer, states: States) -> list[str]:
    artifact, counting = scorer.artifact, scorer.runtime.counting
    index = artifact.catalogue.ids
    if artifact.drawn is None or len(index) <= RANKED:
        return index.search("", RANKED)
    # Row `FIRST_ROW` of the catalogue is item 0 of its ids.
    popular = np.argsort(-artifact.drawn[FIRST_ROW:], kind="stable")[:RANKED]
    kept = np.zeros(0, np.int64)
    if counting is not None:
        number_V = np.asarray(artifact.catalogue.number_VF[FIRST_ROW:, 0], np.int64)
        is_kept_V = np.isin(artifact.catalogue.key_VF[FIRST_ROW:, 0], counting.kept(states, 0, 0)[0])
        # Items without a number of their own have no embedding either, and there may be any number of them.
        kept = np.flatnonzero(is_kept_V & (number_V >= artifact.vocabularies["item"].first_known))
    return [index.id_at(at) for at in dict.fromkeys([*popular.tolist(), *kept.tolist()])]


def _order(artifact: Artifact) -> str:
    """How a list over the catalogue is ordered, in words."""
    if artifact.drawn is not None and artifact.config.list_order is not None:
        return (
            "by the score, how often an item came in the training period, and how often and how lately the user had "
            "it and its kind, with weights fitted on the validation period: the score alone says how much more likely "
            "an item is than its popularity, so rare items would come first"
        )
    if artifact.drawn is not None:
        return (
            "by the score plus the log of how often an item came in the training period: the score says how much more "
            "likely an item is than its popularity, so by the score alone rare items would come first"
        )
    return "by the score"


def _listed(scorer: Scorer, items: Sequence[str]) -> list[ListedItem]:
    number_CF = scorer.online_items.numbers(items)
    columns = {
        name: scorer.online_items.texts(name, items, number_CF[:, column])
        for column, name in enumerate(scorer.schema.item_fields[1:], start=1)
    }
    titles = scorer.artifact.catalogue.titles_of(items)
    return [
        ListedItem(item, titles[at], {name: values[at] for name, values in columns.items()})
        for at, item in enumerate(items)
    ]
