"""Several events of one user at once."""

import numpy as np
import pytest

from lifelong.online.memory.codec import CODECS
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.store.ram import InMemoryStore


def numbers(runtime, length, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, len(runtime._tables[field]), length) for field in runtime._event]
    return np.stack(rows, axis=1), 1_700_000_000 + np.arange(length)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("length", [0, 1, 37])
def test_a_run_is_what_single_writes_give_bit_for_bit(artifact, codec, length):
    runtime = Runtime(artifact, codec=codec)
    number_LF, time_L = numbers(runtime, length)
    states = runtime.write(runtime.empty(1), *(part[:1] for part in numbers(runtime, 1, seed=1)))
    wanted = states
    for place in range(length):
        wanted = runtime.write(wanted, number_LF[place : place + 1], time_L[place : place + 1])
    found = runtime.write_run(states, number_LF, time_L)
    assert runtime.encode(found) == runtime.encode(wanted)


def test_a_late_event_in_a_run_leaves_the_last_time(artifact):
    runtime = Runtime(artifact)
    number_LF, time_L = numbers(runtime, 3)
    assert runtime.write_run(runtime.empty(1), number_LF, time_L[::-1]).last_time_B.tolist() == [int(time_L[-1])]


@pytest.mark.parametrize("first", range(5))
def test_a_user_who_dominates_a_batch_and_the_others_get_the_bytes_that_single_events_give(artifact, first):
    rng = np.random.default_rng(first)
    users = [f"u{rng.integers(0, 9)}" if chance < 0.2 else "busy" for chance in rng.random(400)]
    events = [
        UserEvent(user, f"i{item}", 1_700_000_000 + place, "view")
        for place, (user, item) in enumerate(zip(users, rng.integers(0, 60, 400).tolist(), strict=True))
    ]
    together, single = Updater(artifact, InMemoryStore()), Updater(artifact, InMemoryStore())
    # Users begin at counts that no period divides.
    for some in (events[:first], events[first:]):
        together.apply(some)
    for event in events:
        single.apply([event])
    names = sorted(set(users))
    assert together.store.read_many(names) == single.store.read_many(names)
    for name in names:
        assert together.store.events(name) == single.store.events(name)
