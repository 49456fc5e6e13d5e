"""Artifacts in MLflow's registry, and as a pyfunc; against the real client, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lifelong
from lifelong.artifact.folder import Artifact
from lifelong.errors import ArtifactError, SourceError
from lifelong.online.memory.event import UserEvent
from lifelong.online.scoring.answer import ScoreRequest

mlflow, pd = pytest.importorskip("mlflow"), pytest.importorskip("pandas")
flavour = pytest.importorskip("lifelong.mlflow")
# Of MLflow's own code.
pytestmark = pytest.mark.filterwarnings("default")

START = 1_700_000_000
EVENTS = [
    UserEvent("ann", "i1", START, "view"),
    UserEvent("bob", "i2", START + 50, "buy"),
    UserEvent("ann", "i5", START + 700, "buy"),
    UserEvent("ann", "new", START + 900, "view", {"category": "c1"}),
]
NOW = START + 5_000


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> Iterator[str]:
    """Of an artifact that was logged and registered, twice."""
    folder = tmp_path_factory.mktemp("mlflow")
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((folder / "runs").as_uri())
    artifact = Path(__file__).parent / "assets" / "tiny_artifact"
    with mlflow.start_run():
        flavour.log_model(artifact, registered_model_name="shop")
        found = flavour.log_model(artifact, "shop", registered_model_name="shop", params={"team": "search"})
    yield found.model_uri
    mlflow.set_tracking_uri(before)
    patch.undo()


@pytest.fixture
def model(uri: str) -> Any:
    return mlflow.pyfunc.load_model(uri)


@pytest.fixture
def filled(artifact: Artifact) -> Iterator[Any]:
    store = lifelong.open_store("memory://")
    lifelong.Updater(artifact, store).apply(EVENTS)
    yield store
    store.close()


def history_of(user: str) -> list[dict[str, Any]]:
    events = [event for event in EVENTS if event.user == user]
    return [{"item": e.item, "time": e.time, "event_type": e.event_type, **(e.fields or {})} for e in events]


def test_a_logged_model_is_the_artifact_again(uri, artifact) -> None:
    found = flavour.load_model(uri)
    assert (found.id, found.config) == (artifact.id, artifact.config)
    logged = mlflow.get_logged_model(uri.removeprefix("models:/"))
    assert {"model": "hpmn", "artifact": artifact.id, "team": "search"}.items() <= logged.params.items()


def test_versions_and_aliases_of_the_registry_lead_to_it(uri, artifact) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("shop", "champion", "2")
    for name in ("models:/shop/1", "models:/shop@champion"):
        assert flavour.load_model(name).id == artifact.id


def test_what_is_installed_to_score_needs_no_torch(uri) -> None:
    needed = Path(mlflow.pyfunc.get_model_dependencies(uri)).read_text().splitlines()
    assert f"lifelong[serve]=={lifelong.__version__}" in needed
    assert not any("torch" in name or "train" in name for name in needed)


def test_another_flavour_is_refused_in_words(tmp_path, uri) -> None:
    class Nothing(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input: list[str]) -> list[str]:
            return model_input

    mlflow.pyfunc.save_model(tmp_path / "other", python_model=Nothing(), pip_requirements=[])
    with pytest.raises(ArtifactError, match=r"loaded by mlflow.*lifelong\.mlflow"):
        flavour.load_model(str(tmp_path / "other"))


def test_histories_in_the_frame_give_the_scores_of_a_store(model, artifact, filled) -> None:
    wanted = lifelong.Scorer(artifact, filled).score_many(
        [ScoreRequest("ann", ["i3", "i1"], NOW), ScoreRequest("bob", ["i3"], NOW), ScoreRequest("eve", ["i3"], NOW)]
    )
    users = ["ann", "ann", "bob", "eve"]
    frame = pd.DataFrame({"user": users, "item": ["i3", "i1", "i3", "i3"], "time": NOW}, index=[7, 5, 3, 1])
    frame["history"] = [history_of(user)[::-1] for user in users]
    found = model.predict(frame)
    assert found["score"].tolist() == pytest.approx([score.score for scores in wanted for score in scores], abs=1e-6)
    assert found["user"].tolist() == users and found.index.tolist() == [7, 5, 3, 1]
    assert found["count"].tolist() == [3, 3, 1, 0] and found["known_user"].tolist() == [True, True, True, False]
    frame["history"] = [json.dumps(history) for history in frame["history"]]
    frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
    pd.testing.assert_frame_equal(model.predict(frame), found)


def test_rows_without_a_history_are_scored_from_the_store(uri, artifact, tmp_path) -> None:
    pytest.importorskip("rocksdict")
    url = f"rocksdb://{tmp_path}/store"
    with closing(lifelong.open_store(url)) as store:
        lifelong.Updater(artifact, store).apply(EVENTS)
    model = mlflow.pyfunc.load_model(uri, model_config={"store": url})
    frame = pd.DataFrame({"user": ["ann", "bob", "ann"], "item": ["i3", "i1", "i3"], "time": NOW})
    stored = model.predict(frame)
    assert stored["count"].tolist() == [3, 1, 3]
    both = model.predict(frame.assign(history=[None, None, history_of("ann")[:1]]))
    assert both["count"].tolist() == [3, 1, 1]
    assert both["score"].tolist()[:2] == stored["score"].tolist()[:2]


def test_without_history_and_store_nobody_is_known(model, artifact) -> None:
    frame = pd.DataFrame({"user": ["ann", "bob"], "item": ["i3", "i3"], "category": ["c1", None]})
    found = model.predict(frame)
    assert not found["known_user"].any() and found["score"].notna().all()
    assert len(model.predict(frame.iloc[:0])) == 0


@pytest.mark.parametrize(
    ("history", "found"),
    [(3, "'3' is no history"), ("[", "is no history"), ([{"item": "i1"}], "time is None"), ([1], "is no history")],
)
def test_a_wrong_history_is_named_by_its_row(model, history, found) -> None:
    frame = pd.DataFrame({"user": ["ann", "bob"], "item": ["i1", "i1"], "history": [[], history]})
    with pytest.raises(SourceError, match=f"line 2, column history: .*{found}"):
        model.predict(frame)


def test_a_frame_without_users_is_refused_by_the_signature(model) -> None:
    with pytest.raises(mlflow.exceptions.MlflowException, match="user"):
        model.predict(pd.DataFrame({"item": ["i1"]}))
