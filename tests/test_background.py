"""Work that is repeated in a thread until the thread is closed."""

import logging
import threading
import time

import pytest
from support.processes import until

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.background import Background, running


@pytest.fixture
def background():
    """Makes what is closed at the end."""
    made = []

    def make(work, **options):
        made.append(Background(work, name="test", failure="the work failed", **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Passes:
    """Work that counts its passes and fails where `errors` says so."""

    def __init__(self, *errors, rest=0.0):
        self.errors, self.number, self.rest, self.enough = list(errors), 0, rest, threading.Event()

    def __call__(self):
        self.number += 1
        if not self.errors:
            self.enough.set()
            return self.rest
        if (error := self.errors.pop(0)) is not None:
            raise error
        return 0.0


def lines(caplog):
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "lifelong.online.background"
    ]


def test_passes_follow_each_other_until_the_end(background):
    work = Passes(None, None, None)
    running = background(work).start()
    assert work.enough.wait(10)
    running.close()
    passes = work.number
    time.sleep(0.02)
    assert work.number == passes >= 4
    assert "lifelong-test" not in {thread.name for thread in threading.enumerate()}


def test_a_pass_that_returns_none_is_the_last(background):
    running = background(lambda: None).start()
    running._thread.join(10)
    assert not running._thread.is_alive()


def test_the_end_does_not_wait_for_a_rest(background):
    work = Passes(rest=3600.0)
    running = background(work).start()
    assert work.enough.wait(10)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 10 and work.number == 1


def test_the_end_waits_for_the_pass_that_runs(background):
    begun, going, ended = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        going.wait(10)
        ended.append(True)
        return 0.0

    running = background(work).start()
    assert begun.wait(10)
    threading.Timer(0.05, going.set).start()
    running.close()
    assert ended == [True]


def test_a_long_pass_learns_between_its_steps_that_it_is_to_stop(background):
    begun, steps = threading.Event(), []

    def work():
        begun.set()
        while not running.rest(0.001):
            steps.append(True)
        return 0.0

    running = background(work)
    running.start()
    assert begun.wait(10)
    running.close()
    assert running.rest(3600.0)


def test_what_never_started_can_be_closed(background):
    running = background(lambda: 0.0)
    assert not running.rest(0.0)
    running.close()
    assert running.rest(3600.0)


def test_a_rest_ends_when_it_is_woken(background):
    passes = threading.Semaphore(0)

    def work():
        passes.release()
        return 3600.0

    running = background(work).start()
    for _ in range(3):
        assert passes.acquire(timeout=10)
        running.wake()
    assert passes.acquire(timeout=10)


def test_an_error_that_repeats_is_logged_once_and_so_is_its_end(background, caplog):
    caplog.set_level(logging.INFO)
    work = Passes(*(OSError("the disk is full") for _ in range(5)), None, None)
    background(work, retry=0.0).start()
    assert work.enough.wait(10)
    assert lines(caplog) == [
        ("ERROR", "the work failed: the disk is full"),
        ("INFO", "the work failed: no longer, it works again"),
    ]


def test_an_error_of_another_kind_is_logged_again_and_other_words_for_the_same_are_not(background, caplog):
    caplog.set_level(logging.ERROR)
    work = Passes(OSError("a"), OSError("b"), ValueError("c"), None, OSError("d"))
    background(work, retry=0.0).start()
    assert work.enough.wait(10)
    assert [line for _, line in lines(caplog)] == ["the work failed: a", "the work failed: c", "the work failed: d"]


def test_each_pass_that_fails_is_followed_by_a_rest_twice_as_long_up_to_the_longest(background, monkeypatch):
    rests = []
    work = Passes(*(OSError("a") for _ in range(5)), None, OSError("b"))
    running = background(work, retry=0.25, longest=2.0)
    monkeypatch.setattr(running, "rest", lambda seconds: rests.append(seconds) or len(rests) == 7)
    running.start()
    running._thread.join(10)
    assert rests == [0.25, 0.5, 1.0, 2.0, 2.0, 0.0, 0.25]


def test_a_traceback_is_logged_for_a_fault_and_not_for_an_error_with_a_message_of_ours(background, caplog):
    work = Passes(ZeroDivisionError("a fault"), StoreUnavailableError("the store does not answer"))
    background(work, retry=0.0).start()
    assert work.enough.wait(10)
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]


def test_work_that_fails_says_so_until_it_works_again_and_is_listed_while_it_runs(background):
    begun, going = threading.Event(), threading.Event()

    def work():
        if not begun.is_set():
            begun.set()
            raise OSError("the disk is full")
        assert going.wait(10)
        return 3600.0

    made = background(work, retry=0.0)
    assert made not in running()
    made.start()
    assert begun.wait(10)
    until(lambda: made.failing == "the disk is full")
    assert made in running() and made.failures == 1
    going.set()
    until(lambda: made.failing is None)
    made.close()
    assert made not in running()


def test_a_long_pass_says_itself_that_the_work_is_done_again(background, caplog):
    caplog.set_level(logging.INFO)
    passes, going = [], threading.Event()

    def work():
        passes.append(True)
        if len(passes) == 1:
            raise OSError("the disk is full")
        made.works()
        made.works()
        assert going.wait(10)

    made = background(work, retry=0.0)
    made.start()
    until(lambda: len(lines(caplog)) == 2)
    assert made.failing is None
    going.set()


def test_work_that_gives_up_ends_at_an_error_that_waiting_cannot_fix_and_still_says_it(background, caplog):
    work = Passes(StoreUnavailableError("the store is away"), RuntimeError("a fault"), UsageError("no such topic"))
    made = background(work, retry=0.0, gives_up=True).start()
    made._thread.join(10)
    assert work.number == 3 and made.failing == "no such topic."
    assert lines(caplog)[-1] == ("ERROR", "the work failed, and is not tried again: no such topic.")


def test_a_pass_that_ends_with_an_error_because_it_is_to_stop_is_no_failure(background, caplog):
    begun = threading.Event()

    def work():
        begun.set()
        made.rest(3600.0)
        raise StoreUnavailableError("it was stopped")

    made = background(work)
    made.start()
    assert begun.wait(10)
    made.close()
    assert lines(caplog) == [] and made.failing is None
