"""The demo on a small planted world, from raw log to report."""

import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from lifelong.artifact.folder import Artifact
from lifelong.cli.demo import run_steps
from lifelong.cli.terminal import Terminal

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    world = {"world": "lag", "users": "60"}
    changes = ["train.threads=1"]
    terminal = Terminal(as_json=True, silent=True)
    assert run_steps(terminal, out, minutes=0.05, changes=changes, source="synthetic", options=world).exit_code == 0
    return out


def test_report_holds_the_equality_the_counts_and_the_attention(made: Path) -> None:
    page = (made / "report" / "index.html").read_text()
    assert "Online and offline scores are equal" in page
    assert "Case studies" in page
    assert "What the memory counted" in page


def test_printed_request_is_one_that_the_service_takes(made: Path) -> None:
    from lifelong.online.serving.bodies import ScoreRequestBody

    page = unescape((made / "report" / "index.html").read_text())
    body = re.search(r"-d '(\{.*?\})'", page)
    assert body is not None
    ScoreRequestBody.model_validate(json.loads(body[1]))


def test_report_says_what_one_training_shows_and_ends_with_a_command_that_compares_three(made: Path, run: Any) -> None:
    page = unescape((made / "report" / "index.html").read_text())
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "not measured" not in text and "No verdict" not in text
    assert re.search(r"Cost of 100 candidates after 1,000 events: [^.]*Tally [\d.]+ ms and [\d,]+ bytes a user", text)
    commands = re.findall(r"^lifelong .*$", page.replace("</code>", "\n"), re.MULTILINE)
    program, *words = shlex.split(commands[-1])
    assert (program, words[0]) == ("lifelong", "compare")
    quick = ("train.threads=1", "tally.train.max_examples=400", "gbdt.rounds=2")
    outcome = run(*words, *(word for one in quick for word in ("--set", one)), "--json")
    assert outcome.code == 0
    assert {row["seeds"] for row in outcome.document["rows"]} == {3}


def test_every_model_was_measured_on_the_same_examples(made: Path) -> None:
    results = json.loads((made / "report" / "results.json").read_text())
    assert [result["model"] for result in results] == ["tally", "gbdt", "hpmn", "counts", "popularity"]
    assert len({json.dumps(result["counts"]) for result in results}) == 1


def test_example_is_what_a_user_takes_after_what_her_memory_holds(made: Path) -> None:
    """Known items, before she takes them: the printed request asks what a service would be asked."""
    import html

    from lifelong.online.opening import as_dataset
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.store.opening import open_store

    page = html.unescape((made / "report" / "index.html").read_text())
    found = re.search(r"-d '(\{.*?\})'", page)
    assert found is not None
    body, dataset = json.loads(found[1]), as_dataset(made / "data")
    bought = dataset.histories.time_N[dataset.histories.of(int(dataset.users.find([body["user"]])[0]))]
    artifact = Artifact.open(made / "runs" / "tally-seed0" / "artifact")
    store = open_store(f"rocksdb://{(made / 'store').resolve()}", read_only=True)
    scorer = Scorer(artifact, store)
    assert scorer.states([body["user"]])[0].count_B[0] == (bought < body["time"]).sum()
    known = dataset.vocabularies["item"].first_known
    assert (artifact.catalogue.numbers(body["items"])[:, 0] >= known).all()
    store.close()
