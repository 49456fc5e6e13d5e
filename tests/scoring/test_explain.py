"""Attention over slots and the events behind it. The artifact's periods are 1, 2, 4."""

from __future__ import annotations

import pytest

from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.explain import explain
from lifelong.online.scoring.scorer import Scorer

START = 1_700_000_000
DAY = 86_400


def visits(user, items):
    return [UserEvent(user, item, START + DAY * day, "view") for day, item in enumerate(items)]


@pytest.fixture
def scorer(artifact, store):
    return Scorer(artifact, store)


@pytest.fixture
def fold(artifact, store):
    return lambda user, items, **options: Updater(artifact, store, **options).apply(visits(user, items))


def explained(scorer, user, item, **options):
    explanation = explain(scorer, ScoreRequest(user, [item], START + 10 * DAY), **options)
    return explanation, explanation.candidates[0]


def test_the_attention_is_spread_over_the_written_slots(scorer, fold):
    fold("u", ["i1", "i2", "i3"])
    explanation, candidate = explained(scorer, "u", "i1")
    assert [slot.empty for slot in explanation.slots] == [False, False, True]
    weights = [part.attention for part in candidate.slots]
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert weights[2] == 0


def test_a_slot_says_when_it_is_written_and_what_it_covers(scorer, fold):
    fold("u", [f"i{k}" for k in range(7)])
    slots = explained(scorer, "u", "i1")[0].slots
    assert [slot.written for slot in slots] == ["at every event", "every 2 events", "every 4 events"]
    assert [slot.covers for slot in slots] == [7, 6, 4]
    assert [slot.window for slot in slots] == [(7, 7), (5, 6), (1, 4)]


def test_the_score_is_the_one_that_score_gives(scorer, fold):
    fold("u", ["i1", "i2"])
    candidate = explained(scorer, "u", "i1")[1]
    assert candidate.score == pytest.approx(scorer.score("u", ["i1"], time=START + 10 * DAY)[0].score, abs=1e-6)


def test_related_events_have_the_same_item_or_field(scorer, fold):
    # i1, i11 and i21 share the category c1.
    fold("u", ["i1", "i11", "i2", "i3"])
    related = explained(scorer, "u", "i1")[1].slots[2].related
    assert [(event.item, event.same) for event in related] == [("i1", ("item", "category")), ("i11", ("category",))]
    assert related[0].seconds_ago == 10 * DAY
    assert related[0].fields == {"category": "c1"}


def test_events_of_the_last_write_come_first(scorer, fold):
    fold("u", ["i1", "i2", "i3", "i4", "i5", "i11", "i2", "i3"])
    related = explained(scorer, "u", "i1")[1].slots[2].related
    assert [(event.item, event.in_last_window) for event in related] == [("i11", True), ("i1", False)]


def test_events_after_a_slots_last_write_are_not_behind_it(scorer, fold):
    fold("u", ["i2", "i3", "i4", "i5", "i1"])
    slots = explained(scorer, "u", "i1")[1].slots
    assert [event.position for event in slots[0].related] == [5]
    assert slots[1].related == []
    assert slots[2].related == []


def test_items_that_merely_share_a_bucket_are_not_the_same(scorer, fold, artifact):
    vocabulary = artifact.vocabularies["item"]
    wanted = vocabulary.fallback_number("new")
    twin = next(name for name in map(str, range(1000)) if vocabulary.fallback_number(name) == wanted)
    fold("u", [twin])
    assert explained(scorer, "u", "new")[1].slots[0].related == []


def test_the_latest_events_come_first(scorer, fold):
    fold("u", ["i1", "i2", "i3"])
    recent = explained(scorer, "u", "i1")[0].recent
    assert [(event.position, event.item, event.event_type) for event in recent] == [
        (3, "i3", "view"),
        (2, "i2", "view"),
        (1, "i1", "view"),
    ]


def test_an_unknown_user_has_no_events_and_no_attention(scorer):
    explanation, candidate = explained(scorer, "nobody", "i1")
    assert (explanation.known_user, explanation.count, explanation.recent) == (False, 0, [])
    assert all(slot.empty for slot in explanation.slots)
    assert sum(part.attention for part in candidate.slots) == 0
    assert explanation.events_note == "the memory has no events yet"


def test_without_a_log_it_says_that_it_has_no_events(scorer, fold):
    fold("u", ["i1", "i2"], event_log=False)
    explanation, candidate = explained(scorer, "u", "i1")
    assert explanation.events_from is None
    assert "none of the 2 events" in explanation.events_note and "--data" in explanation.events_note
    assert all(part.related == [] for part in candidate.slots)


def test_events_come_from_a_dataset_up_to_the_position_of_the_memory(scorer, fold, dataset):
    index = int(dataset.users.find(["u2"])[0])
    rows = dataset.histories.row_N[dataset.histories.of(index)][:3]
    items = [dataset.catalogue.id_of(int(row)) for row in rows]
    fold("u2", items, event_log=False)
    explanation = explained(scorer, "u2", "i1", dataset=dataset)[0]
    assert explanation.events_from == "data"
    assert [event.item for event in explanation.recent] == items[::-1]


def test_a_dataset_and_the_log_of_later_events_complete_each_other(scorer, fold, artifact, store, dataset):
    fold("u2", ["i1", "i2"], event_log=False)
    Updater(artifact, store).apply([UserEvent("u2", "i9", START + 5 * DAY, "buy")])
    explanation = explained(scorer, "u2", "i1", dataset=dataset)[0]
    assert explanation.events_from == "data and store"
    assert [event.position for event in explanation.recent] == [3, 2, 1]
    assert explanation.recent[0].item == "i9"


def test_of_a_very_long_history_the_latest_events_are_looked_at_and_the_note_says_so(scorer, fold, monkeypatch):
    monkeypatch.setattr("lifelong.online.scoring.explain.EXPLAINED", 3)
    fold("u", ["i1", "i2", "i3", "i1"])
    explanation, candidate = explained(scorer, "u", "i1")
    assert [event.position for event in explanation.recent] == [4, 3, 2]
    assert [event.position for event in candidate.slots[2].related] == [4]
    assert explanation.events_note == "events from the store's event log; looked at are the latest 3"


def test_a_user_whom_the_dataset_lacks_is_said_to_be_missing(scorer, fold, dataset):
    fold("stranger", ["i1"], event_log=False)
    assert "none of the 1 events" in explained(scorer, "stranger", "i1", dataset=dataset)[0].events_note
