"""What the page asks: users, histories, counters, items."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from test_app import check_error, event

from lifelong.artifact.folder import Artifact
from lifelong.artifact.list_order import INPUTS
from lifelong.artifact.manifest import make_manifest
from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.vocabulary import TextColumn
from lifelong.online.scoring import catalogue_view, user_view
from lifelong.online.scoring.evidence import past_of
from lifelong.online.scoring.user_view import timeline
from lifelong.online.serving.explorer import MOST_EVENTS, MOST_LISTED
from lifelong.online.serving.settings import ServiceSettings

START = 1_700_000_000
DAY = 86_400
SHOP = Path(__file__).parents[2] / "lifelong" / "cli" / "shop" / "artifact"


@pytest.fixture(scope="module")
def shop_artifact():
    return Artifact.open(SHOP)


@pytest.fixture
def shop(make_client, shop_artifact):
    return make_client(shop_artifact)


def write(client, user, items, *, start=START, every=DAY):
    events = [event(user, item, start + place * every, event_id=f"{place}") for place, item in enumerate(items)]
    assert client.post("/v1/events", {"events": events}).json()["applied"] == len(events)


def names(client, query):
    return [one["user"] for one in client.get(f"/v1/users?{query}").json()["users"]]


# Users


def test_users_are_found_by_a_part_of_their_id_and_the_latest_come_first(client):
    for user in ("Ann", "Anna", "Bob"):
        write(client, user, ["i1"])
    assert names(client, "") == ["Bob", "Anna", "Ann"]
    assert names(client, "q=ann") == ["Anna", "Ann"]
    found = client.get("/v1/users?q=Ann&limit=1").json()
    assert found == {
        "users": [{"user": "Ann", "count": 1, "last_time": START, "recent": True}],
        "looked_at": 3,
        "complete": True,
    }


def test_a_user_beyond_what_is_looked_at_is_found_by_her_whole_id(client, monkeypatch):
    for user in ("a", "b", "c"):
        write(client, user, ["i1"])
    client.app.state.service.recent.clear()
    monkeypatch.setattr(user_view, "LOOKED", 1)
    found = client.get("/v1/users").json()
    assert (len(found["users"]), found["looked_at"], found["complete"]) == (1, 1, False)
    assert [names(client, f"q={user}") for user in "abc"] == [["a"], ["b"], ["c"]]


def test_a_user_who_was_erased_or_forgotten_is_not_found(make_client):
    client = make_client()
    for user in ("a", "b"):
        write(client, user, ["i1"])
    client.delete("/v1/users/a/memory")
    client.delete("/v1/admin/users/b")
    assert names(client, "") == []
    assert list(client.app.state.service.recent) == ["a"]


# Histories


def test_a_history_comes_in_columns_of_one_length(shop):
    write(shop, "ann", ["butter", "salami", "butter"])
    found = shop.get("/v1/users/ann/history").json()
    assert found["position"] == [1, 2, 3]
    assert found["time"] == [START, START + DAY, START + 2 * DAY]
    assert found["items"] == {"values": ["butter", "salami"], "index": [0, 1, 0]}
    assert found["types"] == {"values": [], "index": [-1, -1, -1]}
    assert found["fields"]["category"] == {"values": ["dairy", "meat"], "index": [0, 1, 0]}
    assert (found["known_user"], found["count"]) == (True, 3)


def test_only_the_latest_events_are_read_where_few_are_wanted(shop):
    write(shop, "ann", ["butter", "salami", "ham"])
    found = shop.get("/v1/users/ann/history?limit=2").json()
    assert (found["position"], found["items"]["values"], found["count"]) == ([2, 3], ["salami", "ham"], 3)
    assert found["note"] == "events from the store's event log"


def calls_for_history(client, user, limit):
    """How many functions are called for a history, those of C included."""
    calls, scorer = [], client.app.state.service.scorer
    sys.setprofile(lambda frame, kind, argument: calls.append(kind) if kind.endswith("call") else None)
    try:
        timeline(scorer, user, last=limit)
    finally:
        sys.setprofile(None)
    return len(calls)


def test_the_work_for_a_history_grows_with_the_events_that_are_read_and_no_faster(shop):
    write(shop, "ann", ["butter", "salami"] * 100, every=60)
    write(shop, "bob", ["butter", "salami"] * 200, every=60)
    # The first one fills caches.
    calls_for_history(shop, "ann", 1)
    least, few, many = (calls_for_history(shop, "ann", limit) for limit in (1, 100, 200))
    assert few < many <= least + 2.1 * (few - least)
    assert calls_for_history(shop, "bob", 200) <= 1.1 * many, "older events are no work"


def test_items_of_a_history_are_looked_up_in_the_catalogue_once(shop, monkeypatch):
    write(shop, "ann", ["butter", "salami"] * 20)
    catalogue, asked = shop.app.state.service.artifact.catalogue, []
    rows = type(catalogue).rows
    monkeypatch.setattr(type(catalogue), "rows", lambda self, items: asked.append(list(items)) or rows(self, items))
    past_of(scorer := shop.app.state.service.scorer, "ann", scorer.states(["ann"])[0], dataset=None)
    assert all(len(items) == len(set(items)) <= 2 for items in asked) and asked


def test_a_user_who_is_not_known_has_an_empty_history(client):
    found = client.get("/v1/users/nobody/history").json()
    assert (found["known_user"], found["position"]) == (False, [])


# Memories


def test_the_counters_of_a_memory_are_named(shop):
    write(shop, "ann", ["butter", "salami", "butter"])
    found = shop.get("/v1/users/ann/cells").json()
    fields = {field["field"]: field for field in found["fields"]}
    assert list(fields) == ["item", "category", "price"]
    assert (fields["item"]["used"], found["count"]) == (2, 3)
    assert fields["item"]["used"] < fields["item"]["size"]
    assert fields["item"]["cells"] == [
        {"value": "butter", "times": 2, "events_ago": 1, "precision": "exact", "low": None, "high": None},
        {"value": "salami", "times": 1, "events_ago": 2, "precision": "exact", "low": None, "high": None},
    ]
    assert [cell["value"] for cell in fields["category"]["cells"]] == ["dairy", "meat"]


def test_a_full_field_says_so_and_what_was_displaced_has_left_its_mark(shop, shop_artifact):
    write(shop, "ann", shop_artifact.catalogue.ids.ids()[:100] * 2)
    fields = shop.get("/v1/users/ann/cells").json()["fields"]
    assert [field["used"] == field["size"] for field in fields if field["field"] == "category"] == [True]
    assert all(len(field["cells"]) == field["used"] for field in fields)


def test_a_memory_without_counters_has_no_fields(client):
    write(client, "ann", ["i1"])
    found = client.get("/v1/users/ann/cells").json()
    assert (found["fields"], found["count"]) == ([], 1)


def test_no_counter_of_a_user_who_is_not_known_is_in_use(shop):
    found = shop.get("/v1/users/nobody/cells").json()
    assert (found["known_user"], [field["used"] for field in found["fields"]]) == (False, [0, 0, 0])


# Items


def test_items_are_found_by_a_part_of_their_id(shop):
    found = shop.get("/v1/catalogue?q=TEA").json()
    assert {one["item"] for one in found["items"]} == {"black tea", "green tea", "herbal tea", "iced tea"}
    assert {one["fields"]["category"] for one in found["items"]} == {"hot drinks", "cold drinks"}
    assert len(shop.get("/v1/catalogue?limit=3").json()["items"]) == 3
    assert shop.get("/v1/catalogue?q=nothing").json()["items"] == []


def test_an_item_that_was_put_online_is_found_by_its_id(shop):
    assert (
        shop.put("/v1/items", {"items": [{"item": "rose tea", "fields": {"category": "hot drinks"}}]}).status_code
        == 200
    )
    (found,) = shop.get("/v1/catalogue?q=rose%20tea").json()["items"]
    assert (found["item"], found["fields"]["category"]) == ("rose tea", "hot drinks")


def test_the_best_items_have_the_scores_of_a_request(shop):
    write(shop, "ann", ["butter", "salami", "butter"])
    time = START + 3 * DAY
    found = shop.get(f"/v1/users/ann/top?limit=5&time={time}").json()
    assert found["scored"] == found["catalogue"] == 101
    assert [one["rank"] for one in found["items"]] == [1, 2, 3, 4, 5]
    scores = shop.post("/v1/score", {"user": "ann", "items": [one["item"] for one in found["items"]], "time": time})
    assert [one["score"] for one in found["items"]] == pytest.approx([one["score"] for one in scores.json()["scores"]])


def all_scores(client, user, time):
    """Item -> score of all items of the catalogue."""
    items = [one["item"] for one in client.get("/v1/catalogue?limit=200").json()["items"]]
    scores = client.post("/v1/score", {"user": user, "items": items, "time": time}).json()["scores"]
    return {one["item"]: one["score"] for one in scores}


def test_the_best_items_are_ordered_by_score_and_popularity_where_negatives_were_drawn_by_it(
    make_client, shop_artifact, tmp_path
):
    shop = make_client(with_config(shop_artifact, tmp_path / "artifact", lambda config: config.pop("list_order")))
    write(shop, "ann", ["butter", "salami", "butter"])
    time = START + 3 * DAY
    scores, drawn_V = all_scores(shop, "ann", time), shop_artifact.drawn[FIRST_ROW:].tolist()
    more = {item: math.log(1 + drawn) for item, drawn in zip(shop_artifact.catalogue.ids.ids(), drawn_V, strict=True)}
    expected = sorted(scores, key=lambda item: -(scores[item] + more[item]))
    assert expected != sorted(scores, key=lambda item: -scores[item])
    found = shop.get(f"/v1/users/ann/top?limit=101&time={time}").json()
    assert [one["item"] for one in found["items"]] == expected
    assert [one["popularity"] for one in found["items"]] == pytest.approx([more[item] for item in expected])
    assert {one["from_counts"] for one in found["items"]} == {None}
    assert "plus the log of how often an item came" in found["order"]
    explained = shop.post("/v1/explain", {"user": "ann", "items": ["cola"], "time": time}).json()["candidates"][0]
    assert (explained["score"], explained["popularity"]) == (pytest.approx(scores["cola"]), pytest.approx(more["cola"]))
    assert for_list(shop, expected, time) == pytest.approx([scores[item] + more[item] for item in expected])


def for_list(client, items, time):
    """What orders some of Ann's candidates in a list; asked for together with others it is the same."""
    ann, bob = ({"user": user, "items": items, "time": time} for user in ("ann", "bob"))
    reply = client.post("/v1/score?for=list", ann).json()
    assert reply["negatives"] == client.app.state.service.artifact.config.negatives.rule
    values = [one["in_list"] for one in reply["scores"]]
    _, again = client.post("/v1/score?for=list", {"requests": [bob, ann]}).json()["results"]
    assert [one["in_list"] for one in again["scores"]] == pytest.approx(values)
    return values


def test_what_scores_are_for_is_list_or_left_out(shop):
    body = {"user": "ann", "items": ["cola"]}
    plain, other = shop.post("/v1/score", body), shop.post("/v1/score?for=", body)
    assert "in_list" not in plain.json()["scores"][0] and plain.json()["negatives"] == "popularity"
    assert other.status_code == 422 and "for" in other.json()["error"]["found"]


def with_config(artifact, out, change):
    """An artifact with another config, which `change` makes of its own."""
    shutil.copytree(artifact.path, out)
    config = json.loads((out / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config))
    (out / "manifest.json").write_text(make_manifest(out).model_dump_json())
    return Artifact.open(out)


def without_counts(artifact, out):
    """An artifact with negatives that are drawn alike, which does not say how popular items are."""

    def change(config):
        (out / "drawn.npy").unlink()
        config["negatives"]["rule"] = "uniform"

    return with_config(artifact, out, change)


@pytest.fixture
def ordered(make_client, shop_artifact, tmp_path):
    """A service whose artifact has weights for lists: 0.5 for log popularity, -2 for the log of the user's count."""
    counts = {field: [0.0] * INPUTS for field in shop_artifact.vocabularies}
    counts["item"][1] = -2.0
    order = {"popularity": 0.5, "counts": counts}
    return make_client(
        with_config(shop_artifact, tmp_path / "artifact", lambda config: config.update(list_order=order))
    )


def test_the_best_items_are_ordered_by_the_weights_of_the_artifact(ordered, shop_artifact):
    write(ordered, "ann", ["butter", "salami", "butter"])
    time = START + 3 * DAY
    scores, drawn_V = all_scores(ordered, "ann", time), shop_artifact.drawn[FIRST_ROW:].tolist()
    popular = dict(zip(shop_artifact.catalogue.ids.ids(), np.log1p(drawn_V) / 2, strict=True))
    had = dict.fromkeys(scores, 0.0) | {"butter": -2 * math.log(3), "salami": -2 * math.log(2)}
    expected = sorted(scores, key=lambda item: -(scores[item] + popular[item] + had[item]))
    found = ordered.get(f"/v1/users/ann/top?limit=101&time={time}").json()
    assert [one["item"] for one in found["items"]] == expected
    assert expected != sorted(scores, key=lambda item: -(scores[item] + popular[item]))
    assert [one["popularity"] for one in found["items"]] == pytest.approx([popular[item] for item in expected])
    assert [one["from_counts"] for one in found["items"]] == pytest.approx([had[item] for item in expected])
    assert "how often and how lately the user had it and its kind" in found["order"]
    explained = ordered.post("/v1/explain", {"user": "ann", "items": ["butter"], "time": time}).json()["candidates"]
    parts = [explained[0][name] for name in ("score", "popularity", "from_counts")]
    assert parts == pytest.approx([scores["butter"], popular["butter"], had["butter"]])
    assert for_list(ordered, ["butter"], time) == pytest.approx([sum(parts)])


def test_the_best_items_after_an_event_are_those_after_writing_it_and_nothing_is_stored(shop):
    write(shop, "ann", ["butter", "salami", "butter"])
    time = START + 3 * DAY
    before = shop.get("/v1/users/ann/cells").json()
    supposed = shop.get(f"/v1/users/ann/top?limit=101&time={time}&after=nappies").json()
    assert shop.get("/v1/users/ann/cells").json() == before
    shop.post("/v1/events", {"events": [event("ann", "nappies", time)]})
    written = shop.get(f"/v1/users/ann/top?limit=101&time={time}").json()
    assert [one["item"] for one in supposed["items"]] == [one["item"] for one in written["items"]]
    assert [one["score"] for one in supposed["items"]] == pytest.approx([one["score"] for one in written["items"]])


def test_the_event_that_is_supposed_is_of_the_most_frequent_type(client, artifact):
    write(client, "ann", ["i1", "i2"])
    time, kind = START + 3 * DAY, artifact.event_types.index.id_at(0)
    supposed = client.get(f"/v1/users/ann/top?time={time}&after=i3").json()
    client.post("/v1/events", {"events": [event("ann", "i3", time, event_type=kind)]})
    written = client.get(f"/v1/users/ann/top?time={time}").json()
    assert [one["score"] for one in supposed["items"]] == pytest.approx([one["score"] for one in written["items"]])


def test_the_best_items_have_probabilities_where_a_base_rate_is_known(make_client, shop, shop_artifact):
    write(shop, "ann", ["butter", "salami", "butter"])
    time, rate = START + 3 * DAY, 0.045
    found = shop.get(f"/v1/users/ann/top?limit=101&time={time}").json()["items"]
    assert {one["probability"] for one in found} == {None}
    rated = make_client(shop_artifact, settings=ServiceSettings(base_rate=rate))
    write(rated, "ann", ["butter", "salami", "butter"])
    rated = rated.get(f"/v1/users/ann/top?limit=101&time={time}").json()["items"]
    value = np.array([one["score"] + one["popularity"] + one["from_counts"] for one in found])
    share = np.exp(value) / np.exp(value).sum()
    odds = rate / (1 - rate) * 101 * share
    assert [one["probability"] for one in rated] == pytest.approx((odds / (1 + odds)).tolist())
    assert [one["item"] for one in rated] == [one["item"] for one in found]


def test_items_have_their_titles_and_are_found_by_them(make_client, artifact, tmp_path):
    folder = tmp_path / "titled"
    shutil.copytree(artifact.path, folder)
    catalogue, ids = artifact.catalogue, artifact.catalogue.ids.ids()
    catalogue = Catalogue(
        catalogue.ids,
        catalogue.number_VF,
        catalogue.vocabularies,
        titles=TextColumn.of(f"Name of {item}" for item in ids),
    )
    catalogue.save(folder / "catalogue")
    (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
    client = make_client(Artifact.open(folder))
    write(client, "ann", ["i1"])
    assert {one["title"] for one in client.get("/v1/users/ann/top?limit=3").json()["items"]} <= {
        f"Name of {item}" for item in ids
    }
    assert client.get("/v1/catalogue?q=name%20of%20i1").json()["items"][0]["item"].startswith("i1")
    candidates = client.post("/v1/explain", {"user": "ann", "items": ["i1", "new"]}).json()["candidates"]
    assert [one["title"] for one in candidates] == ["Name of i1", None]


def test_of_a_large_catalogue_what_the_memory_keeps_is_scored_too(ordered, shop_artifact, monkeypatch):
    monkeypatch.setattr(catalogue_view, "RANKED", 5)
    ids = shop_artifact.catalogue.ids.ids()
    rare = ids[int(np.argmin(shop_artifact.drawn[FIRST_ROW:]))]
    popular = {ids[at] for at in np.argsort(-shop_artifact.drawn[FIRST_ROW:], kind="stable")[:5].tolist()}
    assert rare not in popular
    write(ordered, "ann", [rare, rare])
    found = ordered.get("/v1/users/ann/top?limit=101").json()
    assert {one["item"] for one in found["items"]} == popular | {rare} and found["scored"] == 6
    assert {one["item"] for one in ordered.get("/v1/users/bob/top?limit=101").json()["items"]} == popular


def test_without_popularity_the_score_alone_orders_and_the_reply_says_so(make_client, shop_artifact, tmp_path):
    client = make_client(without_counts(shop_artifact, tmp_path / "artifact"))
    write(client, "ann", ["butter", "salami", "butter"])
    time = START + 3 * DAY
    scores = all_scores(client, "ann", time)
    found = client.get(f"/v1/users/ann/top?limit=101&time={time}").json()
    assert [one["item"] for one in found["items"]] == sorted(scores, key=lambda item: -scores[item])
    assert {(one["popularity"], one["from_counts"]) for one in found["items"]} == {(None, None)}
    assert found["order"] == "by the score"
    assert for_list(client, ["cola"], time) == pytest.approx([scores["cola"]])


def test_of_a_large_catalogue_the_most_popular_items_are_scored(shop, shop_artifact, monkeypatch):
    monkeypatch.setattr(catalogue_view, "RANKED", 30)
    found = shop.get("/v1/users/ann/top?limit=101").json()
    assert (found["scored"], found["catalogue"]) == (30, 101)
    popular = np.argsort(-shop_artifact.drawn[FIRST_ROW:], kind="stable")[:30]
    assert {one["item"] for one in found["items"]} == {shop_artifact.catalogue.ids.id_at(at) for at in popular.tolist()}


# The model


def test_the_model_says_what_it_reads(shop):
    found = shop.get("/v1/model").json()
    assert (found["model"], found["item_fields"], found["number_fields"]) == ("tally", ["category", "price"], ["price"])
    assert (found["items"], found["time_unit"], found["event_types"]) == (101, "seconds", [])


# Limits, and odd ids


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/users?limit={MOST_LISTED + 1}",
        "/v1/users?limit=0",
        f"/v1/users?q={'x' * 257}",
        f"/v1/users/u/history?limit={MOST_EVENTS + 1}",
        f"/v1/users/u/top?limit={MOST_LISTED + 1}",
        f"/v1/catalogue?limit={MOST_LISTED + 1}",
    ],
)
def test_what_is_too_much_is_refused(client, path):
    check_error(client.get(path), 422, found="limit|q")


@pytest.mark.parametrize("user", ["<img src=x onerror=alert(1)>", "a/b", "100%", "ü\u202e", "x/history"])
def test_an_id_of_any_kind_is_one_user(client, user):
    write(client, user, ["i1"])
    name = quote(user, safe="")
    assert names(client, f"q={name}") == [user]
    assert client.get(f"/v1/users/{name}/history").json()["user"] == user
    assert client.get(f"/v1/users/{name}/cells").json()["user"] == user
    assert client.get(f"/v1/users/{name}/top").json()["user"] == user


def test_a_number_comes_with_the_range_that_is_counted_with_it(shop):
    write(shop, "ann", ["butter", "salami", "butter"])
    (butter,) = shop.post("/v1/explain", {"user": "ann", "items": ["butter"]}).json()["candidates"]
    price = next(one for one in butter["counted"]["values"] if one["field"] == "price")
    assert price["low"] <= float(price["value"]) < price["high"] < price["low"] * 1.2
    fields = {field["field"]: field["cells"] for field in shop.get("/v1/users/ann/cells").json()["fields"]}
    assert [cell["low"] <= float(cell["value"]) < cell["high"] for cell in fields["price"]] == [True] * 2
    assert (price["low"], price["high"]) in {(cell["low"], cell["high"]) for cell in fields["price"]}
    assert {cell["low"] for cell in fields["category"]} == {None}
