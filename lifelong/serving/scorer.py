"""Artifact + store -> scores. The store is only read; the history is not touched.

request --item fields (catalogue, items put online, inline)--> numbers --.
user --store--> memory ------------------------------------------------> graphs -> logit -> calibrator -> probability
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.events import NO_TIME, context_numbers, user_context
from lifelong.errors import ArtifactError, RequestError, StoreCorruptError, UsageError
from lifelong.memory.item_memory import ITEMS
from lifelong.memory.roster import slot_of
from lifelong.memory.runtime import Runtime, identity_of
from lifelong.memory.state import States
from lifelong.serving.overlay import ItemOverlay

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset
    from lifelong.memory.store import MemoryStore
    from lifelong.serving.explain import Explanation

Fields = Mapping[str, str | None]
IntArray = npt.NDArray[np.int64]
_CELLS = 65_536
"""Candidates, padding included, that go through the graphs at once."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One user and her candidates.

    Args:
        user: her id; need not be known.
        items: item ids; need not be known.
        time: moment of the request, UTC seconds; now if None.
        fields: per item the fields that came with the request, or None; newer statistics of it (`item.reviews`) too.
        profile: what is known of the user beside her events: user field -> value, None where it is not known. No store
            keeps it.
    """

    user: str
    items: Sequence[str]
    time: int | None = None
    fields: Sequence[Fields | None] | None = None
    profile: Fields | None = None


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One candidate's answer for one of several tasks.

    Args:
        score: raw logit.
        probability: calibrated and corrected to the base rate, or None.
        reason: why there is no probability.
    """

    score: float
    probability: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One candidate's answer.

    Args:
        item: its id.
        score: raw logit of the first task.
        probability: of the first task, calibrated and corrected to the base rate, or None.
        reason: why there is no probability.
        tasks: the same for each task, where the model has several; None where it has one.
    """

    item: str
    score: float
    probability: float | None = None
    reason: str | None = None
    tasks: Mapping[str, TaskScore] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that is said about one request.

    Args:
        user: her id.
        known_user: False where the empty memory was read.
        count: events in the memory that was read.
        last_time: time of the last of them, None without events.
        scores: one per candidate, in order.
        artifact: id of the one that scored; memory and weights are both its own.
        request_id: under which the request is in the impressions log; None where there is none.
        attention_CS: first-hop attention over the slots, or over the events of a recent history and padding behind
            them; None if the model has none, or none was asked for.
        unknown_items: candidates that training did not know.
    """

    user: str
    known_user: bool
    count: int
    last_time: int | None
    scores: list[Score]
    artifact: str
    attention_CS: npt.NDArray[np.float32] | None
    unknown_items: int = 0
    request_id: str | None = None


class Scorer:
    """Scores candidates from the memories in a store.

    Args:
        artifact: the model; the store must be its own.
        store: an opened store; not closed here.
        overlay: items put online; read from the store if None.
        base_rate: share of positives in the world, if it is known and the artifact does not hold it: of the first
            task, or task -> share.
        complete: False for an artifact in shadow, whose memories may be behind.

    Raises:
        ArtifactError: the model cannot be served, and why.
        StoreForeignError: another artifact wrote the store.
    """

    def __init__(
        self,
        artifact: Artifact,
        store: MemoryStore,
        *,
        overlay: ItemOverlay | None = None,
        base_rate: float | Mapping[str, float] | None = None,
        complete: bool = True,
    ) -> None:
        self.artifact, self.store, self.base_rate = artifact, store, base_rates(artifact, base_rate)
        self.identity = identity = identity_of(artifact, store)
        self.runtime = Runtime(artifact, codec=identity.codec)
        behind = None if complete else store.roster().find(artifact.id)
        self.slot, self._complete = store.bind(identity) if behind is None else behind.slot, complete
        self.overlay = overlay or ItemOverlay(artifact.catalogue, store, statistics=artifact.item_statistics)
        self.schema = artifact.config.dataset_schema
        self._first_known = artifact.vocabularies["item"].first_known

    def score(
        self, user: str, items: Sequence[str], *, time: int | None = None, profile: Fields | None = None
    ) -> list[Score]:
        """Scores of one user's candidates, in their order.

        Args:
            user: her id; an unknown user is scored from the empty memory.
            items: item ids; an unknown item through its hash bucket and the fields that are known of it.
            time: moment of the request, UTC seconds; now if None.
            profile: user field -> value, of a model that was trained with profiles.
        """
        return self.score_many([ScoreRequest(user, items, time, profile=profile)])[0]

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[list[Score]]:
        """Scores of many users' candidates, in the order of the requests."""
        return [answer.scores for answer in self.answer(requests)]

    def answer(self, requests: Sequence[ScoreRequest]) -> list[Answer]:
        """The same with what is known of each user.

        Raises:
            RequestError: a field that came with a candidate is not an item field, or one of a profile no user field.
        """
        answers: dict[int, Answer] = {}
        for chosen in _chunks([len(request.items) for request in requests]):
            members = [requests[place] for place in chosen]
            group = self.answer_from(*self.states([request.user for request in members]), members)
            answers.update(zip(chosen, group, strict=True))
        return [answers[place] for place in range(len(requests))]

    def answer_each(self, requests: Sequence[ScoreRequest]) -> list[Answer | StoreCorruptError]:
        """`answer`, with an error in the place of each user whose stored memory is damaged.

        Raises:
            RequestError: a field that came with a candidate is not an item field.
        """
        try:
            return [*self.answer(requests)]
        except StoreCorruptError:
            damaged = {place: error for place, one in enumerate(requests) if (error := self._damage(one.user))}
        others = iter(self.answer([one for place, one in enumerate(requests) if place not in damaged]))
        return [damaged[place] if place in damaged else next(others) for place in range(len(requests))]

    def _damage(self, user: str) -> StoreCorruptError | None:
        """What is wrong with a user's stored memory, None if nothing is."""
        try:
            self.states([user])
        except StoreCorruptError as error:
            return error
        return None

    def explain(
        self,
        user: str,
        items: Sequence[str],
        *,
        time: int | None = None,
        profile: Fields | None = None,
        dataset: Dataset | None = None,
    ) -> Explanation:
        """Attention over the slots or the recent events, and the events behind it.

        Args:
            user: her id.
            items: candidates.
            time: moment of the request; now if None.
            profile: user field -> value.
            dataset: where the user's past events are looked up beside the store's own event log.
        """
        from lifelong.serving.explain import explain

        return explain(self, ScoreRequest(user, items, time, profile=profile), dataset=dataset)

    def states(self, users: Sequence[str]) -> tuple[States, list[bool]]:
        """Memories of users, empty where a user is unknown, and who is known.

        Raises:
            StoreForeignError: the artifact's memories were dropped meanwhile.
        """
        encoded = self.store.read_many(users, slot=self.slot)
        # A user whom nobody knows looks like one whose memory was dropped: the list is changed before that.
        if self._complete and None in encoded and (roster := self.store.roster()).members:
            slot_of("the store", roster, self.identity)
        return self.runtime.decode(encoded, users), [value is not None for value in encoded]

    def answer_from(
        self, states: States, known: Sequence[bool], requests: Sequence[ScoreRequest], *, attention: bool = False
    ) -> list[Answer]:
        """Answer requests from memories that were read, in one pass.

        Args:
            states: one memory per request.
            known: whether the store had it.
            requests: padded to the longest of them.
            attention: whether it is wanted, too.

        Raises:
            ArtifactError: the graphs give what is no number.
        """
        number_BCF = self._targets(requests)
        now = int(clock.time())
        time_B = np.array([now if request.time is None else request.time for request in requests], np.int64)
        context_BCF = self.context(requests, time_B, states.last_time_B)
        seen_BCX = self._seen(requests, time_B)
        logit_BCT, attention_BCS = self.runtime.score(
            states, number_BCF, context_BCF, time_B, seen_BCX=seen_BCX, attention=attention
        )
        if not np.isfinite(logit_BCT).all():
            raise ArtifactError("a score that is no number", fix="look at its weights, and train it again")
        answers = []
        for place, request in enumerate(requests):
            size, last = len(request.items), int(states.last_time_B[place])
            answers.append(
                Answer(
                    user=request.user,
                    known_user=known[place],
                    count=int(states.count_B[place]),
                    last_time=None if last == NO_TIME else last,
                    scores=self._scores(request.items, logit_BCT[place, :size]),
                    artifact=self.artifact.id,
                    attention_CS=None if attention_BCS is None else attention_BCS[place, :size],
                    unknown_items=int((number_BCF[place, :size, 0] < self._first_known).sum()),
                )
            )
        return answers

    def _seen(self, requests: Sequence[ScoreRequest], time_B: IntArray) -> npt.NDArray[np.float32] | None:
        """What the candidates get of their items, of a model with a side of items."""
        of_items = self.runtime.items
        if of_items is None:
            return None
        names = list(dict.fromkeys(item for request in requests for item in request.items))
        place = {name: at for at, name in enumerate(names)}
        item_BC = np.zeros((len(requests), max(len(request.items) for request in requests)), np.int64)
        for at, request in enumerate(requests):
            item_BC[at, : len(request.items)] = [place[item] for item in request.items]
        profiles = [
            {
                name: int(self.artifact.profile_vocabularies[name].numbers([value])[0])
                for field, value in (request.profile or {}).items()
                if (name := user_context(field)) in of_items.profile_fields
            }
            for request in requests
        ]
        query_BF = of_items.query([request.user for request in requests], profiles)
        return of_items.seen(self.store.read_many(names, slot=ITEMS), item_BC, query_BF, time_B)

    def context(self, requests: Sequence[ScoreRequest], time_B: IntArray, last_time_B: IntArray) -> IntArray:
        """Context numbers of requests, as the model reads them: `[B, C, F]`, C being 1 where all candidates have one.

        Args:
            requests: for their candidates and the users' profiles.
            time_B: moments of the requests.
            last_time_B: times of the users' last events before.

        Raises:
            RequestError: a profile has a field that is no user field, or a statistic of an item is no number.
        """
        profiles = self._profiles([request.profile for request in requests])
        given = {field: number_B[:, None] for field, number_B in profiles.items()} | self._statistics(requests)
        candidates = max((number.shape[1] for number in given.values()), default=1)
        time_BC, last_time_BC = (np.repeat(time[:, None], candidates, axis=1) for time in (time_B, last_time_B))
        return context_numbers(self.runtime.context_fields, time_BC, last_time_BC, given)

    def _statistics(self, requests: Sequence[ScoreRequest]) -> dict[str, IntArray]:
        """Context field -> number of each candidate's statistic `[B, C]`; nothing for a model that reads none."""
        if self.overlay.statistics is None:
            return {}
        fields = self.overlay.statistics.fields
        width = max(len(request.items) for request in requests)
        number_BCK = np.zeros((len(requests), width, len(fields)), np.int64)
        for place, request in enumerate(requests):
            number_BCK[place, : len(request.items)] = self.overlay.statistics_of(request.items, request.fields)
        return {field: number_BCK[..., at] for at, field in enumerate(fields)}

    def _profiles(self, profiles: Sequence[Fields | None]) -> dict[str, IntArray]:
        """Context field -> number of each profile's value."""
        known = self.artifact.profile_vocabularies
        unknown = {field for profile in profiles for field in profile or {} if user_context(field) not in known}
        if unknown:
            raise RequestError(
                f"{min(unknown)!r} is not a field of a profile",
                expected=", ".join(self.schema.user_fields) or "no profile: this model was trained without",
            )
        return {
            user_context(field): known[user_context(field)].numbers([(of or {}).get(field) for of in profiles])
            for field in self.schema.user_fields
            if user_context(field) in self.runtime.context_fields
        }

    def _targets(self, requests: Sequence[ScoreRequest]) -> npt.NDArray[np.int64]:
        """Numbers of all candidates, padded to the longest request."""
        width = max(len(request.items) for request in requests)
        number_BCF = np.zeros((len(requests), width, len(self.schema.item_fields)), np.int64)
        for place, request in enumerate(requests):
            number_BCF[place, : len(request.items)] = self.overlay.numbers(request.items, request.fields)
        return number_BCF

    def _scores(self, items: Sequence[str], logit_CT: npt.NDArray[np.floating]) -> list[Score]:
        """Scores with probabilities, or the reason why there are none."""
        found = {task: self._of_task(task, logit_CT[:, at]) for at, task in enumerate(self.schema.tasks)}
        first = found[self.schema.tasks[0]]
        if len(found) == 1:
            return list(map(Score, items, *first))
        of_task = {task: list(map(TaskScore, *columns)) for task, columns in found.items()}
        of_item = [dict(zip(found, scores, strict=True)) for scores in zip(*of_task.values(), strict=True)]
        return list(map(Score, items, *first, of_item))

    def _of_task(
        self, task: str, logit_C: npt.NDArray[np.floating]
    ) -> tuple[list[float], Sequence[float | None], list[str | None]]:
        """Scores, probabilities, and reasons why there is none."""
        probability_C, reason = self.artifact.probability(logit_C, self.base_rate.get(task), task=task)
        size = len(logit_C)
        return logit_C.tolist(), [None] * size if probability_C is None else probability_C.tolist(), [reason] * size


def base_rates(artifact: Artifact, given: float | Mapping[str, float] | None) -> Mapping[str, float]:
    """Task -> share of positives in the world, as far as they are given.

    Args:
        artifact: whose tasks they are.
        given: of the first task alone, or by task.

    Raises:
        UsageError: a task is named that is none of the artifact's.
    """
    tasks = artifact.config.dataset_schema.tasks
    if given is None or isinstance(given, float | int):
        return {} if given is None else {tasks[0]: float(given)}
    unknown = [task for task in given if task not in tasks]
    if unknown:
        raise UsageError(
            f"a base rate of {', '.join(unknown)}",
            expected=f"tasks of this model: {', '.join(tasks)}",
            fix="name its tasks, as in buy=0.01,cart=0.03",
        )
    return given


def _chunks(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Places of requests of similar size, so that padding stays small, at most `_CELLS` candidates a chunk."""
    chunk: list[int] = []
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        if chunk and (len(chunk) + 1) * sizes[place] > _CELLS:
            yield chunk
            chunk = []
        chunk.append(place)
    if chunk:
        yield chunk
