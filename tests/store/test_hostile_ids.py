"""Ids of users are any text, also text that looks like keys of a store or like patterns."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong.online.store.artifact_list import StoreIdentity
from lifelong.online.store.contract import ITEMS, Commit
from lifelong.online.store.opening import open_store

PARTS = ("{0}", "{1}", *"}{:sedcx*?%é\0\\", "s1", "[a-z]", "lifelong")
HOSTILE = st.lists(st.sampled_from(PARTS), min_size=1, max_size=7).map("".join) | st.text(min_size=1, max_size=4)
FIXED = ("x}:s1:y", "{0}:s1:k", "s1:", "*", "a", "}:s1:")


@pytest.fixture(params=["memory", "rocksdb", "redis", "cluster"])
def store(request, tmp_path):
    kind = request.param
    if kind == "rocksdb":
        pytest.importorskip("rocksdict")
        url = f"rocksdb://{tmp_path}/store"
    else:
        url = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
    with contextlib.closing(open_store(url)) as opened:
        opened.bind(StoreIdentity("one", "fp32", "[]"))
        yield opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOSTILE, min_size=1, max_size=8, unique=True))
def test_dropping_an_artifact_forgetting_and_listing_touch_nobody_else(store, drawn):
    users = [*dict.fromkeys((*drawn, *FIXED))]
    known = store.artifact_list()
    added = known.add(StoreIdentity(f"two {known.epoch}", "fp32", "[]"))
    store.change_artifact_list(known, added)
    space = added.artifacts[-1].space
    served = {user: b"0" + user.encode() for user in users}
    built = {user: b"1" + user.encode() for user in users[::2]}
    store.commit(
        Commit(
            records={0: served, space: built, ITEMS: served},
            events={(user, 1): b"e" + user.encode() for user in users},
            event_ids={(user, user): 2**40 for user in users},
        )
    )
    assert dict(store.scan(space)) == built and dict(store.scan()) == served
    dropped = added.drop(added.artifacts[-1].id)
    store.change_artifact_list(added, dropped)
    store.clear(space)
    assert dict(store.scan(space)) == {} and dict(store.scan()) == served
    assert store.read_many(users) == list(served.values())
    gone, left = users[0], users[1:]
    store.commit(Commit(deleted=[gone]))
    assert dict(store.scan()) == {user: served[user] for user in left}
    assert [store.events(user) for user in left] == [[b"e" + user.encode()] for user in left]
    assert store.seen([(user, user) for user in users], now=1) == [False] + [True] * len(left)
    assert dict(store.scan(ITEMS)).items() >= served.items()
    store.commit(Commit(deleted=left))
    assert dict(store.scan()) == {}
