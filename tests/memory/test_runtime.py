"""Graphs and tables without torch."""

import numpy as np
import pytest

from lifelong.online.memory import runtime as running
from lifelong.online.memory.runtime import Runtime


@pytest.fixture(scope="module")
def runtime(artifact):
    return Runtime(artifact)


def events(users, seed=0):
    rng = np.random.default_rng(seed)
    sizes = (64, 12, 4, 36)
    return np.stack([rng.integers(1, size, users) for size in sizes], axis=1), rng.integers(0, 10**9, users)


def written(runtime, users, rounds=5):
    states = runtime.empty(users)
    for seed in range(rounds):
        states = runtime.write(states, *events(users, seed))
    return states


def targets(users, candidates, seed=0):
    rng = np.random.default_rng(seed)
    number = np.stack([rng.integers(1, size, (users, candidates)) for size in (64, 12)], axis=-1)
    context = np.stack([rng.integers(1, size, (users, 1)) for size in (36, 26, 9)], axis=-1)
    return number, context, np.full(users, 2_000)


def test_a_write_counts_and_keeps_the_latest_time(runtime):
    number, time = events(2)
    states = runtime.write(runtime.empty(2), number, time)
    earlier = runtime.write(states, number, time - 5)
    assert earlier.count_B.tolist() == [2, 2]
    assert np.array_equal(earlier.last_time_B, time)


def test_a_write_leaves_its_input_as_it_was(runtime):
    states = runtime.empty(2)
    runtime.write(states, *events(2))
    assert states.count_B.tolist() == [0, 0]
    assert not states.fields["slot"].any()


def test_only_slots_whose_period_divides_the_count_are_written(runtime):
    states = written(runtime, 1, rounds=3)
    filled = np.abs(states.fields["slot"][0]).max(axis=1) > 0
    assert filled.tolist() == [True, True, False]


def test_chunks_of_users_and_candidates_change_nothing(runtime, monkeypatch):
    states = written(runtime, 7)
    questions = targets(7, 11)
    whole, attention = runtime.score(states, *questions, attention=True)
    after = runtime.write(states, *events(7)).fields["slot"]
    monkeypatch.setattr(running, "_USERS", 3)
    monkeypatch.setattr(running, "_CELLS", 4)
    parts, attention_parts = runtime.score(states, *questions, attention=True)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    np.testing.assert_allclose(attention_parts, attention, atol=1e-5)
    np.testing.assert_allclose(runtime.write(states, *events(7)).fields["slot"], after, atol=1e-5)


def test_attention_over_the_written_slots_sums_to_one(runtime):
    attention = runtime.score(written(runtime, 2, rounds=2), *targets(2, 3), attention=True)[1]
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-6)
    assert not attention[..., 2].any()


def test_an_empty_memory_gives_a_score_and_no_attention(runtime):
    logit, attention = runtime.score(runtime.empty(1), *targets(1, 4), attention=True)
    assert np.isfinite(logit).all()
    assert not attention.any()


@pytest.mark.parametrize(("users", "candidates"), [(0, 3), (2, 0)])
def test_nothing_to_score_gives_empty_arrays_of_the_right_shape(runtime, users, candidates):
    logit, attention = runtime.score(runtime.empty(users), *targets(users, candidates), attention=True)
    assert logit.shape == (users, candidates, 1)
    assert attention.shape == (users, candidates, 3)


def test_nobody_to_write_for_is_fine(runtime):
    number, time = events(0)
    assert len(runtime.write(runtime.empty(0), number, time)) == 0
