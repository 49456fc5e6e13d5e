"""What a memory says of a user and candidates, as columns for any other ranker; the same online and offline.

    memory of the user ------- count, age ---------------.
           '--cells----------- times, events since -------+--> one row per candidate
           '--read graph------ score, read-out -----------'

Offline, a row is made of the user's events before the target alone, folded by the graphs that a service runs.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.artifact.folder import Artifact
from lifelong.atomic import write_whole
from lifelong.dataset.events import NO_TIME, context_numbers, user_context
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.dtypes import Float32Array, IntArray
from lifelong.errors import UsageError, require
from lifelong.online.memory.replaying import HistoryFold
from lifelong.online.memory.runtime import Runtime
from lifelong.online.memory.state import States
from lifelong.online.opening import AnyArtifact, AnyDataset, Counter, as_dataset, counter, open_artifact
from lifelong.online.scoring.answer import ScoreRequest, checked_requests
from lifelong.online.scoring.scorer import Scorer, checked_scorer
from lifelong.tally.plan import middle_age

Columns = dict[str, npt.NDArray[Any]]
_USERS = 256
"""How many users' rows are made at once."""
_ROWS = 2_048
"""How many rows have a second copy of their memories in RAM."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """What a memory says of a user and C candidates.

    Args:
        items: ids of the candidates.
        names: of the features.
        columns: a column of C numbers for each name; NaN where there is none.
    """

    items: Sequence[str]
    names: list[str]
    columns: list[npt.NDArray[Any]]

    def rows(self) -> Iterator[list[Any]]:
        """The values of each candidate, in the order of `names`; None where there is none."""
        for row in zip(*(column.tolist() for column in self.columns), strict=True):
            yield [None if value != value else value for value in row]


def features(scorer: Scorer, user: str, items: Sequence[str], *, time: int | None = None) -> list[dict[str, Any]]:
    """A row per candidate of one user.

    Args:
        scorer: artifact and store.
        user: her id; an unknown user has the empty memory.
        items: item ids.
        time: moment of the request, UTC seconds; now if None.

    Returns:
        item, events (in the memory), seconds_since_last (None without events or clock times), score (raw logit),
        readout_0 ... (what the head is given of the memory for this candidate), and of a memory that counts, for each
        item field, `<field>_times` and `<field>_events_ago` (None where it is not counted, 1 is the last event).

    Raises:
        StoreCorruptError: the stored memory is damaged.
        UsageError: there is no scorer, the user is no id, the items are no list of ids, or the time is no number.
    """
    checked_scorer(scorer)
    checked_requests([ScoreRequest(user, items, time)])
    table = feature_table(scorer, user, items, time=time)
    pairs = zip(table.items, table.rows(), strict=True)
    return [{"item": item, **dict(zip(table.names, row, strict=True))} for item, row in pairs]


def feature_table(scorer: Scorer, user: str, items: Sequence[str], *, time: int | None = None) -> FeatureTable:
    """The columns of `features`, of arguments that were checked; without items, the names of the columns alone."""
    moment = int(clock.time()) if time is None else time
    request = ScoreRequest(user, items, moment)
    states, _ = scorer.states([user])
    number_CF = scorer.online_items.numbers(items, None)
    context_BCF = scorer.context([request], np.array([moment], np.int64), states.last_time_B)
    place_N = np.zeros(len(items), np.int64)
    context_NF = np.broadcast_to(context_BCF[0], (len(items), context_BCF.shape[2]))
    moment_N = np.full(len(items), moment, np.int64)
    columns = _columns(scorer.artifact, scorer.runtime, states, place_N, number_CF, context_NF, moment_N)
    return FeatureTable(items, list(columns), list(columns.values()))


def export_features(
    artifact: AnyArtifact,
    dataset: AnyDataset,
    out: Path | str,
    *,
    split: Split = "train",
    seed: int = 0,
    progress: Counter | bool | None = None,
) -> int:
    """Write the features of every example of a split as parquet, each from the events before its target alone.

    Args:
        artifact: of a model that is served, or its folder.
        dataset: with the fields and vocabularies of training, or its folder.
        out: `.parquet`; it appears when it is complete.
        split: train, validation or test.
        seed: of the negatives of the training split, where the dataset draws them again in each epoch.
        progress: called with (rows done, rows in all).

    Returns:
        How many rows there are, ordered by user and position. Columns: example (its number in the
        split, drawn negatives after the positives), user, item,
        time, label (and `label_<task>` of further tasks), then those of `features`.

    Raises:
        ArtifactError: the model cannot be served, and why.
        MismatchError: the dataset does not fit the model.
        UsageError: `out` is no parquet file, or there is no such split.
        MissingExtraError: pyarrow is not installed.
    """
    if not isinstance(out, str | Path):
        raise UsageError(
            f"out of type {type(out).__name__}", expected="a path that ends in .parquet", fix='out="features.parquet"'
        )
    progress = counter(progress)
    path, artifact, dataset = Path(out), open_artifact(artifact), as_dataset(dataset)
    if split not in SPLITS:
        raise UsageError(f"split = {split!r}", expected='"train", "validation" or "test"', fix="use one of these names")
    examples = labelled_training_examples(dataset, seed=seed) if split == "train" else dataset.examples(split)
    if path.suffix != ".parquet":
        raise UsageError(f"{path}: unknown file ending", expected=".parquet", fix="rename the file")
    arrow = require("pyarrow", extra="train", purpose="writing parquet")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet")
    export, done = _Export(artifact, dataset, examples), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as draft:
        # Without a row: a file of a split without examples has all columns, too.
        first = arrow.table(export.columns(np.zeros(0, np.int64)))
        with parquet.ParquetWriter(draft, first.schema) as writer:
            for chosen_N in export.parts():
                writer.write_table(arrow.table(export.columns(chosen_N), schema=first.schema))
                done += len(chosen_N)
                if progress is not None:
                    progress(done, len(examples))
    return done


class _Export:
    """The rows of a split, some users at a time."""

    def __init__(self, artifact: Artifact, dataset: Dataset, examples: Examples) -> None:
        self.artifact, self.dataset, self.examples = artifact, dataset, examples
        self.runtime = Runtime(artifact)
        self.fold = HistoryFold(artifact, self.runtime, dataset)
        self._user_N = np.asarray(examples.user_N, np.int64)
        self._position_N = np.asarray(examples.position_N, np.int64)

    def parts(self) -> Iterator[IntArray]:
        """Places of examples, by user and position."""
        order = np.lexsort((self._position_N, self._user_N))
        users = np.unique(self._user_N)
        for at in range(0, len(users), _USERS):
            # From the first user of a group to its last: the next group begins behind that.
            low, high = users[at], users[min(at + _USERS, len(users)) - 1]
            inside = (self._user_N[order] >= low) & (self._user_N[order] <= high)
            yield order[inside]

    def columns(self, chosen_N: IntArray) -> Columns:
        """The columns of some examples, which are ordered by user and position."""
        user_N, row_N = self._user_N[chosen_N], np.asarray(self.examples.row_N, np.int64)[chosen_N]
        time_N = np.asarray(self.examples.time_N, np.int64)[chosen_N]
        number_NF = self.dataset.catalogue.of_rows(row_N)
        states, place_N = self._states(user_N, self._position_N[chosen_N])
        context_NF = self._context(user_N, time_N, states.last_time_B[place_N])
        label_NT = np.asarray(self.examples.label_NT, np.float64)[chosen_N]
        columns: Columns = {
            "example": chosen_N,
            "user": np.array([self.dataset.users.id_at(int(user)) for user in user_N], np.str_),
            "item": np.array([self.dataset.catalogue.id_of(int(row)) or "" for row in row_N], np.str_),
            "time": time_N,
        }
        for at, task in enumerate(self.dataset.schema.tasks):
            columns[f"label_{task}" if at else "label"] = label_NT[:, at]
        found = _columns(self.artifact, self.runtime, states, place_N, number_NF, context_NF, time_N)
        return columns | found

    def _states(self, user_N: IntArray, position_N: IntArray) -> tuple[States, IntArray]:
        """The memories before the targets, each once, and which one each target has."""
        pairs, place_N = np.unique(np.stack([user_N, position_N]), axis=1, return_inverse=True)
        user_B, count_B = pairs.astype(np.int64)
        states = self.runtime.empty(len(user_B))
        # The k-th memory of each user is made of her one before.
        first = np.searchsorted(user_B, user_B)
        rank_B = np.arange(len(user_B)) - first
        for rank in range(int(rank_B.max(initial=-1)) + 1):
            at = np.flatnonzero(rank_B == rank)
            begin = self.runtime.empty(len(at)) if rank == 0 else states.take(at - 1)
            states.put(at, self.fold.fold(user_B[at], count_B[at], start=begin))
        return states, place_N.reshape(-1)

    def _context(self, user_N: IntArray, time_N: IntArray, last_time_N: IntArray) -> IntArray:
        fields, given = self.runtime.context_fields, dict[str, IntArray]()
        for field in self.dataset.schema.user_fields:
            if (name := user_context(field)) in fields:
                column = list(self.dataset.schema.user_fields).index(field)
                given[name] = np.asarray(self.dataset.profile_UF[user_N, column], np.int64)[:, None]
        return context_numbers(fields, time_N[:, None], last_time_N[:, None], given)[:, 0]


def _columns(
    artifact: Artifact,
    runtime: Runtime,
    states: States,
    place_N: IntArray,
    number_NF: IntArray,
    context_NF: IntArray,
    time_N: IntArray,
) -> Columns:
    """The features of N candidates: of the memory at `place`, the item's numbers, the context's numbers, the moment."""
    seconds = artifact.config.dataset_schema.time_unit == "seconds"
    last_N = states.last_time_B[place_N]
    # NaN and not a huge age: without events, or with ordinals, there are no seconds.
    age_N = np.where((last_N == NO_TIME) | (not seconds), np.nan, time_N - last_N.astype(np.float64))
    logit_N, readout_NI = _read(runtime, states, place_N, number_NF, context_NF, time_N)
    columns: Columns = {"events": states.count_B[place_N], "seconds_since_last": age_N, "score": logit_N[:, 0]}
    columns |= {f"readout_{at}": value_N for at, value_N in enumerate(readout_NI.T)}
    if runtime.counting is not None:
        met_NFX = runtime.counting.look(states.take(place_N), number_NF[:, None]).number_BCFX[:, 0]
        for field, name in enumerate(artifact.config.dataset_schema.item_fields):
            times_N, age_N = met_NFX[:, field, 0].astype(np.int64), met_NFX[:, field, 1].astype(np.int64)
            middle_N = np.array([middle_age(age) for age in age_N.tolist()], np.float64)
            columns[f"{name}_times"] = times_N
            # Age 0 is that of the last event, which is one event ago.
            columns[f"{name}_events_ago"] = np.where(times_N > 0, 1 + middle_N, np.nan)
    return columns


def _read(
    runtime: Runtime, states: States, place_N: IntArray, number_NF: IntArray, context_NF: IntArray, time_N: IntArray
) -> tuple[Float32Array, Float32Array]:
    """Logits `[N, T]` and read-outs `[N, I]`, some rows at a time."""
    if not len(place_N):
        number_1F, context_1F = (np.zeros((1, array.shape[1]), np.int64) for array in (number_NF, context_NF))
        one = runtime.read(runtime.empty(1), number_1F, context_1F, np.zeros(1, np.int64))
        return one.logit_BT[:0], one.readout_BI[:0]
    parts = []
    for at in range(0, len(place_N), _ROWS):
        some = slice(at, at + _ROWS)
        # Each candidate is read from a memory of its own: this copy is what bounds the rows.
        parts.append(runtime.read(states.take(place_N[some]), number_NF[some], context_NF[some], time_N[some]))
    return np.concatenate([part.logit_BT for part in parts]), np.concatenate([part.readout_BI for part in parts])
