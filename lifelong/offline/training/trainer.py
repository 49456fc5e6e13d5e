"""From a prepared dataset to a finished artifact: train or fit, select on validation, calibrate, write with a record.

    Dataset --build_model--> model --Loop | fit--> weights --validation--> calibrator --write_artifact--> ARTIFACT

The test split is never read. Under torchrun all processes train and score the validation split together; only the first
one writes and prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lifelong.artifact.calibration import Calibrator
from lifelong.artifact.folder import Artifact
from lifelong.artifact.list_order import ListOrder, log_popularity
from lifelong.atomic import check_writable
from lifelong.compiled import compiling_said
from lifelong.config import RunConfig
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.dtypes import FloatArray
from lifelong.errors import ArtifactError, UsageError
from lifelong.launch import launch
from lifelong.offline.evaluation.calibration import calibration_errors, fit_calibrator
from lifelong.offline.evaluation.evaluate import predict, torch_threads
from lifelong.offline.evaluation.list_order import all_numbers, choices, counts_in_lists, fit_list_order
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.evaluation.results import peak_memory, versions
from lifelong.offline.export.saving import check_replaceable, write_artifact
from lifelong.offline.models import check_config
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.models.registry import model_named_in_errors
from lifelong.offline.training.callbacks import Callback, Callbacks, RunInfo
from lifelong.offline.training.checkpoint import Checkpoint, Fingerprint, json_safe, timed
from lifelong.offline.training.compute import Compute, open_compute
from lifelong.offline.training.display import Display, say_to
from lifelong.offline.training.loop import Loop, check_task, measure_tasks, selected, total_examples, validation_subset
from lifelong.offline.training.settings import build_model, initialised, with_recipe
from lifelong.offline.training.start import Start


class ElsewhereError(ArtifactError):
    """The artifact was written in a folder that this machine does not see."""


def train(
    dataset: Dataset,
    model: str | None,
    out: Path | str,
    *,
    config: RunConfig | None = None,
    start: Artifact | Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Callable[[str], None] = True,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
) -> Artifact:
    """`lifelong.train`, for an opened dataset and with all settings in one object.

    A run that torchrun has restarted continues by itself.

    Args:
        config: settings of the run and of the model; what nobody named is as the model trains best.
        name: of the run, for callbacks; by default that of `out`.

    Raises:
        ElsewhereError: only under torchrun on several machines, at the end: the artifact is on the first one.
        LostProcessError: only under torchrun: another process has ended or does not answer.
        ConfigError: also if a resumed run has other settings, data or another start.
    """
    out, config = Path(out), config or RunConfig()
    if launch().first:
        # Before hours of training, not after.
        # A run that goes on was allowed to write there when it began.
        check_replaceable(out, overwrite=overwrite or resume or launch().restarts > 0)
        check_writable(out)
    begin = None
    if start is not None:
        begin = Start.open(start, dataset, model=model, settings=config.model)
        model, config = model or begin.name, config.model_copy(update={"model": begin.settings})
    if model is None:
        raise UsageError("no model was given", expected="a model, or an artifact to start from", fix="name a model")
    # Before the run is claimed: the fingerprint of a checkpoint has the settings that were trained with.
    config = with_recipe(config, model, dataset)
    check_task(config.train.select_task, dataset.schema.tasks)
    run = _Run(dataset, model, out, config, begin, progress=progress)
    listeners = Callbacks(callbacks if launch().first else ())
    # A caller's own random numbers go on as if nothing had been trained.
    with torch_threads(config.train.threads), torch.random.fork_rng(), listeners:
        torch.manual_seed(config.train.seed)
        built = build_model(dataset, model, config.model)
        listeners.begun(run.info(name or out.name))
        if isinstance(built, FittedModel):
            if resume:
                raise UsageError(f"{model} is fitted at once: there is nothing to resume", fix="train without resume")
            if begin is not None:
                raise UsageError(
                    f"{model} is fitted at once: nothing of an earlier fit would be left", fix="train without a start"
                )
            if launch().several:
                raise UsageError(f"{model} is fitted at once by a single process", fix="train without torchrun")
            run.fit(built)
        else:
            run.optimise(built, resume=resume, callback=listeners)
        artifact = run.finish(built)
        listeners.ended(numbers_of(artifact.metrics.get("validation", {})))
        return artifact


def numbers_of(measured: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among what was measured."""
    return {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}


class _Run:
    """One call of `train`, with its timings, its record and its checkpoint."""

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        out: Path,
        config: RunConfig,
        start: Start | None = None,
        *,
        progress: bool | Callable[[str], None],
    ) -> None:
        self.dataset, self.name, self.out, self.config, self.start = dataset, name, out, config, start
        self.settings = check_config(name, config.model)
        self.started = datetime.now(UTC)
        self.seconds: dict[str, float] = {}
        self.record: dict[str, Any] = {}
        self.processes = Processes(launch(), minutes=config.train.answer_minutes)
        self.shown = self.processes.first and progress
        fingerprint = Fingerprint(
            data_hash=dataset.manifest.data_hash,
            model=name,
            settings=json_safe(self.settings),
            train=json_safe(config.train.model_dump(mode="json")),
            start=None if start is None else start.artifact.id,
        )
        self.checkpoint = Checkpoint(out, fingerprint)

    def info(self, name: str) -> RunInfo:
        """What callbacks get at the beginning."""
        train = {f"train.{name}": value for name, value in self.config.train.model_dump().items()}
        own = {f"model.{name}": value for name, value in self.settings.items()}
        return RunInfo(name, self.name, self.out, {**train, **own})

    def fit(self, model: FittedModel) -> None:
        """Fit a model that is not trained by gradient."""
        self.record = {"examples_seen": None, "learning_curve": [], "stopped_by": "fitted"}
        with timed(self.seconds, "train"), model_named_in_errors(model, "it was fitted"):
            model.fit(self.dataset, seed=self.config.train.seed)

    def optimise(self, model: Model, *, resume: bool, callback: Callback) -> None:
        """Train by gradient; the model has the best weights at the end."""
        settings = self.config.train
        with timed(self.seconds, "open"):
            if self.start is not None:
                self.start.carry_into(model)
            compute = open_compute(settings)
            self._check_same()
            with compiling_said(partial(say_to, self.shown)):
                batches = initialised(
                    model, self.dataset, settings, say=partial(say_to, self.shown), trained=self.start is not None
                )
        total = total_examples(settings, batches.examples_per_epoch)
        say_to(self.shown, f"training on {total:,} examples at most, {batches.examples_per_epoch:,} an epoch")
        with Display(total, enabled=self.shown, callback=callback) as display:
            # The first process decides: on other machines there is no checkpoint, and all have to begin at the same
            # step.
            left = self.processes.share(self.checkpoint.exists())
            # torchrun starts all processes again after one was lost: they go on by themselves.
            resume = resume or (left and self.processes.place.restarts > 0)
            if left and not resume:
                display.say(f"the state of an interrupted run in {self.checkpoint.folder} is not used (no resume)")
            loop = Loop(
                model,
                self.dataset,
                settings=settings,
                batches=batches,
                compute=compute,
                checkpoint=self.checkpoint,
                display=display,
                processes=self.processes,
                started=self.start is not None,
            )
            if resume:
                loop.restore()
                display.say(f"going on after {loop.progress.examples:,} examples")
            with compiling_said(display.say):
                best = loop.run()
        if best:
            model.load_state_dict(dict(best))
        # Only the first process has kept the best weights; the others are at their last step.
        self.processes.spread(model.state_dict().values())
        self.seconds |= loop.progress.seconds
        self.record = _loop_record(loop, compute)
        if self.start is not None:
            before = loop.progress.curve[0]
            self.record["start"] = self.start.record({"auc": before.auc, "log_loss": before.log_loss})

    def _check_same(self) -> None:
        """Refuse processes that do not all train the same model on the same data with the same settings."""
        # Threads change no result beyond rounding, and machines may differ in their cores.
        dataset, config = self.dataset.manifest, self.config.train.model_dump(exclude={"threads"})
        self.processes.check_same(
            {
                "the dataset's hash": dataset.data_hash[:12],
                "the model": self.name,
                "the start": None if self.start is None else self.start.artifact.id[:12],
                **{f"model.{key}": value for key, value in self.settings.items()},
                **{f"train.{key}": value for key, value in config.items()},
                **versions(),
            }
        )

    def finish(self, model: Model | FittedModel) -> Artifact:
        """Score the validation split, fit calibrators and list order, write the artifact, delete the checkpoint.

        Raises:
            ElsewhereError: in processes on another machine.
        """
        with timed(self.seconds, "calibrate"):
            say_to(self.shown, f"scoring {len(self._validation):,} validation examples, to calibrate")
            logit_NT = self._logits(model, self._validation)
        with timed(self.seconds, "order"):
            order = self._list_order(model)
        if isinstance(model, Model):
            model.cpu().eval()
        written: list[Artifact] = []
        self.processes.on_first(lambda: written.append(self._write(model, logit_NT, order)))
        if written:
            return written[0]
        # The other processes of the same machine, or of one that shares the folder, find it there.
        if not (self.out / "manifest.json").is_file():
            raise ElsewhereError(f"the artifact is in {self.out} on the machine of process 0, the only one that writes")
        return Artifact.open(self.out, verify="sizes")

    def _list_order(self, model: Model | FittedModel) -> ListOrder | None:
        """What orders the catalogue, of a model that counts and learns from negatives drawn by popularity."""
        if not counts_in_lists(model) or (drawn_V := drawn_counts(self.dataset)) is None:
            return None
        given = choices(self.dataset, self._validation)
        say_to(self.shown, f"scoring {len(given.basket_N):,} candidates of validation baskets, to order lists")
        popularity_N = log_popularity(drawn_V[given.examples.row_N])
        logit_NT = self._logits(model, given.examples)
        number_NFX = all_numbers(model, self.dataset, given.examples)
        return fit_list_order(given, logit_NT[:, 0], popularity_N, number_NFX, self.dataset.schema.item_fields)

    def _write(self, model: Model | FittedModel, logit_NT: FloatArray, order: ListOrder | None) -> Artifact:
        with timed(self.seconds, "calibrate"):
            calibrators, validation = self._calibrate(logit_NT)
        say_to(self.shown, f"writing {self.out}: tables, graphs, and a check of each graph against the model")
        first = self.dataset.schema.tasks[0]
        manifest = self.dataset.manifest
        document = {
            "model": self.name,
            "dataset": manifest.name,
            "data_hash": manifest.data_hash,
            "protocol": manifest.protocol,
            "negatives": manifest.negatives.model_dump(),
            "config": {"train": self.config.train.model_dump(), "model": self.settings},
            "seed": self.config.train.seed,
            "threads": torch.get_num_threads(),
            "processes": self.processes.count,
            "versions": versions(),
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
            "peak_memory": peak_memory(),
            "validation": validation,
            **self.record,
        }
        run = {"model": self.settings, "train": self.config.train.model_dump()}
        if self.start is not None:
            run["start"] = {"artifact": self.start.artifact.id, "family": self.start.artifact.family}
        with model_named_in_errors(model, "its artifact was written"):
            artifact = write_artifact(
                self.out,
                model,
                self.dataset,
                run=run,
                metrics=document,
                calibrator=calibrators.pop(first),
                other_calibrators=calibrators,
                list_order=order,
                start=None if self.start is None else self.start.artifact,
            )
        # Last: until the artifact is in its place, an interrupted call can still go on.
        self.checkpoint.delete()
        return artifact

    def _logits(self, model: Model | FittedModel, examples: Examples) -> FloatArray:
        if not len(examples):
            return np.empty((0, len(self.dataset.schema.tasks)))
        return predict(model, self.dataset, examples, processes=self.processes)

    @cached_property
    def _stopping(self) -> Examples:
        """The validation examples that decide when to stop."""
        return self._drawn(self.config.train.validation_examples)

    @cached_property
    def _validation(self) -> Examples:
        """Those and more, to calibrate on."""
        limits = self.config.train.validation_examples, self.config.train.calibration_examples
        return self._drawn(None if None in limits else max(filter(None, limits)))

    def _drawn(self, limit: int | None) -> Examples:
        whole = self.dataset.examples("validation")
        return validation_subset(whole, limit) if len(whole) else whole

    def _calibrate(self, logit_NT: FloatArray) -> tuple[dict[str, Calibrator | None], dict[str, Any]]:
        """A calibrator per task, and what was measured: of the selected task, and of each where there are several."""
        examples, tasks = self._validation, self.dataset.schema.tasks
        # A dataset without validation can still train a model that is fitted.
        if not len(examples):
            return dict.fromkeys(tasks), {"examples": 0}
        # What chose the weights is measured alone, as it was while training; the calibrator gets all.
        stopping_N = np.isin(examples.user_N, self._stopping.user_N)
        measured: dict[str, dict[str, Any]] = dict(measure_tasks(logit_NT[stopping_N], self._stopping, tasks))
        logged = self.dataset.manifest.base_rate is not None
        calibrators: dict[str, Calibrator | None] = {}
        for at, task in enumerate(tasks):
            logit_N, label_N = logit_NT[:, at], np.asarray(examples.label_NT[:, at])
            calibrator = fit_calibrator(logit_N, label_N, logged=logged)
            calibrators[task] = calibrator
            if calibrator is not None:
                before, after = calibration_errors(calibrator, logit_N, label_N)
                measured[task] |= {"calibration_error": before, "calibration_error_calibrated": after}
        auc, log_loss = selected(measured, self.config.train.select_task)
        first = measured[tasks[0]] if len(tasks) == 1 else {}
        each = {"tasks": measured} if len(tasks) > 1 else {}
        sizes = {"examples": len(self._stopping), "calibration_examples": len(examples)}
        return calibrators, {**sizes, **first, "auc": auc, "log_loss": log_loss, **each}


def _loop_record(loop: Loop, compute: Compute) -> dict[str, Any]:
    progress = loop.progress
    best = None if progress.best is None else progress.curve[progress.best]
    return {
        "device": str(compute.device),
        "precision": compute.precision,
        "parameters": loop.parameters,
        "examples_seen": progress.examples,
        "steps": progress.steps,
        "examples_per_second": round(progress.examples / max(1e-9, progress.seconds.get("train", 0.0)), 1),
        "shares": progress.shares(),
        "epochs": progress.examples / loop.batches.examples_per_epoch,
        "stopped_by": loop.stopped_by,
        "best": None if best is None else best.model_dump(),
        "learning_curve": [point.model_dump() for point in progress.curve],
        "cut": asdict(loop.batches.cut),
    }
