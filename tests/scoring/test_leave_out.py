"""The effect of a single past event is the score less that of a memory that never had it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lifelong import api
from lifelong.artifact.folder import Artifact
from lifelong.errors import RequestError
from lifelong.memory.updater import Updater, UserEvent
from lifelong.scoring import leave_out as module
from lifelong.scoring.answer import ScoreRequest
from lifelong.scoring.earlier import MomentError, earlier
from lifelong.scoring.scorer import Scorer
from lifelong.store.opening import open_store

SHOP = Path(__file__).parents[2] / "lifelong" / "cli" / "shop" / "artifact"
START, DAY = 1_700_000_000, 86_400
SHOPPED = ["butter", "salami", "butter", "cola", "gouda", "butter", "rye bread"] * 12
CANDIDATES = ["butter", "cola", "gouda", "nothing"]
NOW = START + 200 * DAY


def shop_events(items=SHOPPED):
    return [UserEvent("ann", item, START + place * DAY) for place, item in enumerate(items)]


def score(artifact, events, items=CANDIDATES, time=NOW):
    """Scores of a store that was given these events alone."""
    with closing(open_store("memory://")) as store:
        for event in events:
            Updater(artifact, store).apply([event])
        return [one.score for one in Scorer(artifact, store).score(events[0].user, items, time=time)]


def effects(explanation):
    """Item -> position -> effect."""
    return {one.item: {event.position: event.effect for event in one.event_effects} for one in explanation.candidates}


@pytest.mark.parametrize("positions", [[84], [1], [3, 40, 41, 84]])
def test_it_is_the_score_less_that_of_a_memory_without_the_event(positions):
    artifact, events = Artifact.open(SHOP), shop_events()
    with closing(open_store("memory://")) as store:
        Updater(artifact, store).apply(events)
        found = effects(api.explain(Scorer(artifact, store), "ann", CANDIDATES, time=NOW, leave_out=positions))
    whole = score(artifact, events)
    for position in positions:
        without = score(artifact, [event for place, event in enumerate(events, start=1) if place != position])
        np.testing.assert_allclose(
            [found[item][position] for item in CANDIDATES], np.subtract(whole, without), atol=1e-4
        )
        assert set(found["butter"]) == set(positions)
    assert max(abs(effect) for effect in found["butter"].values()) > 1e-3


@pytest.mark.parametrize("late", [False, True])
def test_it_holds_for_a_model_with_types_gaps_and_slots_and_for_late_events(artifact, store, late):
    times = [5, 6, 9, 7, 20, 21, 40] if late else [5, 6, 7, 9, 20, 21, 40]
    events = [UserEvent("u", f"i{1 + place % 3}", START + time, "view") for place, time in enumerate(times)]
    Updater(artifact, store).apply(events)
    asked = ["i1", "i2", "never heard of"]
    found = effects(api.explain(Scorer(artifact, store), "u", asked, time=START + 99, leave_out=[2, 3, 7]))
    whole = score(artifact, events, asked, START + 99)
    for position in (2, 3, 7):
        rest = [event for place, event in enumerate(events, start=1) if place != position]
        np.testing.assert_allclose(
            [found[item][position] for item in asked],
            np.subtract(whole, score(artifact, rest, asked, START + 99)),
            atol=1e-5,
        )


def test_the_largest_effect_comes_first_and_nothing_is_left_out_unless_asked():
    artifact = Artifact.open(SHOP)
    with closing(open_store("memory://")) as store:
        Updater(artifact, store).apply(shop_events())
        scorer = Scorer(artifact, store)
        (one,) = api.explain(scorer, "ann", ["butter"], time=NOW, leave_out=[84, 3, 82, 82]).candidates
        sizes = [abs(event.effect) for event in one.event_effects]
        assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True)
        assert {event.position: event.item for event in one.event_effects} == {
            3: "butter",
            82: "gouda",
            84: "rye bread",
        }
        assert api.explain(scorer, "ann", ["butter"], time=NOW).candidates[0].event_effects == []


def test_at_an_earlier_moment_it_is_that_of_the_memory_of_then():
    artifact, events = Artifact.open(SHOP), shop_events()
    with closing(open_store("memory://")) as store:
        Updater(artifact, store).apply(events)
        then = earlier(Scorer(artifact, store), 30)
        request = ScoreRequest("ann", CANDIDATES, START + 30 * DAY)
        found = effects(api.explain(then, request, leave_out=[30]))
        with pytest.raises(RequestError, match="event 31 to leave out of a memory of 30 events"):
            api.explain(then, request, leave_out=[31])
    whole, without = (score(artifact, events[:last], time=START + 30 * DAY) for last in (30, 29))
    np.testing.assert_allclose([found[item][30] for item in CANDIDATES], np.subtract(whole, without), atol=1e-4)


def test_what_takes_too_long_or_is_not_known_is_refused(monkeypatch):
    artifact = Artifact.open(SHOP)
    with closing(open_store("memory://")) as store:
        Updater(artifact, store, event_log=False).apply(shop_events())
        scorer = Scorer(artifact, store)
        with pytest.raises(MomentError, match="84 of 84 events of user 'ann' are not known"):
            api.explain(scorer, "ann", ["cola"], leave_out=[1])
        with pytest.raises(RequestError, match="21 events to leave out"):
            api.explain(scorer, "ann", ["cola"], leave_out=range(1, 22))
        for wrong in (0, 85):
            with pytest.raises(RequestError, match=f"event {wrong} to leave out of a memory of 84 events"):
                api.explain(scorer, "ann", ["cola"], leave_out=[wrong])
        monkeypatch.setattr(module, "REPLAYED", 83)
        with pytest.raises(MomentError, match="at most 83 events"):
            api.explain(scorer, "ann", ["cola"], leave_out=[1])


def test_events_before_the_first_one_that_is_left_out_are_folded_once(monkeypatch):
    artifact, folded = Artifact.open(SHOP), []
    real = module.MemoryWriter.fold

    def fold(self, states, plan, number_NF):
        folded.append(len(number_NF))
        return real(self, states, plan, number_NF)

    with closing(open_store("memory://")) as store:
        Updater(artifact, store).apply(shop_events())
        monkeypatch.setattr(module.MemoryWriter, "fold", fold)
        api.explain(Scorer(artifact, store), "ann", ["cola"], time=NOW, leave_out=[81, 84])
    assert sum(folded) == 80 + (4 + 3) + 0
