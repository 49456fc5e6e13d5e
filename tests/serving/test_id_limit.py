"""One limit of ids for all ways in: who can be kept can be scored, explained and erased, and others are refused."""

import json
import subprocess
import sys
from contextlib import closing
from urllib.parse import quote

import pytest

from lifelong.cli import main
from lifelong.errors import RequestError, SourceError, UsageError
from lifelong.online.ingestion.files import ingest
from lifelong.online.ingestion.rows import EventRows, Problem, json_row
from lifelong.online.memory.event import MAX_ID, UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.store.opening import open_store

START = 1_700_000_000
SAID = f"text of 1 to {MAX_ID} characters"
LONGEST = ["u" * MAX_ID, ("ä/ %?#&+" * MAX_ID)[:MAX_ID], "\N{GRINNING FACE}" * MAX_ID]
EVENT = {"item": "i1", "time": START, "event_type": "view"}


def log(path, user):
    path.write_text(json.dumps({"user": user, **EVENT}) + "\n")
    return path


def check_and_erase(client, user):
    """What a service does with a user who is in its store."""
    place, asked = f"/v1/users/{quote(user, safe='')}", {"user": user, "items": ["i1", "i2"], "time": START + 60}
    for path in ("/v1/score", "/v1/explain"):
        reply = client.post(path, asked).json()
        assert (reply["user"], reply["known_user"], reply["count"]) == (user, True, 1)
    assert client.get(f"{place}/memory").json()["count"] == 1
    assert client.get(f"{place}/features?items={quote(user)}").json()["user"] == user
    assert client.delete(f"/v1/admin/users/{quote(user, safe='')}").json()["erased"]
    assert client.get(f"{place}/memory").status_code == 404


@pytest.mark.parametrize("user", LONGEST, ids=["letters", "odd characters", "four bytes each"])
@pytest.mark.parametrize("way", ["http", "file", "topic"])
def test_a_user_with_an_id_of_the_limit_is_kept_scored_explained_and_erased(make_client, artifact, tmp_path, user, way):
    client = make_client()
    store = client.app.state.service.store
    if way == "http":
        assert client.post("/v1/events", {"events": [{"user": user, **EVENT}]}).json()["applied"] == 1
    elif way == "file":
        assert ingest(artifact, store, log(tmp_path / "log.jsonl", user)).applied == 1
    else:
        table = EventRows(artifact.config.dataset_schema, {}, lambda: START).table_of([{"user": user, **EVENT}])
        assert table is not None
        assert Updater(artifact, store).apply_table(table, source="topic", offsets=[0]).applied == 1
    check_and_erase(client, user)


def test_a_longer_id_is_refused_everywhere_in_the_same_words(make_client, artifact, tmp_path, capsys):
    client, user = make_client(), "u" * (MAX_ID + 1)
    requests = [
        client.post("/v1/events", {"events": [{"user": user, **EVENT}]}),
        client.post("/v1/score", {"user": user, "items": ["i1"]}),
        client.post("/v1/explain", {"user": user, "items": ["i1"]}),
        client.get(f"/v1/users/{user}/memory"),
        client.get(f"/v1/users/{user}/features?items=i1"),
        client.delete(f"/v1/users/{user}/memory"),
        client.delete(f"/v1/admin/users/{user}"),
        client.get(f"/v1/admin/users/{user}"),
    ]
    for answer in requests:
        assert answer.status_code == 422 and SAID in answer.json()["error"]["found"]
    with closing(open_store("memory://")) as store:
        for error, call in (
            (SourceError, lambda: ingest(artifact, store, log(tmp_path / "log.jsonl", user))),
            (RequestError, lambda: Updater(artifact, store).apply([UserEvent(user, "i1", START)])),
            (UsageError, lambda: ScoreRequest(user, ["i1"])),
        ):
            with pytest.raises(error, match=SAID):
                call()
        assert list(store.scan()) == []
    rows = EventRows(artifact.config.dataset_schema, {}, lambda: START)
    message = json.dumps({"user": user, **EVENT}).encode()
    assert rows.table_of([json_row(message)]) is None
    problem = rows.event(json_row(message))
    assert isinstance(problem, Problem) and SAID in str(problem)
    url = f"rocksdb://{tmp_path}/store"
    open_store(url).close()
    opened = ("--store", url)
    commands = [
        ("forget", user, *opened),
        ("score", str(artifact.path), *opened, "--user", user, "--items", "i1"),
        ("score", str(artifact.path), *opened, "--user", user, "--items", "i1", "--explain"),
    ]
    for words in commands:
        assert main(list(words)) != 0
        assert SAID in " ".join(capsys.readouterr().err.split()), words[0]


def test_a_command_erases_users_with_the_longest_ids_in_a_running_service(artifact, tmp_path, capsys):
    url = f"rocksdb://{tmp_path}/store"
    with closing(open_store(url)) as store:
        Updater(artifact, store).apply([UserEvent(user, "i1", START) for user in LONGEST])
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            address = json.loads(process.stdout.readline())["address"]
            assert main(["forget", *LONGEST, "--store", address, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["erased"] == len(LONGEST)
        finally:
            process.terminate()
    with closing(open_store(url, read_only=True)) as store:
        assert list(store.scan()) == []


@pytest.mark.torch
def test_a_backfill_of_a_log_with_a_longer_id_keeps_nothing(artifact, dataset, store, monkeypatch):
    from lifelong.online.memory.filling import backfill

    monkeypatch.setattr("lifelong.online.memory.event.MAX_ID", 1)
    with pytest.raises(UsageError, match=SAID):
        backfill(artifact, dataset, store)
    assert list(store.scan()) == []
