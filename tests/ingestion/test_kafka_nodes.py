"""Nodes follow the partitions that are their shards, alone."""

import json
from contextlib import closing

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from confluent_kafka import Producer

from lifelong.cli.program import run
from lifelong.errors import SourceError, StreamError, UsageError
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.kafka import Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import parse
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import node_of, open_store

ROWS = [{"user": f"u{k % 20}", "item": f"i{k}", "time": 1_700_000_000 + k, "event_type": "view"} for k in range(100)]


def follow(artifact, url, place, *, letters=None, **settings):
    """Follow a topic to its end; what became of it, and the records."""
    with closing(open_store(url)) as store:
        apply, schema = Updater(artifact, store).apply_table, artifact.config.dataset_schema
        chosen = StreamSettings(**{"idle": 0.7, "share": node_of(url), **settings})
        followed = Stream(parse(place), store, apply, schema, settings=chosen, letters=letters).run()
        return followed, dict(store.scan())


def produce(kafka, topic, partitioner):
    """Send all rows by a producer that chooses partitions by itself."""
    producer = Producer({"bootstrap.servers": kafka.address, "partitioner": partitioner, "log_level": 0})
    for row in ROWS:
        producer.produce(topic, json.dumps(row).encode(), row["user"].encode())
    assert producer.flush(60) == 0


@pytest.mark.parametrize(("partitioner", "of_librdkafka"), [("crc32", "consistent"), ("murmur2", "murmur2")])
def test_two_nodes_together_have_what_one_process_has(artifact, kafka, topic, tmp_path, partitioner, of_librdkafka):
    produce(kafka, topic, of_librdkafka)
    records = {}
    for own in ("0,2", "1", "0-2"):
        url = f"rocksdb://{tmp_path / own}?shards=3&own={own}&partitioner={partitioner}"
        followed, records[own] = follow(artifact, url, kafka.url(topic))
        assert set(followed.places) == set(node_of(url).numbers)
        # Each message once.
        assert follow(artifact, url, kafka.url(topic))[0].applied.applied == 0
    assert records["0-2"] == records["0,2"] | records["1"] and len(records["0-2"]) == 20
    assert records["0,2"] and records["1"]


@pytest.mark.parametrize("value", ["event", "erasure"])
def test_a_message_in_another_partition_than_its_key_s_stops_and_says_what_to_do(
    artifact, kafka, topic, tmp_path, value
):
    url = f"rocksdb://{tmp_path / 'store'}?shards=3&own=0-2"
    at = int(node_of(url).parts(["u1"])[0])
    rows = [ROWS[1], ROWS[21] if value == "event" else None]
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    for row, partition in zip(rows, (at, (at + 1) % 3), strict=True):
        producer.produce(topic, None if row is None else json.dumps(row).encode(), b"u1", partition=partition)
    assert producer.flush(60) == 0
    found = f"user of partition {at} .of 3, by crc32.*partitioner=murmur2" if value == "event" else "without value"
    with pytest.raises(SourceError, match=found) as caught:
        follow(artifact, url, kafka.url(topic))
    assert "u1" not in str(caught.value)
    letters = FileLetters(tmp_path / "letters.jsonl")
    followed, records = follow(artifact, url, kafka.url(topic), on_bad="skip", letters=letters)
    letters.close()
    assert followed.applied.bad == 1 and list(records) == ["u1"]


def test_erasures_are_between_the_events_before_and_after_them(artifact, kafka, topic, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=3&own=0-2"
    share, producer = node_of(url), Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    heard = []
    for row in [*ROWS[:60], None, *ROWS[60:]]:
        for user in [row["user"]] if row else [f"u{n}" for n in range(20)]:
            value, headers = (None, [("lifelong-forget", b"")]) if row is None else (json.dumps(row).encode(), [])
            producer.produce(topic, value, user, partition=int(share.parts([user])[0]), headers=headers)
    assert producer.flush(60) == 0
    with closing(open_store(url)) as store:
        schema, settings = artifact.config.dataset_schema, StreamSettings(idle=0.7, share=share)
        stream = Stream(parse(kafka.url(topic)), store, Updater(artifact, store).apply_table, schema, settings=settings)
        stream.on_erased.append(heard.extend)
        stream.run()
        assert {len(store.events(f"u{n}")) for n in range(20)} == {2}
        found = dict(store.scan())
    assert sorted(heard) == sorted((f"u{n}", True) for n in range(20))
    with closing(open_store("memory://")) as store:
        Updater(artifact, store).apply_table(stream.rows.table_of(ROWS[60:]))
        assert found == dict(store.scan())


def test_a_topic_of_other_partitions_and_a_file_are_refused(artifact, kafka, topic, tmp_path):
    url = f"rocksdb://{tmp_path / 'store'}?shards=4&own=0-1"
    with pytest.raises(StreamError, match="has 3 partitions, and the store 4 shards"):
        follow(artifact, url, kafka.url(topic))
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1\n")
    with closing(open_store(url)) as store, pytest.raises(UsageError, match="partitions of a topic"):
        ingest(artifact, store, tmp_path / "log.csv")


def test_the_command_reads_a_node_s_partitions_and_says_how_far(artifact, kafka, topic, tmp_path, capsys):
    produce(kafka, topic, "consistent")
    url = f"rocksdb://{tmp_path / 'store'}?shards=3&own=1-2"
    words = ["ingest", str(artifact.path), kafka.url(topic), "--store", url, "--max-idle", "1s", "--json"]
    for applied in (True, False):
        assert run(words) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["applied"] > 0) == applied and set(said["partitions"]) == {"1", "2"}
