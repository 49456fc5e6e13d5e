"""What is particular to a store of several databases in one folder."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import (
    StoreConflictError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    UsageError,
)
from lifelong.online.store.checkup import check_store, describe
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import Share, part_of
from lifelong.online.store.ram import InMemoryStore
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.sharded import ShardedStore
from lifelong.online.store.shards import Shards
from lifelong.testing.store_contract import IDENTITY, OTHER

USERS = [f"u{place}" for place in range(40)]
PARTS = [[user for user in USERS if part_of(user, 3) == number] for number in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def url(path: Path) -> str:
    return f"rocksdb://{path}"


@pytest.fixture
def filled(url: str) -> str:
    """A store of three shards with forty users."""
    with closing(open_store(f"{url}?shards=3")) as store:
        store.bind(IDENTITY)
        store.commit(Commit(records={0: dict.fromkeys(USERS, b"1"), ITEMS: {"i": b"{}"}}, watermarks={("s", 0): 4}))
    return url


@pytest.fixture
def three() -> Shards:
    return Shards("three", Share((0, 1, 2), 3), {number: InMemoryStore() for number in range(3)})


def shard(path: Path, number: int) -> RocksDbStore:
    return RocksDbStore(path / f"shard-{number}")


# The folder


def test_users_are_divided_by_their_id_alone(filled, path):
    assert all(PARTS)
    for number, part in enumerate(PARTS):
        with closing(shard(path, number)) as one:
            assert sorted(user for user, _ in one.scan()) == sorted(part)
            assert one.watermark("s", 0) == 4
            assert [item for item, _ in one.scan(ITEMS)] == ["i"] * (number == 0)
    # What is on disk must be found by every later release.
    assert [part_of(user, 5) for user in ("", "u1", "ü", "日本")] == [0, 2, 4, 1]


def test_a_share_finds_its_users_among_others():
    share = Share((0, 2), 3)
    assert [USERS[place] for place in share.places(USERS)] == [u for u in USERS if part_of(u, 3) != 1]
    assert share.places([]).tolist() == []


@pytest.mark.parametrize("option", ["", "?shards=3"])
def test_an_old_store_knows_its_number_of_shards(filled, option):
    with closing(open_store(filled + option)) as store:
        assert isinstance(store, ShardedStore)
        assert store.read_many(USERS) == [b"1"] * 40 and store.artifact_list().identity == IDENTITY


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_another_number_is_refused_and_the_right_one_is_said(filled, shards, read_only):
    with pytest.raises(UsageError, match="has 3 shards") as caught:
        open_store(f"{filled}?shards={shards}", read_only=read_only)
    assert "shards=3" in caught.value.expected and "another folder" in caught.value.fix


def test_a_single_database_stays_one(url):
    with closing(open_store(f"{url}?shards=1")) as store:
        assert isinstance(store, RocksDbStore)
        store.commit(Commit(records={0: {"u": b"1"}}))
    with pytest.raises(UsageError, match="has 1 shard,"):
        open_store(f"{url}?shards=2")
    with closing(open_store(url)) as store:
        assert store.read_many(["u"]) == [b"1"]


@pytest.mark.parametrize("option", ["shards=0", "shards=x", "shards=", "shards=-1", "cache=2", "shards=2&sync=no"])
def test_an_option_that_there_is_not_is_refused(url, path, option):
    with pytest.raises(UsageError, match="option") as caught:
        open_store(f"{url}?{option}")
    assert "?shards=N" in caught.value.expected and not path.exists()


def test_very_many_shards_are_refused_before_anything_is_made(url, path):
    with pytest.raises(UsageError, match="shards = 1000"):
        open_store(f"{url}?shards=1000")
    assert not path.exists()


def test_a_lent_store_does_not_answer_and_stays_owned(filled, path):
    with closing(open_store(filled)) as store:
        with store.lent() as items:
            assert items == {"i": b"{}"}
            with closing(shard(path, 1)) as one:
                one.commit(Commit(records={0: {PARTS[1][0]: b"new"}}))
            with pytest.raises(StoreError, match="closed"):
                store.read_many(USERS)
            with pytest.raises(StoreLockedError):
                open_store(filled)
        assert store.read_many([PARTS[1][0], PARTS[0][0]]) == [b"new", b"1"]


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("lost", ["shard-1", "shard-1/db", "shard-1/store.json", "shard-1/db/CURRENT"])
def test_a_shard_that_is_lost_is_named_and_never_made_anew(filled, path, lost, read_only):
    place = path / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    before = sorted(path.rglob("*"))
    with pytest.raises(StoreCorruptError, match=r"shard-1 is missing, one of 3 shards"):
        open_store(filled, read_only=read_only)
    assert [file for file in sorted(path.rglob("*")) if "shard-1" in str(file)] == [
        file for file in before if "shard-1" in str(file)
    ]


def test_a_damaged_shard_is_named_and_the_others_are_whole(filled, path):
    for file in (path / "shard-2" / "db").glob("MANIFEST-*"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(StoreCorruptError, match="shard-2"):
        open_store(filled)
    with closing(shard(path, 0)) as one:
        assert len(list(one.scan())) == len(PARTS[0])


def test_a_shard_in_the_place_of_another_one_is_refused(filled, path):
    (path / "shard-1").rename(path / "shard-x")
    (path / "shard-2").rename(path / "shard-1")
    (path / "shard-x").rename(path / "shard-2")
    with pytest.raises(StoreCorruptError, match=r"shard-1 is shard 2 of 3.*shard 1 of 3"):
        open_store(filled)


def test_a_start_that_was_interrupted_is_brought_to_its_end(url, path):
    open_store(f"{url}?shards=2").close()
    (path / "store.json").unlink()
    with pytest.raises(StoreCorruptError, match=r"shard-0 is shard 0 of 2.*shard 0 of 4"):
        open_store(f"{url}?shards=4")
    with closing(open_store(f"{url}?shards=2")) as store:
        assert list(store.scan()) == []


def test_a_store_of_shards_is_no_single_database_nor_of_a_newer_format(filled, path):
    with pytest.raises(StoreError, match="format 2"):
        RocksDbStore(path)
    head = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**head, "shards": 1}))
    with pytest.raises(StoreCorruptError, match=r"store.json.*1 shards"):
        open_store(filled)


def test_doctor_says_how_many_shards_there_are(filled, path):
    found = check_store(filled)
    assert found.facts["shards"] == "3" and "shards: 3" in describe(found)
    assert found.survives["kill of a process that writes"] == "nothing is lost"
    shutil.rmtree(path / "shard-0")
    with pytest.raises(StoreCorruptError, match="shard-0"):
        check_store(filled)


# One write over several shards


def test_a_shard_that_is_behind_gets_what_it_lacks_and_the_others_do_not_go_back(three):
    marks = {("s", 0): 10}
    three._shards[0].commit(Commit(records={0: {PARTS[0][0]: b"late"}}, watermarks={("s", 0): 20}))
    assert three.watermark("s", 0) == -1
    assert three.positions("s", 0, [PARTS[0][0], PARTS[1][0]]) == [20, -1]
    three.commit(Commit(records={0: {PARTS[1][0]: b"new"}}, watermarks=marks))
    assert three.watermark("s", 0) == 10
    assert [one.watermark("s", 0) for one in three._shards.values()] == [20, 10, 10]


def test_every_shard_gets_the_watermark_of_a_write_that_has_no_user_in_it(three):
    three.commit(Commit(records={0: {PARTS[2][0]: b"1"}}, watermarks={("s", 0): 3}))
    three.commit(Commit(watermarks={("s", 0): 7}))
    assert [one.watermark("s", 0) for one in three._shards.values()] == [7, 7, 7]


def test_a_shard_that_fails_leaves_the_users_of_others_written_and_the_error_says_so(three, monkeypatch):
    def full(change: Commit) -> None:
        raise StoreUnavailableError("the disk of shard 1 is full; nothing was kept", fix="free space")

    monkeypatch.setattr(three._shards[1], "commit", full)
    change = Commit(records={0: dict.fromkeys(USERS, b"1")}, watermarks={("s", 0): 5})
    with pytest.raises(
        StoreUnavailableError, match=r"disk of shard 1 is full.*kept for the users in shard 0"
    ) as caught:
        three.commit(change)
    assert caught.value.fix == "free space"
    assert {user for user, _ in three.scan()} == set(PARTS[0])
    assert (three.watermark("s", 0), three.positions("s", 0, [PARTS[0][0], PARTS[1][0]])) == (-1, [5, -1])
    monkeypatch.undo()
    three.commit(change)
    assert three.read_many(USERS) == [b"1"] * 40 and three.watermark("s", 0) == 5


def test_a_conflict_in_one_shard_names_its_users_alone(three):
    three.commit(Commit(records={0: {PARTS[1][0]: b"other"}}))
    change = Commit(records={0: dict.fromkeys(USERS, b"1")}, bases={0: dict.fromkeys(USERS)}, watermarks={("s", 0): 5})
    with pytest.raises(StoreConflictError) as caught:
        three.commit(change)
    assert caught.value.users == set(PARTS[1])
    assert three.read_many([*PARTS[0], *PARTS[2]]) == [b"1"] * (40 - len(PARTS[1]))


# The list of artifacts


def test_lists_that_an_interrupted_change_left_apart_are_made_equal_at_the_next_opening(filled, path):
    with closing(shard(path, 2)) as one:
        artifact_list = one.artifact_list()
        one.change_artifact_list(artifact_list, artifact_list.add(OTHER))
    with closing(open_store(filled)) as store:
        assert store.artifact_list() == artifact_list
        for user in USERS:
            store.commit(Commit(records={0: {user: b"2"}}, epoch=artifact_list.epoch))
        after = artifact_list.add(OTHER).turn(OTHER.artifact_id, "ready")
        store.change_artifact_list(artifact_list, after)
    for number in range(3):
        with closing(shard(path, number)) as one:
            assert one.artifact_list() == after
    with closing(open_store(filled)) as store:
        assert store.bind(OTHER) == 1


def test_the_first_shard_learns_of_a_change_last(three):
    three.bind(IDENTITY)
    order, artifact_list = [], three.artifact_list()
    for number, one in three._shards.items():
        change = one.change_artifact_list
        one.change_artifact_list = lambda *lists, number=number, change=change: (order.append(number), change(*lists))
    three.change_artifact_list(artifact_list, artifact_list.add(OTHER))
    assert order == [2, 1, 0]


def test_a_claim_that_was_interrupted_is_completed(url, path):
    open_store(f"{url}?shards=2").close()
    with closing(shard(path, 0)) as one:
        one.bind(IDENTITY)
    with closing(open_store(url)) as store:
        assert store.artifact_list().identity == IDENTITY
    with closing(shard(path, 1)) as one:
        assert one.artifact_list().identity == IDENTITY
