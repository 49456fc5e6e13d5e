"""Event ids on a server: they expire as time passes for the processes that use it, whatever any clock is set to."""

import contextlib
import random
import time

import pytest
from support.power_loss import library
from support.valkey import Server, free_port

from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import REMEMBER, Updater
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.shared_clock import SharedSeconds

HOUR, DAY, YEAR, START = 3_600, 86_400, 365 * 86_400, 1_700_000_000
JUMPS = (25 * HOUR, 0, -25 * HOUR, 10 * YEAR, -10 * YEAR, 0)


def injected(store, seconds):
    """Let time pass for a store as a test says."""
    store._clock = SharedSeconds(store._exchange, passed=lambda: seconds[0])


@pytest.fixture
def wrong_clock(tmp_path, needs_valkey):
    """A server, and a function that sets its system clock wrong by some seconds."""
    from pathlib import Path

    made, file = library(Path(__file__).parents[1] / "support" / "wrong_clock.c"), tmp_path / "wrong"
    if made is None:
        pytest.skip("there is no C compiler")
    environment = {"LD_PRELOAD": str(made), "LIFELONG_WRONG_CLOCK": str(file)}
    one = Server(tmp_path / "server", free_port(), environment=environment)

    def jump(seconds):
        file.write_text(str(seconds))
        # The server expires keys, ten times a second, by the clock that it now has.
        time.sleep(0.3)
        assert abs(int(one.call("time").split()[0]) - time.time() - seconds) < 60

    try:
        one.start()
        yield f"redis://127.0.0.1:{one.port}", jump
    finally:
        one.kill()


def test_a_servers_clock_that_jumps_makes_no_event_count_twice(artifact, wrong_clock):
    url, jump = wrong_clock
    with contextlib.closing(open_store(url)) as store:
        updater, event = Updater(artifact, store), UserEvent("u", "i1", START, event_id="first")
        assert updater.apply([event]).applied == 1
        for number, seconds in enumerate(JUMPS):
            jump(seconds)
            assert updater.apply([UserEvent("u", "i2", START, event_id=f"{number}")]).applied == 1
            assert updater.apply([event]).duplicates == 1
            with contextlib.closing(open_store(url)) as opened_meanwhile:
                other = Updater(artifact, opened_meanwhile)
                assert other.apply([UserEvent("u", "i2", START, event_id=f"other {number}")]).applied == 1
                assert other.apply([event]).duplicates == 1


def test_clients_whose_clocks_differ_by_years_know_each_others_event_ids(artifact, redis_url, monkeypatch):
    real, wrong = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: real() + wrong[0])
    with contextlib.ExitStack() as stack:
        updaters = []
        for wrong[0] in (0, 10 * YEAR, -10 * YEAR):
            store = stack.enter_context(contextlib.closing(open_store(redis_url)))
            updaters.append(Updater(artifact, store, now=None))
        for number, writer in enumerate(updaters):
            event = UserEvent("u", "i1", START, event_id=f"{number}")
            wrong[0] = 0
            assert writer.apply([event]).applied == 1
            for wrong[0] in (0, 25 * HOUR, 10 * YEAR):
                assert [other.apply([event]).duplicates for other in updaters] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["redis_url", "cluster_url"])
def test_an_event_id_is_forgotten_when_its_time_has_passed_and_users_who_stay_away_leave_nothing(request, kind):
    seconds = [0.0]
    with contextlib.closing(open_store(request.getfixturevalue(kind))) as store:
        injected(store, seconds)
        begun = store.clock()
        for quarter in range(4 * 24 * 4):
            seconds[0] = quarter * 900.0
            user = f"u{quarter}"
            assert store.clock() - begun == quarter * 900
            assert store.seen([(user, "x")], now=store.clock()) == [False]
            store.commit(Commit(event_ids={(user, "x"): store.clock() + REMEMBER}))
            known = store.seen([(f"u{earlier}", "x") for earlier in range(quarter + 1)], now=store.clock())
            assert known == [quarter - earlier < 100 for earlier in range(quarter + 1)]
        if kind == "redis_url":
            assert len(store._client.keys(store._key(0, "d:*"))) <= 101
            assert store._ask([("ZCARD", store._key(0, "expiries"))])[0] <= 101


def test_erasing_a_user_leaves_the_name_nowhere(redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        store.commit(Commit(records={0: {"ann": b"1"}}, event_ids={("ann", "x"): store.clock() + DAY}))
        store.commit(Commit(deleted=["ann"]))
        left = store._client.keys(store._key(0, "*"))
        assert not [key for key in left if b"ann" in key]
        assert store._ask([("ZCARD", store._key(0, "expiries"))])[0] == 0


def test_no_key_of_event_ids_expires_by_the_servers_clock(redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        store.commit(Commit(event_ids={("u", "x"): store.clock() + DAY}))
        keys = [store._of("u", "d"), store._key(0, "expiries"), store._key(0, "clock")]
        assert store._ask([("TTL", key) for key in keys]) == [-1] * 3


def test_a_store_for_reading_sees_the_clock_and_does_not_advance_it(redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        begun, seconds = store.clock(), [0.0]
        with contextlib.closing(open_store(redis_url, read_only=True)) as reader:
            injected(reader, seconds)
            seconds[0] = 3_600
            assert reader.clock() == store.clock() == begun


@pytest.mark.parametrize("seed", range(20))
def test_processes_that_come_go_and_sleep_keep_each_id_for_a_day_and_not_for_ever(seed):
    """The count is never faster than time, but for half an hour once; and it is not much slower while it is used."""
    draw, place, moment = random.Random(seed), [START], [0.0]

    def exchange(seen, later):
        place[0] = later if place[0] == seen else place[0]
        return place[0]

    def process():
        return SharedSeconds(exchange, passed=lambda: moment[0])

    some, written = [process() for _ in range(4)], []
    for _ in range(5_000):
        moment[0] += draw.choice([0.3, 5, 70, 600, 5_000, 30 * HOUR] if draw.random() < 0.1 else [0.3, 5, 70])
        number = draw.randrange(len(some))
        if draw.random() < 0.02:
            some[number] = process()
        now = some[number].now()
        written.append((moment[0], now + REMEMBER))
        for then, expiry in draw.sample(written, min(20, len(written))):
            if moment[0] - then <= DAY:
                assert expiry > now, f"an id of {moment[0] - then} s ago is forgotten"
    # From here on a process looks every ten minutes.
    begun, count = moment[0], some[0].now()
    for _ in range(1_000):
        moment[0] += 600
        some[0].now()
    assert some[0].now() - count >= 0.99 * (moment[0] - begun)
