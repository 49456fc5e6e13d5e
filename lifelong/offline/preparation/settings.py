"""The settings of `prepare`, and what every stage of it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from lifelong.config import Record

if TYPE_CHECKING:
    from lifelong.dataset.folder import NegativeRule
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
        "for ratings liked=rating>=4 and `rating`, all its steps; default: one task, whether there is an event",
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
    cuts: tuple[float, float] = Field((0.8, 0.9), description="shares of the times before validation and before test")
    cut_by: Literal["log", "user"] = Field(
        "log",
        description="the times that the shares refer to: those of the whole log, or each user's own; user is for "
        "ordinal times alone",
    )
    vault: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the times that is put aside after test, for `evaluate --split vault`; 0.05 is a good "
        "one, 0 puts nothing aside",
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
        None, description="earlier dataset or artifact (--from); its known values and hash buckets keep their numbers"
    )
    overwrite: bool = Field(False, description="replace a dataset that is already there")

    @field_validator("tasks", mode="before")
    @classmethod
    def _names(cls, tasks: object) -> object:
        names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else tasks
        if isinstance(names, list | tuple) and (not names or "" in names or len(set(names)) < len(names)):
            raise ValueError("tasks are different names with commas between, such as buy,cart or liked=rating>=4")
        return names

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
    """

    connection: Any
    log: RawLog
    folder: Path
    settings: PrepareSettings
    progress: Callable[[str], None]
    earlier: EarlierDataset | None = None
    cut_times: tuple[int, ...] = ()

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
