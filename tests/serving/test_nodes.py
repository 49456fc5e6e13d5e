"""Nodes that own shards: what comes through the topic, and who answers for whom."""

import json
import signal
import time
from contextlib import closing, contextmanager

import httpx
import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from support.client import Client as InProcess
from support.kafka import broker
from support.processes import until
from support.serving import Service

from lifelong.client import Client
from lifelong.errors import RequestError, UsageError
from lifelong.online.ingestion.kafka import StreamSettings
from lifelong.online.ingestion.kafka_client import parse
from lifelong.online.memory.event import UserEvent
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.serving.app import create_app, follow
from lifelong.online.serving.peers import Peers, read_peers
from lifelong.online.store.opening import node_of, open_store
from lifelong.online.store.part import part_of

START = 1_700_000_000
HERE, THERE = ([user for user in map("u{}".format, range(40)) if part_of(user, 3) // 2 == side] for side in (0, 1))


@contextmanager
def node(artifact, kafka, topic, folder, own, *options):
    url = f"rocksdb://{folder}?shards=3&own={own}"
    place = ["--topic", kafka.url(topic), *options]
    with Service.started(artifact, url, place, errors=folder.with_suffix(".stderr")) as service:
        until(lambda: service.ready, "a node does not get ready")
        yield service


@pytest.fixture(scope="module")
def nodes(artifact, kafka, tmp_path_factory):
    """Two nodes, and a standby of the first one: (folder, its services)."""
    folder = tmp_path_factory.mktemp("nodes")
    kafka.make("nodes", 3)
    peers = folder / "peers.toml"
    peers.write_text("")
    options = "--peers", str(peers)
    with (
        node(artifact, kafka, "nodes", folder / "one", "0-1", *options) as one,
        node(artifact, kafka, "nodes", folder / "two", "2", *options) as two,
        node(artifact, kafka, "nodes", folder / "standby", "0-1", *options) as standby,
    ):
        peers.write_text(json.dumps({"0-1": one.address, "2": two.address + "/"}))
        until(lambda: "location" in score(one, THERE[0]).headers, "the file is not read again")
        yield folder, (one, two, standby)


def event(user, number, **more):
    return UserEvent(user, f"i{number}", START + number, event_id=f"{user} {number}", **more)


def score(service, user):
    return httpx.post(f"{service.address}/v1/score", json={"user": user, "items": ["i1"]})


def count(service, user):
    return score(service, user).json()["count"]


def test_events_of_any_user_are_taken_and_are_in_the_memories_of_both_processes_that_follow(nodes):
    _, (one, two, standby) = nodes
    users = [HERE[0], THERE[0]]
    with Client(one.address) as client:
        for _ in range(2):
            reply = client.events([event(user, number) for user in users for number in range(3)])
            assert (reply.queued, reply.applied, reply.no_dedup) == (6, 0, 0)
            # The user's partition is followed here: the answer came when the memory had the events.
            assert count(one, HERE[0]) == 3
        assert client.score(ScoreRequest(THERE[0], ["i1"])).user == THERE[0]
    until(lambda: count(two, THERE[0]) == 3 and count(standby, HERE[0]) == 3, "an event did not come")


def test_a_request_about_another_node_s_user_is_answered_with_its_address(nodes):
    _, (one, two, _) = nodes
    user = THERE[1]
    paths = f"/v1/users/{user}/top?limit=3", f"/v1/users/{user}/memory", f"/v1/admin/users/{user}"
    for path in paths:
        answer = httpx.get(one.address + path)
        assert (answer.status_code, answer.headers["location"]) == (421, two.address + path)
        assert answer.json()["error"]["type"] == "OtherShardError" and user not in answer.text
    assert httpx.delete(f"{one.address}/v1/users/{user}/memory").status_code == 421
    several = {"requests": [{"user": user, "items": ["i1"]} for user in (HERE[0], user)]}
    assert httpx.post(f"{one.address}/v1/score", json=several).status_code == 421
    # Looked for by a part of her id, she is not here.
    assert all(found["user"] != user for found in httpx.get(f"{one.address}/v1/users?q={user}").json()["users"])


def test_an_erasure_comes_to_every_process_that_follows(nodes):
    _, (one, _, standby) = nodes
    for user, path, reply in (
        (HERE[2], "/v1/users/{}/memory", {"user": HERE[2], "erased": True}),
        (HERE[3], "/v1/admin/users/{}", {"erased": True, "purged": True}),
    ):
        with Client(one.address) as client:
            client.events([event(user, number) for number in range(3)])
            until(lambda user=user: count(standby, user) == 3, "an event did not come")
            assert httpx.delete(one.address + path.format(user), timeout=60).json().items() >= reply.items()
            assert count(one, user) == 0
            until(lambda user=user: count(standby, user) == 0, "the erasure did not come")
            # An id of before is as unknown as the user.
            client.events([event(user, 1), event(user, 9)])
            assert count(one, user) == 2
            until(lambda user=user: count(standby, user) == 2, "an event did not come")


def test_what_the_topic_s_readers_would_stop_at_is_refused_and_items_too(nodes):
    _, (one, _, _) = nodes
    ahead = {"events": [{"user": HERE[4], "item": "i1", "time": int(time.time()) + 10 * 86_400}]}
    answer = httpx.post(f"{one.address}/v1/events", json=ahead)
    assert answer.status_code == 422 and "ahead" in answer.text and count(one, HERE[4]) == 0
    refused = httpx.put(f"{one.address}/v1/items", json={"items": [{"item": "new", "fields": {}}]})
    assert refused.status_code == 409 and "the others would not have them" in refused.text
    assert one.ready


def test_node_and_standby_have_the_same_records(nodes):
    folder, services = nodes
    for service in services:
        service.stop()
    records = []
    for name in ("one", "standby"):
        with closing(open_store(f"rocksdb://{folder / name}", read_only=True)) as store:
            assert store.share.numbers == (0, 1)
            records.append((dict(store.scan()), [store.watermark("kafka:nodes", at) for at in (0, 1)]))
    assert records[0] == records[1] and len(records[0][0]) > 2


def test_a_node_is_not_started_without_its_topic_nor_with_moments_of_its_own(artifact, kafka, topic, tmp_path):
    from lifelong.cli.serve import _following
    from lifelong.online.serving.settings import ServiceConfig

    url = f"rocksdb://{tmp_path / 'store'}?shards=3&own=0"
    with pytest.raises(UsageError, match="without a topic"):
        _following(None, ServiceConfig(), url)
    config = ServiceConfig(forget_after=9)
    following = _following(kafka.url(topic), config, url)
    with closing(open_store(url)) as store, pytest.raises(UsageError, match="at another moment"):
        follow(create_app(artifact, store, settings=config), following.address, following.settings, None)


# The file of addresses


def test_addresses_are_read_again_when_they_change_and_stay_when_they_are_wrong(tmp_path):
    path, second = tmp_path / "peers", [0.0]
    path.write_text('"0-2,7" = "http://a:1/"\n"3" = "https://b"\n')
    peers = Peers(path, read_peers, what="addresses", now=lambda: second[0])
    assert peers.content() == {**dict.fromkeys((0, 1, 2, 7), "http://a:1"), 3: "https://b"}
    path.write_text('{"0": "http://c"}')
    assert peers.content()[0] == "http://a:1"
    second[0] = 2.0
    assert peers.content() == {0: "http://c"}
    path.write_text('{"0": "c"}')
    second[0] = 4.0
    assert peers.content() == {0: "http://c"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-7 http://a", "cannot read"),
        ('"0-7" = "a:80"', "'a:80'"),
        ('"0-7" = "http://a"\n"7" = "http://b"', "shard 7 is at two"),
        ('"x" = "http://a"', "shards 'x'"),
    ],
)
def test_a_wrong_file_of_addresses_is_refused(tmp_path, text, found):
    path = tmp_path / "peers"
    path.write_text(text)
    with pytest.raises(UsageError, match=found):
        read_peers(path)


# The client


def moved(path):
    return httpx.Response(421, headers={"location": f"{path}/v1/score"}, json=ERROR)


ERROR = {"error": {"type": "OtherShardError", "found": "elsewhere", "expected": "", "fix": "ask there"}}
REPLY = {"user": "u", "known_user": True, "count": 1, "artifact": "a", "request_id": None, "negatives": "none"}
REPLY |= {"reason": None, "scores": []}


def asked(*answers, address="http://one"):
    """The addresses that a client asks, and what it gets."""
    coming, places = list(answers), []

    def answer(request):
        places.append(str(request.url.copy_with(path="/")))
        found = coming.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    with Client(address, patience=1.0, transport=httpx.MockTransport(answer)) as client:
        try:
            found = client.score(ScoreRequest("u", ["i"])).count
        except RequestError as error:
            found = str(error)
    return places, found


def test_the_client_goes_on_to_the_owner_and_begins_again_if_that_one_is_away():
    one, two = "http://one/", "http://two/"
    assert asked(moved("http://two"), httpx.Response(200, json=REPLY)) == ([one, two], 1)
    away = httpx.ConnectError("gone")
    assert asked(moved("http://two"), away, httpx.Response(200, json=REPLY)) == ([one, two, one], 1)
    assert asked(moved("http://two"), moved("http://one"), httpx.Response(200, json=REPLY)) == ([one, two, one], 1)


def test_the_client_does_not_go_on_to_nowhere_nor_to_where_its_key_could_be_read():
    assert asked(httpx.Response(421, json=ERROR)) == (["http://one/"], asked(httpx.Response(421, json=ERROR))[1])
    assert "elsewhere" in asked(httpx.Response(421, json=ERROR))[1]
    assert "elsewhere" in asked(moved("http://two"), address="https://one")[1]


# A broker that is away


def test_events_are_refused_while_the_broker_is_away_and_taken_when_it_is_back(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr("lifelong.online.serving.topic_writes._DELIVERY", 1.0)
    url = f"rocksdb://{tmp_path / 'store'}?shards=3&own=0-2"
    with broker(tmp_path / "kafka") as kafka, closing(open_store(url)) as store:
        kafka.make("t", 3)
        app = create_app(artifact, store)
        follow(app, parse(kafka.url("t")), StreamSettings(share=node_of(url)), None)
        client, body = InProcess(app), {"events": [{"user": "u", "item": "i1", "time": START, "event_id": "1"}]}
        kafka.process.send_signal(signal.SIGSTOP)
        answer = client.post("/v1/events", body)
        assert answer.status_code == 503 and "did not take all messages" in answer.text
        assert client.delete("/v1/users/u/memory").status_code == 503
        kafka.process.send_signal(signal.SIGCONT)
        # Nobody follows it here, so that it is in the topic alone.
        until(lambda: client.post("/v1/events", body).status_code == 200, "the broker does not come back")
        assert client.post("/v1/events", body).json()["queued"] == 1
        assert list(store.scan()) == []
