"""The settings of `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Protocol = Literal["temporal", "paper", "impressions", "given"]
Rule = Literal["popularity", "uniform", "same_category"]


class PrepareSettings(BaseModel):
    """How a raw log becomes a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol | None = Field(None, description="what is a target, and how it is split; default: the source's")
    negatives: Rule | None = Field(
        None,
        description="how negatives are sampled; default: the source's, else popularity (temporal), uniform (paper)",
    )
    tasks: tuple[str, ...] | None = Field(
        None,
        description="what is predicted side by side: event types, such as buy,cart (`any` is an event of any type), or "
        "of ratings liked=rating>=4 and `rating`, all its steps; default: one task, whether there is an event",
    )
    ratio: int = Field(1, ge=1, le=1000, description="negatives per positive")
    seed: int = Field(0, ge=0, description="of all that is drawn")
    engine: Literal["duckdb", "spark"] = Field("duckdb", description="table engine")
    master: str | None = Field(
        None, description="address of a Spark cluster, such as spark://host:7077; default: this machine"
    )
    cuts: tuple[float, float] = Field((0.8, 0.9), description="shares of the times before validation and before test")
    min_count: int = Field(2, ge=1, description="items with fewer training events use their hash bucket")
    field_min_count: int = Field(1, ge=1, description="the same for the values of other item fields")
    buckets: int | dict[str, int] | None = Field(
        None, description="hash buckets: of the items, or {field: buckets}; default: by the number of known values"
    )
    category_field: str | None = Field(
        None, description="item field of same_category negatives; default: the first that is named like a category"
    )
    item_histories: bool = Field(
        False, description="also the events of each item over its users, for models with a side of items (`model.side`)"
    )
    item_statistics: bool = Field(
        False,
        description="also how often each item was met, and how rated, before any time: context `item.reviews`, "
        "`item.rating`",
    )
    memory_limit: str = Field(
        "1500MB",
        pattern=r"^\d+(\.\d+)?\s*[KMGT]i?B$",
        description="what the table engine may hold in memory before it spills to disk",
    )
    threads: int | None = Field(None, ge=1, description="threads of the table engine; default: one per core")
    options: dict[str, str] = Field(default_factory=dict, description="options of the source")
    mapping: Path | None = Field(None, description="mapping file of the source `table`")
    start: Path | None = Field(
        None, description="earlier dataset or artifact (--from) whose known values and hash buckets keep their numbers"
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
        """Hash buckets per field that has them set."""
        if self.buckets is None:
            return {}
        return {"item": self.buckets} if isinstance(self.buckets, int) else dict(self.buckets)
