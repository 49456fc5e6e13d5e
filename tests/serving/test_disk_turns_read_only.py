"""A service whose file system turns read-only under way, as Linux makes it after a fault of the disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

START = 1_700_000_000


def mount(image: Path, folder: Path) -> bool:
    """Whether it could be mounted."""
    command = ["mount", "-o", "loop,errors=remount-ro", image, folder]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where the clients of `durable_client` have their store."""
    image, folder = tmp_path / "image", tmp_path / "store"
    folder.mkdir()
    image.touch()
    os.truncate(image, 64 * 2**20)
    try:
        made = subprocess.run(["mkfs.ext4", "-q", image], capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made or not mount(image, folder):
        pytest.skip("a file system in a file can only be made and mounted by root, with loop devices")
    # A store makes its folder anew where there is only what mkfs put there.
    (folder / "lost+found").rmdir()
    yield folder
    subprocess.run(["umount", folder], check=True)


def break_disk(folder: Path) -> None:
    """Let the kernel find a fault in the file system."""
    told = subprocess.run(["findmnt", "-no", "SOURCE", folder], capture_output=True, text=True, check=True)
    Path("/sys/fs/ext4", Path(told.stdout.strip()).name, "trigger_fs_error").write_text("a test\n")


def events(first: int, number: int = 20) -> dict[str, object]:
    """Events of one user each."""
    made = [{"user": f"u{at}", "item": "i1", "time": START, "event_id": "a"} for at in range(first, first + number)]
    return {"events": made}


def scores(client, user: str) -> dict[str, object]:
    answer = client.post("/v1/score", {"user": user, "items": ["i1", "i2"], "time": START + 60})
    assert answer.status_code == 200
    return answer.json()


def test_a_disk_that_turns_read_only_costs_nothing_that_was_acknowledged_and_no_score(disk, durable_client, caplog):
    with durable_client() as client:
        assert client.post("/v1/events", events(0)).json()["applied"] == 20
        before = [scores(client, f"u{at}") for at in range(20)]
        break_disk(disk)
        for _ in range(2):
            answer = client.post("/v1/events", events(10))
            assert answer.status_code == 503
            assert "can only be read" in answer.json()["error"]["found"]
            assert "opens its store again by itself" in answer.json()["error"]["fix"]
        assert [scores(client, f"u{at}") for at in range(20)] == before
        assert not scores(client, "u20")["known_user"]
        assert client.get("/readyz").status_code == 503
    assert "still names this process as its owner" in caplog.text
    subprocess.run(["umount", disk], check=True)
    assert mount(disk.with_name("image"), disk)
    with durable_client() as client:
        assert [scores(client, f"u{at}") for at in range(20)] == before
        reply = client.post("/v1/events", events(10)).json()
        assert (reply["applied"], reply["duplicates"]) == (10, 10)
