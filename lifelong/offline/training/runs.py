"""The runs of a comparison: each is trained and scored once, and kept in a folder of its own.

    OUT/runs/NAME/run.json, artifact/, logits-test.npy, result-test.json          written in this order

Each file appears whole or not at all, so that what an interruption leaves, even kill -9, can be relied on: a run with a
result is finished, one with an artifact is only scored, one with a checkpoint is resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.atomic import replace_text
from lifelong.config import RunConfig
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray
from lifelong.errors import MismatchError
from lifelong.offline.evaluation import evaluate
from lifelong.offline.evaluation.compare import Runs
from lifelong.offline.evaluation.in_sample import check_in_sample
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.results import Result
from lifelong.offline.evaluation.significance import RESAMPLES
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import model_class
from lifelong.offline.models.base import Model
from lifelong.offline.training import trainer
from lifelong.offline.training.callbacks import Callback
from lifelong.offline.training.settings import with_recipe

FREE = ("threads", "answer_minutes")
"""Settings that a finished run does not depend on."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training of one model, and its scores on the test split.

    >>> Run(Path("out/runs/popularity-seed0"), "popularity").name
    'popularity-seed0'

    Args:
        folder: where all its files are kept.
        model: name.
        config: settings of the training, its seed among them.
        resamples: of the users, for its own intervals.
        callbacks: called during the training.
        max_minutes: limit of the training, where its settings have no lower one.
    """

    folder: Path
    model: str
    config: RunConfig = field(default_factory=RunConfig)
    resamples: int = RESAMPLES
    callbacks: Sequence[Callback] = field(default=(), compare=False)
    max_minutes: float | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether it was trained and scored."""
        return self._result_path.exists()

    @property
    def trained(self) -> bool:
        """Whether there is an artifact; it is put in place whole."""
        return (self.folder / "artifact" / "manifest.json").is_file()

    @property
    def artifact(self) -> Artifact:
        """The trained model.

        Raises:
            ArtifactError: it is not trained yet.
        """
        # Sizes alone: every part of a report opens it again, and a checksum would read all weights each time.
        return Artifact.open(self.folder / "artifact", verify="sizes")

    @property
    def result(self) -> Result:
        """The measured record.

        Raises:
            DataError: the run is not finished.
        """
        return Result.load(self._result_path)

    @property
    def logits(self) -> FloatArray:
        """Logits `[N, T]` of the test examples."""
        logit_NT: FloatArray = np.load(self._logit_path).astype(np.float64)
        return logit_NT

    @property
    def threads(self) -> int | None:
        """Threads of the training."""
        return self.config.train.threads

    def with_threads(self, threads: int) -> Run:
        """This run on another number of threads."""
        return replace(self, config=self.config.with_train(threads=threads))

    def settings(self, dataset: Dataset) -> RunConfig:
        """The settings of the training, as `lifelong train` would have them, within the limit.

        The limit is set last: a recipe leaves the number of epochs alone where the settings say when to end.
        """
        return self._limited(with_recipe(self.config, self.model, dataset))

    def _limited(self, config: RunConfig) -> RunConfig:
        own, trained = config.train.max_minutes, issubclass(model_class(self.model, config.model), Model)
        if not trained or self.max_minutes is None or (own is not None and own <= self.max_minutes):
            return config
        return config.with_train(max_minutes=self.max_minutes)

    def claim(self, dataset: Dataset) -> None:
        """Write down what the folder is for, or check that it is for this run.

        Raises:
            MismatchError: it holds a run on other data or with other settings.
        """
        path = self.folder / "run.json"
        claimed = {"data_hash": dataset.manifest.data_hash, "settings": lasting(self._limited(self.config))}
        text = json.dumps(claimed, sort_keys=True, default=str, indent=2)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, text + "\n")
        # Compared as JSON gives them back: tuples of settings are lists there.
        elif json.loads(path.read_text()) != json.loads(text):
            raise MismatchError(
                f"{self.folder} holds a run on other data or with other settings",
                expected="runs of this comparison alone",
                fix="choose another folder, or delete that one",
            )

    def do(self, dataset: Dataset, *, progress: bool) -> None:
        """Train and score what is not there yet; an interrupted training goes on from its checkpoint."""
        if self.finished:
            return
        if self.trained:
            artifact = self.artifact
        else:
            out = self.folder / "artifact"
            # A run that was killed before its first validation has nothing to resume from.
            resume = (self.folder / "artifact.checkpoint" / "state.safetensors").exists()
            artifact = trainer.train(
                dataset,
                self.model,
                out,
                config=self.settings(dataset),
                resume=resume,
                progress=progress,
                callbacks=self.callbacks,
                name=self.name,
            )
        self._score(dataset, artifact)

    def _score(self, dataset: Dataset, artifact: Artifact) -> None:
        check_fits(artifact, dataset)
        check_in_sample(artifact, dataset, "test")
        model, examples, start = load_model(artifact), dataset.examples("test"), time.perf_counter()
        logit_NT = evaluate.predict(model, dataset, examples)
        seconds = time.perf_counter() - start
        scored = evaluate.scored_by(artifact, dataset, {0: logit_NT}, split="test", seconds=seconds)
        # Before the result, with which the run counts as finished.
        np.save(self._logit_path, logit_NT)
        evaluate.record(replace(scored, model=self.model), resamples=self.resamples).save(self._result_path)

    @property
    def _logit_path(self) -> Path:
        return self.folder / "logits-test.npy"

    @property
    def _result_path(self) -> Path:
        return self.folder / "result-test.json"


def lasting(config: RunConfig) -> dict[str, Any]:
    """The settings that the numbers of a run depend on, as JSON writes them."""
    settings = config.model_dump(mode="json")
    settings["train"] = {name: value for name, value in settings["train"].items() if name not in FREE}
    return settings


def gather(runs: Sequence[Run], dataset: Dataset) -> Runs:
    """The scores of finished runs of one model, as `compare` takes them."""
    examples = dataset.examples("test")
    samples = [Sample.of(examples.label_NT[:, 0], run.logits[:, 0], examples.user_N) for run in runs]
    return Runs(runs[0].result.title, samples)
