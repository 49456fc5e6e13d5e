from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from lifelong.offline.models import all_names, model_class
from lifelong.offline.preparation.sources.worlds import WORLDS, WorldSettings
from support.knowledge import ALL, SIGHTS, Knowledge, Sight, can_know, sight_of
from support.planted import BUDGETS, CHECKED, KNOWLEDGE, NARROW, cells

pytestmark = pytest.mark.torch


FORMULAS = {"topfreq", "topfreq_personal", "upcf", "tifu_knn"}
WITHOUT_A_BAR = {*FORMULAS, "recanet"}
"""Models that have none in some world."""


def can(model: str, world: str, settings: dict[str, Any] | None = None, **dials: Any) -> bool | None:
    return can_know(model, WorldSettings(world=world, **dials), settings).can


def test_the_table_says_of_every_model_and_form_in_every_world_what_it_can_know_and_why() -> None:
    assert list(KNOWLEDGE) == list(WORLDS) == list(CHECKED) == list(BUDGETS)
    for row in KNOWLEDGE.values():
        assert list(row) == all_names()
        assert all(knowledge.reason for knowledge in row.values())
        assert {model for model, knowledge in row.items() if knowledge.can is None} <= WITHOUT_A_BAR


def test_every_class_of_model_has_a_sight_and_no_other_has() -> None:
    assert set(SIGHTS) == {model_class(name, {}).__name__ for name in all_names()}


@pytest.mark.parametrize("world", CHECKED.values(), ids=str)
def test_the_worlds_of_the_table_can_be_made(world: WorldSettings) -> None:
    assert world.problems() == []


def test_every_world_but_noise_is_known_by_some_and_not_by_all() -> None:
    for world, row in KNOWLEDGE.items():
        found = {knowledge.can for model, knowledge in row.items() if model not in WITHOUT_A_BAR}
        assert found == ({False} if world == "noise" else {True, False})


def test_a_model_of_twenty_events_cannot_know_a_lag_of_two_hundred() -> None:
    for model, name in (("caser", "recent"), ("memn2n", "recent"), ("attrec", "window"), ("dien", "recent")):
        assert can(model, "lag", {name: 20}, lag=200) is False
        assert can(model, "lag", {name: 200}, lag=200) is True
    assert can("rum_item", "lag", {"slots": 20}, lag=200) is False
    assert can("fpmc", "lag", lag=1) is True


def test_a_stack_sees_no_further_than_its_layers_reach() -> None:
    assert sight_of("hstu", {"recent": 20, "layers": 2}).ordered == 19
    assert can("hstu", "lag", {"recent": 20}, lag=20) is False
    assert can("hstu", "lag", {"recent": 20}, lag=19) is True


def test_a_window_without_order_knows_a_lag_where_it_holds_the_later_burst_alone() -> None:
    found = [can("rum_item", "lag", {"slots": slots}, lag=60) for slots in (59, 60, 75, 85, 90)]
    assert found == [False, True, True, None, False]


def test_a_window_without_order_knows_a_period_where_it_holds_more_of_one_item() -> None:
    found = [can("din", "period", {"recent": recent}, period=60, burst=5) for recent in (25, 26, 59, 60, 85, 86)]
    assert found == [False, True, True, False, False, True]


def test_ages_in_powers_of_two_tell_bursts_apart_where_one_lies_between() -> None:
    assert [can("sim", "lag", lag=lag) for lag in (40, 50, 60, 200)] == [False, None, True, False]
    assert [can("twin", "lag", lag=lag) for lag in (40, 50, 60, 200)] == [None, True, True, False]


def test_a_search_for_what_is_like_the_target_may_miss_the_item_before_it() -> None:
    for form, everything in (("sim_soft", {"hits": 60}), ("sim_cluster", {"near": 64})):
        assert can(form, "markov", events=60, items=20) is (True if form == "sim_soft" else None)
        assert can(form, "markov", events=400) is None
        assert can(form, "markov", everything, events=60) is True
    assert can("sim", "markov", events=400) is True


def test_one_mean_hardly_tells_the_last_event_from_the_one_before() -> None:
    assert [can("attrec", "markov", {"window": window}) for window in (1, 2, 50)] == [True, None, None]


def test_one_remembered_event_needs_no_order() -> None:
    assert can("rum_item", "markov", {"slots": 1}) is True
    assert can("rum_item", "markov", {"slots": 2}) is False


def test_the_hour_is_known_to_whoever_reads_it() -> None:
    assert [can(model, "daytime") for model in ("mf", "gbdt", "counts", "hpmn_authors")] == [True, True, False, False]
    fields = ([], ["gap"], ["time_of_day"], ["gap", "hour"], ["time_of_week"])
    assert [can("hpmn", "daytime", {"context": chosen}) for chosen in fields] == [False, False, True, True, None]


def test_who_knows_the_user_alone_knows_what_never_changes() -> None:
    assert [can("mf", world) for world in WORLDS] == [True, False, False, False, True, False]


def test_who_knows_gaps_of_the_item_alone_knows_what_is_due() -> None:
    assert [can("recanet", world) for world in WORLDS] == [None, False, True, None, True, False]


@pytest.mark.parametrize(("auc", "holds"), [(0.821, True), (0.81, False), (0.9, True), (0.3, False)])
def test_what_can_be_known_is_known_where_four_fifths_of_the_lift_are_reached(auc: float, holds: bool) -> None:
    assert Knowledge(True, "sees all").holds(auc, 0.9) is holds


@pytest.mark.parametrize(("auc", "holds"), [(0.5, True), (0.519, True), (0.53, False), (0.47, False)])
def test_what_cannot_be_known_is_at_chance(auc: float, holds: bool) -> None:
    assert Knowledge(False, "sees nothing").holds(auc, 0.9) is holds


def test_what_is_seen_in_part_has_no_bar() -> None:
    assert Knowledge(None, "sees a part").holds(0.6, 0.9)


def test_models_see_what_their_settings_let_them() -> None:
    assert sight_of("popularity") == Sight()
    assert sight_of("shan", {"short": 5}) == Sight(pooled=(5, 1000), clock=True)
    assert sight_of("eta", {"short": 5, "recent": 3}) == Sight(pooled=(3, 3), clock=True)
    assert sight_of("sdim", {"short": 5}).pooled == (5, ALL)
    assert sight_of("twin", {"short": 5}).pooled == sight_of("sim", {"short": 5}).pooled == (5,)
    assert sight_of("hpmn") == Sight(ordered=ALL, clock=True)
    assert sight_of("tally") == Sight(ordered=ALL, counted=True, clock=True)
    assert sight_of("tally", {"periods": []}) == Sight(counted=True, clock=True)
    assert sight_of("din", {"recent": 9, "counts": True}) == Sight(pooled=(9,), counted=True, clock=True)
    assert sight_of("hpmn_authors", {"sequence": 24}) == Sight(user=True, ordered=23)


def test_cells_are_every_model_in_every_world_and_narrow_windows_in_lag() -> None:
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names) > len(WORLDS) * len(all_names())
    assert not any(cell.knowledge.can for cell in cells() if cell.settings in NARROW.values())
    assert {"noise-hpmn", "lag-caser", "lag-caser-recent=12", "markov-sim_cluster-near=64"} <= set(names)
