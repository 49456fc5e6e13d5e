"""What is said of a store's settings."""

import time
from contextlib import closing
from pathlib import Path

import pytest
from support.power_loss import library
from support.valkey import Server, cluster, free_port, replica, server

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.store import redis_client
from lifelong.online.store.checkup import EVENTS, check_store, describe
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store

PROCESS, SERVER, POWER, FAILOVER = EVENTS


def url_of(one):
    return f"redis://127.0.0.1:{one.port}"


@pytest.fixture(autouse=True)
def _client():
    pytest.importorskip("redis")


def test_a_folder_survives_what_can_happen_to_one_process(tmp_path):
    pytest.importorskip("rocksdict")
    url = f"rocksdb://{tmp_path / 'store'}"
    owner = open_store(url)
    found = check_store(url)
    owner.close()
    assert found.survives[PROCESS] == "nothing is lost" and found.facts["fsync"] == "each commit"
    with pytest.raises(StoreError, match="no store"):
        check_store(f"rocksdb://{tmp_path / 'none'}")


def test_a_folder_in_ram_is_said():
    pytest.importorskip("rocksdict")
    place = Path("/dev/shm")
    if not place.is_dir():
        pytest.skip("there is no /dev/shm")
    import tempfile

    with tempfile.TemporaryDirectory(dir=place) as name:
        open_store(f"rocksdb://{name}/store").close()
        found = check_store(f"rocksdb://{name}/store")
    assert found.survives[POWER] == "everything is lost" and "put it on a disk" in found.problems[0]


def test_a_store_in_ram_survives_nothing():
    assert check_store("memory://").survives[PROCESS] == "everything is lost"


@pytest.mark.parametrize(
    ("options", "server_killed", "power", "problem"),
    [
        (["--appendonly", "yes", "--appendfsync", "always"], "nothing is lost", "nothing is lost", None),
        (["--appendonly", "yes", "--appendfsync", "everysec"], "if its disk is slow", "the last second", None),
        (["--appendonly", "yes", "--appendfsync", "no"], "nothing is lost", "snapshot", "appendfsync no"),
        ([], "everything is lost", "everything is lost", "set appendonly yes"),
        (["--save", "60 1"], "after the last snapshot", "after the last snapshot", "set appendonly yes"),
        (
            ["--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"],
            "if its disk is slow",
            "the last second",
            "allkeys-lru.*noeviction",
        ),
    ],
)
def test_a_server_s_settings_decide_what_it_survives(tmp_path, valkey, options, server_killed, power, problem):
    with server(tmp_path / "server", *options) as one:
        found = check_store(url_of(one))
    assert found.survives[PROCESS] == "nothing is lost"
    assert server_killed in found.survives[SERVER] and power in found.survives[POWER]
    if problem is None:
        assert found.problems == []
    else:
        import re

        assert re.search(problem, found.problems[0])
        assert any(line.startswith("To do: ") for line in describe(found))


SLOW_SYNC = Path(__file__).parents[1] / "support" / "slow_sync.c"


def loses_what_it_acknowledged(folder, slow, sync):
    """Whether a server that is killed lacks what it had acknowledged while its disk was slow."""
    environment = {"LD_PRELOAD": str(library(SLOW_SYNC)), "LIFELONG_SLOW_SYNC": str(slow)}
    options = ("--appendonly", "yes", "--appendfsync", sync)
    one = Server(folder, free_port(), options, environment=environment)
    try:
        one.start()
        slow.touch()
        with closing(open_store(url_of(one))) as store:
            number, end = 0, time.monotonic() + 60
            # With everysec a sync begins within a second; it now takes its time.
            while sync == "everysec" and "aof_pending_bio_fsync:1" not in one.call("info", "persistence"):
                assert time.monotonic() < end
                number += 1
                store.commit(Commit(records={0: {f"u{number}": b"1"}}))
            store.commit(Commit(records={0: {"last": b"1"}}))
        one.kill()
        slow.unlink()
        one.start()
        with closing(open_store(url_of(one))) as store:
            return store.read_many(["last"]) == [None]
    finally:
        one.kill()
        slow.unlink(missing_ok=True)


def test_a_killed_server_may_lose_what_it_has_acknowledged_with_everysec_alone(tmp_path, valkey):
    if library(SLOW_SYNC) is None:
        pytest.skip("there is no C compiler (Debian: gcc, libc6-dev)")
    # After two seconds it writes without waiting for the sync, so that on a busy machine not every kill comes in time.
    tries = (loses_what_it_acknowledged(tmp_path / f"everysec-{at}", tmp_path / "slow", "everysec") for at in range(20))
    assert any(tries)
    assert not loses_what_it_acknowledged(tmp_path / "no", tmp_path / "slow", "no")
    with pytest.raises(StoreUnavailableError):
        # Nothing is acknowledged.
        loses_what_it_acknowledged(tmp_path / "always", tmp_path / "slow", "always")


def test_a_replica_and_a_primary_that_does_not_wait_for_one_are_said(tmp_path, valkey):
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with (
        server(tmp_path / "one", *options) as one,
        server(tmp_path / "two", *options, "--replicaof", f"127.0.0.1 {one.port}") as two,
    ):
        end = time.monotonic() + 60
        while "connected_slaves:1" not in one.call("info", "replication"):
            assert time.monotonic() < end
            time.sleep(0.1)
        found, other = check_store(url_of(one)), check_store(url_of(two))
    assert "not reached the replica" in found.survives[FAILOVER]
    assert "min-replicas-to-write 1" in found.problems[0]
    assert "name its primary" in other.problems[0]


@pytest.fixture
def pair(tmp_path, valkey):
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    with server(tmp_path / "one", *options) as one, replica(tmp_path / "other", one, *options):
        yield one


def test_what_a_failover_loses_is_said_with_the_option_and_without_it(pair):
    found = check_store(url_of(pair))
    assert found.facts["replicas"] == "1" and found.facts["a commit waits for"] == "no replica"
    assert (
        found.facts["a failover with ?replicas=0"]
        == found.survives[FAILOVER]
        == "what had not reached the replica is lost"
    )
    assert found.facts["a failover with ?replicas=1"] == "nothing is lost"
    assert "put ?replicas=1 into the URL" in found.problems[0]
    found = check_store(f"{url_of(pair)}?replicas=1")
    assert found.facts["a commit waits for"] == "1 replica"
    assert found.survives[FAILOVER] == "nothing is lost" and found.problems == []


def test_an_option_that_no_commit_can_meet_is_said(pair):
    found = check_store(f"{url_of(pair)}?replicas=2")
    assert "has 1 of the 2 replicas that a commit waits for" in found.problems[0]
    assert found.survives[POWER] == "the last second or so is lost"
    found = check_store(f"{url_of(pair)}?replicas=1&fsync=true")
    assert found.facts["a commit waits for"] == "the disk of the primary and of 1 replica"
    assert found.survives[POWER] == "the last second or so is lost"
    assert "with fsync=true set appendfsync always" in found.problems[0]
    pair.call("config", "set", "appendfsync", "always")
    found = check_store(f"{url_of(pair)}?replicas=1&fsync=true")
    assert found.survives[POWER] == "nothing is lost" and found.problems == []
    pair.call("config", "set", "appendonly", "no")
    assert "as fsync=true wants it: set appendonly yes" in check_store(f"{url_of(pair)}?fsync=true").problems[-1]


def test_one_of_two_replicas_may_not_be_the_one_that_takes_over(pair, tmp_path):
    with replica(tmp_path / "third", pair):
        pair.wait_for("connected_slaves:2", "info", "replication")
        assert (
            "where a replica takes over that has everything"
            in check_store(f"{url_of(pair)}?replicas=1").survives[FAILOVER]
        )
        assert check_store(f"{url_of(pair)}?replicas=2").survives[FAILOVER] == "nothing is lost"


def test_a_server_that_hides_its_settings_is_looked_at_as_far_as_it_shows(tmp_path, valkey):
    with server(tmp_path / "server", "--appendonly", "yes", "--rename-command", "CONFIG", "") as one:
        found = check_store(url_of(one))
    # It may be the server's default, which is everysec.
    assert "not known" in found.facts["appendfsync"]
    assert found.survives[SERVER] == "nothing is lost, or the last two seconds if its disk is slow"


def test_of_a_cluster_the_worst_server_counts(tmp_path, valkey):
    with cluster(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as some:
        url = f"{url_of(some[0])}/?cluster=true"
        assert check_store(url).survives[POWER] == "nothing is lost"
        some[2].call("config", "set", "appendfsync", "everysec")
        assert "last second" in check_store(url).survives[POWER]


def test_a_server_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(redis_client, "_RETRIES", 1)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        check_store(f"redis://127.0.0.1:{free_port()}")
