"""An artifact as a model of MLflow: logged, registered, loaded, and as a pyfunc that scores data frames.

    log_model(artifact) -> run and registry --load_model(uri)--> Artifact
                                            `-mlflow.pyfunc.load_model(uri)--> predict(frame) -> a frame of scores

A frame has a row per candidate, as `Scorer.score_table` takes it: `user`, `item`, optionally `time` (UTC seconds or a
timestamp), item fields, `user.<field>` of profiles; and optionally `history`, the events before the request:

    history in the row        the memory after these events, and no others
    none, and a store         what the store holds of the user
    none, and no store        nothing is known of the user
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.data.events import user_context
from lifelong.errors import ArtifactError, SourceError, require
from lifelong.ingestion.rows import EventRows, Problem
from lifelong.ingestion.times import whole_seconds
from lifelong.memory.event import EventTable, UserEvent
from lifelong.memory.rounds import make_rounds
from lifelong.memory.state import States
from lifelong.memory.writer import MemoryWriter
from lifelong.opening import AnyArtifact, open_artifact
from lifelong.scoring.answer import Answer, ScoreRequest
from lifelong.scoring.scorer import Scorer
from lifelong.scoring.tables import score_columns, scored_rows
from lifelong.store.opening import open_store
from lifelong.tables import frame_of
from lifelong.version import __version__

FLAVOUR = "lifelong"
HISTORY = "history"
_TYPES = {"string": "string", "double": "double", "bool": "boolean", "int64": "long"}
"""Arrow name of a type -> MLflow's."""


def log_model(
    artifact: AnyArtifact,
    name: str = "model",
    *,
    registered_model_name: str | None = None,
    store: str | None = None,
    base_rate: float | Mapping[str, float] | None = None,
    **options: Any,
) -> Any:
    """Log an artifact as a model of the active run, or of a new one.

    Args:
        artifact: of any model, or its folder. Only one that can be served can score as a pyfunc.
        name: of the logged model.
        registered_model_name: also make a version of this name in the registry.
        store: URL of the store from which the pyfunc reads memories;
            `mlflow.pyfunc.load_model(uri, model_config={"store": URL})` names another one.
        base_rate: see `Scorer`; `model_config` can give another one, too.
        options: of `mlflow.models.Model.log`: `run_id`, `tags`, `metadata`, `await_registration_for` ...

    Returns:
        A `mlflow.models.model.ModelInfo`; its `model_uri` is what `load_model` takes.

    Raises:
        ArtifactError: the folder is missing, not an artifact, or damaged.
        MissingExtraError: MLflow is not installed.
    """
    opened, models = open_artifact(artifact), require("mlflow.models", extra="mlflow", purpose="logging a model")
    params = {"model": opened.config.model, "artifact": opened.id, **(options.pop("params", None) or {})}
    return models.Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        registered_model_name=registered_model_name,
        params=params,
        artifact=opened,
        store=store,
        base_rate=base_rate,
        **options,
    )


def save_model(
    artifact: AnyArtifact,
    path: Path | str,
    *,
    mlflow_model: Any = None,
    store: str | None = None,
    base_rate: float | Mapping[str, float] | None = None,
    **options: Any,
) -> None:
    """Write an artifact as a folder of an MLflow model; `log_model` calls it.

    Args:
        artifact: see `log_model`.
        path: of the folder, which must not exist.
        mlflow_model: the `mlflow.models.Model` to which the flavour is added; a new one if None.
        store: see `log_model`.
        base_rate: see `log_model`.
        options: of `mlflow.pyfunc.save_model`, such as `pip_requirements`.

    Raises:
        ArtifactError: the folder is missing, not an artifact, or damaged.
        MissingExtraError: MLflow is not installed.
    """
    opened, pyfunc = open_artifact(artifact), require("mlflow.pyfunc", extra="mlflow", purpose="saving a model")
    models = require("mlflow.models", extra="mlflow", purpose="saving a model")
    model, folder = mlflow_model or models.Model(), opened.path.resolve()
    model.add_flavor(FLAVOUR, artifact=f"data/{folder.name}", model=opened.config.model, lifelong_version=__version__)
    pyfunc.save_model(
        str(path),
        loader_module=__name__,
        data_path=str(folder),
        mlflow_model=model,
        # Of what is not named here, a loader can set nothing.
        model_config={"store": store, "base_rate": base_rate},
        **{"signature": signature(opened), "pip_requirements": _requirements(), **options},
    )


def load_model(uri: str) -> Artifact:
    """The artifact of a logged or registered model.

    Args:
        uri: as in `models:/shop@champion`, `models:/shop/3`, `runs:/RUN/model`, or a folder.

    Raises:
        ArtifactError: it is a model of another flavour, or damaged.
        MissingExtraError: MLflow is not installed.
    """
    artifacts = require("mlflow.artifacts", extra="mlflow", purpose="loading a model")
    models = require("mlflow.models", extra="mlflow", purpose="loading a model")
    folder = Path(artifacts.download_artifacts(artifact_uri=uri))
    flavours = models.Model.load(str(folder)).flavors
    if FLAVOUR not in flavours:
        raise ArtifactError(
            f"the model {uri} has the flavours {', '.join(flavours)}",
            expected=f"a model that {__name__} has logged",
            fix="log it with log_model of this module",
        )
    return Artifact.open(folder / flavours[FLAVOUR]["artifact"])


def signature(artifact: Artifact) -> Any:
    """The columns that the pyfunc takes and gives, as a `mlflow.models.ModelSignature`."""
    models = require("mlflow.models", extra="mlflow", purpose="saving a model")
    types = require("mlflow.types.schema", extra="mlflow", purpose="saving a model")
    schema = artifact.config.dataset_schema
    texts = [
        *schema.item_fields[1:],
        *(user_context(field) for field in schema.user_fields),
    ]
    inputs = [
        types.ColSpec("string", "user"),
        types.ColSpec("string", "item"),
        # A number or a timestamp; a list of events.
        types.ColSpec(types.AnyType(), "time", required=False),
        *(types.ColSpec("string", name, required=False) for name in texts),
        types.ColSpec(types.AnyType(), HISTORY, required=False),
    ]
    outputs = [
        types.ColSpec(_TYPES[kind], name, required=name in ("user", "item", "score"))
        for name, kind in score_columns(schema).items()
    ]
    return models.ModelSignature(inputs=types.Schema(inputs), outputs=types.Schema(outputs))


class FrameScorer:
    """Scores the rows of a data frame; what MLflow calls.

    Args:
        artifact: of a model that can be served.
        store: URL of the store of its memories; None for none.
        base_rate: see `Scorer`.

    Raises:
        ArtifactError: the model cannot be served, and why.
        StoreError: the store cannot be opened, or is another artifact's.
    """

    def __init__(
        self, artifact: Artifact, store: str | None = None, base_rate: float | Mapping[str, float] | None = None
    ) -> None:
        # An own store of the scorer is opened for reading alone, which an empty one in RAM cannot be.
        self._scorer = Scorer(artifact, store or open_store("memory://"), base_rate=base_rate)
        self._writer = MemoryWriter(artifact, self._scorer.identity.codec, self._scorer.store)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """A frame of scores with the index of the given one: the columns of `Scorer.score_table`.

        Args:
            model_input: a `pandas.DataFrame`, see the top of this file.
            params: none are known.

        Raises:
            SourceError: a row is malformed; names it.
            StoreCorruptError: a stored memory is damaged.
        """
        rows, user = model_input.reset_index(drop=True), None
        answers = _Answers(self._scorer, self._writer)
        if HISTORY in rows:
            user, given = rows["user"], rows[HISTORY].notna()
            rows = rows.drop(columns=HISTORY).assign(user=answers.named(user, model_input[HISTORY], given))
        columns = score_columns(self._scorer.schema)
        found = frame_of((row for part in scored_rows(answers, rows, {}) for row in part), list(columns))
        if user is not None:
            found["user"] = user
        return found.set_index(model_input.index)

    def close(self) -> None:
        """Close the store if its URL was given."""
        self._scorer.close()


class _Answers:
    """Answers requests: from the given history of a user if there is one, else from the store."""

    def __init__(self, scorer: Scorer, writer: MemoryWriter) -> None:
        self.schema, self.online_items = scorer.schema, scorer.online_items
        self._scorer, self._writer = scorer, writer
        self._rows = EventRows(scorer.schema, {})
        self._events: dict[str, list[UserEvent]] = {}

    def named(self, users: Iterable[Any], histories: Iterable[Any], given: Iterable[bool]) -> list[Any]:
        """A name for each row: of its history if it has one, which equal ones share, else the user's id.

        Raises:
            SourceError: a history holds something that is no event; names the row.
        """
        names, known = [], dict[str, str]()
        for line, (user, history, there) in enumerate(zip(users, histories, given, strict=True), start=1):
            if not there:
                names.append(user)
                continue
            events = _listed(history, line)
            key = json.dumps(events, default=str)
            if key not in known:
                # No id begins like this.
                known[key] = f"\0{len(known)}"
                self._events[known[key]] = self._read(events, known[key], line)
            names.append(known[key])
        return names

    def _read(self, events: Sequence[Mapping[str, Any]], name: str, line: int) -> list[UserEvent]:
        """The events of a history, oldest first."""
        found = []
        for values in events:
            time = values.get("time")
            seconds = whole_seconds(time) if isinstance(time, datetime) else time
            event = self._rows.event({**values, "user": name, "time": seconds})
            if isinstance(event, Problem):
                raise _bad(f"an event of which {event}", line)
            found.append(event)
        return sorted(found, key=lambda event: event.time)

    def answer(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """One answer per request."""
        given = [place for place, request in enumerate(requests) if request.user in self._events]
        others = [place for place, request in enumerate(requests) if request.user not in self._events]
        answers = dict(zip(others, self._scorer.answer([requests[place] for place in others]), strict=True))
        if given:
            some = [requests[place] for place in given]
            names = [request.user for request in some]
            known = [bool(self._events[name]) for name in names]
            answers |= zip(given, self._scorer.answer_from(self._states(names), known, some), strict=True)
        return [answers[place] for place in range(len(requests))]

    def _states(self, names: Sequence[str]) -> States:
        """The memories after given histories, as a store would give them back."""
        writer, runtime = self._writer, self._writer.runtime
        states, place = runtime.empty(len(names)), range(len(names))
        table = EventTable.of([event for name in names for event in self._events[name]], time_unit=self._rows.time_unit)
        if len(table):
            user_N = np.repeat(np.array(place, np.int64), [len(self._events[name]) for name in names])
            plan = make_rounds(user_N, table.time_N, states.last_time_B, refuse=False)
            table = writer.only_known(table)
            states = writer.fold(states, plan, writer.numbers(table, plan))
        return runtime.decode(runtime.encode(states), names)


def _listed(history: Any, line: int) -> list[dict[str, Any]]:
    """A history as a list of events, which may come as JSON or as an array.

    Raises:
        SourceError: it is something else.
    """
    try:
        found = json.loads(history) if isinstance(history, str) else list(history)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, list) or not all(isinstance(event, Mapping) for event in found):
        raise _bad(f"{str(history)[:60]!r} is no history", line)
    return found


def _bad(found: str, line: int) -> SourceError:
    expected = 'a list such as [{"item": "i1", "time": 1700000000}, ...], or its JSON'
    return SourceError(found, file="the table", line=line, column=HISTORY, expected=expected, fix="correct the row")


def _requirements() -> list[str]:
    """What an environment needs that scores with the pyfunc; MLflow adds itself."""
    return [f"lifelong[serve]=={__version__}", "pandas", "pyarrow"]


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> FrameScorer:
    """What `mlflow.pyfunc.load_model` calls."""
    given = model_config or {}
    return FrameScorer(Artifact.open(path), given.get("store"), given.get("base_rate"))
