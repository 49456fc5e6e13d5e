"""The state of an unfinished run in one file: its tensors, and everything else as JSON in the header.

    OUT.checkpoint/state.safetensors

One file, so that one rename replaces it: after a crash either the older or the newer state is there, whole.
"""

from __future__ import annotations

import json
import operator
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from lifelong.atomic import full_disk, write_whole
from lifelong.config import Record
from lifelong.errors import ConfigError, DataError, UsageError, require
from lifelong.offline.evaluation.processes import Processes

_FREE = {"threads", "max_minutes", "answer_minutes"}
"""Settings that may differ when a run is resumed: the numbers do not depend on them."""


class CurvePoint(Record):
    """One validation during training."""

    examples: int
    """Labelled training examples until then, negatives included."""
    seconds: float
    """Since the start of the run, validations included."""
    train_loss: float | None
    """Mean cross entropy since the previous validation; None before the first batch."""
    auc: float
    """That of the task, or the mean over tasks, that `train.select_task` names."""
    log_loss: float
    tasks: dict[str, dict[str, float]] = Field(default_factory=dict, exclude_if=operator.not_)
    """Task -> auc and log_loss, where there are several."""


class Progress(BaseModel):
    """How far a run has come."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epoch: int = 0
    batch: int = 0
    """Place of the next batch in the epoch."""
    examples: int = 0
    steps: int = 0
    """Batches trained on."""
    seconds: dict[str, float] = {}
    """Stage -> seconds, those before an interruption included."""
    inside: dict[str, float] = {}
    """Stage of a step -> seconds; `seconds["train"]` includes them."""
    loss_sum: float = 0.0
    """Cross entropy since the last validation, summed over examples."""
    loss_examples: int = 0
    curve: list[CurvePoint] = []
    best: int | None = None
    """Place in the curve."""

    @property
    def since_best(self) -> int:
        """Validations without a new best."""
        return 0 if self.best is None else len(self.curve) - 1 - self.best

    @property
    def elapsed(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def spend(self, stage: str, seconds: float) -> None:
        """Add seconds to one stage of a step."""
        self.inside[stage] = self.inside.get(stage, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Share of each stage in the whole time: `wait` for batches, the three stages of steps, `validate`, `other`."""
        whole = max(1e-9, self.elapsed)
        spent = {stage: self.seconds.get(stage, 0.0) for stage in ("wait", "validate")} | self.inside
        shares = {stage: round(seconds / whole, 4) for stage, seconds in spent.items()}
        return {**shares, "other": round(max(0.0, 1.0 - sum(spent.values()) / whole), 4)}


class Fingerprint(Record):
    """What must not change when a run is resumed."""

    data_hash: str
    model: str
    settings: dict[str, Any]
    """Of the model."""
    train: dict[str, Any]
    start: str | None = None
    """Id of the artifact that the weights came from."""

    def differences(self, other: Fingerprint) -> list[str]:
        """What differs, in words; this fingerprint is the checkpoint's."""
        differences = [
            f"{name} was {mine!r}, now {theirs!r}"
            for name, mine, theirs in (
                ("the dataset's hash", self.data_hash[:12], other.data_hash[:12]),
                ("the model", self.model, other.model),
                ("the start", self._start(), other._start()),
            )
            if mine != theirs
        ]
        for section, mine, theirs in (("model", self.settings, other.settings), ("train", self.train, other.train)):
            differences += [
                f"{section}.{key} was {mine.get(key)!r}, now {theirs.get(key)!r}"
                for key in sorted(mine.keys() | theirs.keys())
                if mine.get(key) != theirs.get(key) and key not in _FREE
            ]
        return differences

    def _start(self) -> str:
        return "initial weights" if self.start is None else f"artifact {self.start[:12]}"


@dataclass(frozen=True, slots=True)
class State:
    """Everything that resuming a run takes.

    Args:
        progress: how far it has come.
        model: current weights.
        best: weights of the best validation; empty before the first.
        optimiser: (number of the parameter, name) -> tensor.
    """

    progress: Progress
    model: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimiser: Mapping[tuple[int, str], Tensor]


class Checkpoint:
    """The checkpoint that belongs to an artifact folder.

    Args:
        out: where the artifact will be; the checkpoint is next to it.
        fingerprint: of this run.
    """

    path: Path

    def __init__(self, out: Path, fingerprint: Fingerprint) -> None:
        self.folder: Path = out.with_name(out.name + ".checkpoint")
        self.path, self._fingerprint = self.folder / "state.safetensors", fingerprint

    def exists(self) -> bool:
        """Whether an unfinished run has left its state."""
        return self.path.exists()

    def save(self, state: State) -> None:
        """Replace the state; after a crash either the old or the new one is there.

        Raises:
            DataError: the disk is full; the old state is kept.
        """
        save_file = require("safetensors.torch", extra="train", purpose="a checkpoint").save_file
        tensors = {f"model/{name}": value for name, value in state.model.items()}
        tensors |= {f"best/{name}": value for name, value in state.best.items()}
        tensors |= {f"optimiser/{place}/{name}": value for (place, name), value in state.optimiser.items()}
        header = {"progress": state.progress.model_dump_json(), "fingerprint": self._fingerprint.model_dump_json()}
        self.folder.mkdir(parents=True, exist_ok=True)
        for remains in self.folder.iterdir():
            # A killed process may have left half a file, also under a name that safetensors chose.
            if remains != self.path:
                remains.unlink()
        # The format refuses tensors with gaps, such as views of columns.
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with (
            full_disk(self.folder, kept="free some space, then train again with --resume (resume=True)"),
            write_whole(self.path) as fresh,
        ):
            save_file(whole, fresh, metadata=header)

    def load(self) -> State:
        """The saved state.

        Raises:
            UsageError: there is none.
            ConfigError: it belongs to a run with other settings or other data; names what differs.
            DataError: the file is damaged.
        """
        if not self.exists():
            raise UsageError(
                f"there is no checkpoint in {self.folder}",
                expected="the state that an interrupted run leaves there",
                fix="train without resume",
            )
        safetensors = require("safetensors", extra="train", purpose="a checkpoint")
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                saved = Fingerprint.model_validate_json(header.get("fingerprint", ""))
                progress = Progress.model_validate_json(header.get("progress", ""))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        except (safetensors.SafetensorError, ValidationError, OSError) as error:
            raise DataError(f"{self.path} is damaged: {error}", fix="train without resume") from error
        differences = saved.differences(self._fingerprint)
        if differences:
            raise ConfigError(
                differences,
                fix="resume with the settings and the data of the interrupted run, or train without resume",
            )
        return _state(progress, tensors)

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _state(progress: Progress, tensors: Mapping[str, Tensor]) -> State:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    optimiser = {}
    for name, value in parts["optimiser"].items():
        place, _, key = name.partition("/")
        optimiser[int(place), key] = value
    return State(progress, parts["model"], parts["best"], optimiser)


def shared_state(load: Callable[[], State], processes: Processes) -> State:
    """The state that the first process loads, in all processes; only the first gets the best weights.

    Raises:
        LostProcessError: the first could not load it, which itself raises the error of `load`.
    """
    if not processes.several:
        return load()
    # Kept outside of the function, as the exchange sends only a description: tensors follow one by one.
    loaded: list[State] = []

    def describe() -> tuple[str, list[tuple[str, str | tuple[int, str], torch.Size, torch.dtype]]]:
        loaded.append(load())
        state = loaded[0]
        parts: dict[str, Mapping[Any, Tensor]] = {"model": state.model, "optimiser": state.optimiser}
        described = [
            (part, name, value.shape, value.dtype) for part, named in parts.items() for name, value in named.items()
        ]
        return state.progress.model_dump_json(), described

    progress, described = processes.on_first(describe)
    parts: dict[str, dict[Any, Tensor]] = {"model": {}, "optimiser": {}}
    if loaded:
        parts = {"model": dict(loaded[0].model), "optimiser": dict(loaded[0].optimiser)}
    for part, name, shape, dtype in described:
        # All processes create the same tensors in the order of the description, so that each exchange meets its
        # counterpart.
        tensor = parts[part].setdefault(name, torch.empty(shape, dtype=dtype))
        processes.spread([tensor])
    best = loaded[0].best if loaded else {}
    return State(Progress.model_validate_json(progress), parts["model"], best, parts["optimiser"])


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add how long this context takes to the seconds of a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def json_safe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON returns them, so that they can be compared.

    >>> json_safe({"periods": (1, 2)})
    {'periods': [1, 2]}
    """
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain
