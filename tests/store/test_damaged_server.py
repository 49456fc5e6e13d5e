"""Damage of a Valkey server's append-only file: what the server says of it, what the store does, and the way back."""

import contextlib
import random
import re
import shutil
import subprocess
from itertools import count

import pytest
from support.valkey import Server, free_port

from lifelong.errors import LifelongError, StoreCorruptError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.memory.verify import verify
from lifelong.online.store import redis_check
from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.redis_check import check

START, EVENTS, BATCH, USERS = 1_700_000_000, 120, 6, 7
OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
# In the last batches u5 and u6 do not come again: no later memory of theirs hides what they lost.
LOG = [
    UserEvent(
        f"u{number % (USERS if number < 80 else 5)}",
        f"i{number % 5}",
        START + number,
        event_id=None if number % 3 else f"id{number}",
    )
    for number in range(EVENTS)
]
pytestmark = pytest.mark.usefixtures("needs_valkey")


def url_of(one):
    return f"redis://127.0.0.1:{one.port}"


def follow(artifact, store):
    """Apply what the store does not have yet, as whoever follows a source does."""
    updater, first = Updater(artifact, store, now=count(START + EVENTS).__next__), store.watermark("log", 0) + 1
    for start in range(first, EVENTS, BATCH):
        part = LOG[start : start + BATCH]
        updater.apply(part, source="log", offsets=range(start, start + len(part)))


def kept(artifact, store):
    """Per user the number of events that its memory holds, by the codec, which checks each record."""
    updater = Updater(artifact, store)
    return {user: int(updater.runtime.decode([value], [user]).count_B[0]) for user, value in store.scan()}


def of_first(number):
    """What memories hold after so many events."""
    users = [event.user for event in LOG[:number]]
    return {user: users.count(user) for user in users}


@pytest.fixture(scope="module")
def written(artifact, tmp_path_factory):
    """The files of a server that was killed after a source had been applied, commit by commit."""
    folder = tmp_path_factory.mktemp("written") / "server"
    one = Server(folder, free_port(), OPTIONS)
    try:
        one.start()
        with contextlib.closing(open_store(url_of(one))) as store:
            follow(artifact, store)
            assert kept(artifact, store) == of_first(EVENTS)
    finally:
        one.kill()
    return folder


def started(folder, content, copied_from):
    """A server on damaged files: None if it refuses them."""
    shutil.copytree(copied_from, folder)
    log_of(folder).write_bytes(content)
    one = Server(folder, free_port(), OPTIONS)
    try:
        one.start()
    except RuntimeError as error:
        one.kill()
        assert "append only file" in str(error).lower(), "the server does not say which file it refuses"
        return None
    return one


def log_of(folder):
    """The append-only file that grows."""
    (found,) = (folder / "appendonlydir").glob("*.incr.aof")
    return found


def repaired(folder):
    """The server, after the way back that the docs state for files that it refuses."""
    words = ["valkey-check-aof", "--fix", str(log_of(folder))]
    subprocess.run(words, input=b"y\n", capture_output=True, check=True)
    one = Server(folder, free_port(), OPTIONS)
    try:
        one.start()
    except RuntimeError:
        # Whole in form, and with a command that the server does not know: it begins empty.
        one.kill()
        shutil.rmtree(folder / "appendonlydir")
        one.start()
    return one


def assert_a_beginning_is_kept_and_the_rest_comes_again(artifact, one):
    with contextlib.closing(open_store(url_of(one))) as store:
        assert kept(artifact, store) == of_first(store.watermark("log", 0) + 1)
        follow(artifact, store)
        assert kept(artifact, store) == of_first(EVENTS)


def seeds(few, many):
    """Some seeds in every run, and more in a soak."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(few, many))]


@pytest.mark.parametrize("seed", seeds(6, 200))
@pytest.mark.parametrize("what", ["cut", "zeros"])
def test_a_file_that_is_cut_or_has_zeros_is_refused_or_a_beginning_and_the_source_brings_the_rest(
    artifact, written, tmp_path, what, seed
):
    draw, content = random.Random(seed), bytearray(log_of(written).read_bytes())
    at = draw.randrange(len(content))
    if what == "cut":
        del content[at:]
    else:
        # What a file system leaves of a block that it lost.
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    one = started(tmp_path / "server", content, written) or repaired(tmp_path / "server")
    try:
        assert_a_beginning_is_kept_and_the_rest_comes_again(artifact, one)
    finally:
        one.kill()


@pytest.mark.parametrize("seed", seeds(10, 300))
def test_a_flipped_bit_is_found_by_the_server_or_the_store_or_changes_no_memory(artifact, written, tmp_path, seed):
    # The names of keys are left out: no checksum covers them, and only `verify` finds these.
    draw, content = random.Random(seed), bytearray(log_of(written).read_bytes())
    names = {at for name in re.finditer(rb"lifelong:\{0\}:[^\r]*", content) for at in range(*name.span())}
    at = draw.choice([at for at in range(len(content)) if at not in names])
    content[at] ^= 1 << draw.randrange(8)
    one = started(tmp_path / "server", content, written) or repaired(tmp_path / "server")
    try:
        try:
            assert_a_beginning_is_kept_and_the_rest_comes_again(artifact, one)
        except LifelongError as error:
            assert error.fix, f"{error} does not say what to do"
            # The way back where there are no other files: an emptied server, filled from the source.
            one.call("flushall")
            assert_a_beginning_is_kept_and_the_rest_comes_again(artifact, one)
    finally:
        one.kill()


def found_by_verify(artifact, one):
    """Whether the store cannot be opened, or `lifelong verify` finds that it is not what was written."""
    try:
        with contextlib.closing(open_store(url_of(one), read_only=True)) as store:
            return not verify(artifact, None, store).equal
    except LifelongError as error:
        assert error.fix, f"{error} does not say what to do"
        return True


def commands_of(content):
    """Where each command of an append-only file begins, and the end of the last one."""
    at, places = 0, [0]
    while at < len(content):
        parts = content[at:].split(b"\r\n", 1)[0]
        at += len(parts) + 2
        for _ in range(int(parts[1:])):
            size = content[at:].split(b"\r\n", 1)[0]
            at += len(size) + 2 + int(size[1:]) + 2
        places.append(at)
    return places


@pytest.mark.parametrize("seed", seeds(3, 40))
@pytest.mark.parametrize("name", ["s:u4", "s:u6", "e:u4", "e:u6", "d:u4", "d:u6", "watermarks"])
def test_a_flipped_bit_in_the_name_of_a_key_is_found_by_verify(artifact, written, tmp_path, name, seed):
    draw, content = random.Random(seed), bytearray(log_of(written).read_bytes())
    key = b"lifelong:{0}:" + name.encode()
    # The last command for a key: what an earlier one did to a memory, a later one would replace.
    content[content.rindex(key + b"\r\n") + draw.randrange(len(key))] ^= 1 << draw.randrange(8)
    one = started(tmp_path / "server", content, written)
    try:
        assert found_by_verify(artifact, one)
    finally:
        one.kill()


@pytest.mark.parametrize("seed", seeds(20, 400))
@pytest.mark.parametrize("what", ["commands", "bytes"])
def test_of_a_file_without_a_piece_of_its_middle_verify_finds_what_is_missing(artifact, written, tmp_path, what, seed):
    draw, content = random.Random(seed), bytearray(log_of(written).read_bytes())
    if what == "commands":
        places = commands_of(content)
        at = draw.randrange(len(places) - 2)
        del content[places[at] : places[min(at + draw.randint(1, 25), len(places) - 2)]]
    else:
        at = draw.randrange(len(content))
        del content[at : at + draw.randint(1, 2_000)]
    one = started(tmp_path / "server", content, written)
    try:
        if one is not None and not found_by_verify(artifact, one):
            assert_a_beginning_is_kept_and_the_rest_comes_again(artifact, one)
    finally:
        if one is not None:
            one.kill()


# What is done to the keys of user u6, or to the positions, after a last event of u6.
LOST = {
    "a memory and its event": ("an earlier one", ["s:u6", "e:u6"]),
    "the positions": ("a position is missing, an earlier one", ["watermarks"]),
    "event ids": ("event ids of user 'u6' are missing", ["d:u6"]),
}


@pytest.mark.parametrize("what", LOST)
def test_what_an_earlier_commit_left_is_no_longer_all_and_verify_says_so(artifact, redis_url, what):
    said, names = LOST[what]
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        keys = [store._key(0, name) for name in names]
        before = store._ask([("DUMP", key) for key in keys])
        last = UserEvent("u6", "i1", START + EVENTS, event_id="last")
        Updater(artifact, store, now=lambda: START + 2 * EVENTS).apply([last], source="log", offsets=[EVENTS])
        assert verify(artifact, None, store).equal
        store._ask([("RESTORE", key, 0, value, "REPLACE") for key, value in zip(keys, before, strict=True)])
        with pytest.raises(StoreCorruptError, match=said):
            verify(artifact, None, store)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("HSET", "lifelong:{0}:itfms", "i1", "{}"), "no store writes the key .*itfms"),
        (("SET", "lifelong:{1}:s:u1", "x"), "no store writes the key .*s:u1"),
        (("HSET", "lifelong:{0}:watermarks", "0:lof", "119 00000000"), "the position of source '0:lof' .* fails its"),
        (("ZADD", "lifelong:{0}:d:u99", "1", "id1"), "event ids of user 'u99'"),
        (("ZADD", "lifelong:{0}:e:u1", "99", "id1"), "the event log of user 'u1' cannot be read"),
        (("ZREM", "lifelong:{0}:expiries", "u1"), "event ids of user 'u1'"),
        (("DEL", "lifelong:{0}:d:u1"), "event ids of a user are missing"),
    ],
)
def test_verify_names_what_no_commit_writes(artifact, redis_url, command, said):
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        store._ask([tuple(word.replace("lifelong", store._prefix.decode()) for word in command)])
        with pytest.raises(StoreCorruptError, match=said):
            verify(artifact, None, store)


def test_an_earlier_event_id_and_fields_put_online_that_are_gone_are_not_found(artifact, redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        store.commit(Commit(records={ITEMS: {"new": b"{}"}}))
        earlier = store.event_ids("u1")[0][0].encode()
        assert store._ask([("ZREM", store._of("u1", "d"), earlier), ("DEL", store._key(0, "items"))]) == [1, 1]
        assert verify(artifact, None, store).equal


def test_a_memory_under_the_name_of_a_user_without_one_is_found_without_an_event_log(artifact, redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        Updater(artifact, store, event_log=False).apply(LOG[:3])
        store._ask([("RENAME", store._of("u2", "s"), store._of("u3", "s"))])
        with pytest.raises(StoreCorruptError, match="the memory of user 'u3' was not written for that user"):
            verify(artifact, None, store)


@pytest.mark.parametrize("kind", ["redis_url", "cluster_url"])
def test_whatever_commits_write_and_erase_the_sums_are_right(request, kind):
    with contextlib.closing(open_store(request.getfixturevalue(kind))) as store:
        store.bind(StoreIdentity("one", "fp32", "[]"))
        known = store.artifact_list()
        store.change_artifact_list(known, known.add(StoreIdentity("two", "fp32", "[]")))
        users = ["u1", "u2", "x}:s1:y", "{0}:s1:k", "é", "*"]
        for value in (b"a", b"b"):
            for space in (0, 1):
                ids = {(user, f"{value!r}{space}"): 1 << 40 for user in users}
                records = {space: dict.fromkeys(users, value * 9)}
                store.commit(Commit(records=records, event_ids=ids, watermarks={("log", 0): space}))
        store.commit(Commit(deleted=users[1:3]))
        check(store, 0)
        check(store, 1)
        store.clear(1)
        check(store, 0)
        check(store, 1)
        store._ask([("DEL", store._of("u1", "s"))])
        with pytest.raises(StoreCorruptError, match="a memory or a position is missing"):
            check(store, 0)


def test_what_comes_during_a_check_is_no_damage(artifact, redis_url, monkeypatch, caplog):
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        found = redis_check._have_last_ids

        def later(*asked):
            Updater(artifact, store).apply([UserEvent("u1", "i1", START + EVENTS)])
            return found(*asked)

        monkeypatch.setattr(redis_check, "_have_last_ids", later)
        check(store, 0)
        assert "events came meanwhile" in caplog.text


def test_a_changed_digit_of_a_position_and_a_changed_memory_are_named(artifact, redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        (memory,) = store._ask([("GET", store._of("u3", "s"))])
        store._ask([("SET", store._of("u3", "s"), memory[:-1] + bytes([memory[-1] ^ 1]))])
        with pytest.raises(StoreCorruptError, match="the memory of user 'u3' fails its checksum"):
            kept(artifact, store)
        (position,) = store._ask([("HGET", store._key(0, "watermarks"), b"0:log")])
        store._ask([("HSET", store._key(0, "watermarks"), b"0:log", position.replace(b"119", b"179"))])
        with pytest.raises(StoreCorruptError, match=r"the position of source '0:log' .* fails its checksum"):
            store.watermark("log", 0)


def test_what_a_server_says_of_its_artifacts_is_checked(artifact, redis_url):
    with contextlib.closing(open_store(redis_url)) as store:
        follow(artifact, store)
        store._ask([("SET", store._key(0, "roster"), b'{"artifact": "\xa0"}')])
        with pytest.raises(StoreCorruptError, match="artifacts cannot be read"):
            store.artifact_list()
