"""Damage of a Valkey server's append-only file: what the server says of it, what the store does, and the way back."""

import contextlib
import random
import shutil
import subprocess

import pytest
from support.valkey import Server, free_port

from lifelong.errors import LifelongError, StoreCorruptError
from lifelong.memory.updater import Updater, UserEvent
from lifelong.store.opening import open_store

START, EVENTS, BATCH, USERS = 1_700_000_000, 120, 6, 7
OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
LOG = [UserEvent(f"u{number % USERS}", f"i{number % 5}", START + number) for number in range(EVENTS)]
pytestmark = pytest.mark.usefixtures("needs_valkey")


def url_of(one):
    return f"redis://127.0.0.1:{one.port}"


def follow(artifact, store):
    """Apply what the store does not have yet, as whoever follows a source does."""
    updater, first = Updater(artifact, store), store.watermark("log", 0) + 1
    for start in range(first, EVENTS, BATCH):
        part = LOG[start : start + BATCH]
        updater.apply(part, source="log", offsets=range(start, start + len(part)))


def kept(artifact, store):
    """Per user the number of events that its memory holds, by the codec, which checks each record."""
    updater = Updater(artifact, store)
    return {user: int(updater.runtime.decode([value], [user]).count_B[0]) for user, value in store.scan()}


def of_first(number):
    """What memories hold after so many events."""
    users = [event.user for event in LOG[:number]]
    return {user: users.count(user) for user in users}


@pytest.fixture(scope="module")
def written(artifact, tmp_path_factory):
    """The files of a server that was killed after a source had been applied, commit by commit."""
    folder = tmp_path_factory.mktemp("written") / "server"
    one = Server(folder, free_port(), OPTIONS)
    try:
        one.start()
        with contextlib.closing(open_store(url_of(one))) as store:
            follow(artifact, store)
            assert kept(artifact, store) == of_first(EVENTS)
    finally:
        one.kill()
    return folder
