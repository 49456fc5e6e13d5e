"""What is acknowledged is on replicas, where the URL says so, and no failover loses it; else the loss is noticed."""

import random
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from support.events import assert_equal_to_a_replay
from support.valkey import cluster, replica, sentinel, server, url_of_cluster, wait_for_takeover

from lifelong.errors import StoreBehindError, StoreError, StoreUnavailableError
from lifelong.online.background import Patience
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.forgetting import forget
from lifelong.online.memory.updater import Updater
from lifelong.online.store import redis_client
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.redis_address import parse
from lifelong.testing.store_contract import IDENTITY

pytestmark = pytest.mark.usefixtures("needs_valkey")

START = 1_700_000_000
LOGGED = ("--appendonly", "yes", "--appendfsync", "everysec")
UNACKNOWLEDGED = r"has kept what was written, but after 0.5 seconds 0 of 1 replicas had it; it is not acknowledged"
PATIENT = Patience(60)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(redis_client, "_RETRIES", 2)


@pytest.fixture
def pair(tmp_path):
    """A primary and its replica."""
    with server(tmp_path / "primary") as primary, replica(tmp_path / "replica", primary) as follower:
        yield primary, follower


def url_of(one, *, wait=0.5):
    return f"redis://127.0.0.1:{one.port}?replicas=1&replica_timeout={wait}"


@contextmanager
def paused(one):
    one.pause()
    try:
        yield
    finally:
        one.resume()


@contextmanager
def opened(url):
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


def events_of(numbers, *, ids=False, users=5):
    return [UserEvent(f"u{k % users}", f"i{k}", START + k, "view", event_id=f"e{k}" if ids else None) for k in numbers]


# A commit waits


@pytest.mark.parametrize("place", [{"source": "s", "offsets": range(10)}, {}], ids=["offsets", "event ids"])
def test_a_batch_is_acknowledged_only_when_a_replica_has_it_also_when_it_is_sent_again(artifact, pair, place):
    primary, follower = pair
    events = events_of(range(10), ids=not place)
    with opened(url_of(primary)) as store, opened(url_of(primary)) as other:
        updater = PATIENT(lambda: Updater(artifact, store))
        with paused(follower):
            # By the connections that wrote, and by others.
            for one in (updater, updater, Updater(artifact, other)):
                with pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
                    one.apply(events, **place)
            assert store.events("u0")
        applied = PATIENT(lambda: updater.apply(events, **place))
        assert (applied.applied, applied.duplicates) == (0, 10)
        assert_equal_to_a_replay(updater, events)
        assert follower.call("zcard", "lifelong:{0}:e:u0").strip() == "2"


def test_a_file_that_was_read_before_is_acknowledged_only_when_a_replica_has_it(artifact, pair, tmp_path):
    primary, follower = pair
    file = tmp_path / "events.csv"
    file.write_text("user,item,time,event_type\n" + "".join(f"u,i{k},{START + k},view\n" for k in range(20)))
    with opened(url_of(primary)) as store:
        PATIENT(lambda: Updater(artifact, store))
        with paused(follower):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
                    ingest(artifact, store, file, patience=0)
        assert ingest(artifact, store, file).duplicates == 20
        assert len(store.events("u")) == 20


def test_every_kind_of_write_waits(pair):
    primary, follower = pair
    with opened(url_of(primary)) as store:
        with paused(follower), pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
            store.bind(IDENTITY)
        store.bind(IDENTITY)
        PATIENT(lambda: store.commit(Commit(records={0: {"u": b"1"}})))
        artifact_list = store.artifact_list()
        changes = (
            lambda: store.commit(Commit(records={ITEMS: {"i": b"{}"}})),
            lambda: store.commit(Commit(watermarks={("s", 0): 3})),
            lambda: store.change_artifact_list(artifact_list, artifact_list),
            lambda: forget(store, "u"),
            lambda: forget(store, "u"),
            lambda: store.clear(0),
        )
        with paused(follower):
            for change in changes:
                with pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
                    change()
            assert store.read_many(["i"], space=ITEMS) == [b"{}"]
        for change in changes:
            PATIENT(change)


def test_without_the_option_nothing_is_waited_for(pair):
    primary, follower = pair
    with opened(f"redis://127.0.0.1:{primary.port}") as store, paused(follower):
        store.commit(Commit(records={0: {"u": b"1"}}))
        assert "touch" not in primary.call("keys", "*")


def test_a_server_without_enough_replicas_acknowledges_nothing(tmp_path):
    with server(tmp_path) as one, opened(url_of(one)) as store:
        with pytest.raises(StoreUnavailableError, match=r"0 of 1 replicas.*doctor --store.*send it again"):
            store.commit(Commit(records={0: {"u": b"1"}}))
        assert store.read_many(["u"]) == [b"1"]


def test_a_commit_waits_for_the_disks_where_the_url_says_so(tmp_path):
    with server(tmp_path / "one", *LOGGED) as one, replica(tmp_path / "other", one) as other:
        place = f"redis://127.0.0.1:{one.port}?fsync=true"
        with opened(place) as store:
            store.commit(Commit(records={0: {"u": b"1"}}))
        with opened(f"{place}&replicas=1&replica_timeout=0.5") as store:
            with pytest.raises(StoreUnavailableError, match=r"0 of 1 replicas had it on disk.*appendonly yes"):
                store.commit(Commit(records={0: {"u": b"1"}}))
            for name, value in (("appendonly", "yes"), ("appendfsync", "always")):
                other.call("config", "set", name, value)
                one.call("config", "set", name, value)
            PATIENT(lambda: store.commit(Commit(records={0: {"u": b"2"}})))
            one.call("config", "set", "appendfsync", "no")
            with pytest.raises(StoreUnavailableError, match="the server itself had it not on disk"):
                store.commit(Commit(records={0: {"u": b"3"}}))
            one.call("config", "set", "appendonly", "no")
            with pytest.raises(StoreError, match=r"no log .*appendonly yes"):
                store.commit(Commit(records={0: {"u": b"4"}}))


# A failover at the same address


class Address:
    """A primary that keeps a log, and a replica that can take its address over with what it has."""

    def __init__(self, primary, follower):
        self.primary, self.follower = primary, follower

    def leave_behind(self):
        """From now on the replica gets nothing more."""
        self.follower.call("replicaof", "no", "one")

    def fail_over(self):
        self.primary.kill()
        self.follower.kill()
        self.follower.port, self.follower.options = self.primary.port, LOGGED
        self.follower.start()


@pytest.fixture
def address(tmp_path):
    with server(tmp_path / "primary", *LOGGED) as primary, replica(tmp_path / "replica", primary, *LOGGED) as follower:
        yield Address(primary, follower)


def caught_up(one):
    """Return when the only replica of a server has all that it has."""
    deadline = time.monotonic() + 60
    while True:
        lines = dict(line.split(":", 1) for line in one.call("info", "replication").splitlines() if ":" in line)
        if f"offset={lines['master_repl_offset'].strip()}," in lines["slave0"]:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failover_that_lost_acknowledged_commits_is_noticed_by_who_follows_a_source(artifact, address):
    events = events_of(range(60))
    with opened(f"redis://127.0.0.1:{address.primary.port}") as store:
        updater = PATIENT(lambda: Updater(artifact, store))

        def apply(first, last, after):
            return updater.apply(events[first:last], source="s", offsets=range(first, last), after=after)

        apply(0, 20, -1)
        caught_up(address.primary)
        address.leave_behind()
        apply(20, 40, 19)
        address.fail_over()
        with pytest.raises(StoreBehindError, match=r"is at offset 19 of s, partition 0.*acknowledged 39"):
            apply(40, 60, 39)
        assert store.watermark("s", 0) == 19
        apply(20, 60, 19)
        assert_equal_to_a_replay(updater, events)


def test_with_the_option_the_same_failover_loses_nothing_that_was_acknowledged(artifact, address):
    events = events_of(range(60))
    with opened(url_of(address.primary)) as store:
        updater = PATIENT(lambda: Updater(artifact, store))
        PATIENT(lambda: updater.apply(events[:20], source="s", offsets=range(20)))
        address.leave_behind()
        with pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
            updater.apply(events[20:40], source="s", offsets=range(20, 40), after=19)
        address.fail_over()
        with opened(f"redis://127.0.0.1:{address.primary.port}") as other:
            alone = Updater(artifact, other)
            assert_equal_to_a_replay(alone, events[:20])
            alone.apply(events[20:], source="s", offsets=range(20, 60), after=19)
            assert_equal_to_a_replay(alone, events)


def test_what_was_known_to_the_primary_that_is_gone_is_not_acknowledged(artifact, address, monkeypatch):
    events = events_of(range(10), ids=True)
    with opened(f"redis://127.0.0.1:{address.primary.port}?fsync=true") as store:
        updater, commit = PATIENT(lambda: Updater(artifact, store)), store.commit
        caught_up(address.primary)
        address.leave_behind()
        updater.apply(events)

        def late(change):
            monkeypatch.setattr(store, "commit", commit)
            address.fail_over()
            commit(change)

        monkeypatch.setattr(store, "commit", late)
        with pytest.raises(
            StoreUnavailableError, match=r"another primary than before.*not acknowledged.*send it again"
        ):
            updater.apply(events)
        assert updater.apply(events).applied == 10
        assert_equal_to_a_replay(updater, events)


def test_a_write_that_reaches_a_demoted_primary_is_made_again_at_the_new_one(artifact, pair, monkeypatch):
    """A managed service's name leads to the new primary, while a connection to the old one is open."""
    primary, follower = pair
    events, named, resolve = events_of(range(20)), [primary], socket.getaddrinfo

    def found(host, port, *rest):
        return resolve("127.0.0.1", named[0].port, *rest) if host == "store.example" else resolve(host, port, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with opened("redis://store.example") as store:
        updater = PATIENT(lambda: Updater(artifact, store))
        updater.apply(events[:10], source="s", offsets=range(10))
        caught_up(primary)
        follower.call("replicaof", "no", "one")
        primary.call("replicaof", "127.0.0.1", str(follower.port))
        named[0] = follower
        with pytest.raises(StoreUnavailableError, match=r"takes no writes; nothing was kept.*send it again"):
            updater.apply(events[10:], source="s", offsets=range(10, 20), after=9)
        updater.apply(events[10:], source="s", offsets=range(10, 20), after=9)
        assert_equal_to_a_replay(updater, events)
        assert follower.call("zcard", "lifelong:{0}:e:u0").strip() == "4"


# A failover by Sentinels


@pytest.fixture
def watched(pair, tmp_path):
    primary, follower = pair
    with sentinel(tmp_path / "sentinel", primary) as watcher:
        yield primary, follower, watcher


class Stream:
    """Applies events in batches, in a thread, each until it is acknowledged.

    Args:
        updater: of the store.
        events: of one source.
        size: events of one batch.
    """

    def __init__(self, updater, events, *, size):
        self.updater, self.events, self.size = updater, events, size
        self.acknowledged, self.error = -1, None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            for first in range(0, len(self.events), self.size):
                PATIENT(lambda first=first: self._apply(first))
        except BaseException as error:
            self.error = error

    def _apply(self, first):
        batch = self.events[first : first + self.size]
        offsets = range(first, first + len(batch))
        self.updater.apply(batch, source="s", offsets=offsets, after=self.acknowledged)
        self.acknowledged = offsets[-1]

    def wait_for(self, offset):
        deadline = time.monotonic() + 60
        while self.acknowledged < offset:
            assert self.thread.is_alive() and time.monotonic() < deadline, self.error
            time.sleep(0.001)

    def finish(self):
        self.thread.join(120)
        assert self.error is None and not self.thread.is_alive(), self.error


@pytest.mark.parametrize("seed", range(3))
def test_a_primary_killed_at_any_moment_loses_nothing_that_was_acknowledged(artifact, watched, impatient, seed):
    primary, follower, watcher = watched
    chance, events = random.Random(seed), events_of(range(240))
    with opened(f"redis+sentinel://127.0.0.1:{watcher.port}/main?replicas=1&replica_timeout=1&timeout=3") as store:
        updater = PATIENT(lambda: Updater(artifact, store))
        stream = Stream(updater, events, size=chance.choice([2, 7]))
        try:
            stream.wait_for(chance.randrange(0, 120))
            time.sleep(0.01 * chance.random())
            acknowledged = stream.acknowledged
            primary.kill()
            follower.wait_for("role:master", "info", "replication")
            with opened(f"redis://127.0.0.1:{follower.port}") as other:
                assert other.watermark("s", 0) >= acknowledged
                assert sum(len(other.events(f"u{k}")) for k in range(5)) > acknowledged
            # The one that was killed comes back as a replica, and is waited for.
            primary.options = ("--replicaof", f"127.0.0.1 {follower.port}")
            primary.start()
        finally:
            stream.finish()
        assert_equal_to_a_replay(updater, events)
        assert primary.call("zcard", "lifelong:{0}:e:u0").strip() == "48"


def test_a_failover_by_command_goes_on_at_the_new_primary(artifact, watched):
    primary, follower, watcher = watched
    events = events_of(range(200))
    with opened(f"redis+sentinel://127.0.0.1:{watcher.port}/main?replicas=1&replica_timeout=1") as store:
        updater = PATIENT(lambda: Updater(artifact, store))
        stream = Stream(updater, events, size=2)
        try:
            stream.wait_for(20)
            # On a busy machine it may be refused while the replica seems down.
            watcher.wait_for("OK", "sentinel", "failover", "main")
            follower.wait_for("role:master", "info", "replication")
            # The Sentinel does it later.
            primary.call("replicaof", "127.0.0.1", str(follower.port))
        finally:
            stream.finish()
        assert_equal_to_a_replay(updater, events)


def test_sentinels_that_know_no_such_service_or_want_a_password_are_said(pair, tmp_path, impatient, monkeypatch):
    with sentinel(tmp_path / "sentinel", pair[0], "--requirepass", "right-one") as watcher:
        url = f"redis+sentinel://127.0.0.1:{watcher.port}"
        with pytest.raises(StoreError, match=r"does not let us in.*LIFELONG_SENTINEL_PASSWORD"):
            open_store(f"{url}/main")
        monkeypatch.setenv("LIFELONG_SENTINEL_PASSWORD", "right-one")
        open_store(f"{url}/main").close()
        with pytest.raises(StoreUnavailableError, match=r"names no primary of this service.*'other'.*check the name"):
            open_store(f"{url}/other")


# A cluster


@pytest.fixture
def replicated(tmp_path):
    """Three servers and a replica of each."""
    with cluster(tmp_path, "--cluster-node-timeout", "1000", replicas=1) as some:
        yield some


def test_a_cluster_waits_on_each_server_and_promotes_replicas_that_have_everything(artifact, replicated, impatient):
    events = events_of(range(600), users=40)
    with opened(url_of_cluster(replicated, "&replicas=1&replica_timeout=0.5&timeout=3")) as store:
        updater = PATIENT(lambda: Updater(artifact, store))
        with paused(replicated[4]):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match=UNACKNOWLEDGED):
                    updater.apply(events[:100], source="s", offsets=range(100))
            # A position is written when all that is before it can be lost no more.
            assert store.watermark("s", 0) == -1
        applied = PATIENT(lambda: updater.apply(events[:100], source="s", offsets=range(100)))
        assert (applied.applied, applied.duplicates) == (0, 100)
        stream = Stream(updater, events, size=20)
        try:
            stream.wait_for(199)
            replicated[1].kill()
            wait_for_takeover(replicated, replicated[1])
            replicated[1].start()
        finally:
            stream.finish()
        assert_equal_to_a_replay(updater, events)


def test_a_slot_on_its_way_to_a_server_that_has_none_yet_is_asked_for_there(tmp_path):
    with cluster(tmp_path) as some, server(tmp_path / "new", "--cluster-enabled", "yes") as new:
        client = redis_client.connect(parse(url_of_cluster(some)))
        some[0].call("cluster", "meet", "127.0.0.1", str(new.port))
        for each in (*some, new):
            each.wait_for("cluster_known_nodes:4", "cluster", "info")
            each.wait_for("cluster_state:ok", "cluster", "info")
        slot = some[0].call("cluster", "keyslot", "key").strip()
        old = next(each for each in some if "MOVED" not in each.call("get", "key"))
        ids = {each.port: each.call("cluster", "myid").strip() for each in (old, new)}
        assert "OK" in new.call("cluster", "setslot", slot, "importing", ids[old.port])
        assert "OK" in old.call("cluster", "setslot", slot, "migrating", ids[new.port])
        assert redis_client.ask(client, [("SET", "key", "value"), ("GET", "key")]) == [True, b"value"]
        assert (old.call("dbsize").strip(), new.call("dbsize").strip()) == ("0", "1")
        redis_client.disconnect(client)
