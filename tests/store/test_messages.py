"""Calls between two processes, here between two threads."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lifelong.errors import StoreConflictError, StoreUnavailableError
from lifelong.online.store.protocol import Connection, Number, Reader
from lifelong.online.store.remote import Calls, Channel, answer_calls


class Noting(Reader):
    """Notes the changes that it receives."""

    def __init__(self, notices: list) -> None:
        super().__init__(0, Number())
        self._notices = notices

    def _changed(self, *change) -> None:
        self._notices.append(change)


@contextmanager
def calls_of(notices: list, **functions) -> Iterator[tuple[Calls, Channel]]:
    here, there = map(Channel, socket.socketpair())
    with ThreadPoolExecutor(2) as threads:
        named = {name: (function, threads) for name, function in functions.items()}
        answering = threading.Thread(target=answer_calls, args=(there, Connection(), named))
        answering.start()
        calls = Calls(here, Noting(notices), ended=lambda: StoreUnavailableError("it is gone"))
        try:
            yield calls, there
        finally:
            calls.close()
            answering.join()
            there.close()


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_a_message_of_any_size_arrives_whole(size):
    with calls_of([], echo=lambda text: text) as (calls, _):
        assert calls("echo", b"x" * size) == b"x" * size


def test_an_error_comes_with_its_parts_and_one_that_cannot_be_sent_by_its_name():
    class LocalError(Exception):
        pass

    def fail(error):
        raise {"ours": StoreConflictError("changed", users=frozenset({"u"}), fix="again"), "local": LocalError("no")}[
            error
        ]

    with calls_of([], fail=fail) as (calls, _):
        with pytest.raises(StoreConflictError, match="changed") as caught:
            calls("fail", "ours")
        assert (caught.value.users, caught.value.fix) == ({"u"}, "again")
        with pytest.raises(RuntimeError, match="LocalError: no"):
            calls("fail", "local")


def test_what_is_said_unasked_is_there_before_a_later_result():
    notices = []
    with calls_of(notices, tell=lambda number: there.send(("kept", {}, number))) as (calls, there):
        for number in range(200):
            calls("tell", number)
            assert notices[-1] == ("kept", {}, number)


def test_what_cannot_be_sent_is_an_error_on_either_side_and_the_next_call_works():
    with calls_of([], lock=threading.Lock, now=lambda *_: "now") as (calls, _):
        with pytest.raises(TypeError, match="pickle"):
            calls("lock")
        with pytest.raises(TypeError, match="pickle"):
            calls("now", threading.Lock())
        assert calls("now") == "now"


def test_a_slow_call_holds_up_no_other():
    go = threading.Event()
    with calls_of([], wait=go.wait, now=lambda: "now") as (calls, _):
        slow = calls.begin("wait")
        assert calls("now") == "now" and not slow.done()
        go.set()
        assert slow.result() is True


def test_calls_that_are_open_fail_when_the_other_end_goes_and_so_do_later_ones():
    go = threading.Event()
    with calls_of([], wait=go.wait) as (calls, there):
        open_call = calls.begin("wait")
        there.close()
        with pytest.raises(StoreUnavailableError, match="it is gone"):
            open_call.result()
        with pytest.raises(StoreUnavailableError, match="it is gone"):
            calls("wait")
        assert calls.over
        go.set()
