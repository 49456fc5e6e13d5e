"""A memory of an earlier moment is the one that was in the store then."""

from __future__ import annotations

import numpy as np
import pytest

from lifelong.errors import RequestError
from lifelong.memory.updater import Updater, UserEvent
from lifelong.scoring import earlier as module
from lifelong.scoring.answer import ScoreRequest
from lifelong.scoring.earlier import earlier
from lifelong.scoring.explain import explain
from lifelong.scoring.scorer import Scorer

START = 1_700_000_000
ITEMS = ["i1", "i2", "i3", "never heard of"]
TIMES = [5, 6, 6, 9, 7, 20, 21]
"""Of seven events; the fifth is late."""
EVENTS = [UserEvent("u", f"i{1 + place % 3}", START + time, "view") for place, time in enumerate(TIMES)]


@pytest.fixture
def scorer(artifact, store):
    return Scorer(artifact, store)


def fold(artifact, store, events=EVENTS, **options):
    for event in events:
        Updater(artifact, store, **options).apply([event])


def test_after_each_event_the_earlier_scores_are_those_of_that_moment(artifact, store, scorer):
    request, then = ScoreRequest("u", ITEMS, START + 100), []
    for event in [None, *EVENTS]:
        if event is not None:
            fold(artifact, store, [event])
        then.append(scorer.answer([request])[0])
    for events, live in enumerate(then):
        again = earlier(scorer, events).answer([request])[0]
        assert (again.count, again.last_time) == (events, live.last_time)
        np.testing.assert_allclose(
            [score.score for score in again.scores], [score.score for score in live.scores], atol=1e-5
        )


def test_an_explanation_of_an_earlier_moment_has_its_slots_and_events_alone(artifact, store, scorer):
    fold(artifact, store)
    found = explain(earlier(scorer, 3), ScoreRequest("u", ["i1"], START + 10))
    assert (found.count, found.last_time) == (3, START + 6)
    assert [event.position for event in found.recent] == [3, 2, 1]
    assert [slot.covers for slot in found.slots] == [3, 2, 0]


def test_events_before_the_log_come_from_the_dataset(artifact, dataset, store, scorer):
    user = int(np.argmax(np.diff(dataset.histories.offset_U)))
    place = dataset.histories.of(user)
    rows = [dataset.event(at) for at in range(place.start, place.stop)]
    fold(artifact, store, [UserEvent(dataset.users.id_at(user), *row) for row in rows], event_log=False)
    request = ScoreRequest(dataset.users.id_at(user), ITEMS, rows[-1][1] + 100)
    with pytest.raises(RequestError, match="the log lacks the user's first"):
        earlier(scorer, len(rows) - 1).answer([request])
    again = earlier(scorer, len(rows), dataset=dataset).answer([request])[0]
    now = scorer.answer([request])[0]
    np.testing.assert_allclose([one.score for one in again.scores], [one.score for one in now.scores], atol=1e-5)


def test_more_events_than_there_are_and_too_many_are_refused(artifact, store, scorer, monkeypatch):
    fold(artifact, store)
    with pytest.raises(RequestError, match="user 'u' has 7 events"):
        earlier(scorer, 8).states(["u"])
    monkeypatch.setattr(module, "REPLAYED", 6)
    with pytest.raises(RequestError, match="a memory after 7 events"):
        earlier(scorer, 7)


def test_the_scorer_of_now_and_its_store_stay_as_they_are(artifact, store, scorer):
    fold(artifact, store)
    before = scorer.store.read_many(["u"], space=scorer.space)
    then = earlier(scorer, 2)
    then.score("u", ITEMS)
    then.close()
    assert scorer.states(["u"])[0].count_B[0] == 7
    assert scorer.store.read_many(["u"], space=scorer.space) == before
