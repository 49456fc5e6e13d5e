"""How AUC depends on the number of most recent events that a model is given: from how many on a lifelong model pays.

The trained models stay as they are; each target of a random subset sees only the last k events before it. A memory
starts empty k events before the target, so periods count from there; models that count, count in those events alone.
All models and steps score the same examples under the same resampled users.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifelong.errors import UsageError
from lifelong.evaluation import evaluate, metrics
from lifelong.evaluation.compare import DifferenceEstimate, SweepPoint
from lifelong.evaluation.metrics import FloatArray, IntArray, Sample
from lifelong.evaluation.results import estimates
from lifelong.evaluation.significance import RESAMPLES, bootstrap, interval, p_value

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset
    from lifelong.data.examples import Examples
    from lifelong.evaluation.runs import Run

STEPS: tuple[int | None, ...] = (20, 50, 100, 300, 1000, None)
"""Numbers of recent events; None = all."""
_ENOUGH = 1000
"""Examples behind long histories that make a sweep; with fewer, shorter histories are taken too."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The examples of a sweep.

    Args:
        place_N: in the split, ascending.
        at_least: events that each has before it.
    """

    place_N: IntArray
    at_least: int


def parse_steps(text: str) -> tuple[int | None, ...]:
    """Numbers of events from "20,50,100,all", ascending, `all` last; it is always among them.

    Raises:
        UsageError: a part is neither a number above 0 nor "all".
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if word != "all" and not (word.isdigit() and int(word) > 0)]
    if wrong or not words:
        raise UsageError(f"--sweep {text!r}", expected="numbers of events and all, as in 20,50,100,300,1000,all")
    return (*sorted({int(word) for word in words if word != "all"}), None)


def choose(examples: Examples, steps: Sequence[int | None], *, limit: int, seed: int = 0) -> Chosen:
    """A random subset of the examples that have as many events before them as the largest step.

    Where there are too few of those, the largest smaller step that has enough, or the longest half of all.

    Args:
        examples: of a split.
        steps: numbers of events.
        limit: examples at most.
        seed: of the choice.
    """
    position_N = np.asarray(examples.position_N, np.int64)
    enough = min(limit, _ENOUGH)
    counts = sorted((step for step in steps if step is not None), reverse=True)
    fitting = [step for step in counts if int((position_N >= step).sum()) >= enough]
    at_least = fitting[0] if fitting else int(np.median(position_N)) if len(position_N) else 0
    place_N = np.flatnonzero(position_N >= at_least)
    if len(place_N) > limit:
        place_N = np.sort(np.random.default_rng(seed).choice(place_N, limit, replace=False))
    return Chosen(place_N, at_least)


def sweep(
    dataset: Dataset,
    runs: Mapping[str, Run],
    chosen: Chosen,
    *,
    steps: Sequence[int | None] = STEPS,
    resamples: int = RESAMPLES,
    progress: Callable[[str], None] | None = None,
) -> list[SweepPoint]:
    """Score and measure every model at every step; scores that are in a run's folder already are not made again.

    Args:
        dataset: prepared.
        runs: model -> its finished run.
        chosen: which examples.
        steps: numbers of recent events; None, all, must be among them.
        resamples: of the users.
        progress: is told what starts.
    """
    examples = dataset.examples(next(iter(runs.values())).split).take(chosen.place_N)
    points = []
    for model, run in runs.items():
        samples = {}
        for step in steps:
            if progress is not None:
                progress(f"{model}: {'all' if step is None else f'the last {step}'} events")
            logit_NT = _logits(dataset, examples, run, chosen, step)
            samples[_key(step)] = Sample.of(examples.label_NT[:, 0], logit_NT[:, 0], examples.user_N)
        points += _points(model, run.result.title, samples, steps, resamples)
    return points


def _logits(dataset: Dataset, examples: Examples, run: Run, chosen: Chosen, step: int | None) -> FloatArray:
    if step is None:
        return run.logits[chosen.place_N]
    from lifelong.artifact.export import load_model

    path = _cache(run.folder / "sweep", chosen) / f"last-{step}.npy"
    if not path.exists():
        logit_NT = evaluate.predict(load_model(run.artifact), dataset, examples, recent=step)
        fresh = path.with_name(f"{path.stem}.unfinished.npy")
        np.save(fresh, logit_NT)
        fresh.replace(path)
    kept: FloatArray = np.load(path)
    return kept


def _cache(folder: Path, chosen: Chosen) -> Path:
    """Where scores of exactly these examples are kept."""
    import hashlib

    digest = hashlib.sha256(chosen.place_N.astype("<i8").tobytes()).hexdigest()[:12]
    place = folder / digest
    place.mkdir(parents=True, exist_ok=True)
    return place


def _points(
    model: str, title: str, samples: Mapping[str, Sample], steps: Sequence[int | None], resamples: int
) -> list[SweepPoint]:
    drawn, whole = bootstrap(samples, resamples=resamples), _key(None)
    points = []
    for step in steps:
        key = _key(step)
        measured = estimates(samples[key], drawn[key], metrics.METRICS)
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
    """Of AUC, paired: the two were resampled alike."""
    few, all_ = (metrics.auc(samples[name].label, samples[name].logit) for name in (key, whole))
    gap = drawn[key]["auc"] - drawn[whole]["auc"]
    found = (few - all_, *interval(gap), p_value(gap))
    value, low, high, p = (None if math.isnan(part) else float(part) for part in found)
    return DifferenceEstimate(value=value, low=low, high=high, p_value=p)


def _key(step: int | None) -> str:
    return "all" if step is None else str(step)
