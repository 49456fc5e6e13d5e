"""The limit of open descriptors."""

import subprocess
import sys

import pytest

from lifelong.online.store.opening import open_store

CODE = """
import resource
from lifelong.online.store.descriptors import raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, min(300, hard)))
assert raise_descriptor_limit() == 300, raise_descriptor_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, 300)
assert raise_descriptor_limit() == 300
"""


MANY_FILES = """
import os, resource, sys
from pathlib import Path
from lifelong.online.store.contract import Commit
from lifelong.online.store.rocksdb import RocksDbStore
store = RocksDbStore(Path(sys.argv[1]), sync=False)
# Files of another size than 64 MB.
store._db.set_options({"target_file_size_base": "4000"})
states = {f"u{number}": os.urandom(4_000) for number in range(400)}
for part in (0, 1):
    store.commit(Commit(records={0: dict(list(states.items())[part::2])}))
    store._db.flush()
store._db.compact_range(None, None)
store.close()
assert len(list(Path(sys.argv[1], "db").glob("*.sst"))) >= 200
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
for read_only in (True, False):
    store = RocksDbStore(Path(sys.argv[1]), read_only=read_only)
    if not read_only:
        store.commit(Commit(records={0: {"new": b"1"}}))
    assert [store.read_many([user]) for user in states] == [[state] for state in states.values()]
    assert len(list(store.scan())) >= len(states)
    store.close()
"""


def test_a_store_with_more_files_than_descriptors_opens_reads_and_writes(tmp_path):
    pytest.importorskip("rocksdict")
    subprocess.run([sys.executable, "-c", MANY_FILES, str(tmp_path / "store")], check=True)


def test_the_soft_limit_is_raised_to_the_hard_one():
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_what_rocksdb_writes_about_itself_takes_no_more_room_for_ever(tmp_path):
    pytest.importorskip("rocksdict")
    for _ in range(6):
        open_store(f"rocksdb://{tmp_path}/store").close()
    assert 1 < len(list((tmp_path / "store" / "db").glob("LOG*"))) <= 4
    options = max((tmp_path / "store" / "db").glob("OPTIONS-*")).read_text()
    assert f"max_log_file_size={2**20}\n" in options
