"""Arguments of another type than the public functions take: an error of ours that says so, or what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import lifelong
from lifelong import Scorer, ScoreRequest, UserEvent
from lifelong.errors import LifelongError, RequestError, UsageError

EVENT = {"user": "u1", "item": "i1", "time": 1_600_000_000}
PLACE: dict[str, Any] = {"partition": 0, "offsets": []}
WRONG = [5, 3.5, b"bytes", ["a", 1], {1: 2}, object(), object, [None]]


@pytest.fixture
def scorer(artifact, store) -> Scorer:
    lifelong.Updater(artifact, store).apply([UserEvent(**EVENT)])
    return Scorer(artifact, store)


@pytest.fixture
def calls(artifact, store, scorer, dataset) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Name -> (function, arguments that are right), of which one is made wrong."""

    def apply(**event: Any) -> object:
        return lifelong.Updater(artifact, store).apply([UserEvent(**event)])

    def answer(**request: Any) -> object:
        return scorer.answer([ScoreRequest(**request)])

    given = {"artifact": artifact, "store": store}
    request = {"user": "u1", "items": ["i1"], "time": 1_700_000_000, "profile": None}
    return {
        "Updater": (lifelong.Updater, {**given, "codec": None}),
        "apply": (
            lifelong.Updater(artifact, store).apply,
            {"events": [], "source": "s", "partition": 0, "offsets": []},
        ),
        "UserEvent": (apply, {**EVENT, "event_type": "view", "fields": {"category": "c1"}, "event_id": "a"}),
        "create_app": (lifelong.create_app, {**given, **dict.fromkeys(("api_keys", "dataset", "settings"))}),
        "Scorer": (Scorer, {**given, "base_rate": None}),
        "score": (scorer.score, request),
        "answer": (scorer.answer, {"requests": []}),
        "ScoreRequest": (answer, {**request, "fields": None}),
        "explain": (lifelong.explain, {"scorer": scorer, "request": "u1", "items": ["i1"], "time": 5, "dataset": None}),
        "features": (lifelong.features, {"scorer": scorer, "user": "u1", "items": ["i1"], "time": 1_700_000_000}),
        "history": (lifelong.history, {"scorer": scorer, "user": "u1", "dataset": None}),
        "verify": (lifelong.verify, {**given, "dataset": None, "users": None, "seed": 0}),
        "verify data": (lifelong.verify, {**given, "dataset": dataset, "until": None, "users": None}),
        "open_artifact": (lifelong.open_artifact, {"path": artifact, "verify": "full"}),
        "Artifact.open": (lifelong.Artifact.open, {"path": artifact.path}),
        "open_store": (lifelong.open_store, {"url": "memory://"}),
    }


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_a_wrong_type_is_an_error_of_ours_or_works(calls, wrong):
    for name, (function, right) in calls.items():
        for argument in right:
            try:
                function(**{**right, argument: wrong})
            except LifelongError as error:
                assert error.expected, f"{name}({argument}={wrong!r}): {error}"
            except Exception as error:
                pytest.fail(f"{name}({argument}={wrong!r}) gives {type(error).__name__}: {error}")


def test_a_folder_is_taken_for_its_artifact(artifact, store):
    assert lifelong.Updater(artifact.path, store).apply([UserEvent(**EVENT)]).applied == 1
    app = lifelong.create_app(str(artifact.path), store)
    assert app.state.service.artifact.id == artifact.id
    app.state.service.close()


def test_an_address_of_a_store_is_not_a_store_where_its_owner_has_to_close_it(artifact):
    for function in (lifelong.Updater, lifelong.create_app):
        with pytest.raises(UsageError, match=re.escape("a store of type str. Expected: an opened store")):
            function(artifact, "memory://")


def test_a_text_in_place_of_a_list_is_not_read_letter_by_letter(artifact, store, scorer):
    with pytest.raises(UsageError, match="keys of type str") as caught:
        lifelong.create_app(artifact, store, api_keys="secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="items = 'i1'"):
        ScoreRequest("u1", "i1")
    with pytest.raises(UsageError, match="users = 'u1'"):
        lifelong.verify(artifact, None, store, users="u1")


@pytest.mark.parametrize("rate", [-1, 0, 1, 5, float("nan"), True, {"response": 2.0}])
def test_a_share_of_positives_is_between_0_and_1(artifact, store, rate):
    with pytest.raises(UsageError, match="a base rate of"):
        Scorer(artifact, store, base_rate=rate)


def test_fields_of_an_event_are_texts(artifact, store):
    updater = lifelong.Updater(artifact, store)
    with pytest.raises(RequestError, match=re.escape("event 1: fields is {'category': 5}")):
        updater.apply([UserEvent(**EVENT), UserEvent(**EVENT, fields={"category": 5})])
    assert store.read_many(["u1"]) == [None]
