"""An artifact as a model of MLflow: logged, registered, loaded, and as a pyfunc that scores data frames.

    log_model(artifact) -> run and registry --load_model(uri)--> Artifact
                                            `-mlflow.pyfunc.load_model(uri)--> predict(frame) -> a frame of scores

A frame has a row per candidate, as `Scorer.score_table` takes it, and optionally the column `history`: the events
before the request, which then make the memory. Rows without one are scored from the store, if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from lifelong.artifact.folder import Artifact
from lifelong.dataset.events import user_context
from lifelong.dataset.times import whole_seconds
from lifelong.errors import ArtifactError, SourceError, require
from lifelong.online.ingestion.rows import EventRows, Problem
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.opening import AnyArtifact, open_artifact
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.scoring.tables import score_columns, scored_rows
from lifelong.online.store.opening import open_store
from lifelong.tables import frame_of
from lifelong.version import __version__

HISTORY = "history"
_TYPES = {"string": "string", "double": "double", "bool": "boolean", "int64": "long"}
"""Arrow name of a type -> MLflow's."""
_Rate = float | Mapping[str, float] | None


def log_model(
    artifact: AnyArtifact, name: str = "model", *, store: str | None = None, base_rate: _Rate = None, **options: Any
) -> Any:
    """Log an artifact as a model of the active run, or of a new one; the `model_uri` of the answer is for `load_model`.

    Args:
        artifact: of any model, or its folder. Only one that can be served can score as a pyfunc.
        name: of the logged model.
        store: URL of the store from which the pyfunc reads memories;
            `mlflow.pyfunc.load_model(uri, model_config={"store": URL})` names another one.
        base_rate: see `Scorer`; `model_config` can give another one, too.
        options: of `mlflow.pyfunc.log_model`: `registered_model_name`, `tags`, `metadata`, `pip_requirements` ...

    Raises:
        ArtifactError: the folder is missing, not an artifact, or damaged.
        MissingExtraError: MLflow is not installed.
    """
    opened, pyfunc = open_artifact(artifact), require("mlflow.pyfunc", extra="mlflow", purpose="logging a model")
    # What scores with the pyfunc needs these; MLflow adds itself.
    needs = [f"lifelong[serve]=={__version__}", "pandas", "pyarrow"]
    usual = {"signature": signature(opened), "pip_requirements": needs}
    # Of what `model_config` does not name here, a loader can set nothing.
    own = {"name": name, "loader_module": __name__, "model_config": {"store": store, "base_rate": base_rate}}
    params = {"model": opened.config.model, "artifact": opened.id, **(options.pop("params", None) or {})}
    return pyfunc.log_model(data_path=str(opened.path.resolve()), params=params, **(usual | options | own))


def load_model(uri: str) -> Artifact:
    """The artifact of a model: `models:/shop@champion`, `models:/shop/3`, `runs:/RUN/model`, or a folder.

    Raises:
        ArtifactError: something else has logged the model, or it is damaged.
        MissingExtraError: MLflow is not installed.
    """
    mlflow = require("mlflow", extra="mlflow", purpose="loading a model")
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    pyfunc = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    if pyfunc.get("loader_module") != __name__:
        problem = f"the model {uri} is loaded by {pyfunc.get('loader_module')}"
        raise ArtifactError(problem, expected=f"one that {__name__} loads", fix=f"log it with {__name__}.log_model")
    return Artifact.open(folder / pyfunc["data"])


def signature(artifact: Artifact) -> Any:
    """The columns that the pyfunc takes and gives, as a `mlflow.models.ModelSignature`."""
    models = require("mlflow.models", extra="mlflow", purpose="logging a model")
    types = require("mlflow.types.schema", extra="mlflow", purpose="logging a model")
    schema = artifact.config.dataset_schema
    inputs = [types.ColSpec("string", name) for name in ("user", "item")]
    # A number or a timestamp; a list of events.
    inputs += [types.ColSpec(types.AnyType(), name, required=False) for name in ("time", HISTORY)]
    texts = [*schema.item_fields[1:], *map(user_context, schema.user_fields)]
    inputs += [types.ColSpec("string", name, required=False) for name in texts]
    kinds = [(name, _TYPES[kind]) for name, kind in score_columns(schema).items()]
    outputs = [types.ColSpec(kind, name, required=name in ("user", "item", "score")) for name, kind in kinds]
    return models.ModelSignature(inputs=types.Schema(inputs), outputs=types.Schema(outputs))


class FrameScorer:
    """Scores the rows of a data frame; what MLflow calls. Its arguments are those of `log_model`."""

    def __init__(self, artifact: Artifact, store: str | None = None, base_rate: _Rate = None) -> None:
        self._artifact, self._base_rate, self._rows = artifact, base_rate, EventRows(artifact.config.dataset_schema, {})
        # An own store of the scorer is opened for reading alone, which an empty one in RAM cannot be.
        self._scorer = Scorer(artifact, store or open_store("memory://"), base_rate=base_rate)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """A frame of scores with the index of the given one; a SourceError names a row that is malformed."""
        # Rows are named by their number below; the index of a frame may repeat values.
        rows = model_input.reset_index(drop=True)
        own = rows[HISTORY].notna() if HISTORY in rows else rows["user"] != rows["user"]
        # Equal histories share a memory, under a name that no user has.
        names = {at: f"\0{rows[HISTORY][at]}" for at in rows.index[own]}
        events = {name: self._events(rows[HISTORY][at], name, at + 1) for at, name in names.items()}
        plain, store = rows.drop(columns=HISTORY, errors="ignore"), open_store("memory://")
        Updater(self._artifact, store).apply([event for history in events.values() for event in history])
        scorer, renamed = (
            Scorer(self._artifact, store, base_rate=self._base_rate),
            plain[own].assign(user=list(names.values())),
        )
        scores = dict(zip(names, _scores(scorer, renamed), strict=True))
        scores |= zip(rows.index[~own], _scores(self._scorer, plain[~own]), strict=True)
        score_rows = ({**scores[at], "user": user} for at, user in rows["user"].items())
        return frame_of(score_rows, list(score_columns(self._scorer.schema))).set_index(model_input.index)

    def _events(self, history: Any, name: str, line: int) -> list[UserEvent]:
        """The events of a history, oldest first, which may come as JSON or as an array."""
        of_user = []
        try:
            for values in json.loads(history) if isinstance(history, str) else history:
                time = values.get("time")
                seconds = whole_seconds(time) if isinstance(time, datetime) else time
                event = self._rows.event({**values, "user": name, "time": seconds})
                if isinstance(event, Problem):
                    _wrong(f"an event of which {event}", line)
                of_user.append(event)
        except (TypeError, ValueError, AttributeError):
            _wrong(f"{str(history)[:60]!r} is no history", line)
        return sorted(of_user, key=lambda event: event.time)


def _scores(scorer: Scorer, rows: Any) -> list[Mapping[str, Any]]:
    # Without a row, a column has no type.
    return [row for batch in scored_rows(scorer, rows, {}) for row in batch] if len(rows) else []


def _wrong(found: str, line: int) -> NoReturn:
    expected = 'a list such as [{"item": "i1", "time": 1700000000}, ...], or its JSON'
    raise SourceError(found, file="the table", line=line, column=HISTORY, expected=expected, fix="correct the row")


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> FrameScorer:
    """What `mlflow.pyfunc.load_model` calls."""
    return FrameScorer(Artifact.open(path), **(model_config or {}))
