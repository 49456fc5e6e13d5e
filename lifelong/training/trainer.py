"""From a prepared dataset to a finished artifact: train or fit, select on validation, calibrate, write with a record.

    Dataset --build_model--> model --Loop | fit--> weights --validation--> calibrator --write_artifact--> ARTIFACT

The test split is never read. Under torchrun all processes train and score validation together; the first one alone
writes and speaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lifelong.artifact.export import write_artifact
from lifelong.artifact.folder import Artifact
from lifelong.config import RunConfig, TrainSettings
from lifelong.data.cooccurrence import cooccurrence_vectors
from lifelong.data.popularity import target_counts
from lifelong.errors import ArtifactError, UsageError
from lifelong.evaluation import metrics
from lifelong.evaluation.calibration import calibration_errors, fit_calibrator
from lifelong.evaluation.evaluate import predict, torch_threads
from lifelong.evaluation.facts import facts_of
from lifelong.evaluation.processes import Processes, open_fabric
from lifelong.evaluation.results import peak_memory, versions
from lifelong.launch import launch
from lifelong.models import check_config
from lifelong.models.base import FittedModel, Model
from lifelong.training.checkpoint import Checkpoint, Fingerprint, json_safe
from lifelong.training.display import Display
from lifelong.training.loop import Loop, measure_tasks, selected, total_examples, validation_subset
from lifelong.training.settings import batches_for, build_model
from lifelong.training.start import Start

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from lifelong.artifact.calibration import Calibrator
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples


class ElsewhereError(ArtifactError):
    """The artifact was written, and this machine does not see its folder."""


def train(
    dataset: Dataset,
    model: str | None,
    out: Path | str,
    *,
    config: RunConfig | None = None,
    start: Artifact | Path | str | None = None,
    users_from: Dataset | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Artifact:
    """Train (or fit) a model and write its artifact.

    Args:
        dataset: prepared.
        model: a name of `MODELS`; may be None with a start, whose model it is then.
        out: folder of the artifact; an older artifact there is replaced at the end.
        config: settings of the run and of the model; defaults if None.
        start: an artifact whose weights training begins with, carried over by id; the settings of the model are its.
        users_from: the dataset that `start` was trained on, for models that keep a vector of each user.
        resume: go on from the checkpoint that an interrupted run left beside `out`. A run that torchrun has started
            anew goes on by itself.
        progress: show a bar and validations on stderr.

    Raises:
        ElsewhereError: only under torchrun on several machines, at the end: the artifact is on the first one.
        LostProcessError: only under torchrun: another process has ended or does not answer.
        ConfigError: a setting of the model is wrong or not that of the start, or a resumed run has other settings, data
            or start.
        ArtifactError: the start is absent or damaged.
        MismatchError: the dataset cannot train this model, and why.
        UsageError: `out` holds something else, or there is nothing to resume.
        DivergedError: the loss is not a finite number any more.
        KeyboardInterrupt: Ctrl-C; a checkpoint was left.
    """
    out, config = Path(out), config or RunConfig()
    if launch().first:
        _check_out(out)
    begin = None
    if start is not None:
        begin = Start.open(start, dataset, model=model, settings=config.model, users_from=users_from)
        model, config = model or begin.name, config.model_copy(update={"model": begin.settings})
    if model is None:
        raise UsageError("no model was named", expected="a model, or an artifact to start from", fix="name a model")
    run = _Run(dataset, model, out, config, begin)
    with torch_threads(config.train.threads), torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        built = build_model(dataset, model, config.model)
        if isinstance(built, FittedModel):
            if resume:
                raise UsageError(f"{model} is fitted at once, there is nothing to resume", fix="train without --resume")
            if launch().several:
                raise UsageError(f"{model} is fitted at once, by one process", fix="train without torchrun")
            run.fit(built)
        else:
            run.optimise(built, resume=resume, progress=progress)
        return run.finish(built)


class _Run:
    """One call of `train`: its times, its record, its checkpoint."""

    def __init__(self, dataset: Dataset, name: str, out: Path, config: RunConfig, start: Start | None = None) -> None:
        self.dataset, self.name, self.out, self.config, self.start = dataset, name, out, config, start
        self.settings = check_config(name, config.model)
        self.started = datetime.now(UTC)
        self.seconds: dict[str, float] = {}
        self.record: dict[str, Any] = {}
        self.processes = Processes(launch(), minutes=config.train.answer_minutes)
        fingerprint = Fingerprint(
            data_hash=dataset.manifest.data_hash,
            model=name,
            settings=json_safe(self.settings),
            train=json_safe(config.train.model_dump(mode="json")),
            start=None if start is None else start.artifact.id,
        )
        self.checkpoint = Checkpoint(out, fingerprint)

    def fit(self, model: FittedModel) -> None:
        """Fit a model that has no loop."""
        self.record = {"examples_seen": None, "learning_curve": [], "stopped_by": "fitted"}
        if self.start is not None:
            self.start.carry_into_fitted(model)
            self.record["start"] = self.start.record(self._measured(model))
        with self._timed("train"):
            model.fit(self.dataset, seed=self.config.train.seed)

    def optimise(self, model: Model, *, resume: bool, progress: bool) -> None:
        """Train by gradient; leaves the best weights in the model."""
        settings = self.config.train
        with self._timed("open"):
            if self.start is not None:
                self.start.carry_into(model)
            fabric = make_fabric(settings)
            self._check_same()
            if self.start is None and settings.initial_vectors == "cooccurrence" and model.vector_spread > 0:
                model.begin_with(cooccurrence_vectors(self.dataset, model.vector_width, seed=settings.seed))
                self.processes.spread(model.state_dict().values())
            if model.reads_popularity or model.popular is not None:
                model.learn_popularity(target_counts(self.dataset))
            batches = batches_for(model, self.dataset, settings, fit_counts=self.start is None)
        total, shown = total_examples(settings, batches.examples_per_epoch), progress and self.processes.first
        with Display(total, enabled=shown) as display:
            left = self.processes.share(self.checkpoint.exists())
            resume = resume or (left and self.processes.place.restarts > 0)
            if left and not resume:
                display.say(f"the state of an interrupted run in {self.checkpoint.folder} is not used (no --resume)")
            loop = Loop(
                model,
                self.dataset,
                settings=settings,
                batches=batches,
                fabric=fabric,
                checkpoint=self.checkpoint,
                display=display,
                processes=self.processes,
                started=self.start is not None,
            )
            if resume:
                loop.restore()
                display.say(f"going on after {loop.progress.examples:,} examples")
            best = loop.run()
        if best:
            model.load_state_dict(dict(best))
        self.processes.spread(model.state_dict().values())
        self.seconds |= loop.progress.seconds
        self.record = _loop_record(loop, fabric)
        if self.start is not None:
            before = loop.progress.curve[0]
            self.record["start"] = self.start.record({"auc": before.auc, "log_loss": before.log_loss})

    def _check_same(self) -> None:
        """Refuse processes that train something else than the others."""
        dataset, config = self.dataset.manifest, self.config.train.model_dump(exclude={"threads", "prefetch"})
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
        """Score validation, fit the calibrator, write the artifact, forget the checkpoint.

        Raises:
            ElsewhereError: in processes on another machine.
        """
        with self._timed("calibrate"):
            logit_NT = self._logits(model, self._validation)
        if isinstance(model, Model):
            model.cpu().eval()
        written: list[Artifact] = []
        self.processes.on_first(lambda: written.append(self._write(model, logit_NT)))
        if written:
            return written[0]
        if not (self.out / "manifest.json").is_file():
            raise ElsewhereError(f"the artifact is in {self.out} on the machine of process 0, which alone writes it")
        return Artifact.open(self.out, verify="sizes")

    def _write(self, model: Model | FittedModel, logit_NT: metrics.FloatArray) -> Artifact:
        with self._timed("calibrate"):
            calibrators, validation = self._calibrate(logit_NT)
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
            "facts": facts_of(model, self.dataset, self._stopping),
            **self.record,
        }
        run = {"model": self.settings, "train": self.config.train.model_dump()}
        if self.start is not None:
            run["start"] = {"artifact": self.start.artifact.id}
        artifact = write_artifact(
            self.out,
            model,
            self.dataset,
            run=run,
            metrics=document,
            calibrator=calibrators.pop(first),
            other_calibrators=calibrators,
        )
        self.checkpoint.delete()
        return artifact

    def _logits(self, model: Model | FittedModel, examples: Examples) -> metrics.FloatArray:
        if not len(examples):
            return np.empty((0, len(self.dataset.schema.tasks)))
        return predict(model, self.dataset, examples, processes=self.processes)

    @cached_property
    def _stopping(self) -> Examples:
        """What decides when to stop."""
        return self._drawn(self.config.train.validation_examples)

    @cached_property
    def _validation(self) -> Examples:
        """The same and, to calibrate on, more."""
        limits = self.config.train.validation_examples, self.config.train.calibration_examples
        return self._drawn(None if None in limits else max(filter(None, limits)))

    def _drawn(self, limit: int | None) -> Examples:
        whole = self.dataset.examples("validation")
        return validation_subset(whole, self.config.train, limit) if len(whole) else whole

    def _measured(self, model: Model | FittedModel) -> dict[str, float]:
        logit_NT = self._logits(model, self._stopping)
        if not len(logit_NT):
            return {}
        found = measure_tasks(logit_NT, self._stopping, self.dataset.schema.tasks)
        auc, log_loss = selected(found, self.config.train.select_task)
        return {"auc": auc, "log_loss": log_loss}

    def _calibrate(self, logit_NT: metrics.FloatArray) -> tuple[dict[str, Calibrator | None], dict[str, Any]]:
        """A calibrator for each task, and what was measured: of what selects, and of each task if there are several."""
        examples, tasks = self._validation, self.dataset.schema.tasks
        if not len(examples):
            return dict.fromkeys(tasks), {"examples": 0}
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

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def make_fabric(settings: TrainSettings) -> Fabric:
    """Device and precision of a run; under torchrun the processes find each other here.

    Raises:
        UsageError: a GPU is asked for and there is none, or too few for the processes of a machine.
        MissingExtraError: lightning is not installed.
        LostProcessError: not all processes have come.
    """
    device = settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("train.device = 'cuda', but torch finds no GPU", fix="set train.device=auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    half = settings.precision == "bf16" or (settings.precision == "auto" and device == "cuda")
    return open_fabric(device, "bf16-mixed" if half else "32-true", minutes=settings.answer_minutes)


def _loop_record(loop: Loop, fabric: Fabric) -> dict[str, Any]:
    progress = loop.progress
    best = None if progress.best is None else progress.curve[progress.best]
    return {
        "device": str(fabric.device),
        "precision": str(fabric.strategy.precision.precision),
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


def _check_out(out: Path) -> None:
    """Refuse a folder that the artifact could not replace, before hours of training and not after."""
    if out.exists() and not (out / "manifest.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists and is not an artifact",
            expected="a new folder, or an artifact to replace",
            fix="choose another --out",
        )
