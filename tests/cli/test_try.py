"""`lifelong try`, with the shop that is shipped."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from lifelong.cli.try_ import STORIES

SHOP = Path(__file__).parents[2] / "lifelong" / "cli" / "shop"
MOST_BYTES = 6_000_000


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("try") / "shop"


def test_the_first_answer_is_scored_and_explained(run, out):
    document = run("try", "--out", out, "--exit", "--json").document
    explanation = document["explanation"]
    assert explanation["known_user"] and explanation["count"] > 300
    scores = {candidate["item"]: candidate["score"] for candidate in explanation["candidates"]}
    assert set(scores) == set(STORIES["Ada"][1])
    assert min(scores["rye bread"], scores["gouda"]) > scores["cola"]
    assert all(candidate["counted"]["values"] for candidate in explanation["candidates"])


def test_a_second_time_nothing_is_counted_again(run, out):
    first = run("try", "--out", out, "--exit", "--json").document
    second = run("try", "--out", out, "--exit", "--json").document
    assert second["events"] == first["events"]
    assert second["explanation"]["count"] == first["explanation"]["count"]


@pytest.mark.parametrize(("user", "better", "worse"), [("Ben", "tofu", "salami"), ("Carla", "cat food", "nappies")])
def test_each_story_shows_in_the_scores(run, out, user, better, worse):
    store = run("try", "--out", out, "--exit", "--json").document["store"]
    scored = run("score", SHOP / "artifact", "--store", store, "--user", user, "--items", f"{better},{worse}", "--json")
    scores = {row["item"]: row["score"] for row in scored.document["scores"]}
    assert scores[better] > scores[worse]


def test_the_log_ends_in_the_past_week(run, out):
    run("try", "--out", out, "--exit")
    last = int((out / "events.csv").read_text().splitlines()[-1].split(",")[2])
    assert 0 <= time.time() - last < 7 * 86_400


def test_the_shop_is_small():
    assert sum(path.stat().st_size for path in SHOP.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.torch
def test_the_shop_is_what_training_makes_today():
    pytest.importorskip("torch")
    from lifelong.artifact.folder import Artifact
    from lifelong.offline.models.tally import TallyConfig
    from lifelong.tally.plan import plan_of

    config = Artifact.open(SHOP / "artifact").config
    again = "train it anew: PYTHONPATH=tests:. python -m support.shop lifelong/cli/shop"
    assert config.settings == json.loads(json.dumps(asdict(TallyConfig()))), again
    plan = plan_of(config.settings, list(config.inputs["item"].values()), timed=True)
    made = [(part.name, part.shape) for part in plan.layout]
    assert [(part.name, tuple(part.shape)) for part in config.memory] == made, again
