"""How AUC depends on the number of most recent events that a model sees: from how many on a lifelong model pays.

The trained models do not change; each target of a random subset sees only the last k events before it. A memory starts
empty k events before the target, so periods count from there; models that count use only those events. All models and
steps score the same examples under the same resampled users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lifelong.atomic import write_whole
from lifelong.dataset.examples import Examples
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray, IntArray
from lifelong.errors import UsageError
from lifelong.offline.evaluation import evaluate, metrics
from lifelong.offline.evaluation.compare import DifferenceEstimate, SweepPoint
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.results import estimates
from lifelong.offline.evaluation.significance import RESAMPLES, bootstrap
from lifelong.offline.export.saving import load_model
from lifelong.offline.training.runs import Run

STEPS: tuple[int | None, ...] = (20, 50, 100, 300, 1000, None)
"""Numbers of recent events; None = all."""
_ENOUGH = 1000
"""Examples with long histories that are enough for a sweep; with fewer, shorter histories are taken too."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The examples of a sweep.

    Args:
        place_N: their places in the split, ascending.
        at_least: the smallest number of events before any of them.
    """

    place_N: IntArray
    at_least: int


def parse_steps(text: str) -> tuple[int | None, ...]:
    """Numbers of events from "20,50,100,all", ascending; the last is None for all events, named or not.

    Raises:
        UsageError: a part is neither a number above 0 nor "all".

    >>> parse_steps("50,20")
    (20, 50, None)
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if word != "all" and not (word.isdigit() and int(word) > 0)]
    if wrong or not words:
        raise UsageError(
            f"--sweep {text!r}",
            expected="numbers of events and all, as in 20,50,100,300,1000,all",
            fix="give lengths of history, or none",
        )
    return (*sorted({int(word) for word in words if word != "all"}), None)


def choose(examples: Examples, steps: Sequence[int | None], *, limit: int, seed: int = 0) -> Chosen:
    """A random subset of the examples with as many events before them as the largest step.

    Where there are too few of those, the next smaller step with enough examples, or the longer half of all histories.

    Args:
        examples: of a split.
        steps: numbers of events.
        limit: the largest number of examples.
        seed: of the choice.
    """
    position_N = np.asarray(examples.position_N, np.int64)
    enough = min(limit, _ENOUGH)
    counts = sorted((step for step in steps if step is not None), reverse=True)
    fitting = [step for step in counts if int((position_N >= step).sum()) >= enough]
    at_least = fitting[0] if fitting else int(np.median(position_N)) if len(position_N) else 0
    place_N = np.flatnonzero(position_N >= at_least)
    if len(place_N) > limit:
        # Sorted, so that examples are read in the order of the split, and their digest does not depend on the order of
        # the draw.
        place_N = np.sort(np.random.default_rng(seed).choice(place_N, limit, replace=False))
    return Chosen(place_N, at_least)


@dataclass(frozen=True, slots=True)
class SweepTask:
    """The scores of one run's model for every number of recent events, each kept in the run's folder.

    Args:
        run: finished.
        chosen: which examples.
        steps: numbers of recent events; None = all of them: the run itself has those scores.
        threads: of torch.
    """

    run: Run
    chosen: Chosen
    steps: Sequence[int | None] = STEPS
    threads: int | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.run.name}, with only the most recent events"

    @property
    def finished(self) -> bool:
        """Whether every step is scored."""
        return all(self._path(step).exists() for step in self.steps if step is not None)

    def claim(self, dataset: Dataset) -> None:
        """Nothing to claim: the folder is the run's."""

    def with_threads(self, threads: int) -> SweepTask:
        """This task on another number of threads."""
        return replace(self, threads=threads)

    def do(self, dataset: Dataset, *, progress: bool) -> None:
        """Score the steps that are not scored yet."""
        model, examples = load_model(self.run.artifact), self.examples(dataset)
        for step in self.steps:
            if step is None or (path := self._path(step)).exists():
                continue
            logit_NT = evaluate.predict(model, dataset, examples, recent=step, threads=self.threads)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(path) as fresh, fresh.open("wb") as file:
                np.save(file, logit_NT)

    def examples(self, dataset: Dataset) -> Examples:
        """The chosen test examples."""
        return dataset.examples("test").take(self.chosen.place_N)

    def logits(self, step: int | None) -> FloatArray:
        """Scores `[N, T]` of the chosen examples at a finished step."""
        scored: FloatArray = self.run.logits[self.chosen.place_N] if step is None else np.load(self._path(step))
        return scored

    def _path(self, step: int) -> Path:
        """The file of a step's scores; its folder is named by the chosen examples."""
        # In one byte order, so that a folder has one name on every machine.
        digest = hashlib.sha256(self.chosen.place_N.astype("<i8").tobytes()).hexdigest()[:12]
        return self.run.folder / "sweep" / digest / f"last-{step}.npy"


def sweep(dataset: Dataset, tasks: Mapping[str, SweepTask], *, resamples: int = RESAMPLES) -> list[SweepPoint]:
    """Measure every model at every step.

    Args:
        dataset: prepared.
        tasks: model -> its task, all with the same examples and steps; what is missing is scored first.
        resamples: of the users.
    """
    points = []
    for model, task in tasks.items():
        if not task.finished:
            task.do(dataset, progress=False)
        examples = task.examples(dataset)
        samples = {
            _key(step): Sample.of(examples.label_NT[:, 0], task.logits(step)[:, 0], examples.user_N)
            for step in task.steps
        }
        points += _points(model, task.run.result.title, samples, task.steps, resamples)
    return points


def _points(
    model: str, title: str, samples: Mapping[str, Sample], steps: Sequence[int | None], resamples: int
) -> list[SweepPoint]:
    drawn, whole = bootstrap(samples, resamples=resamples), _key(None)
    points = []
    for step in steps:
        key = _key(step)
        measured = estimates(samples[key], drawn[key], metrics.metric_names())
        points.append(
            SweepPoint(
                model=model,
                title=title,
                events=step,
                examples=len(samples[key]),
                metrics=measured,
                difference=None if step is None else _difference(samples, drawn, key, whole),
            )
        )
    return points


def _difference(
    samples: Mapping[str, Sample], drawn: Mapping[str, Mapping[str, FloatArray]], key: str, whole: str
) -> DifferenceEstimate:
    """Difference of AUC, paired: both were measured on the same resampled users."""
    few, all_ = (metrics.auc(samples[name].label, samples[name].logit) for name in (key, whole))
    gap = drawn[key]["auc"] - drawn[whole]["auc"]
    return DifferenceEstimate.of(few - all_, gap)


def _key(step: int | None) -> str:
    return "all" if step is None else str(step)
