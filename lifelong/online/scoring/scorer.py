"""Artifact + store -> scores. The store is only read, and no history is needed.

request --item fields (catalogue, items put online, inline)--> numbers --.
user --store--> memory ------------------------------------------------> graphs -> logit -> calibrator -> probability
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from lifelong.artifact.calibration import NO_CALIBRATOR
from lifelong.artifact.list_order import AddedInLists, log_popularity
from lifelong.dataset.events import NO_TIME, context_numbers, user_context
from lifelong.dataset.mapping import mapping_from
from lifelong.errors import ArtifactError, RequestError, StoreCorruptError, UsageError
from lifelong.online.memory.runtime import Runtime, identity_of
from lifelong.online.memory.state import States
from lifelong.online.opening import AnyArtifact, AnyStore, as_store, open_artifact
from lifelong.online.scoring.answer import (
    Answer,
    Fields,
    Score,
    ScoreRequest,
    TaskScore,
    checked_requests,
    checked_time,
)
from lifelong.online.scoring.online_items import OnlineItems
from lifelong.online.scoring.tables import score_columns, scored_rows
from lifelong.online.store.artifact_list import space_of
from lifelong.tables import named_columns, table_of

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.dataset.events import Schema
    from lifelong.dataset.mapping import TableMapping
    from lifelong.online.store.artifact_list import StoreIdentity
    from lifelong.online.store.contract import MemoryStore

IntArray = npt.NDArray[np.int64]
_AT_ONCE = 65_536
"""Candidates, padding included, that go through the graphs in one call, at most."""
_PADDING = 128
"""Candidates that cost about as much as a call of its own."""


class Scorer:
    """Scores candidates from the memories in a store.

    Args:
        artifact: the model, or its folder; the store must be its own.
        store: an opened store, which is not closed here; or its URL, which is opened for reading and closed by `close`
            or at the end of a `with` block.
        base_rate: share of positives in production, if it is known and the artifact does not hold it: of the
            first task, or task -> share.

    Raises:
        ArtifactError: the model cannot be served, and why.
        StoreForeignError: another artifact wrote the store.
    """

    artifact: Artifact
    store: MemoryStore
    base_rate: Mapping[str, float]
    identity: StoreIdentity
    space: int

    def __init__(
        self,
        artifact: AnyArtifact,
        store: AnyStore,
        *,
        base_rate: float | Mapping[str, float] | None = None,
    ) -> None:
        artifact = open_artifact(artifact)
        store, self._owns_store = as_store(store, read_only=True)
        self.artifact, self.store, self.base_rate = artifact, store, base_rates(artifact, base_rate)
        self.identity = identity = identity_of(artifact, store)
        self.runtime: Runtime = Runtime(artifact, codec=identity.codec)
        self.space = store.bind(identity)
        self.online_items: OnlineItems = OnlineItems(artifact, store)
        self.schema: Schema = artifact.config.dataset_schema
        self.mapping: TableMapping | None = artifact.config.mapping
        self._first_known, self._id = artifact.vocabularies["item"].first_known, artifact.id
        self._negatives: str = artifact.config.negatives.rule
        self._calibrators = {task: artifact.calibrator(task) for task in self.schema.tasks}
        # Whether a task has probabilities is settled here, and not with each score.
        self._no_probability = {task: self._why_none(task) for task in self.schema.tasks}

    def __repr__(self) -> str:
        return f"Scorer({self.artifact!r}, {type(self.store).__name__})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store if it was opened here."""
        if self._owns_store:
            self.store.close()

    def score(
        self,
        user: str,
        items: Sequence[str],
        *,
        time: int | datetime | str | None = None,
        profile: Fields | None = None,
    ) -> list[Score]:
        """Scores of one user's candidates, in their order.

        Args:
            user: her id; an unknown user is scored from the empty memory.
            items: item ids; an unknown item is scored by its hash bucket and the fields that are known of it.
            time: moment of the request, UTC seconds, a datetime or an ISO 8601 text (UTC without a zone); now if None.
            profile: user field -> value, for a model that was trained with profiles.

        Raises:
            RequestError: a field of the profile is not a user field.
            StoreCorruptError: the stored memory is damaged.
            UsageError: the user is no id, the items are no ids, or the time is no number.
        """
        return self.score_many([ScoreRequest(user, items, checked_time(time), profile=profile)])[0]

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[list[Score]]:
        """Scores of many users' candidates, in the order of the requests."""
        return [answer.scores for answer in self.answer(requests)]

    def score_table(
        self,
        requests: Any,
        *,
        mapping: Path | str | Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        **named: str,
    ) -> Any:
        """Scores of a table of requests, as a `pyarrow.Table` that pandas, Polars and DuckDB take.

        Args:
            requests: a path, a glob, a list of them, or a table of another library (see `lifelong.tables`), one row per
                candidate: `user`, `item`, optionally `time` (UTC seconds, ISO 8601 or a timestamp), item
                fields, and `user.<field>` of profiles.
            mapping: mapping file, or its settings, in place of that with which the artifact's dataset was prepared,
                which does not apply to a table that lacks its columns and has `user` and `item`.
            columns: our name -> the table's name, for columns with other names.
            named: the same, by names: `user="customer"`.

        Returns:
            A row per candidate, in the order of the requests: user, item, score, probability, reason, known_user,
            count; of a model with several tasks also `score_<task>` and `probability_<task>`.

        Raises:
            UsageError: `requests` is none of these, or there is no such column.
            SourceError: a row is malformed; names the row.
            StoreCorruptError: a stored memory is damaged.
            MissingExtraError: pyarrow is not installed.
        """
        given = None if mapping is None else mapping_from(mapping)
        parts = scored_rows(self, requests, named_columns(columns, named), given)
        return table_of((row for rows in parts for row in rows), score_columns(self.schema))

    def answer(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """Scores of many users' candidates, and what is known of each user, in the order of the requests.

        Raises:
            RequestError: a field that came with a candidate is not an item field, or one of a profile no user field.
            StoreCorruptError: a stored memory is damaged.
            UsageError: they are no requests.
        """
        try:
            return self._answers(requests)
        except (TypeError, ValueError, AttributeError):
            # Looking at each id of each request before would take as long as some scores.
            checked_requests(requests)
            raise

    def _answers(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """`answer` of requests that are taken for such."""
        answers: dict[int, Answer] = {}
        for chosen in _chunks([len(request.items) for request in requests]):
            group = [requests[place] for place in chosen]
            answered = self.answer_from(*self.states([request.user for request in group]), group)
            answers.update(zip(chosen, answered, strict=True))
        return [answers[place] for place in range(len(requests))]

    def answer_each(self, requests: Sequence[ScoreRequest]) -> list[Answer | StoreCorruptError]:
        """What `answer` gives, with an error in the place of each user with a damaged memory.

        Raises:
            RequestError: a field that came with a candidate is not an item field, or one of a profile no user field.
        """
        try:
            return [*self.answer(requests)]
        except StoreCorruptError:
            damaged = {place: error for place, one in enumerate(requests) if (error := self._damage(one.user))}
        others = iter(self.answer([one for place, one in enumerate(requests) if place not in damaged]))
        return [damaged[place] if place in damaged else next(others) for place in range(len(requests))]

    def _damage(self, user: str) -> StoreCorruptError | None:
        """The error of a user's stored memory, None if it is not damaged."""
        try:
            self.states([user])
        except StoreCorruptError as error:
            return error
        return None

    def states(self, users: Sequence[str]) -> tuple[States, list[bool]]:
        """Memories of users, empty where a user is unknown, and who is known.

        Raises:
            StoreForeignError: the artifact's memories were dropped meanwhile.
        """
        encoded = self.store.read_many(users, space=self.space)
        # A user without a memory may be unknown, or the artifact's memories have been dropped. They are taken off the
        # store's list first, so the list says which.
        if None in encoded and (artifact_list := self.store.artifact_list()).artifacts:
            space_of("the store", artifact_list, self.identity)
        return self.runtime.decode(encoded, users), [value is not None for value in encoded]

    def answer_from(
        self, states: States, known: Sequence[bool], requests: Sequence[ScoreRequest], *, attention: bool = False
    ) -> list[Answer]:
        """Answer requests from memories that were read, in one call of the graphs.

        Args:
            states: one memory per request.
            known: for each request whether the store had a memory.
            requests: they are padded to the longest of them.
            attention: whether the answers hold the attention.

        Raises:
            ArtifactError: a score is not a finite number.
        """
        number_BCF = self._targets(requests)
        now = int(clock.time())
        # One moment for all requests that name none, or equal ones could be answered differently.
        time_B = np.array([now if request.time is None else request.time for request in requests], np.int64)
        context_BCF = self.context(requests, time_B, states.last_time_B)
        logit_BCT, attention_BCS = self.runtime.score(states, number_BCF, context_BCF, time_B, attention=attention)
        if not np.isfinite(logit_BCT).all():
            raise ArtifactError(
                "a score that is not a finite number", expected="finite weights", fix="train the artifact again"
            )
        answers = []
        for place, request in enumerate(requests):
            size, last, in_list_C = len(request.items), int(states.last_time_B[place]), None
            if request.for_list:
                added = self.added_in_lists(states.take(np.array([place])), request.items)
                in_list_C = added.to(logit_BCT[place, :size, 0].astype(np.float64))
            # Behind a request's own candidates is padding.
            known_C = number_BCF[place, :size, 0] >= self._first_known
            answers.append(
                Answer(
                    user=request.user,
                    known_user=known[place],
                    count=int(states.count_B[place]),
                    last_time=None if last == NO_TIME else last,
                    scores=self._scores(request.items, known_C.tolist(), logit_BCT[place, :size]),
                    artifact=self._id,
                    attention_CS=None if attention_BCS is None else attention_BCS[place, :size],
                    unknown_items=size - int(known_C.sum()),
                    negatives=self._negatives,
                    in_list_C=in_list_C,
                )
            )
        return answers

    def added_in_lists(self, states: States, items: Sequence[str]) -> AddedInLists:
        """What is added to the scores of items to order them in a list over the catalogue.

        Args:
            states: the memory of one user.
            items: ids; one that the catalogue lacks was never drawn.
        """
        # All models that are served learn from drawn negatives, where such are drawn.
        artifact = self.artifact
        if artifact.drawn is None:
            return AddedInLists()
        popularity_C, order = log_popularity(artifact.drawn[artifact.catalogue.rows(items)]), artifact.config.list_order
        if order is None or (counting := self.runtime.counting) is None:
            return AddedInLists(popularity_C)
        (number_CFX,) = counting.look(states, self.online_items.numbers(items)[None]).number_BCFX
        return AddedInLists(order.popularity * popularity_C, order.of_counts(number_CFX))

    def context(self, requests: Sequence[ScoreRequest], time_B: IntArray, last_time_B: IntArray) -> IntArray:
        """Context numbers of requests, as the model reads them: `[B, 1, F]`, since all candidates have the same.

        Args:
            requests: they have the users' profiles.
            time_B: moments of the requests.
            last_time_B: times of the users' last events.

        Raises:
            RequestError: a profile has a field that is not a user field.
        """
        profiles = self._profiles([request.profile for request in requests])
        given = {field: number_B[:, None] for field, number_B in profiles.items()}
        return context_numbers(self.runtime.context_fields, time_B[:, None], last_time_B[:, None], given)

    def _profiles(self, profiles: Sequence[Fields | None]) -> dict[str, IntArray]:
        """Context field -> number of each profile's value."""
        known = self.artifact.profile_vocabularies
        unknown = {field for profile in profiles for field in profile or {} if user_context(field) not in known}
        if unknown:
            raise RequestError(
                f"{min(unknown)!r} is not a field of a profile",
                expected=", ".join(self.schema.user_fields) or "no profile: this model was trained without",
                fix="leave it out",
            )
        return {
            user_context(field): known[user_context(field)].numbers([(of or {}).get(field) for of in profiles])
            for field in self.schema.user_fields
            if user_context(field) in self.runtime.context_fields
        }

    def _targets(self, requests: Sequence[ScoreRequest]) -> npt.NDArray[np.int64]:
        """Numbers of all candidates, padded to the longest request."""
        if len(requests) == 1:
            return self.online_items.numbers(requests[0].items, requests[0].fields)[None]
        width = max(len(request.items) for request in requests)
        # Number 0 is padding in every field, and each field has a number and a key.
        number_BCF = np.zeros((len(requests), width, 2 * len(self.schema.item_fields)), np.int64)
        for place, request in enumerate(requests):
            number_BCF[place, : len(request.items)] = self.online_items.numbers(request.items, request.fields)
        return number_BCF

    def _scores(self, items: Sequence[str], known: Sequence[bool], logit_CT: npt.NDArray[np.floating]) -> list[Score]:
        """Scores with probabilities, or with the reason why there are none."""
        of_all = {task: self._of_task(task, logit_CT[:, at]) for at, task in enumerate(self.schema.tasks)}
        # Of several tasks, the first one orders candidates.
        first = of_all[self.schema.tasks[0]]
        if len(of_all) == 1:
            return list(map(Score, items, *first, repeat(None), known))
        of_task = {task: list(map(TaskScore, *columns)) for task, columns in of_all.items()}
        of_item = [dict(zip(of_all, scores, strict=True)) for scores in zip(*of_task.values(), strict=True)]
        return list(map(Score, items, *first, of_item, known))

    def _of_task(
        self, task: str, logit_C: npt.NDArray[np.floating]
    ) -> tuple[list[float], Sequence[float | None], list[str | None]]:
        """Scores, probabilities, and reasons why there are none: a column each."""
        calibrator, reason, size = self._calibrators[task], self._no_probability[task], len(logit_C)
        if calibrator is None or reason is not None:
            return logit_C.tolist(), [None] * size, [reason] * size
        probability_C, _ = calibrator.probability(logit_C, self.base_rate.get(task))
        assert probability_C is not None
        return logit_C.tolist(), probability_C.tolist(), [None] * size

    def _why_none(self, task: str) -> str | None:
        """Why a task has no probabilities; None if it has."""
        calibrator = self._calibrators[task]
        return NO_CALIBRATOR if calibrator is None else calibrator.probability([], self.base_rate.get(task))[1]


def _chunks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Places of requests of similar size, so that padding stays small; at most `_AT_ONCE` candidates a chunk.

    >>> list(_chunks([2, 40_000, 1, 2]))
    [[2, 0, 3], [1]]
    >>> list(_chunks([100, 1, 90, 100, 1]))
    [[1, 4], [2, 0, 3]]
    """
    chunk, filled = list[int](), 0
    # By size: the request that comes next is the longest so far, and the whole chunk would be padded to it.
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        # With this request, all of the chunk is padded to it: the longest so far.
        padded, real = (len(chunk) + 1) * sizes[place], filled + sizes[place]
        if chunk and (padded > _AT_ONCE or padded - real > max(_PADDING, real // 4)):
            yield chunk
            chunk, real = [], sizes[place]
        chunk.append(place)
        filled = real
    if chunk:
        yield chunk


def checked_scorer(scorer: object) -> None:
    """Check that there is a scorer.

    Raises:
        UsageError: it is something else.

    >>> checked_scorer("artifact")
    Traceback (most recent call last):
    lifelong.errors.UsageError: a scorer of type str. Expected: a Scorer. To do: scorer = Scorer(artifact, store).
    """
    if not hasattr(scorer, "states"):
        found, fix = f"a scorer of type {type(scorer).__name__}", "scorer = Scorer(artifact, store)"
        raise UsageError(found, expected="a Scorer", fix=fix)


def base_rates(artifact: Artifact, given: float | Mapping[str, float] | None) -> Mapping[str, float]:
    """Task -> share of positives in production, as far as they are given.

    Args:
        artifact: the model with these tasks.
        given: of the first task alone, or by task.

    Raises:
        UsageError: the artifact does not have a task of that name.
    """
    tasks = artifact.config.dataset_schema.tasks
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = {tasks[0]: given}
    for rate in given.values():
        # True is a number in Python, and no share.
        if isinstance(rate, bool) or not isinstance(rate, float | int) or not 0 < rate < 1:
            raise UsageError(
                f"a base rate of {rate!r}",
                expected="a share between 0 and 1, or task -> share",
                fix="give the share of positives in production: 0.02 where 2 of 100 candidates are bought",
            )
    unknown = [task for task in given if task not in tasks]
    if unknown:
        raise UsageError(
            f"a base rate of {', '.join(unknown)}",
            expected=f"tasks of this model: {', '.join(tasks)}",
            fix="name its tasks, as in buy=0.01,cart=0.03",
        )
    return given
