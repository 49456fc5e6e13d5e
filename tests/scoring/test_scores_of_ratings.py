"""Ratings from a raw log to served probabilities: prepared, trained, evaluated and scored for every step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lifelong.artifact.folder import Artifact
from lifelong.cli import main
from lifelong.dataset.folder import Dataset
from lifelong.filling import backfill
from lifelong.offline.data.grades import expected_rating
from lifelong.offline.evaluation.evaluate import evaluate, predict
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.ram import InMemoryStore

pytestmark = pytest.mark.torch
TASKS = ("rating_2", "rating_3", "rating_4", "rating_5")
RUN = ["max_examples=20000", "threads=1", "validate_every=5000", "learning_rate=0.01", "batch_events=512"]


def reviews() -> str:
    """Items of which half are rated high and half low, a star more or less."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        for step in range(30):
            item = int(rng.integers(12))
            stars = int(np.clip((4.5 if item % 2 else 2.5) + rng.normal(), 1, 5))
            time = 1_600_000_000 + 86_400 * step
            rows.append({"reviewerID": f"u{user}", "asin": f"i{item}", "overall": stars, "unixReviewTime": time})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Dataset]:
    folder = tmp_path_factory.mktemp("ratings")
    (folder / "reviews.json").write_text(reviews())
    options = ["--tasks", "rating", "--set", "threads=1", "--set", "min_count=1"]
    assert main(["prepare", "amazon", str(folder / "reviews.json"), "--out", str(folder / "data"), *options]) == 0
    words = [word for change in RUN for word in ("--set", f"train.{change}")]
    # A funnel: the probability of a step is never above that of the step before.
    words += ["--set", "model.head=esmm", "--set", "model.embedding=8", "--set", "model.width=8"]
    assert main(["train", str(folder / "data"), "--model", "gru4rec", "--out", str(folder / "artifact"), *words]) == 0
    return Artifact.open(folder / "artifact"), Dataset(folder / "data")


def test_every_step_is_learnt_and_the_expected_rating_beats_the_mean(made: tuple[Artifact, Dataset]) -> None:
    result = evaluate(*made, bootstrap=50, threads=1)
    assert (result.task, result.kind, set(result.other_tasks)) == ("rating_2", "probability", set(TASKS[1:]))
    for task, found in {result.task: result.metrics, **result.other_tasks}.items():
        assert found["auc"].low > 0.55, (task, found["auc"])
    assert result.graded["rmse"].high < result.graded["rmse_of_mean"].low
    assert result.graded["mae"].value < result.graded["rmse"].value


def test_one_request_is_answered_for_every_step_as_the_batch_path_does(made: tuple[Artifact, Dataset]) -> None:
    artifact, dataset = made
    examples = dataset.examples("test")
    store = InMemoryStore()
    backfill(artifact, dataset, store, until=int(examples.time_N[0]))
    scorer, user, time = Scorer(artifact, store), dataset.users.ids()[int(examples.user_N[0])], int(examples.time_N[0])
    item = dataset.catalogue.id_of(int(examples.row_N[0]))
    (answer,) = scorer.answer([ScoreRequest(user, [item], time)])
    tasks = answer.scores[0].tasks
    offline_T = predict(*made_model(made), examples.take(slice(0, 1)), threads=1)[0]
    assert tuple(tasks) == TASKS
    assert [tasks[task].score for task in TASKS] == pytest.approx(offline_T.tolist(), abs=1e-4)
    step = [1 / (1 + np.exp(-tasks[task].score)) for task in TASKS]
    assert step == sorted(step, reverse=True)
    assert 1 <= expected_rating(TASKS, dataset.schema.grades, [step])[0] <= 5


def made_model(made: tuple[Artifact, Dataset]) -> tuple[Any, Dataset]:
    from lifelong.offline.export.saving import load_model

    return load_model(made[0]), made[1]


def test_the_command_shows_the_errors_of_ratings(
    made: tuple[Artifact, Dataset], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    artifact, dataset = made
    assert main(["evaluate", str(artifact.path), str(dataset.folder), "--bootstrap", "20"]) == 0
    shown = capsys.readouterr().out
    assert "RMSE" in shown and "expected rating" in shown
