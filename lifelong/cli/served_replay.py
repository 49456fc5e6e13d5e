"""Replay a period through the service: each moment is scored before it is written, as it happens in production.

The scores are the online ones: from ids, memories in the store and the exported graphs. Compared with the offline
logits, each from the user's whole history, they show that both paths are one model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import UsageError
from lifelong.offline.reports.attention import item_label
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Cell, Table
from lifelong.online.memory.event import UserEvent
from lifelong.online.memory.updater import Updater
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.contract import MemoryStore

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did.

    Args:
        logit_N: float64 score of every test example, in its order.
        events: events written.
        rounds: groups of moments of different users that were handled together.
        reopened: how often the store was closed and opened again on the way.
        score_seconds: time spent in scoring.
        write_seconds: time spent in writing.
    """

    logit_N: FloatArray
    events: int
    rounds: int
    reopened: int
    score_seconds: float
    write_seconds: float


@dataclass(frozen=True, slots=True)
class _Round:
    """The k-th moment of every user: examples to score, then events to write, both by index."""

    examples: IntArray
    events: IntArray


def replay(
    artifact: Artifact,
    dataset: Dataset,
    open_store: Callable[[], MemoryStore],
    *,
    until: Mapping[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Score every test example from the store, and write the events of the test period, moment by moment.

    The store must hold the memories up to the period's first time (`backfill --until`). It is closed and opened again
    half-way.

    Args:
        artifact: the artifact that wrote the store.
        dataset: where the events and examples come from.
        open_store: opens the store; called again after each closing.
        until: index of a user -> time from which on her events are not written: her memory stays as it was before.
        progress: called with (rounds done, rounds in all).

    Raises:
        UsageError: the dataset is not split by time.
    """
    if not dataset.manifest.cut_times:
        raise UsageError(
            f"the test examples of this dataset (protocol {dataset.manifest.protocol}) have no period of their own",
            expected="a dataset that is split by time",
            fix="prepare the log with protocol=temporal",
        )
    examples = dataset.examples("test")
    late_N = np.flatnonzero(np.asarray(dataset.histories.time_N) >= dataset.manifest.cut_times[-1])
    event_N = _written(dataset, late_N, until or {})
    rounds = list(_rounds(dataset, examples, event_N))
    logit_N = np.full(len(examples), np.nan)
    store = open_store()
    written, reopened, score_seconds, write_seconds = 0, 0, 0.0, 0.0
    try:
        scorer, updater = Scorer(artifact, store), Updater(artifact, store)
        for number, step in enumerate(rounds):
            # Half-way, so that what was written is read back from the disk.
            if number and number == len(rounds) // 2:
                store.close()
                store = open_store()
                scorer, updater = Scorer(artifact, store), Updater(artifact, store)
                reopened += 1
            started = time.perf_counter()
            _score(scorer, dataset, examples, step.examples, logit_N)
            scored = time.perf_counter()
            events = user_events(dataset, step.events)
            updater.apply(events, source="replay", offsets=range(written, written + len(events)))
            written += len(events)
            score_seconds += scored - started
            write_seconds += time.perf_counter() - scored
            if progress is not None:
                progress(number + 1, len(rounds))
    finally:
        store.close()
    return Replay(logit_N, written, len(rounds), reopened, score_seconds, write_seconds)


def _written(dataset: Dataset, event_N: IntArray, until: Mapping[int, int]) -> IntArray:
    """The events without those of some users from a time on."""
    keep_N = np.ones(len(event_N), bool)
    for user, end in until.items():
        place = dataset.histories.of(user)
        keep_N &= (event_N < place.start) | (event_N >= place.stop) | (dataset.histories.time_N[event_N] < end)
    return event_N[keep_N]


def _rounds(dataset: Dataset, examples: Examples, event_N: IntArray) -> Iterator[_Round]:
    """Group examples and events, by index, by the rank of their moment within their user.

    Round k holds the k-th moment of every user: all that is scored in it comes before all that is written in it, and no
    user is in it with two moments.
    """
    histories = dataset.histories
    # One list of (user, moment): first the examples, then the events.
    user = np.concatenate([examples.user_N, np.searchsorted(histories.offset_U, event_N, side="right") - 1])
    moment = np.concatenate([examples.time_N, histories.time_N[event_N]])
    order = np.lexsort((moment, user))
    user, moment = user[order], moment[order]
    # In order of user and moment, each change of the moment raises `nth` by one; less the `nth` of the user's first
    # moment, that is the rank within the user. It is written back to the place in the list.
    new_user = np.r_[True, user[1:] != user[:-1]][: len(user)]
    new_moment = new_user | np.r_[True, moment[1:] != moment[:-1]][: len(user)]
    nth = np.cumsum(new_moment) - 1
    rank = np.empty(len(user), np.int64)
    rank[order] = nth - np.maximum.accumulate(np.where(new_user, nth, 0))
    # Of each list its places by rank, and for each round where the rank begins in them.
    example_rank, event_rank = rank[: len(examples)], rank[len(examples) :]
    by_example, by_event = np.argsort(example_rank, kind="stable"), np.argsort(event_rank, kind="stable")
    bounds = np.arange(1 + (rank.max() if len(rank) else -1) + 1)
    example_at = np.searchsorted(example_rank[by_example], bounds)
    event_at = np.searchsorted(event_rank[by_event], bounds)
    for k in range(len(bounds) - 1):
        yield _Round(by_example[example_at[k] : example_at[k + 1]], event_N[by_event[event_at[k] : event_at[k + 1]]])


def _score(
    scorer: Scorer,
    dataset: Dataset,
    examples: Examples,
    chosen: IntArray,
    logit_N: FloatArray,
) -> None:
    """Ask the scorer for the chosen examples, one request per user, and note the scores."""
    # Examples lie user by user: a request begins where the user changes.
    starts = np.flatnonzero(np.r_[True, np.diff(examples.user_N[chosen]) != 0][: len(chosen)])
    groups = np.split(chosen, starts[1:]) if len(chosen) else []
    requests = [
        ScoreRequest(
            user=dataset.users.id_at(int(examples.user_N[group[0]])),
            items=[dataset.catalogue.id_of(int(row)) or "" for row in examples.row_N[group]],
            time=int(examples.time_N[group[0]]),
            profile=profile_of(dataset, int(examples.user_N[group[0]])),
        )
        for group in groups
    ]
    for group, scores in zip(groups, scorer.score_many(requests), strict=True):
        logit_N[group] = [score.score for score in scores]


def profile_of(dataset: Dataset, user: int) -> dict[str, str | None] | None:
    """A user's profile as a client would send it; None if the data has no profiles.

    Args:
        dataset: the dataset with the profiles.
        user: her index.
    """
    pairs = zip(
        dataset.schema.user_fields, dataset.profile_vocabularies.values(), dataset.profile_UF[user], strict=True
    )
    return {field: vocabulary.value_of(int(number)) for field, vocabulary, number in pairs} or None


def user_events(dataset: Dataset, chosen: IntArray) -> list[UserEvent]:
    """Events of the log as a client would send them."""
    users = np.searchsorted(dataset.histories.offset_U, chosen, side="right") - 1
    pairs = zip(users.tolist(), chosen.tolist(), strict=True)
    return [UserEvent(dataset.users.id_at(user), *dataset.event(at)) for user, at in pairs]


TOLERANCE = 1e-4
"""Largest difference allowed between an online and an offline logit."""


@dataclass(frozen=True, slots=True)
class Online:
    """A replay of the test period through a store, and the offline logits that it is compared with.

    Args:
        artifact: the model that was served.
        replay: what was scored and written.
        users: users with a memory before the period.
        bytes_per_user: mean size of these memories.
        offline_N: logits of the test examples by the batch path.
    """

    artifact: Artifact
    replay: Replay
    users: int
    bytes_per_user: int
    offline_N: FloatArray

    @property
    def largest_difference(self) -> float:
        """Largest difference of a logit over all test examples; infinite if an example was not scored."""
        return float(np.nan_to_num(np.abs(self.replay.logit_N - self.offline_N), nan=np.inf).max(initial=0.0))

    @property
    def equal(self) -> bool:
        """Whether the two paths gave the same scores."""
        return self.largest_difference <= TOLERANCE

    @property
    def verdict(self) -> str:
        """Whether they did, in words."""
        return (
            f"Online and offline scores are {'equal' if self.equal else 'NOT EQUAL'}: {len(self.offline_N):,} test "
            f"examples, largest difference of a logit {self.largest_difference:.1e} (allowed: {TOLERANCE:.0e}). "
            "Online: exported graphs on memories from the store, updated basket by basket. Offline: torch, from each "
            "user's first event."
        )


def online_section(online: Online) -> Section:
    """The verdict, and the size and speed of the replay."""
    replay = online.replay
    rows: list[list[Cell]] = [
        ["users with a memory before the test period", f"{online.users:,}"],
        ["bytes a user", f"{online.bytes_per_user:,}"],
        ["events written one moment after another", f"{replay.events:,}"],
        ["examples scored from memory", f"{len(replay.logit_N):,}"],
        ["store closed and reopened on the way", f"{replay.reopened} time"],
        # 1e-9: a replay of a tiny log may take no measurable time.
        ["events written a second", f"{replay.events / max(replay.write_seconds, 1e-9):,.0f}"],
        ["examples scored a second", f"{len(replay.logit_N) / max(replay.score_seconds, 1e-9):,.0f}"],
    ]
    return Section("The same scores online", [online.verdict], [Table(["what", "how much"], rows)])


def counted_section(artifact: Artifact, dataset: Dataset, item: str, counted: Table) -> Section:
    """What is behind the score of one candidate of a model that counts.

    Args:
        artifact: the model.
        dataset: names the item.
        item: id of the candidate.
        counted: one row per counted value, with its effect on the score.
    """
    words = (
        f"{artifact.config.title} counts, in a memory of fixed size, how often and how long ago a user met each value. "
        f"This is what it holds of {_name(dataset, item)} for one user, and what each part adds to the score."
    )
    return Section("What the memory counted", [words], [counted])


def _name(dataset: Dataset, item: str) -> str:
    """An item by its most telling field, and its id."""
    fields = dataset.schema.item_fields
    return item_label(dataset, item, "product_type" if "product_type" in fields else fields[-1])
