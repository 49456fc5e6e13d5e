"""Whatever order events come in, however often, over whatever restarts and lost answers: the store equals a replay."""

from contextlib import suppress
from itertools import count

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lifelong.errors import StoreUnavailableError
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.store.opening import open_store
from lifelong.online.store.ram import InMemoryStore

PARTITIONS, START = 3, 1_700_000_000
EVENT = st.builds(
    lambda user, item, time: (f"u{user}", f"i{item}", START + time),
    st.integers(0, 4),
    st.integers(0, 9),
    st.integers(0, 20),
)


def machine(artifact, new_opener):
    """A machine over one kind of store; `new_opener` gives a function that opens a new store, and later the same."""

    class Replay(RuleBasedStateMachine):
        """The model: each partition's messages, how many of them count, and all events that count, in order."""

        @initialize(late=st.sampled_from(["apply", "refuse"]), writers=st.integers(1, 2))
        def begin(self, late, writers):
            self.open, self.late, self.writers = new_opener(), late, writers
            self.sent = [[] for _ in range(PARTITIONS)]
            self.done = [0] * PARTITIONS
            self.posted = {}
            self.counted, self.latest = [], {}
            self.start()

        def start(self):
            self.store = self.open()
            self.updaters = [Updater(artifact, self.store, late=self.late) for _ in range(self.writers)]

        def counts(self, event):
            """Note an event that was folded in, or refused."""
            late = event.time < self.latest.get(event.user, 0)
            if not (late and self.late == "refuse"):
                self.counted.append(event)
                self.latest[event.user] = max(event.time, self.latest.get(event.user, 0))

        @rule(partition=st.integers(0, PARTITIONS - 1), events=st.lists(EVENT, min_size=1, max_size=6))
        def send(self, partition, events):
            """Messages are put at the end of a partition."""
            self.sent[partition] += [UserEvent(*event, "view") for event in events]

        @rule(
            partition=st.integers(0, PARTITIONS - 1),
            back=st.integers(0, 5),
            most=st.integers(1, 9),
            writer=st.integers(0, 1),
            trouble=st.sampled_from(["none", "none", "before", "after"]),
        )
        def deliver(self, partition, back, most, writer, trouble):
            """Some messages come, known ones among them; the store fails before or after it wrote."""
            first = max(0, self.done[partition] - back)
            events = self.sent[partition][first : first + most]
            if not events:
                return
            new = events[max(0, self.done[partition] - first) :]
            with suppress(StoreUnavailableError), self.troubled(trouble):
                applied = self.updaters[writer % self.writers].apply(
                    events, source="s", partition=partition, offsets=range(first, first + len(events)),
                    after=self.done[partition] - 1,
                )  # fmt: skip
                assert applied.applied + applied.refused == len(new)
                assert applied.duplicates == len(events) - len(new)
            if trouble != "before" or not new:
                for event in new:
                    self.counts(event)
                self.done[partition] = max(self.done[partition], first + len(events))

        @rule(
            event=EVENT,
            number=st.integers(0, 6),
            twice=st.booleans(),
            trouble=st.sampled_from(["none", "none", "before", "after"]),
        )
        def post(self, event, number, twice, trouble):
            """A client sends an event with an id of its own, maybe one that it has sent before."""
            key = event[0], f"id{number}"
            known = key in self.posted
            sent = UserEvent(*event, "buy", None, key[1])
            with suppress(StoreUnavailableError), self.troubled(trouble):
                applied = self.updaters[0].apply([sent] * (1 + twice))
                # One that was refused was not kept, and neither was its id.
                assert applied.applied + applied.duplicates + applied.refused == 1 + twice
            if not known and trouble != "before":
                before = len(self.counted)
                self.counts(sent)
                if len(self.counted) > before:
                    self.posted[key] = True

        @rule()
        def restart(self):
            """The process ends, and another one begins."""
            self.start()

        def troubled(self, kind):
            return _Troubled(self.store, kind)

        @precondition(lambda self: hasattr(self, "store"))
        @invariant()
        def places_are_kept(self):
            assert [self.store.watermark("s", at) + 1 for at in range(PARTITIONS)] == self.done

        def teardown(self):
            if not hasattr(self, "store"):
                return
            once, users = InMemoryStore(), [f"u{user}" for user in range(5)]
            updater = Updater(artifact, once)
            # One by one: the replay shares no batching with what it judges.
            for event in self.counted:
                updater.apply([UserEvent(event.user, event.item, event.time, event.event_type)])
            found, wanted = (updater.runtime.decode(one.read_many(users)) for one in (self.store, once))
            assert found.count_B.tolist() == wanted.count_B.tolist()
            assert found.last_time_B.tolist() == wanted.last_time_B.tolist()
            assert np.abs(found.fields["slot"] - wanted.fields["slot"]).max() < 1e-5
            assert [self.store.events(user) for user in users] == [once.events(user) for user in users]

    return Replay


class _Troubled:
    """A store that fails before it writes, or after: then the answer is lost, and the write is there."""

    def __init__(self, store, kind):
        self.store, self.kind, self.commit = store, kind, store.commit

    def __enter__(self):
        if self.kind != "none":
            self.store.commit = self.fail

    def fail(self, change):
        if self.kind == "after":
            self.commit(change)
        raise StoreUnavailableError("the connection was lost")

    def __exit__(self, *_):
        if self.kind != "none":
            del self.store.commit


@pytest.fixture(params=["memory", "rocksdb", "shards", "redis", "cluster"])
def new_opener(request, tmp_path):
    """Each call begins with a new store and gives a function that opens it, and closes it before."""
    numbers, opened = count(), []

    def new():
        number = next(numbers)
        if request.param == "memory":
            store = InMemoryStore()
            return lambda: store
        if request.param in ("rocksdb", "shards"):
            pytest.importorskip("rocksdict")
            url = f"rocksdb://{tmp_path}/{number}" + "?shards=3" * (request.param == "shards")
        else:
            url = f"{request.getfixturevalue(f'{request.param}_url')}.{number}"

        def open_again():
            close()
            opened.append(open_store(url))
            return opened[-1]

        return open_again

    def close():
        while opened:
            opened.pop().close()

    yield new
    close()


@pytest.mark.parametrize(("examples", "steps"), [(8, 20), pytest.param(400, 60, marks=pytest.mark.soak)])
def test_a_store_equals_a_replay_of_what_counts(artifact, new_opener, examples, steps):
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None)
    chosen = settings(chosen, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine(artifact, new_opener), settings=chosen)
