"""A folder with some of the shards of a store."""

import json
import shutil
from contextlib import closing

import pytest

pytest.importorskip("rocksdict")

from lifelong.errors import OtherShardError, StoreCorruptError, StoreLockedError, UsageError
from lifelong.online.store.backup import backup, restore
from lifelong.online.store.contract import Commit, filled_until, note_filled
from lifelong.online.store.opening import folder_of, node_of, open_store
from lifelong.online.store.part import Share, murmur2, numbers_of, part_of
from lifelong.testing.store_contract import IDENTITY

USERS = [f"u{place}" for place in range(40)]
OWN = [user for user in USERS if part_of(user, 8) in (2, 3, 6)]
OTHER = next(user for user in USERS if user not in OWN)


@pytest.fixture
def url(tmp_path):
    return f"rocksdb://{tmp_path / 'store'}"


@pytest.fixture
def filled(url):
    """A node of shards 2, 3 and 6 of 8."""
    with closing(open_store(f"{url}?shards=8&own=2-3,6")) as store:
        store.bind(IDENTITY)
        store.commit(Commit(records={0: dict.fromkeys(OWN, b"1")}))
    return url


def test_it_has_its_own_shards_alone_and_later_urls_need_not_name_them(filled, tmp_path):
    assert sorted(path.name for path in (tmp_path / "store").glob("shard-*")) == ["shard-2", "shard-3", "shard-6"]
    for more in ("", "?own=2,3,6", "?shards=8&partitioner=crc32"):
        with closing(open_store(filled + more)) as store:
            assert store.share == Share((2, 3, 6), 8, "crc32") == node_of(filled + more)
            assert sorted(store.scan()) == [(user, b"1") for user in sorted(OWN)]


def test_fewer_shards_are_opened_where_some_have_moved_and_a_lost_one_is_never_made_anew(filled, tmp_path):
    for _ in range(2):
        with closing(open_store(filled + "?own=3,6")) as store:
            assert {part_of(user, 8) for user, _ in store.scan()} == {3, 6}
    assert node_of(filled) == Share((3, 6), 8, "crc32")
    with pytest.raises(StoreCorruptError, match=r"shard-5 is missing.*--restore --shard 5"):
        open_store(filled + "?own=3,5-6")
    assert not (tmp_path / "store" / "shard-5").exists()


def test_users_of_other_shards_are_refused_and_never_taken_for_unknown(filled):
    with closing(open_store(filled)) as store:
        for ask in (
            lambda: store.read_many([OWN[0], OTHER]),
            lambda: store.events(OTHER),
            lambda: store.commit(Commit(records={0: {OTHER: b"2"}})),
            lambda: store.commit(Commit(deleted=[OTHER])),
        ):
            with pytest.raises(OtherShardError, match="does not have shard") as caught:
                ask()
            assert caught.value.shard == part_of(OTHER, 8)
    with closing(open_store(filled + "?own=6")) as store, pytest.raises(OtherShardError):
        store.read_many([OTHER])


def test_a_partition_s_position_is_in_its_own_shard(filled):
    user = next(user for user in OWN if part_of(user, 8) == 3)
    with closing(open_store(filled)) as store:
        store.commit(Commit(records={0: {user: b"2"}}, bases={0: {user: b"1"}}, watermarks={("t", 3): 7}))
        assert [store.watermark("t", number) for number in (2, 3, 6)] == [-1, 7, -1]
        assert store.positions("t", 3, [user]) == [7]
    with closing(open_store(filled + "?own=3")) as store:
        assert store.watermark("t", 3) == 7 and store.read_many([user]) == [b"2"]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("?shards=4&own=2", "has 8 shards"),
        ("?partitioner=murmur2", "divided by crc32"),
        ("?own=8", "shard 8 of 8"),
        ("?own=2-", "shards '2-'"),
        ("?own=", "option"),
        ("?partitioner=md5", "option"),
    ],
)
def test_another_number_another_partitioner_and_what_is_no_range_are_refused(filled, more, found):
    with pytest.raises(UsageError, match=found):
        open_store(filled + more)


def test_own_shards_are_of_a_store_of_shards(url):
    with pytest.raises(UsageError, match="shards = 1"):
        open_store(f"{url}?own=0-3")


def test_a_store_that_was_filled_whole_becomes_a_node_s_but_not_by_another_rule(url, tmp_path):
    with closing(open_store(f"{url}?shards=2")) as store:
        store.commit(Commit(records={0: dict.fromkeys(USERS, b"1")}))
    with pytest.raises(UsageError, match="divided by crc32"):
        open_store(f"{url}?own=0&partitioner=murmur2")
    with closing(open_store(f"{url}?own=1")) as store:
        assert {part_of(user, 2) for user, _ in store.scan()} == {1}
    head = json.loads((tmp_path / "store" / "store.json").read_text())
    assert (head["own"], head["partitioner"], head["shards"]) == ([1], "crc32", 2)


def test_a_shard_that_was_divided_by_another_rule_is_refused(url, tmp_path):
    open_store(f"{url}?shards=2&own=0&partitioner=murmur2").close()
    open_store(f"{url}-2?shards=2&own=0").close()
    (tmp_path / "store-2" / "shard-0").rename(tmp_path / "shard")
    (tmp_path / "store" / "shard-0").rename(tmp_path / "store-2" / "shard-0")
    with pytest.raises(StoreCorruptError, match="divided by murmur2"):
        open_store(f"{url}-2")


def test_ranges_name_shards():
    assert numbers_of("3") == (3,) and numbers_of("7,0-2,2") == (0, 1, 2, 7)
    assert folder_of("rocksdb:///d?shards=64&own=0-2,63").own == (0, 1, 2, 63)


def test_murmur2_is_that_of_kafka_s_java_clients():
    # UtilsTest.testMurmur2 of Apache Kafka; the sign is taken off, as its partitioner does.
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in known} == {key: number & 0x7FFFFFFF for key, number in known.items()}


# One shard by itself


def test_a_shard_moves_to_another_node_and_back_into_one_that_has_lost_it(filled, tmp_path):
    other = f"rocksdb://{tmp_path / 'other'}"
    with closing(open_store(f"{other}?shards=8&own=0")) as store:
        store.bind(IDENTITY)
    with closing(open_store(filled)):
        backup(tmp_path / "store", tmp_path / "copy", shard=3)
    with closing(open_store(other)), pytest.raises(StoreLockedError):
        restore(tmp_path / "copy", tmp_path / "other", shard=3)
    restore(tmp_path / "copy", tmp_path / "other", shard=3)
    with closing(open_store(other)) as store:
        assert store.share.numbers == (0, 3)
        assert {part_of(user, 8) for user, _ in store.scan()} == {3}
    restore(tmp_path / "copy", tmp_path / "new", shard=3)
    restore(tmp_path / "copy", tmp_path / "whole")
    for name in ("new", "whole"):
        assert node_of(f"rocksdb://{tmp_path / name}") == Share((3,), 8, "crc32")
    shutil.rmtree(tmp_path / "store" / "shard-3")
    restore(tmp_path / "copy", tmp_path / "store", shard=3)
    with closing(open_store(filled)) as store:
        assert dict(store.scan()) == dict.fromkeys(OWN, b"1")


def test_a_shard_that_was_filled_until_another_moment_is_refused(filled, tmp_path):
    # The store's moment would be the later one, and events of the shard between the two would be taken for known.
    for name, until in (("store", 500), ("later", 900), ("same", 500), ("never", None)):
        url = filled if name == "store" else f"rocksdb://{tmp_path / name}?shards=8&own=0"
        with closing(open_store(url)) as store:
            store.bind(IDENTITY)
            if until:
                note_filled(store, until)
    backup(tmp_path / "store", tmp_path / "copy", shard=3)
    for name in ("later", "never"):
        with pytest.raises(UsageError, match=f"shard-3 was filled until 500, and .*{name} until (900|None)"):
            restore(tmp_path / "copy", tmp_path / name, shard=3)
        assert sorted(path.name for path in (tmp_path / name).glob("shard-*")) == ["shard-0"]
    restore(tmp_path / "copy", tmp_path / "same", shard=3)
    with closing(open_store(f"rocksdb://{tmp_path / 'same'}")) as store:
        assert (store.share.numbers, filled_until(store)) == ((0, 3), 500)


def test_a_shard_that_is_there_or_is_not_in_the_backup_or_is_of_another_number_is_refused(filled, tmp_path):
    with pytest.raises(UsageError, match="has no shard 4"):
        backup(tmp_path / "store", tmp_path / "copy", shard=4)
    backup(tmp_path / "store", tmp_path / "copy")
    open_store(f"rocksdb://{tmp_path / 'four'}?shards=4&own=0").close()
    open_store(f"rocksdb://{tmp_path / 'unbound'}?shards=8&own=0").close()
    with pytest.raises(UsageError, match="memories of other artifacts"):
        restore(tmp_path / "copy", tmp_path / "unbound", shard=3)
    for shard, name in ((3, "store"), (4, "new"), (3, "four")):
        with pytest.raises(UsageError, match=f"shard {shard} of .* cannot be put into"):
            restore(tmp_path / "copy", tmp_path / name, shard=shard)
    assert sorted(path.name for path in (tmp_path / "four").iterdir()) == ["shard-0", "store.json"]
