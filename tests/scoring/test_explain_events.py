"""Which events of a stored recent history the weight falls on, for models that read it at every request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from support.artifacts import tiny_artifact

from lifelong.offline.export.saving import load_model
from lifelong.offline.models.base import Query, Window
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.state import unroll
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.explain import WEIGHTED, explain
from lifelong.online.scoring.scorer import Scorer

pytestmark = pytest.mark.torch

START = 1_700_000_000
DAY = 86_400
NOW = START + 50 * DAY


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory) -> Callable[[str], Any]:
    """The artifact of a model, with random weights; SIM keeps 6 events and finds 3, SHAN and DIN keep 12."""
    artifacts: dict[str, Any] = {}

    def make(model: str) -> Any:
        if model not in artifacts:
            artifacts[model] = tiny_artifact(tmp_path_factory.mktemp(model) / "a", dataset, model=model)
        return artifacts[model]

    return make


def explained(artifact, store, items, target="i1", **options):
    """What explains a target's score after visits to items, a day apart."""
    events = [UserEvent("u", item, START + DAY * day, "view") for day, item in enumerate(items)]
    Updater(artifact, store, **options).apply(events)
    explanation = explain(Scorer(artifact, store), ScoreRequest("u", [target], NOW))
    return explanation, explanation.candidates[0]


def weights_of(artifact, store, target):
    """The model's own weights of the stored events."""
    model, scorer = load_model(artifact), Scorer(artifact, store)
    recent = [torch.from_numpy(part) for part in unroll(scorer.states(["u"])[0])]
    number_BCF = torch.from_numpy(scorer.online_items.numbers([target])[None])
    with torch.no_grad():
        found = model.find(
            Window(model.embed(recent[0], model.history_fields), *recent),
            Query(model.embed(number_BCF, model.item_fields), number_BCF, torch.tensor([[NOW]]), recent[2][:, None]),
        )
    return found.attention_over(recent[1].shape[1])[0, 0].numpy()


# i1, i11, i21, i31, i41 share the category c1.
VISITS = ["i1", "i11", "i2", "i21", "i31", "i3", "i41"]


def test_a_search_names_the_events_that_it_found_the_largest_weight_first(made, store):
    explanation, candidate = explained(made("sim"), store, VISITS)
    assert explanation.attention_over == "events" and candidate.slots == []
    # The latest three of the category.
    assert {(event.position, event.item) for event in candidate.events} == {(4, "i21"), (5, "i31"), (7, "i41")}
    weights = [event.attention for event in candidate.events]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert (candidate.rest.events, candidate.rest.attention) == (0, 0.0)


@pytest.mark.parametrize("model", ["sim", "shan", "din"])
def test_each_events_weight_is_the_models_own(made, store, model):
    candidate = explained(made(model), store, VISITS)[1]
    wanted = weights_of(made(model), store, "i1")
    # Its last event is the user's seventh.
    found = {event.position - 8: event.attention for event in candidate.events}
    assert found == pytest.approx({at: wanted[at] for at in found}, abs=1e-5)
    assert len(found) == np.count_nonzero(wanted)


def test_the_events_that_are_not_named_are_summed(made, store):
    candidate = explained(made("din"), store, [f"i{k}" for k in range(20)])[1]
    wanted = weights_of(made("din"), store, "i1")
    assert (len(candidate.events), candidate.rest.events) == (WEIGHTED, 2)
    total = sum(event.attention for event in candidate.events) + candidate.rest.attention
    assert total == pytest.approx(wanted.sum(), abs=1e-5)
    sizes = [abs(event.attention) for event in candidate.events]
    assert sizes == sorted(sizes, reverse=True)
    assert all(event.position > 8 for event in candidate.events)


def test_it_says_whether_weights_are_shares(made, store, empty_store):
    shares, free = explained(made("sim"), store, VISITS)[0], explained(made("din"), empty_store, VISITS)[0]
    assert shares.attention_note.startswith("the weights are over the user's last 6 events, and sum to 1")
    assert free.attention_note.startswith("the weights are over the user's last 7 events, and free")


def test_a_model_without_attention_says_so(made, store):
    explanation, candidate = explained(made("gru4rec"), store, VISITS)
    assert explanation.attention_over is None
    assert explanation.attention_note.startswith("GRU4Rec has no attention")
    assert (candidate.slots, candidate.events, candidate.rest) == ([], [], None)
    assert len(explanation.recent) == 7


def test_without_a_log_the_recent_history_names_its_own_events(made, store):
    explanation, candidate = explained(made("sim"), store, VISITS, event_log=False)
    assert explanation.events_from == "memory"
    assert explanation.events_note == "events from the stored recent history; 1 of 7 are not known"
    assert [event.item for event in explanation.recent] == VISITS[:0:-1]
    first = min(candidate.events, key=lambda event: event.position)
    assert (first.item, first.time, first.event_type, first.seconds_ago) == ("i21", START + 3 * DAY, "view", 47 * DAY)
    assert first.fields == {"category": "c1"}


def test_the_log_names_what_the_recent_history_knows_by_a_bucket_alone(made, store, empty_store):
    # The last items are not in the vocabulary.
    visits = ["i1", "i59"]
    logged, bare = explained(made("shan"), store, visits), explained(made("shan"), empty_store, visits, event_log=False)
    assert [event.item for event in logged[0].recent] == ["i59", "i1"]
    assert [event.item for event in bare[0].recent] == ["", "i1"]
    assert (logged[0].events_from, bare[0].events_from) == ("store", "memory")


def test_a_target_of_which_nothing_is_found_has_no_events(made, store):
    candidate = explained(made("sim"), store, VISITS, target="i5")[1]
    assert (candidate.events, candidate.rest.events) == ([], 0)


def test_an_unknown_user_has_no_events(made, store):
    explanation = explain(Scorer(made("sim"), store), ScoreRequest("nobody", ["i1"], NOW))
    assert explanation.candidates[0].events == []
    assert explanation.events_note == "the memory has no events yet"


def test_the_service_answers_the_same(made, make_client):
    client = make_client(made("sim"))
    events = [{"user": "u", "item": item, "time": START + DAY * day} for day, item in enumerate(VISITS)]
    client.post("/v1/events", {"events": events})
    reply = client.post("/v1/explain", {"user": "u", "items": ["i1"], "time": NOW}).json()
    assert reply["attention_over"] == "events"
    assert {event["item"] for event in reply["candidates"][0]["events"]} == {"i21", "i31", "i41"}
    assert reply["candidates"][0]["rest"] == {"events": 0, "attention": 0.0}


@pytest.mark.parametrize(("model", "field", "slots"), [("gated_delta", "state", 2), ("mimn", "slot", 8)])
def test_the_slots_that_a_model_reads_have_the_weights_and_its_other_parts_have_none(made, store, model, field, slots):
    explanation, candidate = explained(made(model), store, ["i1", "i2", "i3"])
    assert explanation.attention_over == "slots"
    assert [(part.field, part.slot) for part in candidate.slots] == [(field, slot) for slot in range(slots)]
    assert sum(part.attention for part in candidate.slots) == pytest.approx(1, abs=1e-5)
    assert [part.related[0].item for part in candidate.slots] == ["i1"] * slots


def test_a_slot_of_dynamic_periods_says_how_often_it_was_written_and_up_to_which_event_it_reaches(made, store):
    # Untrained, it is written every 1, 2, 4, ... events.
    explanation, candidate = explained(made("hpmn_dynamic"), store, [f"i{number}" for number in range(1, 7)])
    assert [slot.covers for slot in explanation.slots[:4]] == [6, 6, 4, 0]
    assert [slot.empty for slot in explanation.slots] == [False] * 3 + [True] * 3
    assert [slot.written for slot in explanation.slots[:3]] == [
        "at every event",
        "at 50% of the events",
        "at 17% of the events",
    ]
    assert [slot.window for slot in explanation.slots[:4]] == [(6, 6), (5, 6), (1, 4), None]
    assert [part.slot for part in candidate.slots] == list(range(6))
    # i1 is among the four events of slot 3's last write, and long past for slot 1.
    assert [candidate.slots[place].related[0].in_last_window for place in (0, 2)] == [False, True]
