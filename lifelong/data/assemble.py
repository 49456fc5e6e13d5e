"""The stages of preparation between an opened raw log and a finished folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import ArrayWriter
from lifelong.data.catalogue import FIRST_ROW, Catalogue
from lifelong.data.dataset import FORMAT_VERSION, Manifest, NegativeRule
from lifelong.data.engine import kth_smallest
from lifelong.data.events import Schema
from lifelong.data.examples import SPLITS, Examples, Split
from lifelong.data.histories import Histories
from lifelong.data.negatives import NegativeSampler, row_counts
from lifelong.data.numbering import (
    Numbered,
    check_log,
    id_index,
    number_ids,
    write_event_types,
    write_histories,
    write_impressions,
)
from lifelong.data.prepare import PrepareSettings
from lifelong.data.protocols import Moments, Plan, given, impressions, paper, temporal
from lifelong.data.record import count_events, count_quirks, count_split, unseen
from lifelong.data.sources import RawLog
from lifelong.data.training_vocabulary import build_catalogue, field_vocabulary
from lifelong.data.vocabulary import IdIndex
from lifelong.errors import DataError, UsageError

Progress = Callable[[str], None]
COLUMNS = {"user": np.int32, "row": np.int32, "time": np.int64, "position": np.int32, "label": np.float32}


def assemble(connection: Any, log: RawLog, folder: Path, *, settings: PrepareSettings, progress: Progress) -> Manifest:
    """Write everything of a dataset but its manifest.

    Args:
        connection: Ibis backend that holds the log.
        log: the opened raw log.
        folder: of the dataset; its `work` folder is for what goes afterwards.
        settings: how.
        progress: called at every stage.

    Returns:
        The manifest, still without source and hash.

    Raises:
        UsageError: the protocol or the negatives do not fit this log.
        DataError: the log cannot be prepared so.
    """
    protocol = choose_protocol(log, settings)
    rule = choose_rule(log, protocol, settings)
    work, logged = folder / "work", protocol in ("impressions", "given")
    span = check_log(log)
    progress(f"numbering the users and items of {span['events']:,} events")
    numbered = number_ids(connection, log)
    users = id_index(connection, numbered.users, "user", "user_index")
    if len(users) < 2:
        raise DataError(f"{log.name} holds one user", expected="many users", fix="check which column is the user")
    users.save(folder / "users")
    ids = id_index(connection, numbered.items, "item", "row")
    (folder / "histories").mkdir()
    write_histories(connection, log, numbered, folder / "histories", work, progress)
    if logged:
        write_impressions(connection, log, numbered, work, progress)
    histories = Histories.open(folder / "histories")
    progress("splitting")
    plan = make_plan(log, protocol, settings, histories, folder, numbered, users)
    count_V = plan.training_counts(histories, FIRST_ROW + len(ids))
    progress("building vocabularies from the training period")
    catalogue = build_catalogue(
        numbered.items,
        log.item_fields,
        ids,
        count_V,
        min_count=dict.fromkeys(log.item_fields, settings.field_min_count) | {"item": settings.min_count},
        buckets=settings.buckets_of(),
    )
    save_catalogue(folder, catalogue)
    if log.event_types:
        save_event_types(folder, plan, histories, numbered.types)
    drawn = write_examples(folder, plan, rule, histories, catalogue, progress)
    trained_V = count_V > 0
    splits = {split: count_split(Examples.open(folder / "examples" / split), trained_V) for split in SPLITS}
    for split, found in splits.items():
        if not found["examples"]:
            raise DataError(
                f"the split {split!r} has no target",
                expected="targets in all three splits",
                fix="choose other cuts, another protocol, or check times and event types",
            )
    training = Examples.open(folder / "examples" / "train")
    record = {
        "read": log.record,
        **span,
        **count_quirks(histories, work / "type_code.npy" if log.event_types else None),
        "items_without_events": unseen(row_counts(histories, FIRST_ROW + len(ids))),
        **count_events(histories, plan),
        "splits": splits,
        "negatives": drawn,
        "vocabulary": {
            field: {"known": len(each.index), "buckets": each.buckets} for field, each in catalogue.vocabularies.items()
        },
        "settings": settings.model_dump(mode="json", exclude={"overwrite", "options", "mapping"}),
    }
    counts = {"users": len(users), "events": histories.num_events, "items": len(ids)}
    for split, found in splits.items():
        counts |= {f"{split}_examples": found["examples"], f"{split}_positives": found["positives"]}
    return Manifest(
        format_version=FORMAT_VERSION,
        name=log.name,
        source="",
        protocol=protocol,
        dataset_schema=Schema(
            item_fields=("item", *log.item_fields),
            event_types=log.event_types,
            time_unit=log.time_unit,
            tasks=log.tasks if logged else ("response",),
        ),
        negatives=rule,
        cut_times=plan.cut_times,
        counts=counts,
        base_rate=float(np.mean(training.label_NT[:, 0])) if protocol == "impressions" else None,
        data_hash="",
        record=record,
    )


def choose_protocol(log: RawLog, settings: PrepareSettings) -> Any:
    """The protocol that was named, or the source's own.

    Raises:
        UsageError: the log does not have what it needs.
    """
    protocol = settings.protocol or log.protocol
    if protocol in ("impressions", "given") and log.impressions is None:
        raise UsageError(
            f"{log.name} holds no logged labels, which the protocol {protocol!r} needs",
            expected="temporal or paper",
            fix="--protocol temporal samples negatives instead",
        )
    if protocol == "given" and "split" not in log.impressions.columns:  # type: ignore[union-attr]
        raise UsageError(
            f"{log.name} does not say which impressions are for testing",
            expected="impressions, temporal or paper",
            fix="--protocol impressions cuts by time",
        )
    if protocol in ("temporal", "paper") and log.time_unit == "ordinal" and log.protocol != protocol:
        raise UsageError(
            f"{log.name} has no times, only an order within each user, so the protocol {protocol!r} cannot cut it",
            expected=log.protocol,
            fix=f"--protocol {log.protocol}",
        )
    return protocol


def choose_rule(log: RawLog, protocol: str, settings: PrepareSettings) -> NegativeRule:
    """How negatives are drawn.

    Raises:
        UsageError: the rule does not fit the protocol or the log.
    """
    if protocol in ("impressions", "given"):
        if settings.negatives is not None:
            raise UsageError(
                f"negatives {settings.negatives!r} with the protocol {protocol!r}, whose labels are logged",
                expected="no rule",
                fix="leave out --negatives, or choose --protocol temporal",
            )
        return NegativeRule(rule="none", ratio=0, seed=settings.seed)
    rule = settings.negatives or (None if protocol == "paper" else log.negatives)
    rule = rule or ("uniform" if protocol == "paper" else "popularity")
    if protocol == "paper" and settings.ratio != 1:
        raise UsageError(
            f"ratio {settings.ratio} with the protocol 'paper', which has one example a user",
            expected="ratio 1",
            fix="choose --protocol temporal",
        )
    category = settings.category_field or next((name for name in log.item_fields if "categor" in name.lower()), None)
    if rule == "same_category" and category not in log.item_fields:
        raise UsageError(
            f"negatives of the same category need an item field for it, and found {category!r}",
            expected=f"one of {', '.join(log.item_fields)}" if log.item_fields else "a log with item fields",
            fix="name the field with category_field",
        )
    field = category if rule == "same_category" else None
    return NegativeRule(
        rule=rule, ratio=settings.ratio, seed=settings.seed, category_field=field, stored=protocol == "paper"
    )


def make_plan(
    log: RawLog,
    protocol: str,
    settings: PrepareSettings,
    histories: Histories,
    folder: Path,
    numbered: Numbered,
    users: IdIndex,
) -> Plan:
    """Apply the protocol.

    Raises:
        DataError: it leaves a split empty.
        UsageError: the target types are none of the log's.
    """
    work = folder / "work"
    if protocol == "given":
        return given(histories, work, users.hashes())
    if protocol == "impressions":
        return impressions(histories, work, _cuts(log.impressions, settings))
    moments = Moments(folder / "histories")
    if log.target_types is not None:
        codes = tuple(place for place, value in enumerate(numbered.types) if value in log.target_types)
        moments = Moments(folder / "histories", codes, work / "type_code.npy")
        if not codes:
            raise UsageError(
                f"no event has a target type ({', '.join(log.target_types)})",
                expected=f"some of {', '.join(numbered.types)}",
            )
    if protocol == "paper":
        return paper(moments, histories.num_users)
    return temporal(moments, _cuts(log.events, settings))


def _cuts(table: Any, settings: PrepareSettings) -> tuple[int, int]:
    total = int(table.count().to_pyarrow().as_py())
    first, second = (kth_smallest(table["time"], int(share * total)) for share in settings.cuts)
    return first, second


def save_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Write the catalogue and the vocabularies of its fields."""
    for field, vocabulary in catalogue.vocabularies.items():
        vocabulary.save(folder / "vocabulary" / field)
    catalogue.save(folder / "catalogue")


def save_event_types(folder: Path, plan: Plan, histories: Histories, types: tuple[str, ...]) -> None:
    """Write the vocabulary of event types, and the type of each event in its numbers."""
    code = folder / "work" / "type_code.npy"
    count = plan.training_counts(histories, len(types), values=np.load(code, mmap_mode="r"))
    vocabulary, number = field_vocabulary(
        "event_type", np.arange(len(types)), list(types), count, min_count=1, buckets=0
    )
    vocabulary.save(folder / "vocabulary" / "event_type")
    write_event_types(code, folder / "histories" / "event_type.npy", number)


def write_examples(
    folder: Path, plan: Plan, rule: NegativeRule, histories: Histories, catalogue: Catalogue, progress: Progress
) -> Mapping[str, int]:
    """Write the examples of all splits, with the negatives that are drawn once.

    Returns:
        How many negatives were drawn, and drawn again.
    """
    splits = [split for split in SPLITS if rule.stored or (rule.drawn_in_training and split != "train")]
    samplers = {split: _sampler(plan, rule, histories, catalogue, split) for split in splits}
    # One stream of random numbers per split, so that a split's draws do not depend on the size of another.
    generators = {split: np.random.default_rng([rule.seed, place]) for place, split in enumerate(SPLITS)}
    progress("writing examples" + (f" with {rule.rule} negatives" if samplers else ""))
    written = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_ExampleWriter(folder / "examples" / split)) for split in SPLITS}
        for chunk in plan.targets():
            for split, examples in chunk.items():
                sampler = samplers.get(split)
                if sampler is not None and rule.stored:
                    examples = flip(examples, sampler, generators[split])
                elif sampler is not None:
                    examples = add_negatives(examples, sampler, generators[split])
                writers[split].append(examples)
                written += len(examples)
            progress(f"writing examples: {written:,}")
    return dict(sum((sampler.counted for sampler in samplers.values()), Counter()))


def add_negatives(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """Each positive, then its negatives with label 0."""
    row_NR = np.column_stack([examples.row_N, sampler.draw(examples, rng)])
    each = np.repeat(np.arange(len(examples)), row_NR.shape[1])
    label_NT = np.zeros((row_NR.size, 1), np.float32)
    label_NT[:: row_NR.shape[1]] = 1
    return Examples(
        examples.user_N[each],
        row_NR.reshape(-1).astype(np.int32),
        examples.time_N[each],
        examples.position_N[each],
        label_NT,
    )


def flip(examples: Examples, sampler: NegativeSampler, rng: np.random.Generator) -> Examples:
    """A coin per example: heads, it stays (label 1); tails, another item stands in its place (label 0)."""
    heads_N = rng.integers(0, 2, len(examples)).astype(bool)
    row_N = np.where(heads_N, examples.row_N, sampler.draw(examples, rng)[:, 0]).astype(np.int32)
    return Examples(examples.user_N, row_N, examples.time_N, examples.position_N, heads_N[:, None].astype(np.float32))


def _sampler(
    plan: Plan, rule: NegativeRule, histories: Histories, catalogue: Catalogue, split: Split
) -> NegativeSampler:
    everything = rule.stored and rule.rule == "uniform"
    place = SPLITS.index(split)
    keep = None if everything else lambda user, time: plan.split_of(user, time) == place
    count_V = row_counts(histories, len(catalogue), keep)
    return NegativeSampler.over(histories, count_V, rule, catalogue)


class _ExampleWriter:
    """Appends examples to the files of one split."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._writers: dict[str, ArrayWriter] = {}

    def __enter__(self) -> _ExampleWriter:
        return self

    def append(self, examples: Examples) -> None:
        """Write examples behind the ones that are there."""
        parts: list[npt.NDArray[Any]] = [examples.user_N, examples.row_N, examples.time_N]
        parts += [examples.position_N, examples.label_NT]
        if not self._writers:
            for (name, dtype), values in zip(COLUMNS.items(), parts, strict=True):
                width = values.shape[1] if values.ndim == 2 else 0
                writer = ArrayWriter(self._folder / f"{name}.npy", dtype, width=width)
                self._writers[name] = self._stack.enter_context(writer)
        for writer, values in zip(self._writers.values(), parts, strict=True):
            writer.append(values)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
