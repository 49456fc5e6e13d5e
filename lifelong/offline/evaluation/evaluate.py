"""From a finished model and a dataset to a result record.

artifact --load--> model --predict(delay)--> logits [N, T] --record--> Result
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from lifelong.artifact.calibration import Calibrator
from lifelong.artifact.folder import Artifact, check_fits
from lifelong.artifact.list_order import ListOrder, log_popularity
from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.examples import VAULT, Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.errors import DataError, MismatchError, UsageError
from lifelong.launch import launch
from lifelong.offline.data.batches import evaluation_batches
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.divided_tables import DividedTables
from lifelong.offline.evaluation.in_sample import InSample, check_in_sample
from lifelong.offline.evaluation.list_order import counted_numbers, counts_in_lists
from lifelong.offline.evaluation.metrics import Sample
from lifelong.offline.evaluation.processes import Processes, join
from lifelong.offline.evaluation.ranking import Ranking, had_before, most_popular, rank_catalogue
from lifelong.offline.evaluation.results import (
    Counts,
    DelayResult,
    Kind,
    Result,
    estimates,
    peak_memory,
    slice_result,
    versions,
)
from lifelong.offline.evaluation.significance import RESAMPLES, bootstrap
from lifelong.offline.evaluation.vault import held_by, keep, open_for
from lifelong.offline.models.base import FittedModel, Model
from lifelong.offline.models.registry import model_named_in_errors

CALIBRATION_METRICS = ("log_loss", "normalised_entropy", "ece", "predicted_observed")


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of one split, and the model that gave them.

    Args:
        dataset: the dataset.
        split: which of its splits.
        examples: its examples, at their true positions.
        logits: delay in seconds -> logits `[N, T]`; the main numbers are those of the first delay.
        calibrated_NT: those of the first delay after the calibrator, or None.
        seconds: wall time of scoring.
        model: name of the model.
        title: its name in tables.
        artifact_id: of the artifact, if there is one.
        config: settings of the run.
        in_sample: whether the model was trained on these examples; None for logits of no artifact.
    """

    dataset: Dataset
    split: Split
    examples: Examples
    logits: Mapping[int, FloatArray]
    calibrated_NT: FloatArray | None = None
    seconds: float = 0.0
    model: str = ""
    title: str = ""
    artifact_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    in_sample: InSample | None = None

    def sample(self, logit_NT: FloatArray, task: int = 0) -> Sample:
        """The scored examples of one task, as metrics take them."""
        return Sample.of(self.examples.label_NT[:, task], logit_NT[:, task], self.examples.user_N)


def delayed(dataset: Dataset, examples: Examples, delay: int) -> Examples:
    """The same targets, at which events younger than `delay` seconds are not known yet.

    An event is hidden if target time - event time < delay; one at the target's own time always is.

    Raises:
        UsageError: the delay is negative, or the dataset has no times in seconds.
    """
    if delay < 0:
        raise UsageError(f"a delay of {delay} s", expected="0 or more seconds", fix="leave out the minus")
    if delay == 0:
        return examples
    if dataset.schema.time_unit != "seconds":
        raise UsageError("this dataset has no clock times, so events have no age", fix="evaluate with delay 0 only")
    # Less one, as `positions` counts events before a time and an event of exactly `delay` seconds ago is known.
    time_N = np.asarray(examples.time_N, np.int64) - (delay - 1)
    position_N = dataset.histories.positions(examples.user_N, time_N)
    return replace(examples, position_N=position_N.astype(np.int32))


def predict(
    model: Model | FittedModel,
    dataset: Dataset,
    examples: Examples,
    *,
    delay: int = 0,
    threads: int | None = None,
    processes: Processes | None = None,
    tables: DividedTables | None = None,
) -> FloatArray:
    """Logits `[N, T]` in the order of the examples, each computed only from the events before its target.

    Args:
        model: trained; its mode (training or not) is restored.
        dataset: with the histories; they are read from each user's first event.
        examples: the targets.
        delay: seconds; younger events are hidden.
        threads: of torch, only during this call; None leaves them as they are.
        processes: that all make this call with equal arguments; each scores its share of the batches and gets all
            logits. A batch has the same logits whichever process scores it. Fitted models are scored by every process.
        tables: those of the model that are divided between these processes.

    Raises:
        DataError: the model gave a logit that is not a finite number.
        UsageError: see `delayed`.
        LostProcessError: another process does not answer.
    """
    seen = delayed(dataset, examples, delay)
    with torch_threads(threads), model_named_in_errors(model, f"{len(seen)} examples were scored"):
        if isinstance(model, Model):
            logit_NT = _run(model, dataset, seen, processes or Processes(), tables)
        else:
            logit_NT = model.predict(dataset, seen)
    if not np.isfinite(logit_NT).all():
        bad = int((~np.isfinite(logit_NT)).sum())
        raise DataError(
            f"{bad} of {logit_NT.size} logits are not finite numbers", fix="train with a lower learning rate"
        )
    return logit_NT


def _run(
    model: Model, dataset: Dataset, examples: Examples, processes: Processes, tables: DividedTables | None
) -> FloatArray:
    # Zeros where other processes score: the sum of all is then exact.
    logit_NT = np.full((len(examples), len(dataset.schema.tasks)), 0.0 if processes.several else np.nan)
    device = next(model.parameters()).device
    # Validation during training comes through here, and training goes on as it was.
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            share = (processes.rank, processes.count)
            batches = evaluation_batches(dataset, examples, share=share, counts=model.exact is not None)
            for batch in batches if tables is None else tables.in_step(batches):
                chosen_BC = batch.mask_BC & (batch.example_BC >= 0)
                logit_BCT = model(batch.to(device)).logit_BCT.cpu()
                logit_NT[batch.example_BC[chosen_BC].numpy()] = logit_BCT[chosen_BC].double().numpy()
    finally:
        model.train(was_training)
    processes.sum([torch.from_numpy(logit_NT)])
    return logit_NT


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use this many threads in this context; None leaves them as they are."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_asked(split: Split, delays: Sequence[int], claim: str | None) -> None:
    if not delays:
        raise UsageError("no delay is given", expected="at least one", fix="delays=[0], or leave it out")
    if claim is not None and split != VAULT:
        raise UsageError(
            f"a claim with the split {split!r}", expected="--split vault", fix="leave out --claim (claim=)"
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
    in_sample: bool = False,
    ranking: Ranking | None = None,
    claim: str | None = None,
) -> Result:
    """Score a split and measure the scores.

    Under torchrun all processes score together; each returns the record that the first one made. The split `vault` is
    read once by an artifact and all that are continued from it (`lifelong.offline.evaluation.vault`).

    Args:
        artifact: the finished model.
        dataset: with the same fields and vocabularies as in training.
        split: which examples.
        delays: seconds; the main numbers of the record are those of the first delay, `delays` has all of them.
        bootstrap: number of resamples of the users.
        seed: of the resampling.
        threads: of torch.
        in_sample: measure a test period that the model was trained on, too, and mark the result.
        ranking: also rank the whole catalogue, for the baskets of users drawn by the seed.
        claim: a sentence that says what a reading of the vault is to decide, which is kept; for that split alone.

    Raises:
        MismatchError: the dataset does not fit the model, its test period was seen in training, processes have
            different ones, or the artifact's family has read the vault.
        DatasetError: the dataset has no vault.
        UsageError: a delay on data without clock times, a ranking at no place, the vault without a claim, or a claim
            for another split.
        LostProcessError: another process does not answer.
    """
    from lifelong.offline.export.saving import load_model

    _check_asked(split, delays, claim)
    check_fits(artifact, dataset)
    check_in_sample(artifact, dataset, split, allowed=in_sample)
    held = held_by(dataset, split)
    model, examples = load_model(artifact), held.examples(split)
    check_requirements(model, held)
    processes = _joined(artifact, dataset)
    # Before anything is read of the vault it is written down that it is.
    opening = processes.on_first(lambda: open_for(dataset, artifact, claim)) if split == VAULT else None
    start = time.perf_counter()
    logits = {
        delay: predict(model, held, examples, delay=delay, threads=threads, processes=processes)
        for delay in dict.fromkeys(delays)
    }
    seconds = time.perf_counter() - start
    scored = scored_by(artifact, dataset, logits, split=split, seconds=seconds)
    ranked = None
    if ranking is not None:
        drawn_V = drawn_for(dataset, held) if learns_from_negatives(model) else None
        order = None if drawn_V is None else artifact.config.list_order

        def score(asked: Examples) -> FloatArray:
            logit_NT = predict(model, held, asked, delay=delays[0], threads=threads, processes=processes)
            return logit_NT[:, 0] + added_in_lists(model, held, asked, drawn_V, order, delay=delays[0])

        ranked = rank_catalogue(
            score,
            held,
            examples,
            ranking.cutoffs,
            users=ranking.users,
            popular=None if ranking.popular is None else rows_in(held, dataset, most_popular(dataset, ranking.popular)),
            resamples=bootstrap,
            seed=seed,
        ).model_copy(update={"by_popularity": drawn_V is not None, "by_counts": order is not None})
    result = processes.on_first(
        lambda: record(scored, resamples=bootstrap, seed=seed).model_copy(update={"ranking": ranked})
    )
    if opening is not None:
        processes.on_first(lambda: keep(dataset, opening, result))
    return result


def drawn_for(dataset: Dataset, held: Dataset) -> IntArray | None:
    """How often each catalogue row of `held`, the dataset or its vault, is drawn as a training negative: `[V]`.

    See `drawn_counts`. An item that is in the vault alone was never drawn.
    """
    drawn_V = drawn_counts(dataset)
    if drawn_V is None or held is dataset:
        return drawn_V
    found_V = np.zeros(len(held.catalogue), np.int64)
    found_V[rows_in(held, dataset, np.arange(FIRST_ROW, len(drawn_V)))] = drawn_V[FIRST_ROW:]
    return found_V


def rows_in(held: Dataset, dataset: Dataset, row_N: IntArray) -> IntArray:
    """The rows of the same items in the catalogue of `held`, the dataset or its vault."""
    if held is dataset:
        return row_N
    rows: IntArray = FIRST_ROW + held.catalogue.ids.find_all(dataset.catalogue.ids)[row_N - FIRST_ROW]
    return rows


def added_in_lists(
    model: Model | FittedModel,
    dataset: Dataset,
    examples: Examples,
    drawn_V: IntArray | None,
    order: ListOrder | None = None,
    *,
    delay: int = 0,
) -> FloatArray:
    """What is added to the examples' logits so that they order the catalogue: `[N]`.

    Args:
        model: trained.
        dataset: with the histories.
        examples: users, items and moments.
        drawn_V: see `drawn_for`; None where logits are comparable over the catalogue as they are.
        order: the artifact's weights; None for log popularity alone.
        delay: seconds; younger events are hidden.
    """
    if drawn_V is None:
        return np.zeros(len(examples))
    popularity_N = log_popularity(drawn_V[np.asarray(examples.row_N)])
    if order is None or not counts_in_lists(model):
        return popularity_N
    added_N = np.zeros(len(examples))
    for place_N, number_NFX in counted_numbers(model, dataset, delayed(dataset, examples, delay)):
        added_N[place_N] = order.added(popularity_N[place_N], number_NFX)
    return added_N


def learns_from_negatives(model: Model | FittedModel) -> bool:
    """Whether its scores compare an item with one that is drawn as often."""
    return not isinstance(model, FittedModel) or model.learns_from_negatives


def _joined(artifact: Artifact, dataset: Dataset) -> Processes:
    """The processes that evaluate together: one, or those of torchrun."""
    process = launch()
    join(process)
    processes = Processes(process)
    processes.check_same(
        {"the artifact": artifact.id[:12], "the dataset's hash": dataset.manifest.data_hash[:12], **versions()}
    )
    return processes


def scored_by(
    artifact: Artifact, dataset: Dataset, logits: Mapping[int, FloatArray], *, split: Split, seconds: float
) -> Scored:
    """The input of `record`, from delay -> logits; the first delay is the main one."""
    config, calibrators = artifact.config, [artifact.calibrator(task) for task in dataset.schema.tasks]
    held = held_by(dataset, split)
    return Scored(
        held,
        split,
        held.examples(split),
        logits,
        _calibrated(calibrators, next(iter(logits.values()))),
        seconds,
        model=config.model,
        title=config.title,
        artifact_id=artifact.id,
        config={"model": config.settings, **config.run},
        in_sample=check_in_sample(artifact, dataset, split, allowed=True),
    )


def _calibrated(calibrators: Sequence[Calibrator | None], logit_NT: FloatArray) -> FloatArray | None:
    """Logits after the calibrators, unchanged for further tasks without one; None if the first task has none."""
    if calibrators[0] is None:
        return None
    columns = zip(calibrators, logit_NT.T, strict=True)
    return np.stack([logit_N if of is None else of.logit(logit_N) for of, logit_N in columns], axis=1)


def check_requirements(model: Model | FittedModel, dataset: Dataset) -> None:
    """Refuse a dataset that lacks what a model needs.

    Raises:
        MismatchError: names all that is missing.
    """
    missing = model.requirements(dataset)
    if missing:
        raise MismatchError("; ".join(missing), fix="choose another model, or prepare the data with what is missing")


def record(scored: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> Result:
    """The result record of given logits: metrics, slices, delays and tasks, under the same resampled users."""
    samples = _samples(scored)
    drawn = bootstrap(samples, resamples=resamples, seed=seed)
    whole = samples["all"]
    grouped = metrics.gauc(whole.label, whole.logit, whole.user)
    manifest, delay = scored.dataset.manifest, next(iter(scored.logits))

    def measured(key: str, names: Sequence[str] = ()) -> dict[str, Any]:
        return estimates(samples[key], drawn[key], names or metrics.metric_names())

    return Result(
        model=scored.model,
        title=scored.title,
        artifact_id=scored.artifact_id,
        data_hash=manifest.data_hash,
        dataset=manifest.name,
        protocol=manifest.protocol,
        negatives=manifest.negatives,
        split=scored.split,
        task=scored.dataset.schema.tasks[0],
        kind=number_kind(scored.dataset),
        delay=delay,
        metrics=measured("all"),
        calibrated=measured("calibrated", CALIBRATION_METRICS) if "calibrated" in samples else None,
        slices=[slice_result(key[6:], samples[key], drawn[key]) for key in samples if key.startswith("slice:")],
        repeats=[slice_result(key, samples[key], drawn[key]) for key in ("repeat", "explore")],
        unseen=slice_result("unseen", samples["unseen"], drawn["unseen"]),
        delays=[DelayResult(delay=int(key[6:]), metrics=measured(key)) for key in samples if key.startswith("delay:")],
        other_tasks={task: measured(f"task:{task}") for task in scored.dataset.schema.tasks[1:]},
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
        config=dict(scored.config),
        in_sample=None if scored.in_sample is None else scored.in_sample.answer,
        in_sample_note="" if scored.in_sample is None else scored.in_sample.why,
    )


def number_kind(dataset: Dataset) -> Kind:
    """What a model's numbers mean: probabilities where labels are logged, scores where negatives are sampled."""
    return "score" if dataset.manifest.base_rate is None else "probability"


def unseen_targets(dataset: Dataset, examples: Examples) -> BoolArray:
    """Which targets have an item that the training vocabulary does not know."""
    number_N = dataset.catalogue.number_VF[examples.row_N, 0]
    unseen: BoolArray = number_N < dataset.vocabularies["item"].first_known
    return unseen


def _samples(scored: Scored) -> dict[str, Sample]:
    first_NT, *later = scored.logits.values()
    whole = scored.sample(first_NT)
    had_N = had_before(scored.dataset, scored.examples)
    samples = {"all": whole, "repeat": whole.take(had_N), "explore": whole.take(~had_N)}
    samples["unseen"] = whole.take(unseen_targets(scored.dataset, scored.examples))
    for name, chosen in metrics.length_slices(scored.examples.position_N).items():
        samples[f"slice:{name}"] = whole.take(chosen)
    if scored.calibrated_NT is not None:
        samples["calibrated"] = scored.sample(scored.calibrated_NT)
    for delay, logit_NT in scored.logits.items() if later else ():
        samples[f"delay:{delay}"] = scored.sample(logit_NT)
    for place, task in enumerate(scored.dataset.schema.tasks[1:], 1):
        samples[f"task:{task}"] = scored.sample(first_NT, task=place)
    return samples
