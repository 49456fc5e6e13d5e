"""The ways through the package: which files run code for an event, a score, an explanation, and for `prepare table`.

    PYTHONPATH=tests python -m support.ways

prints them in the order in which they first run, of all processes of a service.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from os.path import dirname
from pathlib import Path
from tempfile import TemporaryDirectory

import lifelong
from support.valkey import free_port

PACKAGE = Path(lifelong.__file__).parent
REQUESTS = {
    "event": ("/v1/events", {"events": [{"user": "u1", "item": "gouda", "time": int(time.time()) - 5}]}),
    "score": ("/v1/score", {"user": "u1", "items": ["gouda", "rye bread"]}),
    "explain": ("/v1/explain", {"user": "u1", "items": ["gouda"]}),
}
PAUSE = 0.3
"""Seconds in which each process sees that it is to note, or to write what it noted; ten times what it needs."""


def ways() -> dict[str, list[str]]:
    """Name of a way -> its files, in order."""
    with TemporaryDirectory() as temporary:
        base, noted = Path(temporary), Path(temporary) / "noted"
        noted.mkdir()
        path = os.pathsep.join([str(Path(__file__).parent / "tracing"), str(PACKAGE.parent)])
        env = os.environ | {"LIFELONG_WAYS": str(noted), "PYTHONPATH": path}
        found = {}
        with served(base, env) as url:
            # The first requests also load what later ones find loaded.
            for _ in range(3):
                for route, body in REQUESTS.values():
                    post(url + route, body)
            for name, (route, body) in REQUESTS.items():
                with noting(noted):
                    post(url + route, body)
                found[name] = taken(noted)
        with noting(noted):
            prepare(base, env)
        return found | {"prepare": taken(noted)}


@contextmanager
def served(base: Path, env: dict[str, str]) -> Iterator[str]:
    """The address of a service of the shop, with its default store."""
    port = free_port()
    command = ["serve", PACKAGE / "cli" / "shop" / "artifact", "--store", f"rocksdb://{base}/store", "--port", port]
    service = subprocess.Popen([sys.executable, "-m", "lifelong", *map(str, command)], env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        service.terminate()
        service.wait(60)


def post(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=60).read()


def prepare(base: Path, env: dict[str, str]) -> None:
    """112 events of 8 users."""
    events = [
        f"u{u},i{(u * 7 + k * k) % 17},{1_700_000_000 + 86_400 * k + u},c{k % 3}" for u in range(8) for k in range(14)
    ]
    (base / "log.csv").write_text("\n".join(["user,item,time,category", *events, ""]))
    columns = [f"--column={name}" for name in ("user=user", "item=item", "time=time", "time_unit=s", "fields=category")]
    command = ["prepare", "table", str(base / "log.csv"), "--out", str(base / "data"), *columns]
    subprocess.run([sys.executable, "-m", "lifelong", *command], env=env, check=True, capture_output=True)


@contextmanager
def noting(noted: Path) -> Iterator[None]:
    (noted / "on").touch()
    time.sleep(PAUSE)
    yield
    time.sleep(PAUSE)
    (noted / "on").unlink()
    time.sleep(PAUSE)


def taken(noted: Path) -> list[str]:
    """The files that were noted since the last time."""
    first: dict[str, int] = {}
    for part in noted.glob("*.json"):
        for name, at in json.loads(part.read_text()).items():
            first[name] = min(at, first.get(name, at))
        part.unlink()
    return sorted(first, key=first.__getitem__)


def shown(way: str, files: list[str]) -> str:
    """A way as text: its rooms in order, and the files in each."""
    rooms = [f"  {room}: {' '.join(Path(file).stem for file in group)}" for room, group in groupby(files, key=dirname)]
    return "\n".join([f"{way}: {len(files)} files", *rooms])


if __name__ == "__main__":
    for way, files in ways().items():
        print(shown(way, files))
