"""After a user is forgotten, no file holds a byte of her id: of a store, of logs, of letters, of unfinished copies."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.client import Client

pytest.importorskip("pyarrow", reason="pyarrow is of the impressions extra")
pytest.importorskip("rocksdict")
import pyarrow.parquet as pq

from lifelong.cli import main
from lifelong.online.ingestion.dead_letters import DeadLetter, FileLetters
from lifelong.online.memory import takeover
from lifelong.online.memory.forgetting import forget
from lifelong.online.memory.rebuild import Rebuild
from lifelong.online.memory.writer import MemoryWriter
from lifelong.online.serving.app import create_app
from lifelong.online.serving.settings import ServiceSettings
from lifelong.online.serving.sweeper import Sweeper
from lifelong.online.store.contract import Commit
from lifelong.online.store.opening import open_store

SECRET, OLD = "secret-person-4711", 1_700_000_000
PLACES = ("store", "impressions", "letters")


def holding(folder: Path) -> list[Path]:
    """The files that hold the id."""
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


class Ground:
    """A service with everything that keeps something of users, below one folder."""

    def __init__(self, artifact, folder: Path, shards: int) -> None:
        self.folder, self.url = folder, f"rocksdb://{folder}/store?shards={shards}"
        self.store, self.letters = open_store(self.url), FileLetters(folder / "letters")
        settings = ServiceSettings(impressions_log=folder / "impressions", forget_after=30)
        self.app = create_app(artifact, self.store, settings=settings)
        self.app.state.service.on_forget["dead_letters"] = self.letters.forget
        self.client = Client(self.app)

    def live(self, newer, *, old: bool = True) -> None:
        """Events with ids, memories of two artifacts, scores in files and scores that wait, and bad lines.

        Args:
            newer: the second artifact.
            old: whether the store's files were rewritten before, or all is in its log since its first start.
        """
        now = int(time.time())
        users = [("first", now), (SECRET, OLD), ("other", now)]
        for step in range(3):
            events = [
                {"user": user, "item": f"i{step}", "time": moment + step, "event_id": f"{user}-{step}"}
                for user, moment in users
            ]
            assert self.client.post("/v1/events", {"events": events}).status_code == 200
            if step == 1:
                member = takeover.add(self.store, newer)
                Rebuild(self.store, MemoryWriter(newer, member.identity.codec, self.store)).build()
            for user, _ in users:
                self.client.post("/v1/score", {"user": user, "items": ["i1", "i2"]})
                self.letters.put(DeadLetter("topic", 0, step, "bad", user.encode(), b"{"))
            if step == 0:
                self.app.state.impressions.flush()
        self.letters.flush()
        if old:
            self.store.purge()

    def named(self) -> set[str]:
        """The places whose files hold the id."""
        return {path.relative_to(self.folder).parts[0] for path in holding(self.folder)}

    def close(self) -> None:
        self.app.state.impressions.close()
        self.app.state.service.close()
        self.store.close()
        self.letters.close()


@pytest.fixture(params=[(1, True), (2, True), (1, False), (2, False)], ids=str)
def ground(request, artifact, newer, tmp_path, caplog):
    """One database or two shards, of a store that is old or new."""
    caplog.set_level(logging.DEBUG)
    shards, old = request.param
    made = Ground(artifact, tmp_path, shards)
    made.live(newer, old=old)
    assert made.named() == set(PLACES), "this test needs bytes in every place"
    yield made
    made.close()
    assert made.named() == set(), "closing wrote her down again"
    assert SECRET not in caplog.text


def kept(ground: Ground) -> None:
    """The others are as they were."""
    for user in ("first", "other"):
        found = ground.client.get(f"/v1/admin/users/{user}").json()
        assert [memory["count"] for memory in found["memories"]] == [3, 3] and len(found["events"]) == 3
        assert len(found["impressions"]) == 6
    assert (ground.folder / "letters").read_text().count('"key": "other"') == 3


def test_by_request(ground):
    reply = ground.client.delete(f"/v1/admin/users/{SECRET}").json()
    assert reply == {"user": SECRET, "erased": True, "impressions": 6, "dead_letters": 3, "purged": True}
    assert ground.named() == set()
    kept(ground)


def test_by_inactivity(ground):
    sweeper = Sweeper(ground.app.state.service)
    sweeper.start()
    until = time.monotonic() + 60
    while ground.named() and time.monotonic() < until:
        time.sleep(0.05)
    sweeper.close()
    assert ground.named() == set()
    kept(ground)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("words", [[SECRET], ["--inactive", "30d"]])
def test_by_the_command(artifact, newer, tmp_path, capsys, words, old):
    ground = Ground(artifact, tmp_path, 1)
    ground.live(newer, old=old)
    ground.close()
    assert ground.named() == set(PLACES)
    outside = ["--impressions-log", str(tmp_path / "impressions"), "--dead-letter", str(tmp_path / "letters")]
    assert main(["forget", *words, "--store", ground.url, *outside]) == 0
    said = capsys.readouterr().out
    assert "Removed 6 rows of impressions" in said and "Removed 3 dead letters" in said
    assert ground.named() == set()


@pytest.mark.parametrize("shards", [1, 2])
def test_a_user_alone_in_a_store_without_tables(tmp_path, shards):
    """Her keys are then the first and last of each table, which the list of tables names."""
    with contextlib.closing(open_store(f"rocksdb://{tmp_path}/store?shards={shards}")) as store:
        event_ids, events = {(SECRET, "1"): 10**10}, {(SECRET, 1): b"e"}
        store.commit(Commit(records={0: {SECRET: b"1"}}, event_ids=event_ids, events=events))
        assert forget(store, SECRET) and store.purge()
        assert holding(tmp_path) == []


def test_copies_that_a_killed_backup_has_left_are_named_until_its_next_run_removes_them(tmp_path, capsys):
    url, store = f"rocksdb://{tmp_path}/store", tmp_path / "store"
    with contextlib.closing(open_store(url)) as opened:
        opened.commit(Commit(records={0: {SECRET: b"1", "other": b"1"}}))
    killed = "import os, sys; from pathlib import Path; from lifelong.online.store import backup; "
    killed += "backup.put_in_place = lambda *_: os._exit(9); backup.backup(Path(sys.argv[1]), Path(sys.argv[2]))"
    assert subprocess.run([sys.executable, "-c", killed, store, tmp_path / "monday"], check=False).returncode == 9
    (left,) = tmp_path.glob(".monday.*.unfinished")
    assert main(["forget", SECRET, "--store", url]) == 0
    said = capsys.readouterr().out
    assert left.name in said and "Old files" not in said
    assert {path.relative_to(tmp_path).parts[0] for path in holding(tmp_path)} == {left.name}
    assert main(["backup", str(tmp_path / "tuesday"), "--store", url]) == 0
    assert holding(tmp_path) == [] and not left.exists()
    assert main(["forget", SECRET, "--store", url, "--json"]) == 0
    assert '"purged": true' in capsys.readouterr().out


def asked(method: str, address: str, body: object = None):
    """What a service answers, on a connection of its own: any of its workers may get it."""
    head = {"content-type": "application/json", "connection": "close"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data, head, method=method), timeout=300) as answer:
        return json.load(answer)


def test_by_request_to_one_of_several_workers(artifact, tmp_path):
    """Each holds scores that are in no file yet."""
    command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", f"rocksdb://{tmp_path}/store"]
    command += ["--workers", "2", "--port", "0", "--json", "--set", f"impressions_log={tmp_path}/impressions"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = json.loads(process.stdout.readline())["address"]
        events = [{"user": user, "item": "i1", "time": OLD, "event_id": user} for user in (SECRET, "other")]
        asked("POST", f"{address}/v1/events", {"events": events})
        requests = {"requests": [{"user": user, "items": ["i1"]} for user in (SECRET, "other")]}
        for _ in range(30):
            asked("POST", f"{address}/v1/score", requests)
        reply = asked("DELETE", f"{address}/v1/admin/users/{SECRET}")
        assert reply["erased"] and reply["purged"]
        assert holding(tmp_path) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert holding(tmp_path) == [], "closing wrote her down again"
    tables = [pq.read_table(path).column("user").to_pylist() for path in (tmp_path / "impressions").glob("*.parquet")]
    assert sum(map(len, tables)) == 30, "the other user's rows are all there"


@pytest.mark.parametrize("option", ["--impressions-log", "--dead-letter"])
def test_files_of_a_service_are_left_to_the_service(tmp_path, capsys, option):
    assert main(["forget", "u", "--store", "http://127.0.0.1:9", option, str(tmp_path)]) == 2
    assert f"{option} with a service" in capsys.readouterr().err.replace("\n", " ")
