"""A topic into memories: each message once, whatever happens."""

import json
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("confluent_kafka")

from lifelong.errors import SourceError, StreamError, UsageError
from lifelong.online.ingestion.dead_letters import FileLetters
from lifelong.online.ingestion.kafka import Stream, StreamSettings
from lifelong.online.ingestion.kafka_client import consumer, parse
from lifelong.online.memory.event import decode_event
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import open_store

START = 1_700_000_000
ROWS = [{"user": f"u{k % 7}", "item": f"i{k}", "time": START + k, "event_type": "view"} for k in range(40)]


def follow(artifact, store, url, *, letters=None, **settings):
    """All that the topic holds; its end is where nothing comes for a moment."""
    updater = Updater(artifact, store)
    chosen = StreamSettings(**{"idle": 0.7, **settings})
    return Stream(
        parse(url), store, updater.apply_table, artifact.config.dataset_schema, settings=chosen, letters=letters
    ).run()


def log_of(store, user):
    return [decode_event(event) for event in store.events(user)]


@pytest.mark.parametrize("batch", [0, -1, 1_000_001])
def test_a_commit_of_an_impossible_number_of_messages_is_refused(batch):
    with pytest.raises(UsageError, match="1 to 1,000,000 messages of one commit"):
        StreamSettings(batch=batch)


@pytest.mark.parametrize("batch", [1, 16])
def test_a_commit_has_no_more_messages_than_the_settings_say(artifact, kafka, topic, store, batch):
    kafka.send(topic, ROWS)
    found, updater = [], Updater(artifact, store)

    def apply(table, **place):
        found.append(len(table.user))
        return updater.apply_table(table, **place)

    schema, settings = artifact.config.dataset_schema, StreamSettings(idle=0.7, batch=batch)
    Stream(parse(kafka.url(topic)), store, apply, schema, settings=settings).run()
    assert sum(found) == len(ROWS) and max(found) <= batch


class Again:
    """A consumer that gives each message a second time, as where a partition was lost and is assigned again."""

    def __init__(self, client):
        self._client, self._given = client, []

    def poll(self, timeout):
        found = self._client.poll(timeout)
        self._given = [] if found is None else [found]
        return found

    def consume(self, number, timeout):
        before, self._given = self._given, self._client.consume(number - len(self._given), timeout)
        return [*before, *self._given]

    def __getattr__(self, name):
        return getattr(self._client, name)


@pytest.mark.parametrize("again", [False, True])
def test_messages_of_one_commit_are_read_piece_by_piece(artifact, kafka, topic, store, monkeypatch, again):
    kafka.send(topic, [*ROWS[:20], b"no event", *ROWS[20:]], partition=0)
    sizes, updater = [], Updater(artifact, store)

    def apply(table, **place):
        sizes.append(len(table.user))
        return updater.apply_table(table, **place)

    monkeypatch.setattr("lifelong.online.ingestion.kafka._PIECE", 4)
    if again:

        def again(*given, **more):
            return Again(consumer(*given, **more))

        monkeypatch.setattr("lifelong.online.ingestion.kafka.consumer", again)
    schema, settings = artifact.config.dataset_schema, StreamSettings(idle=0.7, on_bad="skip")
    done = Stream(parse(kafka.url(topic)), store, apply, schema, settings=settings).run()
    assert (done.applied.applied, done.applied.bad, done.applied.duplicates) == (40, 1, 0)
    assert done.places[0].offset == 40 and max(sizes) > 4
    for user in range(7):
        assert [event.item for event in log_of(store, f"u{user}")] == [f"i{k}" for k in range(user, 40, 7)]


def test_a_bad_message_in_a_later_piece_stops_behind_all_before_it(artifact, kafka, topic, store, monkeypatch):
    kafka.send(topic, [*ROWS[:20], b"no event", *ROWS[20:]], partition=0)
    monkeypatch.setattr("lifelong.online.ingestion.kafka._PIECE", 4)
    with pytest.raises(SourceError, match="partition 0, offset 20"):
        follow(artifact, store, kafka.url(topic))
    assert sum(len(log_of(store, f"u{user}")) for user in range(7)) == 20


@pytest.fixture(params=["memory", "rocksdb", "shards", "redis", "cluster"])
def opened(request, tmp_path):
    """A function that opens one and the same store, and closes it before."""
    if request.param == "memory":
        store = open_store("memory://")
        yield lambda: store
        store.close()
        return
    if request.param in ("rocksdb", "shards"):
        pytest.importorskip("rocksdict")
        url = f"rocksdb://{tmp_path}/store" + "?shards=2" * (request.param == "shards")
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    stores = []

    def again():
        if stores:
            stores.pop().close()
        stores.append(open_store(url))
        return stores[-1]

    yield again
    stores.pop().close()


def test_each_message_is_applied_once_over_restarts(artifact, kafka, topic, opened):
    kafka.send(topic, ROWS[:25])
    assert follow(artifact, opened(), kafka.url(topic)).applied.applied == 25
    kafka.send(topic, ROWS[25:])
    done = follow(artifact, opened(), kafka.url(topic))
    assert (done.applied.applied, done.applied.duplicates) == (15, 0)
    assert sum(place.offset + 1 for place in done.places.values()) == 40
    assert {place.lag for place in done.places.values()} == {0}
    store = opened()
    for user in range(7):
        assert [event.item for event in log_of(store, f"u{user}")] == [f"i{k}" for k in range(user, 40, 7)]


class Quiet:
    """A consumer whose brokers answer late: its first polls take a second of the clock each, and give nothing."""

    def __init__(self, client, polls):
        self._client, self.polls, self.seconds = client, polls, 0

    def poll(self, timeout):
        if self.polls == 0:
            return self._client.poll(timeout)
        self.polls -= 1
        self.seconds += 1
        return None

    def get_watermark_offsets(self, place, **options):
        return (-1001, -1001) if self.polls else self._client.get_watermark_offsets(place, **options)

    def monotonic(self):
        return time.monotonic() + self.seconds

    def __getattr__(self, name):
        return getattr(self._client, name)


@pytest.mark.parametrize(("patience", "applied", "lag"), [(300, 40, 0), (2, 0, None)])
def test_idle_counts_once_each_partition_s_end_is_known(
    artifact, kafka, topic, store, monkeypatch, patience, applied, lag
):
    def late(address, *, on_error):
        client = Quiet(consumer(address, on_error=on_error), polls=9)
        monkeypatch.setattr("lifelong.online.ingestion.kafka.clock.monotonic", client.monotonic)
        return client

    monkeypatch.setattr("lifelong.online.ingestion.kafka.consumer", late)
    clock = SimpleNamespace(monotonic=time.monotonic, time=time.time)
    monkeypatch.setattr("lifelong.online.ingestion.kafka.clock", clock)
    kafka.send(topic, ROWS)
    done = follow(artifact, store, kafka.url(topic), patience=patience)
    assert done.applied.applied == applied and {place.lag for place in done.places.values()} == {lag}


def test_the_group_s_own_offset_is_told_and_never_read(artifact, kafka, topic, redis_url):
    from confluent_kafka import Consumer, TopicPartition

    store = open_store(redis_url)
    kafka.send(topic, ROWS[:20])
    done = follow(artifact, store, kafka.url(topic, group="watched"))
    watcher = Consumer({"bootstrap.servers": kafka.address, "group.id": "watched", "log_level": 0})
    places = [TopicPartition(topic, partition) for partition in range(3)]
    told = {place.partition: place.offset for place in watcher.committed(places, timeout=20)}
    assert {at: max(offset, 0) for at, offset in told.items()} == {at: p.offset + 1 for at, p in done.places.items()}
    # As if somebody had reset the group, forwards and backwards.
    for offset in (0, 1_000):
        watcher.commit(offsets=[TopicPartition(topic, p, offset) for p in range(3)], asynchronous=False)
        kafka.send(topic, ROWS[20:30] if offset == 0 else ROWS[30:])
        done = follow(artifact, store, kafka.url(topic, group="watched"))
        assert (done.applied.applied, done.applied.duplicates) == (10, 0)
    watcher.close()
    store.close()


BAD = [b"", b"{", b"[1]", None, b'{"user": "u", "item": "i"}', b'{"user": ["u"], "item": "i", "time": 1}', b"\xff"]


def test_a_bad_message_stops_and_what_stands_before_it_is_applied(artifact, kafka, topic, store):
    kafka.send(topic, [*ROWS[:5], BAD[4], *ROWS[5:9]], partition=1)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"partition 1, offset 5, column time: time is None.*--on-bad skip"):
            follow(artifact, store, kafka.url(topic))
        assert store.watermark(f"kafka:{topic}", 1) == 4
        assert len(log_of(store, "u0")) == 1


def test_bad_messages_are_left_out_kept_and_passed_for_good(artifact, kafka, topic, store, tmp_path):
    kafka.send(topic, [ROWS[0], *BAD, ROWS[1], *BAD], partition=2)
    letters = FileLetters(tmp_path / "bad.jsonl")
    done = follow(artifact, store, kafka.url(topic), on_bad="skip", letters=letters)
    assert (done.applied.applied, done.applied.bad) == (2, 14)
    # The last ones are no events, and their place is kept too.
    assert store.watermark(f"kafka:{topic}", 2) == 15
    assert follow(artifact, store, kafka.url(topic), on_bad="skip", letters=letters).applied.bad == 0
    letters.close()
    kept = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [letter["offset"] for letter in kept] == [*range(1, 8), *range(9, 16)]
    assert {(letter["source"], letter["partition"]) for letter in kept} == {(f"kafka:{topic}", 2)}
    assert [letter["value"] for letter in kept[:7]] == ["", "{", "[1]", None, *(bad.decode() for bad in BAD[4:6]),
                                                       {"base64": "/w=="}]  # fmt: skip
    assert all(letter["reason"] for letter in kept) and "not JSON" in kept[1]["reason"]


def test_a_message_too_far_ahead_of_the_clock_is_a_bad_one(artifact, kafka, topic, store):
    far = {**ROWS[0], "time": int(time.time()) + 90_000}
    kafka.send(topic, [ROWS[0], far, ROWS[7]], partition=1)
    with pytest.raises(SourceError, match=r"offset 1, column time: .*too far ahead of this machine's clock"):
        follow(artifact, store, kafka.url(topic))
    done = follow(artifact, store, kafka.url(topic), on_bad="skip")
    assert (done.applied.applied, done.applied.bad) == (1, 1)
    assert follow(artifact, open_store("memory://"), kafka.url(topic), max_ahead=2).applied.applied == 3


def test_columns_late_events_and_event_ids_are_as_in_files(artifact, kafka, topic, store):
    rows = [
        {"user": "u", "what": "i1", "time": START + 9, "category": "c1", "id": "a"},
        {"user": "u", "what": "i2", "time": START + 5, "id": "b"},
        {"user": "u", "what": "i1", "time": START + 9, "id": "a"},
    ]
    kafka.send(topic, rows)
    columns = {"item": "what", "event_id": "id"}
    updater = Updater(artifact, store, late="refuse")
    stream = Stream(
        parse(kafka.url(topic)),
        store,
        updater.apply_table,
        artifact.config.dataset_schema,
        settings=StreamSettings(columns=columns, idle=0.7),
    )
    applied = stream.run().applied
    assert (applied.applied, applied.late, applied.refused, applied.duplicates) == (1, 1, 1, 1)
    assert log_of(store, "u")[0].fields == {"category": "c1"}


def test_messages_whose_key_is_not_the_user_are_said(artifact, kafka, topic, store, caplog):
    kafka.send(topic, [json.dumps(ROWS[0]).encode()])
    follow(artifact, store, kafka.url(topic))
    assert "the key is not the user's id" in caplog.text


def test_a_topic_that_is_not_there_and_a_broker_that_is_not_there_are_said(artifact, kafka, store):
    from support.valkey import free_port

    with pytest.raises(StreamError, match=r"there is no topic 'nothing' at 127.0.0.1"):
        follow(artifact, store, kafka.url("nothing"))
    with pytest.raises(StreamError, match=r"no broker of kafka://127.0.0.1:\d+/t answers.*check that it runs"):
        follow(artifact, store, f"kafka://127.0.0.1:{free_port()}/t", patience=1)
