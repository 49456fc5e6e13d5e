"""Artifact + store -> scores."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from lifelong.errors import RequestError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring import scorer as scoring
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.explain import explain
from lifelong.online.scoring.online_items import OnlineItems
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.contract import ITEMS, Commit

START = 1_700_000_000


def visits(user, items, *, start=START):
    """One event a day."""
    return [UserEvent(user, item, start + 86_400 * day, "view") for day, item in enumerate(items)]


@pytest.fixture
def scorer(artifact, store):
    Updater(artifact, store).apply([*visits("u1", ["i1", "i2", "i3", "i11"]), *visits("u2", ["i5"])])
    return Scorer(artifact, store)


def values(scores):
    return np.array([score.score for score in scores])


def test_scores_stand_in_the_order_of_the_items(scorer):
    forth = scorer.score("u1", ["i1", "i2", "i3"], time=START)
    back = scorer.score("u1", ["i3", "i2", "i1"], time=START)
    assert [score.item for score in forth] == ["i1", "i2", "i3"]
    np.testing.assert_allclose(values(forth), values(back)[::-1], atol=1e-5)


def test_a_user_is_scored_from_her_own_memory(scorer):
    assert abs(scorer.score("u1", ["i1"], time=START)[0].score - scorer.score("u2", ["i1"], time=START)[0].score) > 1e-4


def test_an_unknown_user_is_scored_from_the_empty_memory_and_marked(scorer, artifact, empty_store):
    answer = scorer.answer([ScoreRequest("nobody", ["i1"], START)])[0]
    assert (answer.known_user, answer.count, answer.last_time) == (False, 0, None)
    fresh = Scorer(artifact, empty_store).score("u1", ["i1"], time=START)
    np.testing.assert_allclose(values(answer.scores), values(fresh), atol=1e-6)


def test_a_known_user_comes_with_the_position_and_time_of_her_memory(scorer):
    answer = scorer.answer([ScoreRequest("u1", ["i1"], START)])[0]
    assert (answer.known_user, answer.count, answer.last_time) == (True, 4, START + 3 * 86_400)


def test_many_requests_give_the_scores_of_each_alone(scorer, monkeypatch):
    requests = [
        ScoreRequest(user, [f"i{k}" for k in range(size)], START)
        for user, size in [("u1", 5), ("u2", 1), ("nobody", 3), ("u1", 2)]
    ]
    monkeypatch.setattr(scoring, "_AT_ONCE", 6)
    together = scorer.score_many(requests)
    for request, scores in zip(requests, together, strict=True):
        np.testing.assert_allclose(
            values(scores), values(scorer.score(request.user, request.items, time=START)), atol=1e-5
        )


def test_no_requests_give_no_scores(scorer):
    assert scorer.score_many([]) == []


def test_without_a_time_the_request_is_now(scorer, monkeypatch):
    monkeypatch.setattr(scoring.clock, "time", lambda: START + 0.9)
    assert scorer.score("u1", ["i1"])[0].score == scorer.score("u1", ["i1"], time=START)[0].score


def test_the_moment_of_the_request_counts(scorer):
    soon, late = START + 3 * 86_400 + 60, START + 400 * 86_400
    assert scorer.score("u1", ["i1"], time=soon)[0].score != scorer.score("u1", ["i1"], time=late)[0].score


def test_an_unknown_item_is_scored_through_its_fields(scorer):
    plain = ScoreRequest("u1", ["brand-new"], START)
    given = ScoreRequest("u1", ["brand-new"], START, [{"category": "c1"}])
    assert scorer.score_many([plain])[0][0].score != scorer.score_many([given])[0][0].score


def test_a_field_that_items_do_not_have_is_refused(scorer):
    with pytest.raises(RequestError, match=r"'colour'.*category"):
        scorer.score_many([ScoreRequest("u1", ["i1"], START, [{"colour": "red"}])])


def test_fields_put_online_are_used_and_inline_fields_win(scorer):
    def of(category):
        return scorer.score_many([ScoreRequest("u1", ["brand-new"], START, [{"category": category}])])[0][0].score

    one, two = of("c1"), of("c2")
    scorer.online_items.put({"brand-new": {"category": "c1"}})
    assert scorer.score("u1", ["brand-new"], time=START)[0].score == pytest.approx(one, abs=1e-6)
    assert of("c2") == pytest.approx(two, abs=1e-6)


def test_fields_put_online_are_found_by_a_new_process(artifact, store):
    OnlineItems(artifact, store).put({"brand-new": {"category": "c1"}})
    assert OnlineItems(artifact, store).of("brand-new") == {"category": "c1"}


def test_items_can_be_taken_away_together_and_stay_away(artifact, store):
    online_items = OnlineItems(artifact, store)
    online_items.put({"a": {"category": "c1"}, "b": {"category": "c1"}, "c": {}})
    assert online_items.remove(["a", "c", "never put"]) == 2 and online_items.remove(["a"]) == 0
    for items in (online_items, OnlineItems(artifact, store)):
        assert (items.of("a"), items.of("b"), items.of("c")) == (None, {"category": "c1"}, None)


def test_many_items_put_online_are_neither_loaded_at_the_start_nor_kept_in_ram(artifact, tmp_path, monkeypatch):
    pytest.importorskip("rocksdict")
    from lifelong.online.store.rocksdb import RocksDbStore

    items = {f"new{number}": {"category": f"c{number % 9}"} for number in range(5_000)}
    with contextlib.closing(RocksDbStore(tmp_path / "store", cache=40_000)) as store:
        OnlineItems(artifact, store).put(items)
        removed = OnlineItems(artifact, store).remove(["new17"])
    monkeypatch.setattr(RocksDbStore, "scan", lambda *_: pytest.fail("all items are read"))
    with contextlib.closing(RocksDbStore(tmp_path / "store", cache=40_000)) as store:
        online_items = OnlineItems(artifact, store)
        found = [online_items.of(item) for item in items]
        cache = store._caches.of(ITEMS)
        assert 0 < sum(record is not None for record in cache.get(list(items))) <= 200
    assert removed == 1 and found == [None if item == "new17" else fields for item, fields in items.items()]


def test_what_one_scorer_puts_online_another_sees(artifact, store):
    one, other = OnlineItems(artifact, store), OnlineItems(artifact, store)
    assert other.of("a") is None
    one.put({"a": {"category": "c1"}})
    assert other.of("a") == {"category": "c1"}
    other.put({"a": {"category": "c2"}})
    assert one.of("a") == {"category": "c2"}
    one.remove(["a"])
    assert other.of("a") is None


def test_a_put_keeps_the_fields_that_it_does_not_name(artifact, store):
    online_items = OnlineItems(artifact, store)
    online_items.put({"a": {"category": "c1"}})
    online_items.put({"a": {}})
    assert online_items.of("a") == {"category": "c1"}


def test_a_put_with_a_wrong_field_keeps_nothing(artifact, store):
    online_items = OnlineItems(artifact, store)
    with pytest.raises(RequestError, match="'colour'"):
        online_items.put({"a": {"category": "c1"}, "b": {"colour": "red"}})
    assert online_items.of("a") is None
    assert list(store.scan(ITEMS)) == []


def test_without_a_base_rate_there_is_a_reason_and_no_probability(scorer):
    score = scorer.score("u1", ["i1"], time=START)[0]
    assert score.probability is None
    assert score.reason


def test_a_stated_base_rate_gives_probabilities_that_order_as_the_scores(artifact, store):
    scores = Scorer(artifact, store, base_rate=0.01).score("u1", ["i1", "i2", "i3", "i4"], time=START)
    probability = np.array([score.probability for score in scores])
    assert ((probability > 0) & (probability < 1)).all()
    assert np.array_equal(np.argsort(probability), np.argsort(values(scores)))
    assert all(score.reason is None for score in scores)


def test_scoring_changes_nothing_in_the_store(scorer, store, monkeypatch):
    monkeypatch.setattr(type(store), "commit", lambda self, change: pytest.fail("a read must not write"))
    before = store.read_many(["u1", "nobody"])
    scorer.score("u1", ["i1"], time=START)
    explain(scorer, ScoreRequest("nobody", ["i1"], START))
    assert store.read_many(["u1", "nobody"]) == before


def test_an_erased_user_is_unknown(scorer, store):
    store.commit(Commit(deleted=["u1"]))
    assert not scorer.answer([ScoreRequest("u1", ["i1"], START)])[0].known_user
