"""The settings of `prepare`, what every stage of it needs, and which protocol and negatives fit a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from lifelong.config import Record
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.folder import NegativeRule
from lifelong.dataset.negatives import WINDOWS
from lifelong.dtypes import IntArray
from lifelong.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from lifelong.offline.preparation.earlier_dataset import EarlierDataset
    from lifelong.offline.preparation.sources import RawLog

Protocol = Literal["temporal", "paper", "impressions", "given"]
Rule = Literal["popularity", "uniform", "windowed", "following"]
Ties = Literal["hidden", "seen"]


class PrepareSettings(Record):
    """How a raw log becomes a dataset.

    >>> PrepareSettings(tasks="buy, cart", buckets=1024).buckets_of()
    {'item': 1024}
    """

    protocol: Protocol | None = Field(None, description="what is a target, and how it is split; default: the source's")
    negatives: Rule | None = Field(
        None,
        description="how negatives are sampled; default: the source's, else popularity (temporal), uniform (paper)",
    )
    tasks: tuple[str, ...] | None = Field(
        None,
        description="what is predicted together: event types, such as buy,cart (`any` is an event of any type), or "
        "for ratings liked=rating>=4; default: one task, whether there is an event",
    )
    window: float | None = Field(
        None,
        gt=0,
        description="days by a target that negatives are drawn from; default: 28 around it (windowed), 7 from it on "
        "(following)",
    )
    ratio: int = Field(1, ge=1, le=1000, description="negatives per positive")
    seed: int = Field(0, ge=0, description="of all that is drawn")
    ties: Ties = Field(
        "hidden",
        description="events of a target's own time that come before it in the source: hidden, or seen by it, as in the "
        "HPMN authors' code; seen with the protocol paper alone",
    )
    cuts: tuple[float, float] = Field((0.8, 0.9), description="shares of the events before validation and before test")
    vault: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the events that is put aside after test, for `evaluate --split vault`; 0.05 is a good "
        "one, 0 puts nothing aside",
    )
    part: tuple[int, int] | None = Field(
        None,
        description="a part of the users, such as 1/64: those of whose ids the CRC-32, modulo 64, is 1; items and "
        "their popularity are the whole log's; default: all users",
    )
    min_count: int = Field(2, ge=1, description="items with fewer training events use their hash bucket")
    field_min_count: int = Field(1, ge=1, description="min_count for the values of other item fields")
    buckets: int | dict[str, int] | None = Field(
        None, description="hash buckets: of the items, or {field: buckets}; default: by the number of known values"
    )
    memory_limit: str = Field(
        "1500MB",
        pattern=r"^\d+(\.\d+)?\s*[KMGT]i?B$",
        description="how much the table engine may hold in memory before it spills to disk",
    )
    threads: int | None = Field(None, ge=1, description="threads of the table engine; default: one per core")
    options: dict[str, str] = Field(default_factory=dict, description="options of the source")
    mapping: Path | None = Field(None, description="mapping file of the source `table`")
    start: Path | None = Field(
        None, description="earlier dataset or artifact; its known values and hash buckets keep their numbers"
    )
    overwrite: bool = Field(False, description="replace a dataset that is already there")

    @field_validator("tasks", mode="before")
    @classmethod
    def _names(cls, tasks: object) -> object:
        names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else tasks
        if isinstance(names, list | tuple) and (not names or "" in names or len(set(names)) < len(names)):
            raise ValueError("tasks are different names with commas between, such as buy,cart or liked=rating>=4")
        return names

    @field_validator("part", mode="before")
    @classmethod
    def _number_and_parts(cls, part: object) -> object:
        numbers = part.split("/") if isinstance(part, str) else part
        if part is None or (isinstance(numbers, list | tuple) and len(numbers) == 2 and _is_part(*map(str, numbers))):
            return numbers
        raise ValueError(
            f"{part!r} is not NUMBER/PARTS from 0 on, such as 1/64 (in Python (1, 64)) for one of 64 parts"
        )

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[float, float]) -> tuple[float, float]:
        if not 0 < cuts[0] < cuts[1] < 1:
            raise ValueError("the cuts must rise and lie between 0 and 1")
        return cuts

    def buckets_of(self) -> dict[str, int]:
        """Field -> hash buckets, for the fields that have them set."""
        if self.buckets is None:
            return {}
        return {"item": self.buckets} if isinstance(self.buckets, int) else dict(self.buckets)


def _is_part(number: str, of: str) -> bool:
    return number.isdecimal() and of.isdecimal() and int(number) < int(of)


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known of the whole log.

    Args:
        items: Ibis table `item`, `trained` and `drawn`: events (and impressions) in the training period, and in that
            part of it which negatives are drawn from.
        types: event type -> events in the training period; empty if the log has none.
        profiles: Ibis table of the profiles of all users with events in the training period; None if there are none.
    """

    items: Any
    types: dict[str, int]
    profiles: Any | None

    def counts(self, items: Any, column: str) -> IntArray:
        """`trained` or `drawn` of each catalogue row.

        Args:
            items: Ibis table `item` and `row`.
            column: which of the two.
        """
        import ibis

        joined = items.left_join(self.items, "item").order_by("row").select(n=ibis.coalesce(self.items[column], 0))
        count_V: IntArray = joined.to_pyarrow().column("n").to_numpy().astype(np.int64)
        return np.concatenate([np.zeros(FIRST_ROW, np.int64), count_V])


@dataclass(frozen=True, slots=True)
class Job:
    """A log that is being prepared.

    Args:
        connection: Ibis backend that holds the log.
        log: the opened raw log.
        folder: of the dataset; its `work` folder is deleted at the end.
        settings: how to prepare.
        progress: called with plain words at every stage.
        earlier: an earlier dataset or artifact, to keep its numbers; or None.
        cut_times: where to cut, of a protocol that cuts by time; () = where the shares of the settings say.
        whole: what is known of the whole log, where the job has a part of the users; else None.
    """

    connection: Any
    log: RawLog
    folder: Path
    settings: PrepareSettings
    progress: Callable[[str], None]
    earlier: EarlierDataset | None = None
    cut_times: tuple[int, ...] = ()
    whole: Whole | None = None

    @property
    def work(self) -> Path:
        """Folder of files that are deleted at the end."""
        return self.folder / "work"

    @property
    def type_code(self) -> Path | None:
        """File with the codes of the event types, None if the log has no types."""
        return self.work / "type_code.npy" if self.log.event_types else None

    def tasks(self, rule: NegativeRule) -> tuple[str, ...]:
        """Names of the labels: logged ones, or those of targets with drawn negatives."""
        return self.log.tasks if rule.rule == "none" else self.settings.tasks or ("response",)


def choose_protocol(log: RawLog, settings: PrepareSettings) -> Protocol:
    """The protocol that the user named, or the one of the source.

    Raises:
        UsageError: the log lacks what the protocol needs.
    """
    protocol = settings.protocol or log.protocol
    if protocol in ("impressions", "given") and log.impressions is None:
        raise UsageError(
            f"{log.name} holds no logged labels, which the protocol {protocol!r} needs",
            expected="temporal or paper",
            fix="protocol=temporal samples negatives instead"
            + ("; tasks=liked=rating>=4 makes labels of the ratings" if log.ratings is not None else ""),
        )
    if protocol == "given" and "split" not in log.impressions.columns:  # type: ignore[union-attr]
        raise UsageError(
            f"{log.name} does not say which impressions are for testing",
            expected="impressions, temporal or paper",
            fix="protocol=impressions cuts by time",
        )
    if settings.tasks and (protocol in ("impressions", "given") or not log.event_types):
        why = "which takes logged labels" if log.event_types else "and the events have no types"
        raise UsageError(
            f"tasks {', '.join(settings.tasks)} with the protocol {protocol!r}, {why}",
            expected="a log with event types, and the protocol temporal or paper",
            fix="leave out tasks; logged labels are tasks already",
        )
    if protocol in ("temporal", "paper") and log.time_unit == "ordinal" and log.protocol != protocol:
        raise UsageError(
            f"{log.name} has no times, only an order within each user, so the protocol {protocol!r} cannot cut it",
            expected=log.protocol,
            fix=f"protocol={log.protocol}",
        )
    if settings.ties == "seen" and protocol != "paper":
        raise UsageError(
            f"events of a target's own time are to be seen (ties=seen) with the protocol {protocol!r}",
            expected="the protocol paper, which has one target a user: others would see each other",
            fix="leave out ties, or choose protocol=paper",
        )
    return protocol


def choose_rule(log: RawLog, protocol: str, settings: PrepareSettings) -> NegativeRule:
    """How negatives are drawn.

    Raises:
        UsageError: the rule does not fit the protocol or the log.
    """
    if protocol in ("impressions", "given"):
        if settings.negatives is not None:
            raise UsageError(
                f"negatives {settings.negatives!r} with the protocol {protocol!r}, which takes logged labels",
                expected="no rule",
                fix="leave out negatives, or choose protocol=temporal",
            )
        return NegativeRule(rule="none", ratio=0, seed=settings.seed)
    rule = settings.negatives or (None if protocol == "paper" else log.negatives)
    rule = rule or ("uniform" if protocol == "paper" else "popularity")
    if protocol == "paper" and settings.ratio != 1:
        raise UsageError(
            f"ratio {settings.ratio} with the protocol 'paper', which has one example a user",
            expected="ratio 1",
            fix="choose protocol=temporal",
        )
    if rule in WINDOWS and (protocol == "paper" or log.time_unit != "seconds"):
        raise UsageError(
            f"{rule} negatives, from days by the target, with the protocol {protocol!r} on {log.name}",
            expected="the protocol temporal, and times in seconds",
            fix="choose negatives=popularity",
        )
    return NegativeRule(
        rule=rule,
        ratio=settings.ratio,
        seed=settings.seed,
        window=settings.window or WINDOWS[rule] if rule in WINDOWS else None,
        stored=protocol == "paper",
    )


def check_fields(log: RawLog, settings: PrepareSettings) -> None:
    """Refuse buckets for fields that the log does not have.

    Raises:
        ConfigError: a field does not exist; lists all of them.
    """
    fields = ("item", *log.item_fields)
    unknown = sorted(set(settings.buckets_of()) - set(fields))
    if unknown:
        problems = [f"buckets: {log.name} has no item field {field!r}" for field in unknown]
        raise ConfigError(problems, fix=f"item fields: {', '.join(fields)}")
