"""Several tasks from one memory: prepared, trained, evaluated and scored, in process and by the commands."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lifelong.artifact.folder import Artifact
from lifelong.cli import main
from lifelong.config import load_config
from lifelong.dataset.folder import Dataset
from lifelong.errors import ConfigError, MismatchError, UsageError
from lifelong.offline.evaluation.evaluate import evaluate, predict
from lifelong.offline.preparation.prepare import PrepareSettings, prepare
from lifelong.offline.training.trainer import train
from lifelong.online.memory.filling import backfill
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.ram import InMemoryStore

pytestmark = pytest.mark.torch

MAPPING = {"user": "user", "item": "item", "time": "time", "event_type": "kind"}
RUN = [
    "train.max_examples=12000",
    "train.threads=1",
    "train.validate_every=6000",
    "train.learning_rate=0.01",
    "train.batch_events=512",
    "model.embedding=4",
    "model.width=6",
]


def log() -> Any:
    """Users stay with three items of their own, more or less, and every third user buys what others view."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    rows = [
        (
            f"u{user}",
            f"i{rng.integers(3) + 3 * (user % 4) if rng.random() < 0.8 else rng.integers(12)}",
            1_600_000_000 + 3600 * step + user,
            kind,
        )
        for user in range(30)
        for step in range(40)
        for kind in [("buy" if rng.random() < (0.7 if user % 3 == 0 else 0.1) else rng.choice(["view", "cart"]))]
    ]
    return pa.table(dict(zip(("user", "item", "time", "kind"), map(list, zip(*rows, strict=True)), strict=True)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("tasks") / "data"
    return prepare(log(), out=folder, tasks=("any", "buy"), threads=1, **MAPPING)


@pytest.fixture(scope="module")
def made(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    artifacts: dict[tuple[str, ...], Artifact] = {}

    def make(*changes: str) -> Artifact:
        if changes not in artifacts:
            out = tmp_path_factory.mktemp("artifact") / "a"
            artifacts[changes] = train(
                dataset, "gru4rec", out, config=load_config(None, [*RUN, *changes]), progress=False
            )
        return artifacts[changes]

    return make


def scorer_of(artifact: Artifact, dataset: Dataset, **options: Any) -> Scorer:
    store = InMemoryStore()
    backfill(artifact, dataset, store)
    return Scorer(artifact, store, **options)


def test_training_measures_every_task_and_selects_by_the_first(made: Callable[..., Artifact]) -> None:
    metrics = made().metrics
    assert set(metrics["validation"]["tasks"]) == {"any", "buy"}
    assert metrics["validation"]["auc"] == metrics["validation"]["tasks"]["any"]["auc"]
    best = metrics["best"]
    assert best["auc"] == best["tasks"]["any"]["auc"] == max(point["auc"] for point in metrics["learning_curve"])


@pytest.mark.parametrize("task", ["buy", "mean"])
def test_another_task_or_the_mean_can_select(made: Callable[..., Artifact], task: str) -> None:
    metrics = made(f"train.select_task={task}").metrics
    for point in metrics["learning_curve"]:
        values = [point["tasks"][name]["auc"] for name in ("any", "buy")]
        assert point["auc"] == pytest.approx(values[1] if task == "buy" else sum(values) / 2)


@pytest.mark.parametrize("model", ["gru4rec", "counts"])
def test_a_task_that_is_none_selects_nothing(dataset: Dataset, tmp_path: Path, model: str) -> None:
    config = load_config(None, ["train.threads=1", "train.select_task=sold"])
    with pytest.raises(ConfigError, match=r"no task 'sold'.*any, buy, mean"):
        train(dataset, model, tmp_path / "a", config=config, progress=False)


def test_a_task_without_events_in_training_is_refused(tmp_path: Path) -> None:
    table = log()
    table = table.set_column(3, "kind", [["rare" if at == 5 else "view" for at in range(len(table))]])
    # The one event of that type lies in the first hours; with these cuts it is in training, and validation has none.
    settings = PrepareSettings(tasks=("any", "rare"), threads=1)
    data = prepare(table, out=tmp_path / "data", settings=settings, **MAPPING)
    with pytest.raises(MismatchError, match="validation examples all have the same label for task 'rare'"):
        train(data, "gru4rec", tmp_path / "a", config=load_config(None, RUN), progress=False)


def test_every_task_has_its_calibrator(made: Callable[..., Artifact]) -> None:
    config = made().config
    assert config.calibrator is not None and set(config.other_calibrators) == {"buy"}
    other = config.other_calibrators["buy"]
    assert other is not None and other.sampled_rate < config.calibrator.sampled_rate


def test_the_result_has_every_metric_of_every_task(made: Callable[..., Artifact], dataset: Dataset) -> None:
    result = evaluate(made(), dataset, threads=1, bootstrap=50)
    assert result.task == "any" and set(result.other_tasks) == {"buy"}
    assert result.other_tasks["buy"].keys() == result.metrics.keys() >= {"auc", "gauc", "log_loss", "ece"}


def test_a_request_is_answered_for_every_task_as_the_batch_path_does(
    made: Callable[..., Artifact], dataset: Dataset
) -> None:
    from lifelong.offline.export.saving import load_model

    artifact, examples = made(), dataset.examples("test")
    scorer = scorer_of(artifact, dataset, base_rate={"any": 0.3, "buy": 0.02})
    offline_NT = predict(load_model(artifact), dataset, examples, threads=1)
    # The last target of a user sees all her events but those of its own moment: a store of the events before it.
    at = int(np.flatnonzero(np.asarray(examples.user_N) == 3)[-1])
    user, time = dataset.users.id_at(3), int(examples.time_N[at])
    store = InMemoryStore()
    backfill(artifact, dataset, store, until=time)
    scorer = Scorer(artifact, store, base_rate={"any": 0.3, "buy": 0.02})
    (score,) = scorer.score(user, [dataset.catalogue.id_of(int(examples.row_N[at]))], time=time)
    assert score.tasks is not None and list(score.tasks) == ["any", "buy"]
    assert [of.score for of in score.tasks.values()] == pytest.approx(offline_NT[at].tolist(), abs=1e-4)
    assert (score.score, score.probability) == (score.tasks["any"].score, score.tasks["any"].probability)
    for task, rate in (("any", 0.3), ("buy", 0.02)):
        wanted = artifact.calibrator(task).probability(score.tasks[task].score, rate)[0]
        assert score.tasks[task].probability == pytest.approx(float(wanted))


def test_one_base_rate_is_the_first_tasks(made: Callable[..., Artifact], dataset: Dataset) -> None:
    (score,) = scorer_of(made(), dataset, base_rate=0.3).score("u1", ["i1"], time=1_700_000_000)
    assert score.tasks["any"].probability is not None
    assert score.tasks["buy"].probability is None and "base rate" in score.tasks["buy"].reason


def test_a_base_rate_of_another_task_is_refused(made: Callable[..., Artifact], dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"base rate of sold.*any, buy"):
        scorer_of(made(), dataset, base_rate={"sold": 0.1})


def test_the_service_answers_every_task(made: Callable[..., Artifact], dataset: Dataset) -> None:
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.serving.replies import ScoreReply
    from lifelong.online.serving.routes import _one

    scorer = scorer_of(made(), dataset)
    reply = _one(scorer.answer([ScoreRequest("u1", ["i1", "i2"], 1_700_000_000)])[0])
    assert [set(score["tasks"]) for score in reply["scores"]] == [{"any", "buy"}] * 2
    assert set(reply["reasons"]) == {"any", "buy"} and reply["reason"] == reply["reasons"]["any"]
    assert ScoreReply.model_validate(reply).model_dump(mode="json") == json.loads(json.dumps(reply))


def test_the_commands_show_and_write_every_task(
    made: Callable[..., Artifact], dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rocksdict")
    artifact, url = str(made().path), f"rocksdb://{tmp_path / 'store'}"
    assert main(["backfill", artifact, str(dataset.folder), "--store", url]) == 0
    capsys.readouterr()
    words = ["score", artifact, "--store", url, "--user", "u1", "--items", "i1", "--base-rate", "any=0.3,buy=0.02"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "probability, any" in shown and "probability, buy" in shown and "No probability" not in shown
    requests, scores = tmp_path / "requests.csv", tmp_path / "scores.csv"
    requests.write_text("user,item,time\nu1,i1,1700000000\nu2,i2,1700000000\n")
    assert main(["score", artifact, "--store", url, "--requests", str(requests), "--out", str(scores)]) == 0
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(float(row["score_any"]) == float(row["score"]) and row["score_buy"] for row in rows)


def test_a_model_of_one_task_answers_and_is_kept_as_before(tmp_path: Path) -> None:
    data = prepare(log(), out=tmp_path / "data", threads=1, **MAPPING)
    artifact = train(data, "gru4rec", tmp_path / "a", config=load_config(None, RUN), progress=False)
    written = json.loads((artifact.path / "config.json").read_text())
    assert "other_calibrators" not in written
    assert not any("tasks" in point for point in artifact.metrics["learning_curve"])
    (score,) = scorer_of(artifact, data).score("u1", ["i1"], time=1_700_000_000)
    assert score.tasks is None
