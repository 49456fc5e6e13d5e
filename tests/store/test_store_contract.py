"""Every store against the whole contract."""

from pathlib import Path

import pytest

from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore
from lifelong.testing.store_contract import Check, checks_for


@pytest.mark.parametrize("check", checks_for(durable=False), ids=lambda check: check.__name__)
def test_the_store_in_ram_keeps_the_contract(check: Check) -> None:
    check(InMemoryStore)


@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_rocksdb_store_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    pytest.importorskip("rocksdict")
    from lifelong.online.store.rocksdb import RocksDbStore

    check(lambda: RocksDbStore(tmp_path / "store"))


@pytest.mark.parametrize("shards", [3])
@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_store_of_several_shards_keeps_the_contract(check: Check, shards: int, tmp_path: Path) -> None:
    pytest.importorskip("rocksdict")
    check(lambda: open_store(f"rocksdb://{tmp_path / 'store'}?shards={shards}"))


@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_store_on_a_redis_server_keeps_the_contract(check: Check, redis_url: str) -> None:
    check(lambda: open_store(redis_url))


@pytest.mark.parametrize("check", checks_for(durable=True), ids=lambda check: check.__name__)
def test_the_store_on_a_redis_cluster_keeps_the_contract(check: Check, cluster_url: str) -> None:
    check(lambda: open_store(cluster_url))
