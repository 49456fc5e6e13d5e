"""A service goes on while an artifact takes over: no request fails, each answer is of one of them, nothing is lost."""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.client import HTTPConnection, HTTPException

import numpy as np
import pytest
from support.processes import children, command_of, until
from support.serving import Service
from support.valkey import server

from lifelong.artifact.folder import Artifact
from lifelong.cli import main
from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.memory.event import UserEvent, decode_event
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

START = 1_700_000_000
ITEMS = ["i1", "i2", "i3"]


@contextlib.contextmanager
def service(artifact, url, *options):
    """A running `lifelong serve`: its process and address."""
    with Service.started(artifact, url, options) as running:
        try:
            yield running.process, running.address
        finally:
            # Killed, and not stopped: what was answered has to be on disk. Workers would outlive their parent.
            if "--workers" in options:
                running.process.terminate()
                running.process.wait()


def call(address, path, body=None, method=None):
    request = urllib.request.Request(
        address + path,
        None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", "connection": "close"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def ready(address, artifact, seconds=300):
    """Wait until the memories of an artifact are complete."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = next(one for one in call(address, "/v1/admin/artifacts")["artifacts"] if one["id"] == artifact.id)
        assert state["error"] is None
        if state["phase"] == "ready":
            return
        time.sleep(0.05)
    raise AssertionError("the memories were not built in time")


class Load:
    """Clients that post events and ask for scores, and note what they got."""

    def __init__(self, address, users=20):
        self.address, self.users, self.stop = address, users, threading.Event()
        self.sent, self.failures, self.seen = [], [], Counter()
        self.scores = []
        self.threads = [threading.Thread(target=self._post), *(threading.Thread(target=self._ask) for _ in range(2))]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _post(self):
        for number in itertools.count():
            if self.stop.is_set():
                return
            event = {"user": f"u{number % self.users}", "item": f"i{number % 50}", "time": START + number}
            event |= {"event_type": "view", "event_id": f"e{number}"}
            self._noted(lambda event=event: call(self.address, "/v1/events", {"events": [event]}))
            self.sent.append(event)

    def _ask(self):
        rng = random.Random(threading.get_ident())
        while not self.stop.is_set():
            body = {"user": f"u{rng.randrange(self.users)}", "items": ITEMS, "time": START + 10**6}
            reply = self._noted(lambda body=body: call(self.address, "/v1/score", body))
            if reply:
                self.seen[reply["artifact"]] += 1
                scores = [one["score"] for one in reply["scores"]]
                self.scores.append((reply["artifact"], reply["user"], reply["count"], scores))

    def _noted(self, work):
        try:
            return work()
        except Exception as error:
            self.failures.append(error)

    def wait(self, number):
        """Until so many more events were posted."""
        goal, deadline = len(self.sent) + number, time.monotonic() + 300
        while len(self.sent) < goal and time.monotonic() < deadline and not self.failures:
            time.sleep(0.02)

    def of_the_next(self, number):
        """Artifacts that scored while so many more events were posted."""
        self.seen.clear()
        self.wait(number)
        return set(self.seen)


def assert_replay(url, artifact, events):
    """Every memory of an artifact is what the events give under it, one after another."""
    alone = InMemoryStore()
    Updater(artifact, alone).apply([UserEvent(**event) for event in events])
    store = open_store(url, read_only=True)
    try:
        slot = store.artifact_list().find(artifact.id).space
        found, wanted = dict(store.scan(slot)), dict(alone.scan())
    finally:
        store.close()
    assert found.keys() == wanted.keys()
    runtime = Runtime(artifact)
    one, other = (runtime.decode([rows[user] for user in wanted]) for rows in (found, wanted))
    assert one.count_B.tolist() == other.count_B.tolist() and one.last_time_B.tolist() == other.last_time_B.tolist()
    np.testing.assert_allclose(one.fields["slot"], other.fields["slot"], atol=1e-5)


def assert_never_mixed(load, artifacts):
    """Each answer equals what its artifact gives for a memory of its own with as many events."""
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.scorer import Scorer

    by_user = {}
    for event in load.sent:
        by_user.setdefault(event["user"], []).append(UserEvent(**event))
    for artifact in artifacts:
        answers = {(user, count): scores for id_, user, count, scores in load.scores if id_ == artifact.id}
        store = InMemoryStore()
        updater = Updater(artifact, store)
        scorer = Scorer(artifact, store)
        for user, events in by_user.items():
            for count in range(len(events) + 1):
                if count:
                    updater.apply([events[count - 1]])
                if (user, count) in answers:
                    answer = scorer.answer([ScoreRequest(user, ITEMS, START + 10**6)])[0]
                    np.testing.assert_allclose([one.score for one in answer.scores], answers[user, count], atol=1e-4)


def take_over(address, artifact, newer, load):
    """A whole takeover by the commands, with the way back, under load."""
    load.wait(30)
    assert main(["backfill", str(newer.path), "--store", address]) == 0
    load.wait(10)
    assert main(["switch", str(newer.path), "--store", address]) == 0
    load.wait(30)
    assert main(["switch", "--back", "--store", address]) == 0
    load.wait(30)
    assert main(["switch", newer.id[:10], "--store", address]) == 0
    load.wait(10)


def test_a_takeover_under_load_fails_no_request_and_loses_no_event(artifact, newer, tmp_path):
    url = f"rocksdb://{tmp_path}/store"
    with service(artifact, url) as (process, address):
        with Load(address) as load:
            take_over(address, artifact, newer, load)
        assert load.failures == []
        assert load.seen[artifact.id] > 0 and load.seen[newer.id] > 0 and len(load.seen) == 2
        assert call(address, "/v1/score", {"user": "u1", "items": ITEMS})["artifact"] == newer.id
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
    for one in (artifact, newer):
        assert_replay(url, one, load.sent)
    assert_never_mixed(load, [artifact, newer])


def test_a_takeover_of_several_workers_on_a_shared_store(artifact, newer, tmp_path):
    pytest.importorskip("redis")
    if not shutil.which("valkey-server"):
        pytest.skip("valkey-server is not installed (Debian: valkey-server)")
    with server(tmp_path) as valkey:
        url = f"redis://127.0.0.1:{valkey.port}"
        with service(artifact, url, "--workers", "2") as (_, address):
            with Load(address) as load:
                load.wait(30)
                # Any process may build and switch.
                assert main(["backfill", str(newer.path), "--store", url]) == 0
                load.wait(10)
                assert main(["switch", newer.id, "--store", url]) == 0
                # Each process looks at the list now and then.
                until(lambda: load.of_the_next(60) == {newer.id}, "somebody still scores with the old artifact")
                assert main(["switch", "--drop", artifact.id, "--store", url]) == 0
                load.wait(20)
            assert load.failures == []
        assert_replay(url, newer, load.sent)
        assert_never_mixed(load, [artifact, newer])


def test_a_takeover_of_several_workers_on_an_embedded_store(artifact, newer, tmp_path):
    """Each call is a connection of its own, which either worker may take."""
    url = f"rocksdb://{tmp_path}/store"
    with service(artifact, url, "--workers", "2") as (process, address):
        with Load(address) as load:
            load.wait(30)
            call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
            ready(address, newer)
            call(address, "/v1/admin/switch", {"artifact": newer.id})
            assert load.of_the_next(60) - {newer.id} <= {artifact.id}
            call(address, f"/v1/admin/artifacts/{artifact.id}", method="DELETE")
            load.wait(20)
        assert load.failures == []
        process.terminate()
        assert process.wait(timeout=300) == 0
    assert_replay(url, newer, load.sent)
    assert_never_mixed(load, [artifact, newer])


@contextlib.contextmanager
def connections(address, number):
    """Connections that stay open, so that each of two workers has some."""
    host = address.removeprefix("http://")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(HTTPConnection(host, timeout=60))) for _ in range(number)]


def scored_by(connection):
    """The artifact of the next score on a connection."""
    body = json.dumps({"user": "u1", "items": ITEMS})
    connection.request("POST", "/v1/score", body, {"content-type": "application/json"})
    with connection.getresponse() as reply:
        assert reply.status == 200
        return json.load(reply)["artifact"]


def scoring(process):
    """The workers of a service."""
    return [one for one in children(process.pid) if "spawn_main" in command_of(one)]


def workers_are_heard(address, number):
    found = {line for line in text(address, "/metrics").splitlines() if line.startswith("lifelong_build_info{")}
    return len(found) == number


def text(address, path):
    with urllib.request.urlopen(address + path, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("kind", ["rocksdb", "valkey"])
def test_once_a_switch_is_answered_every_worker_scores_with_the_new_artifact(artifact, newer, tmp_path, request, kind):
    url = f"rocksdb://{tmp_path}/store" if kind == "rocksdb" else request.getfixturevalue("redis_url")
    with service(artifact, url, "--workers", "2") as (_, address):
        call(address, "/v1/events", {"events": [{"user": "u1", "item": "i1", "time": START}]})
        call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
        ready(address, newer)
        until(lambda: workers_are_heard(address, 2))
        with connections(address, 16) as some:
            assert {scored_by(one) for one in some} == {artifact.id}
            for body, wanted in [({"artifact": newer.id}, newer), ({"back": True}, artifact)] * 2:
                call(address, "/v1/admin/switch", body)
                assert [scored_by(one) for one in some] == [wanted.id] * 16


def test_a_switch_that_a_worker_does_not_follow_names_it(artifact, newer, tmp_path):
    with service(artifact, f"rocksdb://{tmp_path}/store", "--workers", "2") as (process, address):
        call(address, "/v1/events", {"events": [{"user": "u1", "item": "i1", "time": START}]})
        call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
        ready(address, newer)
        until(lambda: workers_are_heard(address, 2))
        hung = scoring(process)[0]
        os.kill(hung, signal.SIGSTOP)
        try:
            # The one that hangs may have taken the connection.
            until(lambda: not_followed(address, newer) == [hung])
        finally:
            os.kill(hung, signal.SIGCONT)
        until(lambda: call(address, "/v1/admin/switch", {"artifact": newer.id})["served"] == newer.id)


def not_followed(address, artifact):
    """The workers that an answer to a switch names."""
    host, body = address.removeprefix("http://"), json.dumps({"artifact": artifact.id})
    with contextlib.closing(HTTPConnection(host, timeout=15)) as connection:
        connection.request("POST", "/v1/admin/switch", body, {"content-type": "application/json"})
        try:
            with connection.getresponse() as reply:
                found = json.load(reply)["error"]["found"]
                assert reply.status == 504
        except TimeoutError:
            return None
        return [int(word) for word in re.findall(r"process id (\d+)", found)]


def write_many(url, artifact, users, each=3):
    """A store of many users, so that a build takes a while."""
    with contextlib.closing(open_store(url)) as store:
        updater = Updater(artifact, store)
        for first in range(0, users, 500):
            some = [f"u{number}" for number in range(first, min(users, first + 500))]
            updater.apply([UserEvent(user, f"i{k}", START + k) for user in some for k in range(each)])


def state_of(address, artifact):
    return next(one for one in call(address, "/v1/admin/artifacts")["artifacts"] if one["id"] == artifact.id)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_goes_on_after_its_writer_was_killed_and_its_artifact_can_be_served(artifact, newer, tmp_path, workers):
    url = f"rocksdb://{tmp_path}/store"
    write_many(url, artifact, 6_000)
    with service(artifact, url, *["--workers", "2"] * (workers - 1)) as (process, address):
        call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
        # Of several workers the one that was asked builds.
        until(lambda: state_of(address, newer)["looked"])
        assert state_of(address, newer)["phase"] == "building"
        (writer,) = [one for one in children(process.pid) if "run_writer" in command_of(one)]
        os.kill(writer, signal.SIGKILL)
        until(lambda: answered(lambda: state_of(address, newer)["phase"] == "ready"))
        assert call(address, "/v1/admin/switch", {"artifact": newer.id})["served"] == newer.id
        assert call(address, "/v1/score", {"user": "u1", "items": ITEMS})["artifact"] == newer.id
        lines = text(address, "/metrics").splitlines()
        assert {line.split()[1] for line in lines if re.match(r"lifelong_building\b", line)} == {"0.0"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
    events = [{"user": f"u{number}", "item": f"i{k}", "time": START + k} for number in range(6_000) for k in range(3)]
    assert_replay(url, newer, events)


def test_a_build_on_a_full_disk_goes_on_when_there_is_room(artifact, newer, small_disk):
    url, filler = f"rocksdb://{small_disk}/store", small_disk / "filler"
    write_many(url, artifact, 3_000)
    with service(artifact, url) as (_, address):
        call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
        until(lambda: state_of(address, newer)["looked"])
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))
        until(lambda: answered(lambda: "is full" in (state_of(address, newer)["error"] or "")))
        assert state_of(address, newer)["running"]
        filler.unlink()
        until(lambda: answered(lambda: state_of(address, newer)["phase"] == "ready"))
        assert call(address, "/v1/admin/switch", {"artifact": newer.id})["served"] == newer.id
        until(lambda: answered(lambda: "failing" not in call(address, "/readyz")))


def answered(true):
    """Whether something is true; False while the service answers that its store is away."""
    with contextlib.suppress(urllib.error.HTTPError):
        return true()
    return False


def test_a_kill_at_any_point_leaves_a_store_that_serves_one_artifact_whole(artifact, newer, tmp_path):
    url, rng, epochs = f"rocksdb://{tmp_path}/store", random.Random(5), []
    steps = ["events", "add", "switch", "back", "switch", "drop"]
    for last in range(len(steps)):
        with service(Artifact.open(served(url)) if last else artifact, url) as (process, address):
            for at, step in enumerate(steps[: last + 1]):
                if at == last:
                    delay = rng.random() * 0.1
                    killer = threading.Timer(delay, lambda p=process: os.kill(p.pid, signal.SIGKILL))
                    killer.start()
                with (
                    contextlib.suppress(OSError, ValueError, HTTPException) if at == last else contextlib.nullcontext()
                ):
                    take(step, address, artifact, newer, START + 1_000 * last + 100 * at)
            killer.join()
            process.wait(timeout=300)
        epochs.append(check_whole(url, {artifact.id: artifact, newer.id: newer}))
    assert epochs == sorted(epochs) and epochs[-1] > 3


def take(step, address, artifact, newer, moment):
    """One step of a takeover, with events before and behind it."""
    events = [{"user": f"u{number % 7}", "item": f"i{number}", "time": moment + number} for number in range(40)]
    call(address, "/v1/events", {"events": events[:20]})
    if step == "add":
        call(address, "/v1/admin/artifacts", {"path": str(newer.path)})
        ready(address, newer)
    elif step == "drop":
        call(address, f"/v1/admin/artifacts/{artifact.id}", method="DELETE")
    elif step != "events":
        call(address, "/v1/admin/switch", {"back": True} if step == "back" else {"artifact": newer.id})
    call(address, "/v1/events", {"events": events[20:]})


def served(url):
    store = open_store(url, read_only=True)
    try:
        return store.artifact_list().identity.path
    finally:
        store.close()


def check_whole(url, artifacts):
    """Each artifact that could be served has every memory, as the store's own log gives it."""
    store = open_store(url)
    try:
        artifact_list = store.artifact_list()
        users = [user for user, _ in store.scan(artifact_list.served.space)]
        events = [
            (user, count, decode_event(value))
            for user, log in zip(users, store.logs([(user, 0) for user in users]), strict=True)
            for count, value in log
        ]
        assert artifact_list.served.ready
    finally:
        store.close()
    for stored in artifact_list.artifacts:
        if stored.ready:
            sent = [
                {"user": user, "item": event.item, "time": event.time, "event_type": event.event_type}
                for user, _, event in events
            ]
            assert_replay(url, artifacts[stored.id], sent)
    return artifact_list.epoch


# in process


def test_an_artifact_that_is_not_there_is_refused_and_nothing_changes(client, tmp_path):
    reply = client.post("/v1/admin/artifacts", {"path": str(tmp_path)})
    assert reply.status_code == 409
    assert "manifest.json" in reply.json()["error"]["found"]
    assert len(client.get("/v1/admin/artifacts").json()["artifacts"]) == 1


def test_an_unknown_artifact_cannot_be_switched_to(client):
    reply = client.post("/v1/admin/switch", {"artifact": "feed"})
    assert reply.status_code == 409 and "no artifact 'feed'" in reply.json()["error"]["found"]
    assert client.post("/v1/admin/switch", {}).status_code == 422
    assert client.post("/v1/admin/switch", {"artifact": "a", "back": True}).status_code == 422
    assert client.post("/v1/admin/switch", {"back": True}).status_code == 409


def test_the_served_artifact_cannot_be_dropped(client, artifact):
    reply = client.delete(f"/v1/admin/artifacts/{artifact.id[:8]}")
    assert reply.status_code == 409 and "is served" in reply.json()["error"]["found"]


def test_a_drop_that_an_outage_of_the_store_interrupts_is_finished_in_the_background(
    app, client, store, newer, monkeypatch
):
    app.state.takeovers.start()
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": START}]})
    client.post("/v1/admin/artifacts", {"path": str(newer.path)})
    until(lambda: store.artifact_list().find(newer.id).ready)
    clear, cleared = store.clear, []

    def fail_once(space):
        cleared.append(space)
        if len(cleared) == 1:
            raise StoreUnavailableError("the disk is full", fix="free space")
        clear(space)

    monkeypatch.setattr(store, "clear", fail_once)
    assert client.delete(f"/v1/admin/artifacts/{newer.id}").status_code == 503
    until(lambda: not store.artifact_list().dropping)
    assert len(cleared) == 2 and list(store.scan(cleared[0])) == []
    app.state.takeovers.close()


def test_a_worker_that_starts_while_the_store_is_away_waits_for_it(app, store, monkeypatch):
    monkeypatch.setattr(store, "shared", True, raising=False)
    service, tries = app.state.service, []
    refresh = service.refresh

    def fail_once():
        tries.append(None)
        if len(tries) == 1:
            raise StoreUnavailableError("the writer is being replaced")
        return refresh()

    monkeypatch.setattr(service, "refresh", fail_once)
    app.state.takeovers.start()
    app.state.takeovers.close()
    assert len(tries) >= 2


def test_a_build_waits_while_the_store_is_away_and_says_why_and_an_error_that_lasts_ends_it(
    app, client, store, newer, monkeypatch
):
    app.state.takeovers.start()
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": START}]})
    errors = [StoreUnavailableError("the disk is full"), StoreError("the events of u are not known")]

    def fail(*_, **__):
        raise errors[0]

    monkeypatch.setattr("lifelong.online.serving.takeovers.Rebuild.build", fail)
    client.post("/v1/admin/artifacts", {"path": str(newer.path)})

    def state():
        (found,) = [one for one in client.get("/v1/admin/artifacts").json()["artifacts"] if one["id"] == newer.id]
        return found["phase"], found["running"], found["error"]

    until(lambda: state() == ("building", True, "the disk is full."))
    assert client.get("/readyz").json()["failing"] == ["build"]
    errors.pop(0)
    until(lambda: state() == ("building", False, "the events of u are not known."))
    until(lambda: client.get("/readyz").json().get("failing") == ["build"])
    monkeypatch.undo()
    client.post("/v1/admin/artifacts", {"path": str(newer.path)})
    until(lambda: state() == ("ready", False, None))
    until(lambda: "failing" not in client.get("/readyz").json())
    app.state.takeovers.close()


def test_a_build_that_is_asked_for_again_ends_once_and_only_what_is_built_is_said_to_run(app, client, artifact, newer):
    app.state.takeovers.start()
    client.post("/v1/events", {"events": [{"user": "u", "item": "i1", "time": START}]})
    for _ in range(3):
        client.post("/v1/admin/artifacts", {"path": str(newer.path)})

    def states():
        return [(one["phase"], one["running"]) for one in client.get("/v1/admin/artifacts").json()["artifacts"]]

    until(lambda: states() == [("ready", False)] * 2)
    app.state.takeovers.close()


def test_items_put_before_a_switch_are_known_after_it(app, client, artifact, newer):
    app.state.takeovers.start()
    client.put("/v1/items", {"items": [{"item": "new", "fields": {"category": "c1"}}]})
    client.post("/v1/events", {"events": [{"user": "u", "item": "new", "time": START, "event_type": "view"}]})
    client.post("/v1/admin/artifacts", {"path": str(newer.path)})
    deadline = time.monotonic() + 60
    while client.get("/v1/admin/artifacts").json()["artifacts"][1]["phase"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.post("/v1/admin/switch", {"artifact": newer.id}).json()["previous"] == artifact.id
    client.put("/v1/items", {"items": [{"item": "later", "fields": {"category": "c1"}}]})

    def score(item):
        body = {"user": "u", "items": [item], "time": START + 60}
        return client.post("/v1/score", body).json()

    assert score("new")["artifact"] == newer.id
    assert score({"item": "later"})["scores"][0]["score"] == pytest.approx(
        score({"item": "later", "fields": {"category": "c1"}})["scores"][0]["score"], abs=1e-6
    )
    app.state.takeovers.close()
