"""RocksDB's own cache of blocks of its files."""

import os
from contextlib import closing

import pytest

pytest.importorskip("rocksdict")

from lifelong.online.store.contract import Commit
from lifelong.online.store.rocksdb import RocksDbStore

USAGE = "rocksdb.block-cache-usage"


def test_blocks_of_files_that_a_purge_has_replaced_leave_the_cache(tmp_path):
    with closing(RocksDbStore(tmp_path / "store", sync=False)) as store:
        taken = []
        for turn in range(12):
            # What cannot be compressed: 400 kB a turn, if all of them stayed.
            store.commit(Commit(records={0: {f"u{place}": os.urandom(4_000) for place in range(100)}}))
            store.commit(Commit(deleted=[f"u{turn}"]))
            store.purge()
            assert len(list(store.scan())) == 99
            taken.append(store._db.property_int_value(USAGE))
    assert taken[0] > 300_000, "a scan fills it"
    assert taken[-1] < 2 * taken[0], taken
