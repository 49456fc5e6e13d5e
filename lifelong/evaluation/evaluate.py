"""From a finished model and a dataset to a result record.

artifact --load--> model --predict(delay)--> logits [N, T] --record--> Result
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from lifelong.data.batches import evaluation_batches
from lifelong.data.examples import Examples, Split
from lifelong.data.recent import recent_parts
from lifelong.errors import DataError, MismatchError, UsageError
from lifelong.evaluation import metrics
from lifelong.evaluation.graded import graded_metrics
from lifelong.evaluation.metrics import Sample
from lifelong.evaluation.processes import Processes, open_fabric
from lifelong.evaluation.results import (
    Counts,
    DelayResult,
    Kind,
    Result,
    estimates,
    peak_memory,
    slice_result,
    versions,
)
from lifelong.evaluation.significance import RESAMPLES, bootstrap
from lifelong.launch import launch
from lifelong.models.base import FittedModel, Model

if TYPE_CHECKING:
    from lifelong.artifact.calibration import Calibrator
    from lifelong.artifact.folder import Artifact
    from lifelong.data.dataset import Dataset

FloatArray = npt.NDArray[np.float64]
CALIBRATION_METRICS = ("log_loss", "normalised_entropy", "ece", "predicted_observed")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where logits come from: the model's name and title, its artifact, the settings of its run."""

    model: str
    title: str
    artifact_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of one split.

    Args:
        dataset: the dataset.
        split: which of its splits.
        examples: its examples, at their true positions.
        logit_NT: at the first delay.
        delay: the first delay, seconds.
        delayed: further delay -> logits.
        calibrated_NT: logits after the calibrator, or None.
        seconds: wall time of scoring.
    """

    dataset: Dataset
    split: Split
    examples: Examples
    logit_NT: FloatArray
    delay: int = 0
    delayed: Mapping[int, FloatArray] = field(default_factory=dict)
    calibrated_NT: FloatArray | None = None
    seconds: float = 0.0


def delayed(dataset: Dataset, examples: Examples, delay: int) -> Examples:
    """The same targets when events younger than `delay` seconds are not known yet.

    An event is hidden if target time - event time < delay; one of the target's own moment always is.

    Raises:
        UsageError: the delay is negative, or the dataset has no times in seconds.
    """
    if delay < 0:
        raise UsageError(f"a delay of {delay} s", expected="0 or more seconds")
    if delay == 0:
        return examples
    if dataset.schema.time_unit != "seconds":
        raise UsageError("this dataset has no clock times, so events have no age", fix="evaluate with delay 0 only")
    time_N = np.asarray(examples.time_N, np.int64) - (delay - 1)
    position_N = dataset.histories.positions(examples.user_N, time_N)
    return replace(examples, position_N=position_N.astype(np.int32))


def predict(
    model: Model | FittedModel,
    dataset: Dataset,
    examples: Examples,
    *,
    delay: int = 0,
    recent: int | None = None,
    threads: int | None = None,
    processes: Processes | None = None,
) -> FloatArray:
    """Logits `[N, T]` in the order of the examples, each from the events before its target alone.

    Args:
        model: trained; it is put back into the mode it was in.
        dataset: where the histories are; they are read from each user's first event.
        examples: the targets.
        delay: seconds; younger events are hidden.
        recent: each target sees only so many events, the last ones before it; None = all of them.
        threads: of torch, only during this call; None leaves them.
        processes: that all call this with the same; each scores its share of the batches and gets all logits. A batch
            is the same whoever scores it, and so are its logits. Fitted models are scored as a whole by each.

    Raises:
        DataError: the model gave a logit that is not a finite number.
        UsageError: see `delayed`.
        LostProcessError: another process does not answer.
    """
    seen = delayed(dataset, examples, delay)
    with torch_threads(threads):
        if isinstance(model, Model):
            logit_NT = _run(model, dataset, seen, recent, delay, processes or Processes())
        else:
            logit_NT = (
                model.predict(dataset, seen) if recent is None else _fitted_on_recent(model, dataset, seen, recent)
            )
    if not np.isfinite(logit_NT).all():
        bad = int((~np.isfinite(logit_NT)).sum())
        raise DataError(
            f"{bad} of {logit_NT.size} logits are not finite numbers", fix="train with a lower learning rate"
        )
    return logit_NT


def _fitted_on_recent(model: FittedModel, dataset: Dataset, examples: Examples, recent: int) -> FloatArray:
    logit_NT = np.full((len(examples), len(dataset.schema.tasks)), np.nan)
    for chosen_N, part, seen in recent_parts(dataset, examples, recent):
        logit_NT[chosen_N] = model.predict(part, seen)
    return logit_NT


def _run(
    model: Model, dataset: Dataset, examples: Examples, recent: int | None, delay: int, processes: Processes
) -> FloatArray:
    # Zeros where other processes score: the sum of all is then exact.
    logit_NT = np.full((len(examples), len(dataset.schema.tasks)), 0.0 if processes.several else np.nan)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            share = (processes.rank, processes.count)
            batches = evaluation_batches(
                dataset,
                examples,
                recent=recent,
                share=share,
                counts=model.counted is not None,
                items=None if model.item_side is None else replace(model.item_side.span, delay=delay),
                delay=delay,
            )
            for batch in batches:
                chosen_BC = batch.mask_BC & (batch.example_BC >= 0)
                logit_BCT = model(batch.to(device)).logit_BCT.cpu()
                logit_NT[batch.example_BC[chosen_BC].numpy()] = logit_BCT[chosen_BC].double().numpy()
    finally:
        model.train(was_training)
    processes.sum([torch.from_numpy(logit_NT)])
    return logit_NT


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads inside; None leaves them."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_fits(artifact: Artifact, dataset: Dataset) -> None:
    """Refuse a dataset whose numbers mean something else than those the model was trained on.

    Raises:
        MismatchError: names the field and the difference.
    """
    mine, theirs = artifact.config.dataset_schema, dataset.schema
    fix = "prepare the data with the vocabularies of this model's dataset, or train on this dataset"
    if mine != theirs:
        differing = [name for name in type(mine).model_fields if getattr(mine, name) != getattr(theirs, name)]
        raise MismatchError(
            "; ".join(f"{name} is {getattr(theirs, name)!r} in this dataset" for name in differing),
            expected="; ".join(f"{name} = {getattr(mine, name)!r}, as in training" for name in differing),
            fix=fix,
        )
    pairs = [(name, artifact.vocabularies[name], vocabulary) for name, vocabulary in dataset.vocabularies.items()]
    pairs += [
        (name, artifact.profile_vocabularies[name], vocabulary)
        for name, vocabulary in dataset.profile_vocabularies.items()
    ]
    if artifact.event_types is not None and dataset.event_types is not None:
        pairs.append(("event_type", artifact.event_types, dataset.event_types))
    for name, trained, found in pairs:
        if (trained.size, trained.buckets) != (found.size, found.buckets):
            raise MismatchError(
                f"the field {name!r} has {found.size} numbers ({found.buckets} of them buckets) in this dataset",
                expected=f"{trained.size} ({trained.buckets}), as in training",
                fix=fix,
            )
        if trained.content_hash() != found.content_hash():
            raise MismatchError(
                f"the field {name!r} has as many numbers as in training, but they stand for other values",
                expected="the same vocabulary",
                fix=fix,
            )


def evaluate(
    artifact: Artifact,
    dataset: Dataset,
    *,
    split: Split = "test",
    delays: Sequence[int] = (0,),
    bootstrap: int = RESAMPLES,
    seed: int = 0,
    threads: int | None = None,
) -> Result:
    """Score a split and measure.

    Args:
        artifact: the finished model.
        dataset: with the same fields and vocabularies as in training.
        split: which examples.
        delays: seconds; the record's main numbers are of the first, `delays` holds all of them.
        bootstrap: resamples of users.
        seed: of the resampling.
        threads: of torch.

    Under torchrun all processes score together; each returns the same record, which the first one made.

    Raises:
        MismatchError: the dataset does not fit the model, or processes have different ones.
        UsageError: a delay on data without clock times.
        LostProcessError: another process does not answer.
    """
    from lifelong.artifact.export import load_model

    if not delays:
        raise UsageError("no delay is given", expected="at least one, such as 0")
    check_fits(artifact, dataset)
    model, examples = load_model(artifact), dataset.examples(split)
    _check_requirements(model, dataset)
    processes = _joined(artifact, dataset)
    start = time.perf_counter()
    logits = {
        delay: predict(model, dataset, examples, delay=delay, threads=threads, processes=processes)
        for delay in dict.fromkeys(delays)
    }
    seconds = time.perf_counter() - start
    scored = scored_by(artifact, dataset, logits, split=split, seconds=seconds)
    return processes.on_first(lambda: record(scored, origin_of(artifact), resamples=bootstrap, seed=seed))


def _joined(artifact: Artifact, dataset: Dataset) -> Processes:
    """The processes that evaluate together: one, or those of torchrun."""
    place = launch()
    if place.several:
        open_fabric("cpu", "32-true")
    processes = Processes(place)
    processes.check_same(
        {"the artifact": artifact.id[:12], "the dataset's hash": dataset.manifest.data_hash[:12], **versions()}
    )
    return processes


def scored_by(
    artifact: Artifact, dataset: Dataset, logits: Mapping[int, FloatArray], *, split: Split, seconds: float
) -> Scored:
    """What `record` takes, from delay -> logits; the first delay is the main one."""
    delay, logit_NT = next(iter(logits.items()))
    calibrators = [artifact.calibrator(task) for task in dataset.schema.tasks]
    return Scored(
        dataset,
        split,
        dataset.examples(split),
        logit_NT,
        delay=delay,
        delayed=logits if len(logits) > 1 else {},
        calibrated_NT=_calibrated(calibrators, logit_NT),
        seconds=seconds,
    )


def _calibrated(calibrators: Sequence[Calibrator | None], logit_NT: FloatArray) -> FloatArray | None:
    """Logits after the calibrators, unchanged where a task beside the first has none."""
    if calibrators[0] is None:
        return None
    columns = zip(calibrators, logit_NT.T, strict=True)
    return np.stack([logit_N if of is None else of.logit(logit_N) for of, logit_N in columns], axis=1)


def origin_of(artifact: Artifact) -> Origin:
    """Name, title, id and settings of an artifact."""
    config = artifact.config
    return Origin(config.model, config.title, artifact.id, {"model": config.settings, **config.run})


def _check_requirements(model: Model | FittedModel, dataset: Dataset) -> None:
    missing = model.requirements(dataset)
    if missing:
        raise MismatchError("; ".join(missing), fix="choose another model, or prepare the data with what is missing")


def record(scored: Scored, origin: Origin, *, resamples: int = RESAMPLES, seed: int = 0) -> Result:
    """The result record of given logits: metrics, slices, delays and tasks, under the same resampled users."""
    samples = _samples(scored)
    drawn = bootstrap(samples, resamples=resamples, seed=seed)
    whole = samples["all"]
    grouped = metrics.gauc(whole.label, whole.logit, whole.user)
    manifest = scored.dataset.manifest

    def measured(key: str, names: Sequence[str] = metrics.METRICS) -> dict[str, Any]:
        return estimates(samples[key], drawn[key], names)

    return Result(
        model=origin.model,
        title=origin.title,
        artifact_id=origin.artifact_id,
        data_hash=manifest.data_hash,
        dataset=manifest.name,
        protocol=manifest.protocol,
        negatives=manifest.negatives,
        split=scored.split,
        task=scored.dataset.schema.tasks[0],
        kind=number_kind(scored.dataset),
        delay=scored.delay,
        metrics=measured("all"),
        calibrated=measured("calibrated", CALIBRATION_METRICS) if "calibrated" in samples else None,
        slices=[slice_result(key[6:], samples[key], drawn[key]) for key in samples if key.startswith("slice:")],
        unseen=slice_result("unseen", samples["unseen"], drawn["unseen"]),
        delays=[DelayResult(delay=delay, metrics=measured(f"delay:{delay}")) for delay in scored.delayed],
        other_tasks={task: measured(f"task:{task}") for task in scored.dataset.schema.tasks[1:]},
        graded=graded_metrics(scored.dataset, scored.examples, scored.logit_NT, resamples=resamples, seed=seed),
        counts=Counts(
            examples=len(whole),
            positives=int(whole.positive.sum()),
            users=grouped.users,
            one_class_users=grouped.one_class_users,
            one_class_examples=grouped.one_class_examples,
        ),
        resamples=resamples,
        seed=seed,
        seconds=scored.seconds,
        peak_memory=peak_memory(),
        versions=versions(),
        config=dict(origin.config),
    )


def number_kind(dataset: Dataset) -> Kind:
    """What a model's numbers mean here: probabilities where labels are logged, scores where negatives are sampled."""
    return "score" if dataset.manifest.base_rate is None else "probability"


def unseen_targets(dataset: Dataset, examples: Examples) -> npt.NDArray[np.bool_]:
    """Which targets' items are not among the known values of the training vocabulary."""
    number_N = dataset.catalogue.number_VF[examples.row_N, 0]
    unseen: npt.NDArray[np.bool_] = number_N < dataset.vocabularies["item"].first_known
    return unseen


def sample_of(scored: Scored, logit_NT: FloatArray | None = None, task: int = 0) -> Sample:
    """The scored examples of one task, as metrics take them."""
    logit_NT = scored.logit_NT if logit_NT is None else logit_NT
    return Sample.of(scored.examples.label_NT[:, task], logit_NT[:, task], scored.examples.user_N)


def _samples(scored: Scored) -> dict[str, Sample]:
    whole = sample_of(scored)
    samples = {"all": whole, "unseen": whole.take(unseen_targets(scored.dataset, scored.examples))}
    for name, chosen in metrics.length_slices(scored.examples.position_N).items():
        samples[f"slice:{name}"] = whole.take(chosen)
    if scored.calibrated_NT is not None:
        samples["calibrated"] = sample_of(scored, scored.calibrated_NT)
    for delay, logit_NT in scored.delayed.items():
        samples[f"delay:{delay}"] = sample_of(scored, logit_NT)
    for place, task in enumerate(scored.dataset.schema.tasks[1:], 1):
        samples[f"task:{task}"] = sample_of(scored, task=place)
    return samples
