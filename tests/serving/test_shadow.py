"""An artifact in shadow sees the same events and requests, and no client notices it."""

import queue
import threading
import time

import pytest
from support.variants import other_artifact

from lifelong.artifact.folder import Artifact
from lifelong.memory import takeover
from lifelong.memory.updater import Updater, UserEvent
from lifelong.memory.verify import verify
from lifelong.scoring.answer import ScoreRequest
from lifelong.scoring.scorer import Scorer
from lifelong.serving.service import ServiceSettings
from lifelong.store.ram import InMemoryStore

START = 1_700_000_000


@pytest.fixture(scope="module")
def newer(artifact, tmp_path_factory) -> Artifact:
    return other_artifact(artifact, tmp_path_factory.mktemp("newer") / "artifact")


@pytest.fixture
def shadowed(make_client, newer):
    """A client of a service, and the artifact in its shadow; its thread is stepped by hand."""
    client = make_client(shadow=newer)
    return client, client.app.state.shadow


def post(client, user, *items, start=START):
    events = [{"user": user, "item": item, "time": start + at, "event_type": "view"} for at, item in enumerate(items)]
    return client.post("/v1/events", {"events": events}).json()


def ask(client, user="u", items=("i1", "i2", "i3")):
    return client.post("/v1/score", {"user": user, "items": list(items), "time": START + 1000}).json()


def run(shadow):
    while shadow.step():
        pass


def number(client, line):
    return next(
        (float(row.rsplit(" ", 1)[1]) for row in client.get("/metrics").text.splitlines() if row.startswith(line)), 0.0
    )


def test_the_same_requests_are_scored_and_only_the_served_answers_are_returned(shadowed, artifact, newer):
    client, shadow = shadowed
    post(client, "u", "i1", "i2")
    alone, answers = InMemoryStore(), []
    Updater(artifact, alone).apply([UserEvent("u", f"i{at + 1}", START + at, "view") for at in range(2)])
    wanted = Scorer(artifact, alone).answer([ScoreRequest("u", ["i1", "i2", "i3"], START + 1000)])[0]
    answers.append(ask(client))
    run(shadow)
    answers.append(ask(client))
    for answer in answers:
        assert answer["artifact"] == artifact.id
        assert [one["score"] for one in answer["scores"]] == pytest.approx(
            [one.score for one in wanted.scores], abs=1e-5
        )
    run(shadow)
    assert number(client, 'lifelong_shadow_candidates_total{outcome="scored"}') == 6
    assert number(client, "lifelong_shadow_score_difference_count") == 6
    firsts = [number(client, f'lifelong_shadow_first_total{{same="{same}"}}') for same in ("yes", "no")]
    assert sum(firsts) == 2


def test_its_memories_are_kept_up_by_the_same_events(shadowed, newer):
    client, shadow = shadowed
    for at in range(5):
        for user in ("u", "v", "w"):
            post(client, user, f"i{at}", start=START + at)
    run(shadow)
    store = client.app.state.service.store
    assert store.artifact_list().find(newer.id).phase == "behind"
    takeover.change(store, lambda artifact_list: artifact_list.turn(newer.id, "ready"))
    report = verify(newer, None, store)
    assert report.equal and report.users == 3


def test_users_who_were_there_before_are_caught_up(artifact, newer):
    from lifelong.serving.app import create_app

    store = InMemoryStore()
    Updater(artifact, store).apply([UserEvent(f"u{at % 90}", "i1", START + at, "view") for at in range(300)])
    app = create_app(artifact, store, shadow=newer)
    run(app.state.shadow)
    slot = store.artifact_list().find(newer.id).space
    assert len(dict(store.scan(slot))) == 90
    app.state.service.close()


def test_its_answers_are_in_the_impressions_log_under_their_role(make_client, newer, artifact, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    client = make_client(shadow=newer, settings=ServiceSettings(impressions_log=tmp_path))
    name = ask(client)["request_id"]
    run(client.app.state.shadow)
    client.app.state.impressions.flush()
    rows = [row for path in tmp_path.glob("*.parquet") for row in parquet.read_table(path).to_pylist()]
    found = {(row["role"], row["artifact"], row["request_id"]) for row in rows}
    assert found == {("served", artifact.id, name), ("shadow", newer.id, name)} and len(rows) == 6


def test_its_faults_reach_no_client(shadowed, monkeypatch):
    client, shadow = shadowed

    def fail(*_):
        raise RuntimeError("a broken graph")

    monkeypatch.setattr(shadow.scorer, "answer", fail)
    monkeypatch.setattr(shadow.writer, "fold", fail)
    assert post(client, "u", "i1")["applied"] == 1
    assert len(ask(client)["scores"]) == 3
    assert shadow.step()
    assert number(client, 'lifelong_shadow_candidates_total{outcome="failed"}') == 3
    with pytest.raises(RuntimeError):
        shadow.step()
    # The thread goes on all the same.
    shadow.start()
    time.sleep(0.1)
    assert shadow._background._thread.is_alive() and len(ask(client)["scores"]) == 3
    shadow.close()


def test_its_slowness_reaches_no_client(shadowed, monkeypatch):
    client, shadow = shadowed
    going, answer = threading.Event(), shadow.scorer.answer
    monkeypatch.setattr(shadow.scorer, "answer", lambda requests: (going.wait(20), answer(requests))[1])
    shadow.start()
    for at in range(5):
        assert post(client, "u", f"i{at}", start=START + at)["applied"] == 1
        assert len(ask(client)["scores"]) == 3
    assert number(client, 'lifelong_shadow_candidates_total{outcome="scored"}') == 0
    going.set()
    shadow.close()


def test_what_it_cannot_keep_up_with_is_dropped_and_counted(shadowed, monkeypatch):
    client, shadow = shadowed

    def full(scored):
        raise queue.Full

    monkeypatch.setattr(shadow._queue, "put_nowait", full)
    assert len(ask(client)["scores"]) == 3
    assert number(client, 'lifelong_shadow_candidates_total{outcome="dropped"}') == 3


def test_a_memory_with_other_events_is_not_compared(shadowed):
    client, shadow = shadowed
    ask(client)
    post(client, "u", "i1")
    run(shadow)
    assert number(client, 'lifelong_shadow_candidates_total{outcome="skewed"}') == 3
    assert number(client, "lifelong_shadow_score_difference_count") == 0


def test_an_artifact_in_shadow_takes_over_and_the_same_command_still_serves(make_client, newer, artifact):
    from lifelong.serving.app import create_app

    client = make_client(shadow=newer)
    store = client.app.state.service.store
    post(client, "u", "i1")
    assert client.post("/v1/admin/switch", {"artifact": newer.id}).status_code == 409
    client.app.state.takeovers.start()
    client.post("/v1/admin/artifacts", {"path": str(newer.path)})
    deadline = time.monotonic() + 60
    while client.get("/v1/admin/artifacts").json()["artifacts"][1]["phase"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.post("/v1/admin/switch", {"artifact": newer.id}).status_code == 200
    assert ask(client)["artifact"] == newer.id
    run(client.app.state.shadow)
    assert number(client, 'lifelong_shadow_candidates_total{outcome="served"}') == 3
    client.app.state.takeovers.close()
    again = create_app(artifact, store, shadow=newer)
    assert again.state.shadow is None and again.state.service.artifact.id == newer.id
    again.state.service.close()
