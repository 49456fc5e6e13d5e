"""The stages of preparation between an opened raw log and a finished folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.catalogue import FIRST_ROW, Catalogue
from lifelong.data.choices import check_fields, choose_protocol, choose_rule
from lifelong.data.dataset import FORMAT_VERSION, Manifest, NegativeRule
from lifelong.data.earlier import Earlier
from lifelong.data.engine import kth_smallest, materialise
from lifelong.data.events import Schema
from lifelong.data.examples import SPLITS, Examples, Split
from lifelong.data.histories import Histories
from lifelong.data.item_histories import FOLDER as ITEMS
from lifelong.data.item_statistics import FOLDER as STATISTICS
from lifelong.data.negatives import row_counts
from lifelong.data.numbering import (
    Numbered,
    check_log,
    id_index,
    number_ids,
    write_event_types,
    write_histories,
    write_impressions,
    write_item_histories,
)
from lifelong.data.prepare_settings import PrepareSettings, Protocol
from lifelong.data.profiles import save_profiles, trained_users
from lifelong.data.protocols import Moments, Plan, given, impressions, paper, temporal
from lifelong.data.record import count_events, count_quirks, count_split, unseen
from lifelong.data.sources import RawLog
from lifelong.data.stored_examples import write_examples
from lifelong.data.training_vocabulary import build_catalogue, field_vocabulary
from lifelong.data.vocabulary import IdIndex
from lifelong.data.write_statistics import rating_range, write_statistics
from lifelong.errors import DataError, UsageError

ANY = "any"
"""Name of the task of an event of any type."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every stage needs.

    Args:
        connection: Ibis backend that holds the log.
        log: the opened raw log.
        folder: of the dataset; its `work` folder is for what goes afterwards.
        settings: how.
        progress: called at every stage.
        earlier: what an earlier dataset or artifact knows, whose numbers are kept.
    """

    connection: Any
    log: RawLog
    folder: Path
    settings: PrepareSettings
    progress: Callable[[str], None]
    earlier: Earlier | None = None

    @property
    def work(self) -> Path:
        """Files that are deleted at the end."""
        return self.folder / "work"

    @property
    def type_code(self) -> Path | None:
        """Codes of the event types, if the log has them."""
        return self.work / "type_code.npy" if self.log.event_types else None


def assemble(job: Job) -> Manifest:
    """Write everything of a dataset but its manifest.

    Returns:
        The manifest, still without source and hash.

    Raises:
        UsageError: the protocol or the negatives do not fit this log.
        DataError: the log cannot be prepared so.
    """
    log = job.log
    protocol = choose_protocol(log, job.settings)
    rule = choose_rule(log, protocol, job.settings)
    check_fields(log, job.settings)
    if job.earlier is not None:
        job.earlier.check_fields(log.item_fields, log.event_types, log.user_fields)
    span = check_log(log)
    job.progress(f"numbering the users and items of {span['events']:,} events")
    numbered = number_ids(job.connection, log)
    users, ids = save_users(job, numbered), id_index(job.connection, numbered.items, "item", "row")
    (job.folder / "histories").mkdir()
    write_histories(job.connection, log, numbered, job.folder / "histories", job.work, job.progress)
    if job.settings.item_histories:
        write_items(job, numbered)
    if job.settings.item_statistics:
        _require_clock(job, "item_statistics")
    if rule.rule == "none":
        write_impressions(job.connection, log, numbered, job.work, job.progress)
    histories = Histories.open(job.folder / "histories")
    job.progress("splitting")
    plan = make_plan(job, protocol, histories, numbered.types, users)
    count_V = plan.training_counts(histories, FIRST_ROW + len(ids))
    job.progress("building vocabularies from the training period")
    catalogue = save_catalogue(job, numbered, ids, count_V)
    if log.event_types:
        save_event_types(job, plan, histories, numbered.types)
    if job.settings.item_histories:
        np.save(job.folder / ITEMS / "trained.npy", trained_users(histories, plan) > 0)
    profiles = write_profiles(job, numbered, plan, histories) if log.users is not None else {}
    rated = save_statistics(job, numbered, plan.cut_times) if job.settings.item_statistics else ()
    drawn = write_examples(job.folder, plan, rule, histories, catalogue, job.progress)
    tasks = (job.settings.tasks or ()) if rule.rule != "none" else log.tasks
    splits = count_splits(job.folder, count_V > 0, tasks=tasks)
    record = {
        "read": log.record,
        **span,
        **count_quirks(histories, job.type_code),
        "items_without_events": unseen(row_counts(histories, FIRST_ROW + len(ids))),
        **count_events(histories, plan),
        "splits": splits,
        "negatives": drawn,
        **profiles,
        "vocabulary": {
            field: {"known": len(each.index), "buckets": each.buckets} for field, each in catalogue.vocabularies.items()
        },
        "settings": job.settings.model_dump(
            mode="json", exclude={"overwrite", "options", "mapping", "start", *_unset(job.settings)}
        ),
    }
    if job.earlier is not None:
        record["from"] = {
            **job.earlier.origin,
            "known_before": {field: len(each.index) for field, each in job.earlier.vocabularies.items()},
        }
    counts = {"users": len(users), "events": histories.num_events, "items": len(ids)}
    return make_manifest(job, protocol, rule, plan.cut_times, counts, record, rated=rated)


def _unset(settings: PrepareSettings) -> tuple[str, ...]:
    return tuple(name for name in ("tasks", "item_histories", "item_statistics") if not getattr(settings, name))


def make_manifest(
    job: Job,
    protocol: Protocol,
    rule: NegativeRule,
    cut_times: tuple[int, ...],
    counts: dict[str, int],
    record: dict[str, Any],
    *,
    rated: tuple[float, ...] = (),
) -> Manifest:
    """The manifest, still without source and hash."""
    log, labels = job.log, Examples.open(job.folder / "examples" / "train").label_NT
    for split, found in record["splits"].items():
        counts = counts | {f"{split}_examples": found["examples"], f"{split}_positives": found["positives"]}
    return Manifest(
        format_version=FORMAT_VERSION,
        name=log.name,
        source="",
        protocol=protocol,
        dataset_schema=Schema(
            item_fields=("item", *log.item_fields),
            event_types=log.event_types,
            time_unit=log.time_unit,
            user_fields=log.user_fields,
            number_fields=log.number_fields,
            tasks=log.tasks if rule.rule == "none" else job.settings.tasks or ("response",),
            grades=log.grades if rule.rule == "none" else (),
            item_statistics=job.settings.item_statistics,
            rating_range=rated,
        ),
        negatives=rule,
        cut_times=cut_times,
        counts=counts,
        # Under the given protocol the source may have sampled its negatives itself, so that the rate says nothing.
        base_rate=float(np.mean(labels[:, 0])) if protocol == "impressions" else None,
        data_hash="",
        record=record,
    )


def make_plan(job: Job, protocol: Protocol, histories: Histories, types: tuple[str, ...], users: IdIndex) -> Plan:
    """Apply the protocol.

    Raises:
        DataError: it leaves a split empty.
        UsageError: the target types are none of the log's.
    """
    log, settings = job.log, job.settings
    if protocol == "given":
        return given(histories, job.work, users.hashes())
    if protocol == "impressions":
        return impressions(histories, job.work, _cuts(log.impressions, settings))
    tasks = task_codes(log, settings, types)
    moments = Moments(job.folder / "histories", None, job.type_code, tasks)
    if log.target_types is not None:
        codes = tuple(place for place, value in enumerate(types) if value in log.target_types)
        codes = tuple(sorted({*codes, *(code for task in tasks for code in task)})) if codes else codes
        moments = Moments(job.folder / "histories", codes, job.type_code, tasks)
        if not codes:
            raise UsageError(
                f"no event has a target type ({', '.join(log.target_types)})", expected=f"some of {', '.join(types)}"
            )
    if protocol == "paper":
        return paper(moments, histories.num_users)
    return temporal(moments, _cuts(log.events, settings))


def task_codes(log: RawLog, settings: PrepareSettings, types: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Codes of the event types of each task; `any` has all of them that make a target.

    Raises:
        UsageError: the log has no such type.
    """
    if settings.tasks is None:
        return ()
    unknown = [task for task in settings.tasks if task not in (ANY, *types)]
    if unknown:
        raise UsageError(
            f"tasks {', '.join(unknown)}, and no event of {log.name} has such a type",
            expected=f"some of {', '.join([ANY, *types])}",
            fix="name event types of this log",
        )
    named = {*settings.tasks, *(log.target_types or types)}
    any_type = tuple(place for place, value in enumerate(types) if value in named)
    return tuple(any_type if task == ANY else (types.index(task),) for task in settings.tasks)


def _cuts(table: Any, settings: PrepareSettings) -> tuple[int, int]:
    total = int(table.count().to_pyarrow().as_py())
    first, second = (kth_smallest(table["time"], int(share * total)) for share in settings.cuts)
    return first, second


def save_users(job: Job, numbered: Numbered) -> IdIndex:
    """Write the index of users.

    Raises:
        DataError: there is one user only.
    """
    users = id_index(job.connection, numbered.users, "user", "user_index")
    if len(users) < 2:
        raise DataError(f"{job.log.name} holds one user", expected="many users", fix="check which column is the user")
    users.save(job.folder / "users")
    return users


def save_catalogue(job: Job, numbered: Numbered, ids: IdIndex, count_V: npt.NDArray[np.int64]) -> Catalogue:
    """Write the catalogue and the vocabularies of its fields.

    Args:
        job: the job.
        numbered: tables of ids.
        ids: of the items, in order of their rows.
        count_V: events of each row in the training period.
    """
    fields, settings = job.log.item_fields, job.settings
    catalogue = build_catalogue(
        numbered.items,
        fields,
        ids,
        count_V,
        min_count=dict.fromkeys(fields, settings.field_min_count) | {"item": settings.min_count},
        buckets=settings.buckets_of(),
        earlier=None if job.earlier is None else job.earlier.vocabularies,
        scales=job.log.number_fields,
    )
    for field, vocabulary in catalogue.vocabularies.items():
        vocabulary.save(job.folder / "vocabulary" / field)
    catalogue.save(job.folder / "catalogue")
    return catalogue


def write_items(job: Job, numbered: Numbered) -> None:
    """Write the histories of items, but for the numbers of event types and who is in training.

    Raises:
        UsageError: the log counts each user's events for herself, so that those of several users have no order.
    """
    _require_clock(job, "item_histories")
    (job.folder / ITEMS).mkdir()
    write_item_histories(job.connection, job.log, numbered, job.folder / ITEMS, job.work, job.progress)


def save_statistics(job: Job, numbered: Numbered, cut_times: tuple[int, ...]) -> tuple[float, ...]:
    """Write the statistics of items.

    Returns:
        Lowest and highest rating of the training period, or those of the earlier dataset; () without ratings.
    """
    first_cut = cut_times[0] if cut_times else None
    rated = rating_range(job.log, first_cut)
    if rated and job.earlier is not None and job.earlier.rating_range:
        rated = job.earlier.rating_range
    folder = job.folder / STATISTICS
    write_statistics(job.connection, job.log, numbered, folder, rated=bool(rated), progress=job.progress)
    return rated


def _require_clock(job: Job, setting: str) -> None:
    """Refuse a setting that takes events of different users together where their times tell no order.

    Raises:
        UsageError: the log counts each user's events for herself.
    """
    if job.log.time_unit != "seconds":
        raise UsageError(
            f"the events of {job.log.name} have no clock times, so those of different users have no order",
            expected=f"times in seconds for {setting}",
            fix=f"leave out {setting}",
        )


def write_profiles(job: Job, numbered: Numbered, plan: Plan, histories: Histories) -> dict[str, Any]:
    """Write the users' profiles; what the record says of them.

    Raises:
        DataError: the table of users names one twice.
    """
    log, before = job.log, {} if job.earlier is None else job.earlier.vocabularies
    assert log.users is not None
    table = numbered.users.left_join(log.users.select("user", *log.user_fields), "user")
    table = materialise(job.connection, "lifelong_profiles", table.select("user_index", *log.user_fields))
    if int(table.count().to_pyarrow().as_py()) != histories.num_users:
        raise DataError("the table of users names a user twice", expected="one row per user")
    trained_U, min_count = trained_users(histories, plan), job.settings.field_min_count
    return save_profiles(table, log.user_fields, job.folder, trained_U, min_count=min_count, earlier=before)


def save_event_types(job: Job, plan: Plan, histories: Histories, types: tuple[str, ...]) -> None:
    """Write the vocabulary of event types, and the type of each event in its numbers."""
    code = job.work / "type_code.npy"
    count = plan.training_counts(histories, len(types), values=np.load(code, mmap_mode="r"))
    vocabulary, number = field_vocabulary(
        "event_type",
        np.arange(len(types)),
        list(types),
        count,
        min_count=1,
        buckets=0,
        earlier=None if job.earlier is None else job.earlier.vocabularies["event_type"],
    )
    vocabulary.save(job.folder / "vocabulary" / "event_type")
    write_event_types(code, job.folder / "histories" / "event_type.npy", number)
    if job.settings.item_histories:
        write_event_types(job.work / "item_type_code.npy", job.folder / ITEMS / "event_type.npy", number)


def count_splits(
    folder: Path, trained_V: npt.NDArray[np.bool_], *, tasks: tuple[str, ...]
) -> Mapping[Split, dict[str, int]]:
    """Counts of all splits' examples, with the positives of each task where there are several.

    Raises:
        DataError: a split has none.
    """
    splits = {split: count_split(Examples.open(folder / "examples" / split), trained_V) for split in SPLITS}
    for split, found in splits.items():
        if len(tasks) > 1:
            label_NT = Examples.open(folder / "examples" / split).label_NT
            found |= {f"positives_{task}": int((label_NT[:, at] > 0).sum()) for at, task in enumerate(tasks)}
        if not found["examples"]:
            raise DataError(
                f"the split {split!r} has no target",
                expected="targets in all three splits",
                fix="choose other cuts, another protocol, or check times and event types",
            )
    return splits
