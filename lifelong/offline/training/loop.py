"""The loop that trains a model by gradient: steps, validations within an epoch, checkpoints, early stopping.

    batch --forward, backward, clip, Adam--> weights     every `validate_every`: score validation -> best? -> checkpoint

What is drawn in a step depends only on (seed, epoch, batch), so that a resumed run ends with the numbers of an
uninterrupted one. Where several processes train one model, the first decides when to stop and which weights are best,
and only it keeps checkpoints.

A run ends where a validation shows that going on is of no use:

    impatient   `patience` validations in a row without a new best, after `min_steps` batches
    fallen      `fall_patience` validations in a row that have clearly lost what was learnt, at any time

On a small log a model that learns of single values soon learns the log by heart: validation rises for half an epoch or
two, falls, and a learning rate that goes to zero does not bring it back. A plateau before that is no fall.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.config import TrainSettings
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.errors import ConfigError, LifelongError, MismatchError
from lifelong.offline.data.batch import Batch
from lifelong.offline.data.batches import TrainingBatches, training_batches
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.divided_tables import DividedTables
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models.base import Model
from lifelong.offline.models.registry import model_named_in_errors
from lifelong.offline.training.checkpoint import (
    Checkpoint,
    CurvePoint,
    Progress,
    State,
    shared_state,
    timed,
)
from lifelong.offline.training.compute import Compute
from lifelong.offline.training.display import Display
from lifelong.offline.training.gradients import Gradients, Loss
from lifelong.offline.training.optimiser import build_optimiser, clip_gradients, learning_rate, use_sparse_tables

MEAN = "mean"
"""Stands in for a task in `train.select_task`: the mean over all tasks."""


class DivergedError(LifelongError):
    """The loss is no longer a finite number."""


class Loop:
    """One run of one model.

    Args:
        model: trained in place.
        dataset: its training and validation splits are used.
        settings: of the run.
        batches: of the training split.
        compute: device and precision.
        checkpoint: where the state is kept.
        display: where progress is shown.
        processes: that train the model together; each has a loop of its own.
        started: the model comes with trained weights: they are validated first, and kept if nothing is better.

    Raises:
        MismatchError: several processes cannot train this model, or all validation examples have the same label.
    """

    dataset: Dataset
    settings: TrainSettings
    batches: TrainingBatches
    checkpoint: Checkpoint
    display: Display
    compute: Compute
    processes: Processes
    progress: Progress
    stopped_by: str

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        *,
        settings: TrainSettings,
        batches: TrainingBatches,
        compute: Compute,
        checkpoint: Checkpoint,
        display: Display,
        processes: Processes | None = None,
        started: bool = False,
    ) -> None:
        self.dataset, self.settings, self.batches = dataset, settings, batches
        self.checkpoint, self.display, self.compute = checkpoint, display, compute
        self.processes, self._started = processes or Processes(), started
        self.progress, self.stopped_by = Progress(), ""
        self.total: int = total_examples(settings, batches.examples_per_epoch)
        self._model, self._best = model.to(compute.device), dict[str, Tensor]()
        self._late = False
        # Processes may have drawn different initial weights. From here on equal gradients keep them equal.
        self.processes.spread(model.state_dict().values())
        use_sparse_tables(model, settings)
        self._tables = DividedTables(model, self.processes)
        self._optimiser = build_optimiser(model, settings, self._tables)
        self._threads = torch.get_num_threads()
        self._gradients = Gradients(model, compute, self.processes)
        self._validation = validation_subset(dataset.examples("validation"), settings.validation_examples)
        self._ignorant = log_loss_of_shares(self._validation, dataset.schema.tasks, settings.select_task)

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def restore(self) -> None:
        """Continue from the checkpoint.

        Raises:
            UsageError, ConfigError, DataError: see `Checkpoint.load`.
            LostProcessError: one of these in the first process, the only one that reads it.
        """
        state = shared_state(self.checkpoint.load, self.processes)
        self.progress, self._best = state.progress, dict(state.best)
        self._tables.restore(state.model)
        self._optimiser.restore(state.optimiser)

    def run(self) -> Mapping[str, Tensor]:
        """Train until a limit or the patience is reached, and return the weights of the best validation.

        Only the first process keeps and returns them.

        Raises:
            DivergedError: the loss is not finite.
            KeyboardInterrupt: Ctrl-C; the state was saved first.
            LostProcessError: another process does not answer.
        """
        try:
            with _interruptible() as interrupted:
                # The weights to start from are the first candidate: nothing worse may replace them.
                if self._started and not self.progress.curve:
                    self._validate()
                    self._save()
                while not self._finished():
                    self._run_epoch(interrupted)
        finally:
            self._gradients.close()
        self._tables.join()
        return self._best

    def _run_epoch(self, interrupted: Callable[[], bool]) -> None:
        progress = self.progress
        stream = training_batches(self.batches, epoch=progress.epoch, first=progress.batch)
        plan = self.batches.epoch(progress.epoch)
        while True:
            # Batches are made ahead in a thread; whatever is waited for here is time that training could not use.
            with timed(self.progress.seconds, "wait"):
                number, batch = next(stream, (-1, None))
            if batch is None:
                return
            with timed(self.progress.seconds, "train"):
                asked = self._step(first_targets(batch, self.total - progress.examples), number, interrupted)
            # Moved on before anything is saved, so that a resumed run does not train on this batch twice.
            progress.batch = number + 1
            if progress.batch == len(plan):
                progress.epoch, progress.batch = progress.epoch + 1, 0
            if self._due() or self._at_limit():
                self._validate()
                self._save()
            # Several processes hear of an interrupt with the gradients alone, so that all stop after the same step.
            if asked or (not self.processes.several and interrupted()):
                self._save()
                raise KeyboardInterrupt(
                    f"stopped after {progress.examples:,} examples; the state is in {self.checkpoint.folder}, "
                    "train again with --resume (resume=True) to go on"
                )
            if self._finished():
                # Otherwise the thread that makes batches ahead would go on until the generator is collected.
                stream.close()
                return

    def _step(self, batch: Batch, number: int, interrupted: Callable[[], bool]) -> bool:
        """One step on a whole batch; whether any process has been interrupted."""
        settings, progress = self.settings, self.progress
        # Dropout depends on the place of the step alone: a resumed run draws what an uninterrupted one would.
        self.compute.seed(_step_seed(settings.seed, progress.epoch, number, self.processes.rank))
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(settings, progress.examples, self.total)
        self._model.train()
        passes = self._gradients.passes
        before = replace(passes)
        with model_named_in_errors(self._model, "a batch was trained on"):
            self._tables.load(batch)
            step = self._gradients.backward(batch, lambda: (interrupted(), self._overdue()))
        progress.spend("forward", passes.forward - before.forward)
        progress.spend("backward", passes.backward - before.backward)
        asked, self._late = step.answers
        start = time.perf_counter()
        # After the sum over processes: each would otherwise clip another part of the gradient.
        if settings.clip:
            clip_gradients(self._model.parameters(), settings.clip)
        self._tables.hand_over()
        self._optimiser.step()
        self._optimiser.zero_grad()
        progress.spend("optimiser", time.perf_counter() - start)
        self._record_step(step.loss, int(batch.mask_BC.sum()))
        return asked

    def _record_step(self, loss: Loss, examples: int) -> None:
        progress, value = self.progress, float(loss.total.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss became {value} after {progress.examples:,} examples",
                expected="a finite number",
                fix=f"a lower train.learning_rate than {self.settings.learning_rate}, or train.clip above 0",
            )
        progress.examples += examples
        progress.steps += 1
        # By examples, since the last batch before a limit may be smaller than the others.
        progress.loss_sum += float(loss.cross_entropy.detach()) * examples
        progress.loss_examples += examples
        seconds = progress.seconds.get("train", 0.0)
        self.display.step(progress.examples, progress.examples / max(seconds, 1e-9), self._train_loss())

    def _validate(self) -> None:
        progress = self.progress
        self.display.stage("validating")
        with timed(self.progress.seconds, "validate"):
            logit_NT = self._model.validated(self._predict, np.asarray(self._validation.label_NT))
            tasks = self.dataset.schema.tasks
            # Measured once, as the curve decides when to stop and all processes have to decide alike.
            measured = self.processes.on_first(lambda: measure_tasks(logit_NT, self._validation, tasks))
            auc, log_loss = selected(measured, self.settings.select_task)
        progress.curve.append(
            CurvePoint(
                examples=progress.examples,
                seconds=progress.elapsed,
                train_loss=self._train_loss() if progress.loss_examples else None,
                auc=auc,
                log_loss=log_loss,
                tasks=measured if len(measured) > 1 else {},
            )
        )
        progress.loss_sum, progress.loss_examples = 0.0, 0
        better = progress.best is None or self._score(-1) > self._score(progress.best)
        if better:
            progress.best = len(progress.curve) - 1
        # The others send their rows of divided tables.
        weights = self._tables.weights() if better else {}
        if better and self.processes.first:
            # Copies on the CPU: the next step would change the tensors themselves, and a GPU has no room to spare for a
            # second model.
            self._best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        self.display.validated(progress.curve[-1], best=better)
        self.display.stage("training")

    def _predict(self) -> FloatArray:
        given: dict[str, Any] = {"threads": self._threads, "processes": self.processes, "tables": self._tables}
        return predict(self._model, self.dataset, self._validation, **given)

    def _score(self, place: int) -> float:
        point = self.progress.curve[place]
        return point.auc if self.settings.select_on == "auc" else -point.log_loss

    def _train_loss(self) -> float:
        return self.progress.loss_sum / max(1, self.progress.loss_examples)

    def _save(self) -> None:
        with timed(self.progress.seconds, "checkpoint"):
            state = State(self.progress, self._tables.weights(), self._best, self._optimiser.tensors())
            if self.processes.first:
                self.checkpoint.save(state)

    def _due(self) -> bool:
        return validation_due(self.progress, self.settings, self.batches.examples_per_epoch)

    def _overdue(self) -> bool:
        """Whether the first process's clock says that the time is over."""
        minutes = self.settings.max_minutes
        return self.processes.first and minutes is not None and self.progress.elapsed >= 60 * minutes

    def _at_limit(self) -> bool:
        # A single process may look at its clock at any time; several must all stop after the same step.
        late = self._late if self.processes.several else self._overdue()
        return late or self.progress.examples >= self.total

    def _finished(self) -> bool:
        """Whether the run is over, and why; it never ends with steps that were not validated."""
        # Steps since the last validation: the run would end with weights that nobody has measured.
        if self.progress.loss_examples:
            return False
        # All processes get the first one's clock, or one would stop and the others wait for it.
        self._late = self.processes.share(self._late or self._overdue())
        if self._at_limit():
            reached = self.progress.examples >= self.total
            self.stopped_by = "examples" if reached else "time"
        elif impatient(self.progress, self.settings) or has_fallen(self.progress, self.settings, self._ignorant):
            self.stopped_by = "patience"
        return bool(self.stopped_by)


def total_examples(settings: TrainSettings, per_epoch: int) -> int:
    """The largest number of examples that a run trains on."""
    total = settings.max_epochs * per_epoch
    return total if settings.max_examples is None else min(total, settings.max_examples)


def first_targets(batch: Batch, most: int) -> Batch:
    """The batch with at most this many real targets, so that a run ends after exactly its number of examples."""
    real_BC = batch.mask_BC
    if int(real_BC.sum()) <= most:
        return batch
    # Place of each real target among those of the batch, user after user, from 1.
    rank_BC = real_BC.flatten().cumsum(0).view_as(real_BC)
    return replace(batch, mask_BC=real_BC & (rank_BC <= most))


def validation_subset(examples: Examples, limit: int | None) -> Examples:
    """Up to `limit` validation examples, of whole users drawn at random; a larger limit adds users to these.

    The draw is the same for every seed of a training: seeds, models and trials are compared on the same examples.

    Raises:
        MismatchError: they all have the same label.
    """
    if limit is None or len(examples) <= limit:
        return examples
    user_U, count_U = np.unique(np.asarray(examples.user_N), return_counts=True)
    order = np.random.default_rng([0, 1]).permutation(len(user_U))
    # Users in random order until the next would exceed the limit, but at least one.
    fitting = max(1, int(np.searchsorted(np.cumsum(count_U[order]), limit, side="right")))
    chosen = examples.take(np.flatnonzero(np.isin(np.asarray(examples.user_N), user_U[order[:fitting]])))
    positive_NT = np.asarray(chosen.label_NT) >= 0.5
    if (positive_NT.all(0) | ~positive_NT.any(0)).any():
        raise MismatchError(
            f"the {len(chosen)} validation examples that were drawn all have the same label"
            + (" for one of the tasks" if positive_NT.shape[1] > 1 else ""),
            fix="raise train.validation_examples",
        )
    return chosen


def check_task(task: str | None, tasks: Sequence[str]) -> None:
    """Refuse to select by an unknown task.

    Raises:
        ConfigError: the dataset has no such task.
    """
    if task not in (None, MEAN, *tasks):
        raise ConfigError(
            [f"train.select_task: the dataset has no task {task!r}"], fix=f"one of {', '.join([*tasks, MEAN])}"
        )


def measure_tasks(logit_NT: FloatArray, examples: Examples, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Task -> AUC and log loss."""
    label_NT = np.asarray(examples.label_NT)
    return {
        task: {
            "auc": metrics.auc(label_NT[:, at], logit_NT[:, at]),
            "log_loss": metrics.log_loss(label_NT[:, at], logit_NT[:, at]),
        }
        for at, task in enumerate(tasks)
    }


def log_loss_of_shares(examples: Examples, tasks: Sequence[str], task: str | None) -> float:
    """The log loss of giving everybody the share of positives as probability; see `selected`."""
    share_T = np.asarray(examples.label_NT, np.float64).mean(axis=0)
    loss_T = -share_T * np.log(share_T) - (1 - share_T) * np.log1p(-share_T)
    return selected({name: {"auc": 0.5, "log_loss": float(loss_T[at])} for at, name in enumerate(tasks)}, task)[1]


def selected(measured: Mapping[str, Mapping[str, float]], task: str | None) -> tuple[float, float]:
    """AUC and log loss of a task, of the first (None), or their mean over all tasks (`mean`)."""
    chosen = list(measured.values()) if task == MEAN else [measured[task or next(iter(measured))]]
    auc, log_loss = (sum(of_task[name] for of_task in chosen) / len(chosen) for name in ("auc", "log_loss"))
    return auc, log_loss


def _step_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """The seed of what a process draws in a step; the first of several draws what a single one would."""
    # Without the rank in the first process, so that it draws what a single one would. The shift keeps the number within
    # a signed 64-bit integer.
    sequence = np.random.SeedSequence([seed, epoch, number, rank][: 4 if rank else 3])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C ends the run after the current batch; a second one ends it at once."""
    asked = threading.Event()
    # Python lets the main thread alone set a signal handler.
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        # The second Ctrl-C must not wait for a batch that may never end.
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


CLEAR = 0.01
"""Share of a log loss by which another one is clearly worse."""


def validation_due(progress: Progress, settings: TrainSettings, per_epoch: int) -> bool:
    """Whether so many examples were trained on since the last validation that it is time for the next one.

    Args:
        progress: of the run.
        settings: `validate_every`, a share of an epoch or a number of examples.
        per_epoch: labelled examples of an epoch.

    >>> validation_due(Progress(loss_examples=30), TrainSettings(validate_every=0.25), per_epoch=100)
    True
    """
    every = settings.validate_every
    return progress.loss_examples >= (every * per_epoch if every <= 1 else every)


def impatient(progress: Progress, settings: TrainSettings) -> bool:
    """Whether the last `patience` validations gave no new best, and `min_steps` batches were trained on."""
    return progress.since_best >= settings.patience and progress.steps >= settings.min_steps


def has_fallen(progress: Progress, settings: TrainSettings, ignorant: float) -> bool:
    """Whether the model had learnt something, and the last `fall_patience` validations have clearly lost it.

    Args:
        progress: of the run, with its validations.
        settings: `fall_patience`, or `patience` if it is null.
        ignorant: the log loss of a constant.
    """
    last = settings.fall_patience or settings.patience
    if progress.best is None or progress.since_best < last:
        return False
    best = progress.curve[progress.best].log_loss
    least = min(point.log_loss for point in progress.curve[-last:])
    return best < (1 - CLEAR) * ignorant and least > (1 + CLEAR) * best
