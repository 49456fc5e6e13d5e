from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifelong.errors import ConfigError, UsageError
from lifelong.offline.preparation.sources.worlds import WORLDS, Block, WorldSettings, best_auc, blocks, categories

Read, Rows = Callable[..., Any], Callable[..., list[Any]]


def auc(label: Any, score: Any) -> float:
    won = score[label > 0][:, None] - score[label == 0][None, :]
    return float((won > 0).mean() + (won == 0).mean() / 2)


def world(name: str, **settings: Any) -> tuple[WorldSettings, Block]:
    chosen = WorldSettings(world=name, **{"users": 60, **settings})
    assert chosen.problems() == []
    (block,) = blocks(chosen)
    return chosen, block


@pytest.mark.parametrize("name", WORLDS)
def test_the_best_auc_is_that_of_an_oracle(name: str) -> None:
    _, block = world(name, users=200, strength=0.8)
    sample = np.random.default_rng(0).permutation(len(block.label_Q))[:6000]
    reached = auc(block.label_Q[sample], block.probability_Q[sample])
    assert reached == pytest.approx(best_auc(block.probability_Q), abs=0.02)


def test_the_best_auc_of_known_probabilities() -> None:
    assert best_auc(np.array([0.9, 0.1])) == pytest.approx(0.81 + 0.18 / 2)
    assert best_auc(np.array([1.0, 0.0, 0.0])) == 1.0
    assert best_auc(np.array([0.5, 0.5])) == 0.5
    assert best_auc(np.array([1.0, 1.0])) == 0.5


@pytest.mark.parametrize("name", WORLDS)
def test_equal_settings_make_equal_worlds_and_another_seed_another(name: str) -> None:
    first, again, other = (world(name, seed=seed)[1] for seed in (3, 3, 4))
    assert np.array_equal(first.item_UN, again.item_UN)
    assert np.array_equal(first.label_Q, again.label_Q)
    assert not np.array_equal(first.item_UN, other.item_UN)


def test_more_users_change_nothing_for_the_first() -> None:
    few = list(blocks(WorldSettings(users=256)))
    many = list(blocks(WorldSettings(users=300)))
    assert [len(block.item_UN) for block in many] == [256, 44]
    assert np.array_equal(few[0].item_UN, many[0].item_UN)


@pytest.mark.parametrize("name", ["period", "lag"])
@pytest.mark.parametrize("crossed", [0.0, 0.5])
def test_an_order_free_history_and_recent_events_know_nothing(name: str, crossed: float) -> None:
    settings, block = world(name, users=100, crossed=crossed)
    rivals = settings.personal if name == "period" else settings.items // 20 * 2
    nearest = settings.period // 2 - settings.burst + 1 if name == "period" else settings.lag
    for user, position in zip(block.user_Q, block.position_Q, strict=True):
        history = block.item_UN[user, :position]
        counted = np.bincount(history[history < rivals] % 2, minlength=2)
        assert counted[0] == counted[1] > 0
        assert (history[-nearest + 1 :] >= rivals).all()
        assert history[-nearest] < rivals


@pytest.mark.parametrize("name", ["markov", "period", "lag"])
def test_what_a_user_answered_before_tells_nothing(name: str) -> None:
    _, block = world(name, users=250, asked=1)
    yes_Q = block.probability_Q > 0.5
    same_user_Q = block.user_Q[1:] == block.user_Q[:-1]
    assert (yes_Q[1:] == yes_Q[:-1])[same_user_Q].mean() == pytest.approx(0.5, abs=0.1)


def test_in_the_lag_world_the_event_lag_positions_ago_decides() -> None:
    settings, block = world("lag", lag=50, spread=12, crossed=0.3)
    decider = block.item_UN[block.user_Q, block.position_Q - settings.lag]
    yes = decider % 2 == block.item_Q % 2
    assert np.array_equal(block.probability_Q, np.where(yes, 0.9, 1 - 0.9))
    assert 0.2 < (block.item_Q % 2).mean() < 0.4


def test_in_the_period_world_the_item_due_was_seen_one_and_two_periods_ago() -> None:
    settings, block = world("period", period=40, events=200, crossed=0.5, personal=4)
    for user, position, item, probability in zip(
        block.user_Q, block.position_Q, block.item_Q, block.probability_Q, strict=True
    ):
        due, before, other = (block.item_UN[user, position - events] for events in (40, 80, 20))
        assert due == before != other
        assert item in (due, other)
        assert (item == due) == (probability > 0.5)
        assert settings.personal > max(due, other)


def test_questions_of_the_lag_and_period_worlds_stand_at_many_positions() -> None:
    for name in ("lag", "period"):
        _, block = world(name, users=200)
        assert len(np.unique(block.position_Q)) > 50


def test_in_the_checkerboard_a_history_shows_the_users_parity() -> None:
    settings, block = world("checkerboard")
    parity = block.item_UN % settings.groups % 2
    assert (parity == parity[:, :1]).all()
    yes = block.item_Q % settings.groups % 2 == parity[block.user_Q, 0]
    assert np.array_equal(yes, block.probability_Q > 0.5)
    assert parity[:, 0].mean() == 0.5


@pytest.mark.parametrize(("predictability", "best"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_the_dial_of_the_markov_world_sets_what_can_be_known(predictability: float, best: float) -> None:
    settings, block = world("markov", predictability=predictability)
    assert best_auc(block.probability_Q) == pytest.approx(best, abs=0.01)
    place = np.arange(1, settings.events)
    chained = ~np.isin(place % 10, [3, 4])
    follows = successors(block)[block.item_UN[:, place - 1]] == block.item_UN[:, place]
    assert follows[:, chained].mean() == pytest.approx(predictability, abs=0.02)


def test_in_the_markov_world_only_the_order_of_the_last_two_events_tells() -> None:
    _, block = world("markov", users=250)
    following, yes_Q = successors(block), block.probability_Q > 0.5
    last_Q, before_Q = (block.item_UN[block.user_Q, block.position_Q - back] for back in (1, 2))
    assert np.array_equal(block.item_Q, np.where(yes_Q, following[last_Q], following[before_Q]))
    assert not ((block.item_Q == last_Q) | (block.item_Q == before_Q)).any()
    assert yes_Q.mean() == pytest.approx(0.5, abs=0.02)


def successors(block: Block) -> Any:
    """Successor of every item, from the questions that the world answers with yes."""
    yes_Q = block.probability_Q >= 0.5
    last_Q = block.item_UN[block.user_Q, block.position_Q - 1][yes_Q]
    following = np.zeros(block.item_UN.max() + 1, np.int64)
    following[last_Q] = block.item_Q[yes_Q]
    return following


def test_in_the_daytime_world_the_hour_of_the_question_decides(read: Read, rows: Rows) -> None:
    raw = read("synthetic", world="daytime", users="200", events="30", asked="2", strength="1")
    shown = rows(raw.impressions, "user", "time", "response")
    assert {(time % 86_400 < 43_200, label) for _, time, label in shown} == {(True, 1.0), (False, 0.0)}
    hours = np.bincount([time // 3600 % 24 for _, time, _ in shown], minlength=24)
    assert hours.min() > 0 and hours.max() < 3 * hours.mean()
    first = {}
    for user, time, _ in rows(raw.events, "user", "time", "sequence"):
        first[user] = min(time, first.get(user, time))
    assert len(set(first.values())) > 180


def test_noise_is_a_coin() -> None:
    _, block = world("noise")
    assert (block.probability_Q == 0.5).all()


def test_the_source_gives_events_impressions_categories_and_the_best_auc(read: Read, rows: Rows) -> None:
    raw = read("synthetic", world="lag", users="30", events="90", asked="1", seed="1")
    events, shown = rows(raw.events, "user", "time", "sequence"), rows(raw.impressions, "user", "time", "response")
    assert (len(events), len(shown)) == (2700, 30)
    assert events[:2] == [("u0", 1_577_836_800, 0), ("u0", 1_577_840_400, 1)]
    assert all(1_577_836_800 + 3600 * 89 <= time <= 1_577_836_800 + 3600 * 90 for _, time, _ in shown)
    assert {label for _, _, label in shown} <= {0.0, 1.0}
    assert len(rows(raw.items, "item", "category")) == 200
    assert {category for _, category in rows(raw.items, "item", "category")} == {"red", "blue", "plain"}
    assert (raw.protocol, raw.record["seed"], raw.record["world"]) == ("impressions", 1, "lag")
    assert 0.5 < raw.record["best_auc"] < 1 and "lag" in raw.record["known_by"]


def test_an_impression_stands_between_the_events_around_it(read: Read) -> None:
    raw = read("synthetic", world="markov", users="2", events="30")
    (block,) = blocks(WorldSettings(world="markov", users=2, events=30))
    seconds = raw.impressions.order_by("sequence")["time"].to_pyarrow().to_numpy() - 1_577_836_800
    assert np.array_equal(-(-seconds // 3600), block.position_Q)
    assert (seconds % 3600 == 1800).all()


def test_categories_say_group_colour_or_plain() -> None:
    assert categories(WorldSettings(world="checkerboard", items=16))[:9:8] == ["group 0", "group 0"]
    assert set(categories(WorldSettings(world="markov"))) == {"plain"}
    assert categories(WorldSettings(world="period"))[:3] == ["personal", "personal", "plain"]


def test_all_wrong_options_are_told_at_once(read: Read) -> None:
    with pytest.raises(ConfigError) as caught:
        read("synthetic", world="mars", users="many", lag="0", strength="2")
    told = " ".join(caught.value.problems)
    assert all(words in told for words in ("'mars'", "'many'", "lag = 0", "strength = 2"))
    with pytest.raises(ConfigError, match="no option 'sead'"):
        read("synthetic", sead="1")
    with pytest.raises(ConfigError, match="at least twice the period"):
        read("synthetic", world="period", events="100", period="60")


def test_files_are_refused(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="makes its rows"):
        read("synthetic", tmp_path / "a.csv")
