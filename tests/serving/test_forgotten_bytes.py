"""After a user is forgotten, no file holds a byte of her id: not the store's, not the log's, not those of letters."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from support.client import Client
from support.variants import other_artifact

pytest.importorskip("pyarrow", reason="pyarrow is of the impressions extra")
pytest.importorskip("rocksdict")

from lifelong.cli import main
from lifelong.ingestion.dead_letters import DeadLetter, FileLetters
from lifelong.memory import takeover
from lifelong.memory.rebuild import Rebuild
from lifelong.memory.writer import MemoryWriter
from lifelong.serving.app import create_app, forget_letters_too
from lifelong.serving.service import ServiceSettings
from lifelong.serving.sweeper import Sweeper
from lifelong.store.opening import open_store

SECRET, OLD = "secret-person-4711", 1_700_000_000
PLACES = ("store", "impressions", "letters")


class Ground:
    """A service with everything that keeps something of users, below one folder."""

    def __init__(self, artifact, folder: Path, shards: int) -> None:
        self.folder, self.url = folder, f"rocksdb://{folder}/store?shards={shards}"
        self.store, self.letters = open_store(self.url), FileLetters(folder / "letters")
        settings = ServiceSettings(impressions_log=folder / "impressions", forget_after=30)
        self.app = create_app(artifact, self.store, settings=settings)
        forget_letters_too(self.app, self.letters)
        self.client = Client(self.app)

    def live(self, newer) -> None:
        """Events with ids, memories of two artifacts, scores in files and scores that wait, and bad lines."""
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
        self.store.purge()

    def named(self) -> set[str]:
        """The places whose files hold the id."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        return {path.relative_to(self.folder).parts[0] for path in files}

    def close(self) -> None:
        self.app.state.impressions.close()
        self.app.state.service.close()
        self.store.close()
        self.letters.close()


@pytest.fixture(scope="module")
def newer(artifact, tmp_path_factory):
    return other_artifact(artifact, tmp_path_factory.mktemp("newer") / "artifact")


@pytest.fixture(params=[1, 2], ids=["one database", "two shards"])
def ground(request, artifact, newer, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    made = Ground(artifact, tmp_path, request.param)
    made.live(newer)
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


@pytest.mark.parametrize("words", [[SECRET], ["--inactive", "30"]])
def test_by_the_command(artifact, newer, tmp_path, capsys, words):
    ground = Ground(artifact, tmp_path, 1)
    ground.live(newer)
    ground.close()
    assert ground.named() == set(PLACES)
    outside = ["--impressions-log", str(tmp_path / "impressions"), "--dead-letter", str(tmp_path / "letters")]
    assert main(["forget", *words, "--store", ground.url, *outside]) == 0
    said = capsys.readouterr().out
    assert "Removed 6 rows of impressions" in said and "Removed 3 dead letters" in said
    assert ground.named() == set()


@pytest.mark.parametrize("option", ["--impressions-log", "--dead-letter"])
def test_files_of_a_service_are_left_to_the_service(tmp_path, capsys, option):
    assert main(["forget", "u", "--service", "http://127.0.0.1:9", option, str(tmp_path)]) == 2
    assert f"{option} with --service" in capsys.readouterr().err.replace("\n", " ")


def test_a_topic_is_left_to_its_brokers(capsys):
    assert main(["forget", "u", "--store", "memory://", "--dead-letter", "kafka://host:1/topic"]) == 2
    assert "retention" in capsys.readouterr().err
