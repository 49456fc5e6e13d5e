"""Topics that begin or end elsewhere than the store expects; the brokers of librdkafka's own mock tell it rightly."""

import json

import pytest

pytest.importorskip("confluent_kafka")

import confluent_kafka as kafka

from lifelong.errors import StreamError
from lifelong.online.ingestion.kafka import Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import consumer, parse
from lifelong.online.memory.updater import Updater
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000


@pytest.fixture(scope="module")
def brokers():
    """`host:port` of a mock broker; it makes topics of four partitions when they are first named."""
    owner = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
    yield ",".join(f"127.0.0.1:{one.port}" for one in owner.list_topics(timeout=20).brokers.values())
    owner.flush(1)


def send(brokers, topic, first, last, *, padding=0):
    """Messages in partition 0; without any, the topic is made."""
    producer = kafka.Producer({"bootstrap.servers": brokers, "log_level": 0, "linger.ms": 5})
    producer.list_topics(topic, timeout=20)
    for k in range(first, last):
        row = {"user": "u", "item": f"i{k}", "time": START + k, "padding": "x" * padding}
        producer.produce(topic, key="u", value=json.dumps(row), partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0


def follow(artifact, store, url, **settings):
    updater = Updater(artifact, store)
    chosen = StreamSettings(**{"idle": 1.0, **settings})
    return Stream(parse(url), store, updater.apply_table, artifact.config.dataset_schema, settings=chosen).run()


@pytest.fixture(scope="module")
def trimmed(brokers):
    """A topic that has lost its first messages; first offset, and the one behind the last."""
    send(brokers, "trimmed", 0, 10)
    client = kafka.Consumer({"bootstrap.servers": brokers, "group.id": "look", "log_level": 0})
    place, number = kafka.TopicPartition("trimmed", 0), 10
    # The mock keeps five million bytes of a partition.
    while client.get_watermark_offsets(place, timeout=20)[0] <= 20:
        send(brokers, "trimmed", number, number + 50, padding=60_000)
        number += 50
    bounds = client.get_watermark_offsets(place, timeout=20)
    client.close()
    return bounds


@pytest.fixture
def behind(brokers, trimmed):
    """The topic's URL, and a store that is at offset 9."""
    store = InMemoryStore()
    store.commit(Commit(watermarks={("kafka:trimmed", 0): 9}))
    return f"kafka://{brokers}/trimmed", store


def test_messages_that_kafka_has_deleted_stop_the_stream_with_their_number(artifact, behind, trimmed):
    (url, store), (first, _) = behind, trimmed
    with pytest.raises(StreamError, match=rf"begins at offset {first}.*{first - 10} messages from 10 .*--on-gap skip"):
        follow(artifact, store, url)
    assert store.watermark("kafka:trimmed", 0) == 9


def test_a_gap_is_passed_where_that_is_wanted_and_counted(artifact, behind, trimmed):
    (url, store), (first, end) = behind, trimmed
    done = follow(artifact, store, url, on_gap="skip")
    assert (done.lost, done.applied.applied) == (first - 10, end - first)
    assert store.watermark("kafka:trimmed", 0) == end - 1
    done = follow(artifact, store, url, on_gap="skip")
    assert (done.lost, done.applied.applied) == (0, 0)


class Cut:
    """A consumer of a topic that loses the ten messages after those that it gives."""

    def __init__(self, client, end):
        self._client, self._end = client, end

    def consume(self, number, timeout):
        return [*self._client.consume(number, 1.0), self]

    def error(self):
        return kafka.KafkaError(kafka.KafkaError._AUTO_OFFSET_RESET)

    def partition(self):
        return 0

    def get_watermark_offsets(self, place, **options):
        return self._end + 10, self._end + 20

    def __getattr__(self, name):
        return getattr(self._client, name)


def test_messages_before_a_gap_are_applied_before_it_is_counted(artifact, brokers, monkeypatch):
    send(brokers, "cut", 0, 20)

    def cut(*given, **more):
        return Cut(consumer(*given, **more), 20)

    monkeypatch.setattr("lifelong.online.ingestion.kafka.consumer", cut)
    store = InMemoryStore()
    with pytest.raises(StreamError, match="begins at offset 30; Kafka has deleted 10 messages from 20 on"):
        follow(artifact, store, f"kafka://{brokers}/cut")
    assert store.watermark("kafka:cut", 0) == 19 and len(store.events("u")) == 20


def test_a_member_of_a_group_passes_a_gap_too(artifact, behind, trimmed, redis_url):
    (url, _), (first, end), store = behind, trimmed, open_store(redis_url)
    store.commit(Commit(watermarks={("kafka:trimmed", 0): 9}))
    done = follow(artifact, store, f"{url}?group=member", on_gap="skip")
    assert (done.lost, done.applied.applied, done.applied.duplicates) == (first - 10, end - first, 0)
    store.close()


def test_a_topic_that_ends_before_the_store_s_place_is_said_to_be_another_one(artifact, brokers):
    store = InMemoryStore()
    send(brokers, "anew", 0, 5)
    store.commit(Commit(watermarks={("kafka:anew", 0): 99}))
    for on_gap in ("stop", "skip"):
        with pytest.raises(StreamError, match=r"ends at offset 5, before 100.*--source"):
            follow(artifact, store, f"kafka://{brokers}/anew", on_gap=on_gap)
    assert follow(artifact, store, f"kafka://{brokers}/anew", source="anew 2").applied.applied == 5


class Answers:
    """A client whose brokers have messages from the asked time on in the first partition, none in the second, and in
    the third nothing earlier. The brokers of the tests cannot look a time up."""

    def offsets_for_times(self, asked, timeout):
        assert [place.offset for place in asked] == [1_000 * START] * 3
        found = {0: 7, 1: -1, 2: 0}
        return [kafka.TopicPartition(place.topic, place.partition, found[place.partition]) for place in asked]

    def get_watermark_offsets(self, place, timeout):
        assert place.partition == 1
        return 3, 12


def test_a_new_store_can_begin_at_a_time(artifact):
    store = InMemoryStore()
    apply, schema = Updater(artifact, store).apply_table, artifact.config.dataset_schema
    stream = Stream(parse(f"kafka://nowhere/log?start={START}"), store, apply, schema)
    stream._skip_what_is_there(Answers(), [0, 1, 2])
    assert [place.offset for place in stream.starts([0, 1, 2])] == [7, 12, kafka.OFFSET_BEGINNING]


def test_a_new_store_can_begin_at_the_end_and_misses_nothing_from_then_on(artifact, brokers):
    store, url = InMemoryStore(), f"kafka://{brokers}/late?start=end"
    send(brokers, "late", 0, 5)
    assert follow(artifact, store, url).applied.applied == 0
    send(brokers, "late", 5, 8)
    done = follow(artifact, store, url)
    assert (done.applied.applied, done.places[0].offset) == (3, 7)
