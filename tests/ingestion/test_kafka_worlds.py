"""A topic and the processes that follow it, in thousands of simulated worlds.

`LIFELONG_SEED=17 pytest tests/ingestion/test_kafka_worlds.py` runs the world of one seed.
"""

from __future__ import annotations

import logging

import pytest
from support.simulated_topic import Model, World
from support.simulation import SEEDS, assert_no_world_breaks, first_broken, seeds

from lifelong.online.ingestion import kafka
from lifelong.online.memory.updater import Updater
from lifelong.online.store.contract import Commit

pytest.importorskip("confluent_kafka")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Messages come in several pieces, and nothing that the worlds put in place stays."""
    monkeypatch.setattr(kafka, "_PIECE", 3)
    for name in ("consumer", "partitions_of", "clock"):
        monkeypatch.setattr(kafka, name, getattr(kafka, name))
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


@pytest.fixture
def world(artifact):
    """Makes a world of a seed and runs it."""

    def run(seed, apply=Model):
        World(seed, apply, artifact.config.dataset_schema).run()

    return run


def test_nothing_breaks_in_any_world(world):
    assert_no_world_breaks(world, seeds())


def test_nothing_breaks_with_the_real_updater(world, artifact):
    assert_no_world_breaks(lambda seed: world(seed, lambda store: Updater(artifact, store).apply_table), seeds(100))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(30))
def test_nothing_breaks_in_many_worlds(world, part):
    assert_no_world_breaks(world, range((part + 1) * SEEDS, (part + 2) * SEEDS))


class AppliedAgain(Model):
    def position(self, key):
        return -1


class AppliedAgainWithoutBases(Model):
    def keep(self, records, before, key, through, after):
        self.store.commit(Commit(records={0: records}, watermarks={key: through}))


class MemoriesFirst(Model):
    def keep(self, records, before, key, through, after):
        self.store.commit(Commit(records={0: records}, bases={0: before}))
        self.store.commit(Commit(watermarks={key: through}))


class OffsetFirst(Model):
    def keep(self, records, before, key, through, after):
        self.store.commit(Commit(watermarks={key: through}))
        self.store.commit(Commit(records={0: records}, bases={0: before}))


class WhatIsLostIsPassedOver(Model):
    def reached(self, key):
        return 2**40

    def keep(self, records, before, key, through, after):
        super().keep(records, before, key, through, -1)


MISTAKES = [*Model.__subclasses__()]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda kind: kind.__name__)
def test_a_mistake_in_how_events_are_applied_is_found(world, mistake):
    assert first_broken(lambda seed: world(seed, mistake), range(3_000)) is not None


def start_where_the_group_is(self, partitions):
    """Begin where Kafka's own offset of the group is."""
    committed = self._store._world.committed
    return [self._kafka.TopicPartition("t", partition, committed.get(partition, 0)) for partition in partitions]


def place_of_the_moment(self, *_):
    """Compare the store with where a partition is now, not with where it was when messages were read."""
    self._before = self._place_of


def test_beginning_where_the_group_is_would_be_found(world, monkeypatch):
    monkeypatch.setattr(kafka.Stream, "starts", start_where_the_group_is)
    assert first_broken(world, range(3_000)) is not None


def test_messages_that_are_gathered_when_their_partition_is_given_back_would_be_found(world, monkeypatch):
    drop = kafka.Stream.drop
    monkeypatch.setattr(kafka.Stream, "drop", lambda self, some: (drop(self, some), place_of_the_moment(self)))
    assert first_broken(world, range(3_000)) is not None
