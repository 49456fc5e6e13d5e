"""Counters behind a score. The artifact is an untrained tally with periods 1, 2, 4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from support.artifacts import tiny_artifact

from lifelong import cli
from lifelong.artifact.folder import Artifact
from lifelong.cli.explain import counted_rows
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.catalogue_view import find_items
from lifelong.online.scoring.explain import explain
from lifelong.online.scoring.explanation import Affinity, Counted, CountedValue
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.scoring.user_view import timeline
from lifelong.online.store.contract import Commit
from lifelong.online.store.ram import InMemoryStore
from lifelong.tally.plan import precision

pytestmark = pytest.mark.torch
START = 1_700_000_000
DAY = 86_400
LATER = START + 100 * DAY


@pytest.fixture(scope="module")
def tally(dataset, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("tally") / "artifact", dataset, model="tally")


@pytest.fixture
def scorer(tally, store):
    return Scorer(tally, store)


def fold(tally, store, items):
    events = [UserEvent("u", item, START + DAY * day, "view") for day, item in enumerate(items)]
    Updater(tally, store).apply(events)


def values_of(scorer, item):
    counted = explain(scorer, ScoreRequest("u", [item], LATER)).candidates[0].counted
    return {value.field: value for value in counted.values}


def test_it_says_how_often_and_how_long_ago_a_value_was_met(tally, store, scorer):
    # i1 and i11 share the category c1.
    fold(tally, store, ["i1", "i2", "i1", "i11", "i3"])
    values = values_of(scorer, "i1")
    assert (values["item"].state, values["item"].times, values["item"].events_ago) == ("counted", 2, 3)
    assert (values["category"].value, values["category"].times, values["category"].events_ago) == ("c1", 3, 2)


def test_an_age_is_said_by_the_middle_of_its_step(tally, store, scorer):
    fold(tally, store, ["i1", *(f"i{number}" for number in range(20, 28))])
    # Eight events later: the step of 7 to 10 events, 9 in the middle; the last event is one event ago.
    assert values_of(scorer, "i1")["item"].events_ago == 1 + 9


def test_a_value_that_was_never_met_is_new_and_has_no_effect(tally, store, scorer):
    fold(tally, store, ["i1", "i2"])
    value = values_of(scorer, "i5")["item"]
    assert (value.state, value.times, value.events_ago, value.effect) == ("new", 0, None, 0.0)


def test_an_unknown_category_is_not_counted(tally, store, scorer):
    fold(tally, store, ["i1"])
    value = values_of(scorer, "never heard of")["category"]
    assert (value.state, value.value, value.effect) == ("unknown", None, 0.0)


def keep(store, scorer, change):
    """Change the one memory in the store."""
    states, _ = scorer.states(["u"])
    change(states.fields)
    store.commit(Commit(records={0: {"u": scorer.runtime.encode(states)[0]}}))


def test_an_effect_is_the_score_less_that_of_a_memory_without_the_fields_cells(tally, store, scorer):
    fold(tally, store, ["i1", "i2", "i1"])
    score = scorer.score("u", ["i1"], time=START + 100 * DAY)[0].score
    effect = values_of(scorer, "i1")["item"].effect
    items = scorer.runtime.counting.plan.cells_F[0]
    keep(store, scorer, lambda fields: fields["cell"][0, :items].fill(0))
    without = scorer.score("u", ["i1"], time=START + 100 * DAY)[0].score
    assert effect != 0
    assert effect == pytest.approx(score - without, abs=1e-5)


def test_the_effect_of_the_slots_is_the_score_less_that_of_a_memory_with_empty_ones(tally, store, scorer):
    fold(tally, store, ["i1", "i2", "i1"])
    explained = explain(scorer, ScoreRequest("u", ["i1"], LATER)).candidates[0]
    keep(store, scorer, lambda fields: fields["slot"].fill(0))
    without = scorer.score("u", ["i1"], time=START + 100 * DAY)[0].score
    assert explained.counted.slots_effect == pytest.approx(explained.score - without, abs=1e-5)


@pytest.mark.parametrize("place", [0, 1])
def test_the_effect_of_an_affinity_is_the_score_less_that_of_a_memory_with_empty_sums_of_the_field(
    tally, store, scorer, place
):
    fold(tally, store, ["i1", "i2", "i1"])
    explained = explain(scorer, ScoreRequest("u", ["i5"], LATER)).candidates[0]
    affinity = explained.counted.affinities[place]
    # A state of 512 bytes has an eighth of the numbers of a whole one: 4 for the item, then 2 for the category.
    own = (slice(0, 4), slice(4, 6))[place]
    keep(store, scorer, lambda fields: fields["sums"][0, :, own].fill(0))
    without = scorer.score("u", ["i5"], time=LATER)[0].score
    assert affinity.field == ("item", "category")[place]
    assert affinity.effect != 0
    assert affinity.effect == pytest.approx(explained.score - without, abs=1e-5)


def test_an_affinity_is_the_cosine_of_the_values_factor_and_those_of_the_events(tally, store, scorer):
    fold(tally, store, ["i1", "i2"])
    row_C = scorer.online_items.numbers(["i1", "i2", "i5"], None)[:, 0]
    first, second, asked = tally.tables["item"][row_C, -4:].astype(float)
    for name, weight in (("cosine", 1.0), ("cosine_lately", 2 ** (-1 / 100))):
        total = weight * first + second
        affinity = explain(scorer, ScoreRequest("u", ["i5"], LATER)).candidates[0].counted.affinities[0]
        expected = total @ asked / np.linalg.norm(total) / np.linalg.norm(asked)
        assert getattr(affinity, name) == pytest.approx(expected, abs=1e-5)


def test_an_unknown_value_and_an_empty_memory_have_no_affinity(tally, store, scorer):
    empty = explain(scorer, ScoreRequest("nobody", ["i1"], LATER)).candidates[0].counted.affinities
    fold(tally, store, ["i1"])
    unknown = explain(scorer, ScoreRequest("u", ["never heard of"], LATER)).candidates[0].counted.affinities[1]
    assert {(of.cosine, of.cosine_lately, of.effect) for of in (*empty, unknown)} == {(0.0, 0.0, 0.0)}


def test_a_terminal_shows_a_row_for_each_field_counted_each_affinity_and_the_slots(tally, store, scorer):
    fold(tally, store, ["i1", "i2"])
    counted = explain(scorer, ScoreRequest("u", ["i1"], LATER)).candidates[0].counted
    rows = counted_rows(counted)
    assert [row[0] for row in rows] == ["item", "category", "item, by other users", "category, by other users", "slots"]
    first = counted.affinities[0]
    assert rows[2][2:] == [f"fits {first.cosine:+.2f}", f"lately {first.cosine_lately:+.2f}", f"{first.effect:+.3f}"]


@pytest.mark.parametrize(
    ("times", "exactness", "words"),
    [
        (1, "exact", "once"),
        (7, "exact", "7 times"),
        (8, "about", "about 8 times"),
        (16, "about", "about 16 times"),
        (28, "at_least", "28 times or more"),
    ],
)
def test_how_exact_a_count_is_is_said(times, exactness, words):
    assert precision(times) == exactness
    value = CountedValue("item", "i1", "counted", times, 4, precision(times), 0.5)
    assert counted_rows(Counted(values=[value], affinities=[], slots_effect=None))[0][2:4] == [
        words,
        "about 4 events ago",
    ]


@pytest.mark.parametrize(
    ("events", "seconds", "words"),
    [
        (None, None, ""),
        (1, DAY, "the last event"),
        (2, None, "2 events ago"),
        (3, None, "about 3 events ago"),
        (10, 10 * DAY, "10 days ago"),
    ],
)
def test_an_age_that_the_memory_has_in_steps_is_said_as_about(events, seconds, words):
    value = CountedValue("item", "i1", "counted", 2, events, "exact", 0.5, seconds_ago=seconds)
    assert counted_rows(Counted(values=[value], affinities=[], slots_effect=None))[0][3] == words


def test_no_day_is_named_where_later_events_are_not_known(tally, store, scorer):
    fold(tally, store, ["i1", "i2", "i1", "i3"])
    assert values_of(scorer, "i1")["item"].seconds_ago == LATER - START - 2 * DAY
    # Of the log, the first two events are left: the item was seen again after them.
    log = store.logs([("u", 0)])[0]
    store.logs = lambda asked: [log[:2] for _ in asked]
    assert values_of(scorer, "i1")["item"].seconds_ago is None
    # The last two are left: it is known when that was.
    store.logs = lambda asked: [log[2:] for _ in asked]
    assert values_of(scorer, "i1")["item"].seconds_ago == LATER - START - 2 * DAY


def met(scorer):
    (candidate,) = explain(scorer, ScoreRequest("u", ["i1"], LATER)).candidates
    return counted_rows(candidate.counted)[0][2]


@pytest.mark.parametrize("times", [8, 9, 10, 11, 27, 82])
def test_a_coarse_count_is_said_as_such_unless_the_log_has_the_true_one(tally, store, scorer, times):
    fold(tally, store, ["i1"] * times)
    value = values_of(scorer, "i1")["item"]
    assert (value.logged, value.seconds_ago) == (times, LATER - START - DAY * (times - 1))
    assert value.times <= times and value.precision == ("at_least" if value.times == 28 else "about")
    assert met(scorer) == f"{times} times"
    # The same memory without a log.
    without = InMemoryStore()
    without.bind(scorer.identity)
    without.commit(Commit(records={0: dict(store.scan(0))}))
    bare = Scorer(tally, without)
    assert values_of(bare, "i1")["item"].logged is None
    assert met(bare) == (f"{value.times} times or more" if value.times == 28 else f"about {value.times} times")


def test_what_rounds_to_zero_is_shown_without_a_sign():
    value = CountedValue(
        field="item", value="i1", state="new", times=0, events_ago=None, precision="exact", effect=-0.0004
    )
    affinity = Affinity(field="item", cosine=-0.004, cosine_lately=0.004, effect=-0.0)
    rows = counted_rows(Counted(values=[value], affinities=[affinity], slots_effect=0.0004))
    assert [row[-1] for row in rows] == ["0.000", "0.000", "0.000"]
    assert rows[1][2:4] == ["fits 0.00", "lately 0.00"]


def test_the_attention_over_the_slots_is_told_as_well_and_counters_are_no_slots(tally, store, scorer):
    fold(tally, store, ["i1", "i2", "i3"])
    explanation = explain(scorer, ScoreRequest("u", ["i1", "i2"], LATER))
    assert [slot.field for slot in explanation.slots] == ["slot"] * 3
    assert sum(part.attention for part in explanation.candidates[1].slots) == pytest.approx(1, abs=1e-5)


def test_the_service_answers_the_same(tally, make_client):
    client = make_client(tally)
    events = [
        {"user": "u", "item": item, "time": START + day, "event_type": "view"} for day, item in enumerate(["i1"] * 2)
    ]
    assert client.post("/v1/events", {"events": events}).status_code == 200
    reply = client.post("/v1/explain", {"user": "u", "items": ["i1"]}).json()
    values = {value["field"]: value for value in reply["candidates"][0]["counted"]["values"]}
    assert (values["item"]["state"], values["item"]["times"]) == ("counted", 2)
    affinities = reply["candidates"][0]["counted"]["affinities"]
    assert [of["field"] for of in affinities] == ["item", "category"]
    assert affinities[0].keys() == {"field", "cosine", "cosine_lately", "effect"}


def test_a_memory_without_counters_has_no_such_part(artifact, make_client):
    client = make_client(artifact)
    reply = client.post("/v1/explain", {"user": "u", "items": ["i1"]}).json()
    assert reply["candidates"][0]["counted"] is None


@pytest.fixture(scope="module")
def shop():
    """The artifact of `lifelong try`, whose items have prices; rye bread costs 8.45."""
    return Artifact.open(Path(cli.__file__).parent / "shop" / "artifact")


def test_a_price_is_said_as_it_is_and_not_as_the_level_that_it_is_counted_under(shop, store):
    events = [UserEvent("u", item, START + DAY * day) for day, item in enumerate(["rye bread", "gouda", "new"])]
    events[2] = replace(events[2], fields={"price": "8.30"})
    Updater(shop, store).apply(events)
    scorer = Scorer(shop, store)
    scorer.online_items.put({"cola": {"price": "12.75"}})
    items = ["rye bread", "cola", "mead", "jam"]
    given = [None, None, {"price": "11"}, None]
    explained = explain(scorer, ScoreRequest("u", items, LATER, fields=given))
    said = ["8.45", "12.75", "11", None]
    assert [candidate.fields["price"] for candidate in explained.candidates] == said
    counted = [{of.field: of for of in candidate.counted.values}["price"] for candidate in explained.candidates]
    assert [of.value for of in counted] == said
    # Bread and the new item are of one level, which is counted.
    assert [of.times for of in counted] == [2, 0, 0, 0]
    assert [event.fields["price"] for event in explained.recent] == ["8.30", "4.05", "8.45"]
    assert timeline(scorer, "u", last=9).fields["price"].values == ["8.45", "4.05", "8.30"]
    assert find_items(scorer, "rye", most=1).items[0].fields == {"category": "bakery", "price": "8.45"}
