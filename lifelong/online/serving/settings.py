"""The settings of a service, their defaults and what they mean: all of `service.toml`.

    timeout = 30.0
    base_rate = {any = 0.2, buy = 0.004}

`lifelong serve --config service.toml` reads them, `--set timeout=5` changes one, `lifelong serve --print-config` prints
all. From Python, `create_app` takes the `ServiceSettings`; what `ServiceConfig` adds, the command opens itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from lifelong.config import Record
from lifelong.dataset.times import parse_duration
from lifelong.errors import UsageError
from lifelong.online.memory.event import MAX_AHEAD


def _read_in(unit: int) -> BeforeValidator:
    """Reads durations such as 30s or 7d in seconds or days; numbers are from Python, and have that unit already."""

    def read(value: Any) -> Any:
        try:
            return parse_duration(value) / unit if isinstance(value, str) and value != "inf" else value
        except UsageError as error:
            raise ValueError(f"{error.found}, but {error.expected} is expected") from None

    return BeforeValidator(read)


_Seconds = Annotated[float, _read_in(1), Field(gt=0)]
_Days = Annotated[float, _read_in(86_400), Field(ge=0)]
_Number = Annotated[int, Field(ge=1)]


class ServiceSettings(Record):
    """What the service allows and how it runs."""

    timeout: _Seconds = Field(
        30.0, examples=["30s"], description="Time until a request must be answered, slow bodies included."
    )
    max_wait: _Seconds = Field(
        2.0, examples=["2s"], description="Time that a request may wait for its turn before it is refused."
    )
    base_rate: float | dict[str, float] | None = Field(
        None,
        examples=[0.02],
        description="True share of positives, for probabilities; several tasks as in {buy = 0.01, any = 0.2}.",
    )
    late: Literal["apply", "refuse"] = Field(
        "apply", description='What to do with an event older than the user\'s last one: "apply" or "refuse".'
    )
    max_ahead: _Days = Field(
        MAX_AHEAD, examples=["1d"], description="How far an event may be ahead of the clock; inf for any time."
    )
    event_log: bool = Field(True, description="Whether the store keeps the events, for explanations and new models.")
    keep_events: _Days | None = Field(
        None, examples=["90d"], description="Time after which events are deleted from the event log; by default never."
    )
    forget_after: _Days | None = Field(
        None, examples=["365d"], description="Forget users without an event for so long; by default never."
    )
    impressions_log: Path | None = Field(
        None, examples=["impressions"], description="Folder for every scored request, as parquet; by default none."
    )
    log_users: bool = Field(False, description="Whether the log may name users.")

    max_body: _Number = Field(8 * 2**20, description="Bytes of the body of a request.")
    max_bodies: _Number = Field(64 * 2**20, description="Bytes of all large bodies that are worked on at once.")
    max_waiting: _Number = Field(128, description="Requests that may wait for the readers, and for the writer.")
    max_events: _Number = Field(10_000, description="Events in one request.")
    max_users: _Number = Field(1_000, description="Users in one request.")
    max_items: _Number = Field(10_000, description="Items in one request.")
    max_candidates: _Number = Field(20_000, description="Candidates in one request, over all its users.")
    max_explained: _Number = Field(100, description="Candidates that one request may have explained, kilobytes each.")
    max_values: _Number = Field(200_000, description="Features in one reply, over all its candidates.")
    threads: _Number = Field(2, description="Threads that read and score.")
    at_once: int = Field(
        128, ge=0, description="Candidates of one user up to which a score takes less time than a change of threads."
    )

    @field_validator("base_rate")
    @classmethod
    def _shares(cls, given: float | dict[str, float] | None) -> float | dict[str, float] | None:
        shares = given.values() if isinstance(given, dict) else [] if given is None else [given]
        if not all(0 < share < 1 for share in shares):
            raise ValueError("a base rate is a share above 0 and below 1")
        return given


class ServiceConfig(ServiceSettings):
    """All settings of `service.toml`: those of a service, and what `lifelong serve` opens for it."""

    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that requests may use, next to localhost and addresses. With API keys, by default any.",
    )
    data: Path | None = Field(
        None, examples=["data"], description="Dataset that explanations read, for events that the log does not have."
    )
    report: Path | None = Field(
        None, examples=["report"], description="Report of `lifelong compare` to show at /report; by default none."
    )
    mapping: Path | None = Field(
        None, examples=["mapping.toml"], description="Of --topic: mapping file that says which column is what."
    )
    columns: dict[str, str] = Field(
        {}, description='Of --topic: our name and the message\'s name of a column, as in {item = "product"}.'
    )
    on_bad: Literal["stop", "skip"] = Field(
        "stop", description='Of --topic: what to do with a message that is not an event: "stop" or "skip".'
    )
    dead_letter: str | None = Field(
        None,
        examples=["bad.jsonl"],
        description="Of --topic: where to keep skipped messages: a .jsonl file.",
    )
    on_gap: Literal["stop", "skip"] = Field(
        "stop",
        description='Of --topic: what to do if Kafka deleted messages not yet applied: "stop" or "skip".',
    )


def service_toml() -> str:
    """A `service.toml` with all settings at their defaults; those that have none are commented out, with an example."""
    lines = ["# Settings of `lifelong serve --config service.toml`, at their defaults.", ""]
    for name, field in ServiceConfig.model_fields.items():
        example = field.examples[0] if field.examples else field.default
        line = f"{name} = {_toml(example)}"
        lines += [f"# {field.description}", f"# {line}" if field.default is None else line, ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """A value as TOML: for texts, numbers and lists that is JSON."""
    return "{}" if value == {} else json.dumps(value)
