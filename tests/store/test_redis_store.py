"""What is particular to a store on a server: several processes, lost answers, failing servers."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from binascii import crc_hqx
from itertools import pairwise

import pytest
from support.events import assert_equal_to_a_replay
from support.valkey import cluster, free_port, server, url_of_cluster

from lifelong.errors import StoreBehindError, StoreCorruptError, StoreError, StoreUnavailableError
from lifelong.online.background import Patience
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.store import redis_client
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.redis import _COMMIT, tags_of

pytestmark = pytest.mark.usefixtures("needs_valkey")

START = 1_700_000_000
WRITER = """
import sys
from lifelong.artifact.folder import Artifact
from lifelong.online.store.opening import open_store
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
path, url, name, size = sys.argv[1:]
store = open_store(url)
updater = Updater(Artifact.open(path), store)
for k in range(int(size)):
    users = [f"u{user}" for user in range(5)]
    applied = updater.apply(
        [UserEvent(user, f"i{k}", 1_700_000_000 + k, "view", event_id=f"{name} {k}") for user in users],
        source=name,
        offsets=range(5 * k, 5 * k + 5),
    )
    assert applied.applied == 5, applied
store.close()
"""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(redis_client, "_RETRIES", 1)


@pytest.fixture(params=["redis", "cluster"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


def test_two_processes_that_write_the_same_users_lose_no_event(artifact, url):
    arguments = [sys.executable, "-c", WRITER, str(artifact.path), url]
    writers = [subprocess.Popen([*arguments, name, "40"]) for name in ("one", "other")]
    assert [writer.wait() for writer in writers] == [0, 0]
    store = open_store(url)
    updater = Updater(artifact, store)
    users = [f"u{user}" for user in range(5)]
    assert updater.runtime.decode(store.read_many(users)).count_B.tolist() == [80] * 5
    assert [len(store.events(user)) for user in users] == [80] * 5
    assert [store.watermark(name, 0) for name in ("one", "other")] == [199, 199]
    store.close()


def test_a_commit_that_is_sent_again_changes_nothing(url):
    store = open_store(url)
    change = Commit(records={0: {"u": b"1"}}, bases={0: {"u": None}}, events={("u", 1): b"e"})
    parts = store._parts(change)
    for _ in range(2):
        calls = [part.arguments(store._key(group, "c:name")) for group, part in parts.items()]
        assert store._run(_COMMIT, calls) == [1]
    assert (store.read_many(["u"]), store.events("u")) == ([b"1"], [b"e"])
    store.close()


def test_a_script_is_sent_once_and_again_where_a_server_has_lost_it(url):
    store, sent = open_store(url), []
    ask = store._client.pipeline

    def pipeline(**options):
        made = ask(**options)
        execute = made.execute_command
        made.execute_command = lambda *command: sent.append(command[0]) or execute(*command)
        return made

    store._client.script_flush()
    store._client.pipeline = pipeline
    for number, expected in enumerate([["EVALSHA", "EVAL"], ["EVALSHA"], ["EVALSHA"]]):
        sent.clear()
        store.commit(Commit(records={0: {"u": b"%d" % number}}))
        assert sent == expected
    store._client.script_flush()
    sent.clear()
    store.commit(Commit(records={0: {"u": b"9"}}, bases={0: {"u": b"2"}}))
    assert sent == ["EVALSHA", "EVAL"] and store.read_many(["u"]) == [b"9"]
    store.close()


def test_a_batch_that_was_half_written_is_finished_by_a_replay(artifact, cluster_url, monkeypatch):
    events = [UserEvent(f"u{k % 40}", f"i{k}", START + k, "view") for k in range(120)]
    offsets, store, once = range(120), open_store(cluster_url), InMemoryStore()
    Updater(artifact, once).apply(events, source="s", offsets=offsets)
    updater, apply = Updater(artifact, store), store._apply

    def half(parts):
        apply(dict(list(parts.items())[: len(parts) // 2]))
        raise StoreUnavailableError("the process dies here")

    monkeypatch.setattr(store, "_apply", half)
    with pytest.raises(StoreUnavailableError):
        updater.apply(events, source="s", offsets=offsets)
    monkeypatch.undo()
    written = sum(value is not None for value in store.read_many([f"u{k}" for k in range(40)]))
    assert 0 < written < 40 and store.watermark("s", 0) == -1
    applied = updater.apply(events, source="s", offsets=offsets)
    assert (applied.applied, applied.duplicates) == (3 * (40 - written), 3 * written)
    assert dict(store.scan()).keys() == dict(once.scan()).keys() and store.watermark("s", 0) == 119
    runtime, users = updater.runtime, [f"u{k}" for k in range(40)]
    found, wanted = runtime.decode(store.read_many(users)), runtime.decode(once.read_many(users))
    assert found.count_B.tolist() == wanted.count_B.tolist()
    assert abs(found.fields["slot"] - wanted.fields["slot"]).max() < 1e-5
    store.close()


def test_a_reader_sees_what_others_write_and_cannot_write(url):
    with pytest.raises(StoreError, match="no store"):
        open_store(url, read_only=True)
    writer = open_store(url)
    reader = open_store(url, read_only=True)
    writer.commit(Commit(records={0: {"u": b"1"}}))
    assert reader.read_many(["u"]) == [b"1"]
    with pytest.raises(StoreError, match="reading only"):
        reader.commit(Commit())
    writer.close()
    reader.close()


def test_a_server_that_restarts_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path):
    with server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as one:
        store, acknowledged = open_store(f"redis://127.0.0.1:{one.port}"), []

        def write():
            base = None
            for number in range(300):
                value = b"%d" % number
                change = Commit(records={0: {"u": value}}, bases={0: {"u": base}}, events={("u", number): value})
                store.commit(change)
                acknowledged.append(number)
                base = value

        writer = threading.Thread(target=write)
        writer.start()
        while len(acknowledged) < 50:
            time.sleep(0.01)
        one.kill()
        one.start()
        writer.join()
        assert acknowledged == list(range(300))
        assert store.read_many(["u"]) == [b"299"]
        assert store.events("u") == [b"%d" % number for number in range(300)]
        store.close()


def test_a_server_that_went_away_is_said_and_its_return_is_enough(tmp_path, impatient):
    with server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as one:
        store = open_store(f"redis://127.0.0.1:{one.port}?timeout=1")
        store.commit(Commit(records={0: {"u": b"1"}}))
        one.kill()
        for call in (lambda: store.commit(Commit(records={0: {"u": b"2"}})), lambda: store.read_many(["u"])):
            with pytest.raises(StoreUnavailableError, match=r"does not answer.*send it again"):
                call()
        one.start()
        assert store.read_many(["u"]) == [b"1"]
        store.close()


def test_a_full_server_refuses_the_whole_commit_and_reading_goes_on(tmp_path):
    with server(tmp_path, "--maxmemory", "6mb", "--maxmemory-policy", "noeviction") as one:
        store = open_store(f"redis://127.0.0.1:{one.port}")
        with pytest.raises(StoreUnavailableError, match=r"no memory left.*maxmemory"):
            for number in range(1_000):
                states = {f"{number} {user}": bytes(1_000) for user in range(100)}
                store.commit(Commit(records={0: states}, watermarks={("s", 0): number}))
        assert store.watermark("s", 0) == number - 1
        assert store.read_many([f"{number} {user}" for user in range(100)]) == [None] * 100
        assert store.read_many(["0 0"]) == [bytes(1_000)]
        store.close()


def test_a_server_that_evicts_keys_is_refused(tmp_path):
    options = ("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with server(tmp_path, *options) as one, pytest.raises(StoreError, match=r"allkeys-lru.*noeviction"):
        open_store(f"redis://127.0.0.1:{one.port}")


def test_a_wrong_password_is_said_and_not_shown(tmp_path, impatient, monkeypatch):
    with server(tmp_path, "--requirepass", "right-one") as one:
        for login in ("", ":wrong-one@", "nobody:wrong-one@"):
            with pytest.raises(StoreError, match=r"does not let us in.*LIFELONG_REDIS_PASSWORD") as caught:
                open_store(f"redis://{login}127.0.0.1:{one.port}")
            assert "wrong-one" not in str(caught.value)
        open_store(f"redis://:right-one@127.0.0.1:{one.port}").close()
        monkeypatch.setenv("LIFELONG_REDIS_PASSWORD", "right-one")
        open_store(f"redis://127.0.0.1:{one.port}").close()


def test_no_server_and_another_kind_of_server_are_said(impatient):
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        open_store(f"redis://127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            # Until the test closes the socket.
            with contextlib.suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(StoreError, match="no Redis or Valkey server"):
            open_store(f"redis://127.0.0.1:{listening.getsockname()[1]}?timeout=2")


def test_a_server_of_another_kind_than_the_url_says_is_said(valkey, valkey_cluster):
    with pytest.raises(StoreError, match="leave out"):
        open_store(f"redis://127.0.0.1:{valkey.port}/?cluster=true")
    with pytest.raises(StoreError, match=r"add .cluster=true"):
        for one in valkey_cluster:
            open_store(f"redis://127.0.0.1:{one.port}")
    with pytest.raises(StoreError, match="no such database"):
        open_store(f"redis://127.0.0.1:{valkey.port}/99")


def test_what_others_keep_under_the_prefix_is_not_touched(valkey):
    for value, kind in (("[]", StoreCorruptError), ('{"version": 9, "groups": 1}', StoreError)):
        valkey.call("set", "taken:{0}:store", value)
        with pytest.raises(kind, match=r"holds no store|format 9"):
            open_store(f"redis://127.0.0.1:{valkey.port}?prefix=taken")
    valkey.call("del", "taken:{0}:store")
    valkey.call("lpush", "taken:{0}:store", "x")
    with pytest.raises(StoreCorruptError, match="prefix"):
        open_store(f"redis://127.0.0.1:{valkey.port}?prefix=taken")


def test_tls_works_with_the_authority_that_is_named_and_with_no_other(tmp_path, impatient):
    key, certificate, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    try:
        subprocess.run([*make, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    with server(tmp_path / "server", "--tls-port", str(port), "--tls-auth-clients", "no", *files):
        store = open_store(f"rediss://127.0.0.1:{port}/?ca={certificate}")
        store.commit(Commit(records={0: {"u": b"1"}}))
        assert store.read_many(["u"]) == [b"1"]
        store.close()
        with pytest.raises(StoreError, match=r"not trusted.*ca="):
            open_store(f"rediss://127.0.0.1:{port}/")


def test_users_are_read_some_at_a_time(url, monkeypatch):
    store, asked = open_store(url), []
    store.commit(Commit(records={0: {f"u{place}": b"1" for place in range(5_000)}}))
    read_many = store.read_many
    monkeypatch.setattr(store, "read_many", lambda users, space: asked.append(len(users)) or read_many(users))
    view = store.scan()
    assert asked == []
    next(view)
    assert asked == [1_000]
    assert len({user for user, _ in view}) in (4_999, 5_000) and max(asked) == 1_000
    store.close()


def test_a_server_that_comes_back_without_its_last_commits_is_noticed_by_who_follows_a_source(artifact, tmp_path):
    events = [UserEvent(f"u{k % 5}", f"i{k}", START + k, "view") for k in range(60)]
    with server(tmp_path) as one:
        store = open_store(f"redis://127.0.0.1:{one.port}")
        updater = Updater(artifact, store)

        def apply(first, last, after):
            return updater.apply(events[first:last], source="s", offsets=range(first, last), after=after)

        apply(0, 20, -1)
        one.call("save")
        apply(20, 40, 19)
        one.kill()
        one.start()
        with pytest.raises(StoreBehindError, match=r"is at offset 19 of s, partition 0.*acknowledged 39"):
            apply(40, 60, 39)
        assert store.watermark("s", 0) == 19
        apply(20, 60, store.watermark("s", 0))
        once = InMemoryStore()
        Updater(artifact, once).apply(events)
        users = [f"u{k}" for k in range(5)]
        found, wanted = updater.runtime.decode(store.read_many(users)), updater.runtime.decode(once.read_many(users))
        assert found.count_B.tolist() == wanted.count_B.tolist() == [12] * 5
        store.close()


def test_a_write_that_meets_a_server_without_its_last_commits_leaves_nothing(artifact, tmp_path, monkeypatch):
    events = [UserEvent(f"u{k}", "i1", START, "view") for k in range(3)]
    with server(tmp_path) as one:
        store = open_store(f"redis://127.0.0.1:{one.port}")
        updater, commit = Updater(artifact, store), store.commit
        updater.apply(events[:1], source="s", offsets=[0])

        def late(change):
            monkeypatch.setattr(store, "commit", commit)
            one.kill()
            one.start()
            commit(change)

        monkeypatch.setattr(store, "commit", late)
        with pytest.raises(StoreUnavailableError, match="came back empty"):
            updater.apply(events[1:], source="s", offsets=[1, 2], after=0)
        assert one.call("dbsize").strip() == "0"
        store.close()


def test_a_cluster_of_which_a_server_stops_and_starts_loses_nothing_and_applies_nothing_twice(
    artifact, tmp_path, impatient, valkey
):
    options = ("--appendonly", "yes", "--appendfsync", "always", "--cluster-node-timeout", "1000")
    events = [UserEvent(f"u{k % 40}", f"i{k}", START + k, "view") for k in range(240)]
    with cluster(tmp_path, *options) as some:
        store = open_store(url_of_cluster(some, "&timeout=1"))
        updater = Updater(artifact, store)
        updater.apply(events[:120], source="s", offsets=range(120))
        some[1].kill()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            updater.apply(events[120:], source="s", offsets=range(120, 240))
        assert store_answers(lambda: store.watermark("s", 0)) in (None, 119)
        some[1].start()
        end = time.monotonic() + 60
        while not all("cluster_state:ok" in one.call("cluster", "info") for one in some):
            assert time.monotonic() < end
            time.sleep(0.1)
        Patience(60)(lambda: updater.apply(events[120:], source="s", offsets=range(120, 240), after=119))
        assert_equal_to_a_replay(updater, events)
        store.close()


def store_answers(call):
    """What a call gives, None where the servers do not answer."""
    try:
        return call()
    except StoreUnavailableError:
        return None


@pytest.mark.parametrize(("primaries", "most"), [(3, 86), (40, 7), (64, 4), (100, 3)])
def test_primaries_of_a_cluster_have_about_equally_many_groups(primaries, most):
    bounds = [16_384 * place // primaries for place in range(primaries + 1)]
    slots = [crc_hqx(b"%d" % tag, 0) % 16_384 for tag in tags_of(256)]
    groups = [sum(first <= slot < end for slot in slots) for first, end in pairwise(bounds)]
    assert sum(groups) == 256 and max(groups) == most and min(groups) >= 2
