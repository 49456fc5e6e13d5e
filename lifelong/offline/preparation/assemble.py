"""The stages of preparation between an opened raw log and a finished folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.events import Schema
from lifelong.dataset.examples import SPLITS, Examples, Split
from lifelong.dataset.folder import FORMAT_VERSION, Manifest, NegativeRule
from lifelong.dataset.histories import Histories
from lifelong.dataset.mapping import TITLE
from lifelong.dataset.negatives import DRAWN, row_counts, training_window
from lifelong.dataset.vocabulary import IdIndex, TextColumn
from lifelong.dtypes import BoolArray, IntArray
from lifelong.errors import DataError, UsageError
from lifelong.offline.preparation.engine import count, kth_smallest
from lifelong.offline.preparation.manifest_counts import (
    count_events,
    count_quirks,
    count_split,
    ordinal_cuts,
    too_small,
)
from lifelong.offline.preparation.numbering import (
    Numbered,
    check_log,
    id_index,
    number_ids,
    write_event_types,
    write_histories,
    write_impressions,
)
from lifelong.offline.preparation.protocols import Moments, Plan, given, impressions, paper, temporal
from lifelong.offline.preparation.settings import (
    Job,
    PrepareSettings,
    Protocol,
    check_fields,
    choose_protocol,
    choose_rule,
)
from lifelong.offline.preparation.sources import RawLog
from lifelong.offline.preparation.stored_examples import write_examples
from lifelong.offline.preparation.training_vocabulary import (
    build_catalogue,
    field_codes,
    field_vocabulary,
    not_numbers,
)
from lifelong.offline.preparation.user_profiles import save_profiles, trained_users

ANY = "any"
"""Name of the task of an event of any type."""


def assemble(job: Job) -> Manifest:
    """Write everything of a dataset but its manifest.

    Returns:
        The manifest, still without source and hash.

    Raises:
        UsageError: the protocol or the negatives do not fit this log.
        DataError: the log cannot be prepared in this way.
    """
    protocol = choose_protocol(job.log, job.settings)
    rule = choose_rule(job.log, protocol, job.settings)
    job = part_of_users(job, protocol, rule)
    span = check_job(job)
    job.progress(f"numbering the users and items of {span['events']:,} events")
    numbered = number_ids(job)
    users, ids = save_users(job, numbered), id_index(job.connection, numbered.items, "item", "row")
    histories = write_events(job, numbered, labelled=rule.rule == "none")
    job.progress("splitting")
    plan = make_plan(job, protocol, histories, numbered.types, users)
    count_V = (
        job.whole.counts(numbered.items, "trained")
        if job.whole
        else plan.training_counts(histories, FIRST_ROW + len(ids))
    )
    if job.whole:
        np.save(job.folder / DRAWN, job.whole.counts(numbered.items, "drawn"))
    job.progress("building vocabularies from the training period")
    catalogue = save_catalogue(job, numbered, ids, count_V)
    profiles = save_training_period(job, numbered, plan, histories)
    drawn = write_examples(job, plan, rule, histories, catalogue)
    numbered_V = catalogue.number_VF[:, 0] >= catalogue.vocabularies["item"].first_known
    splits = count_splits(job.folder, count_V > 0, numbered_V, tasks=job.tasks(rule))
    small, wrong = too_small(splits), not_numbers(numbered.items, catalogue)
    record = {
        "read": job.log.record,
        **span,
        **count_quirks(histories, job.type_code),
        "items_without_events": int((row_counts(histories, FIRST_ROW + len(ids))[FIRST_ROW:] == 0).sum()),
        **count_events(histories, plan),
        "splits": splits,
        **({"too_small": small} if small else {}),
        **({"not_numbers": wrong} if wrong else {}),
        "negatives": drawn,
        **profiles,
        "vocabulary": {
            field: {"known": len(each.index), "buckets": each.buckets} for field, each in catalogue.vocabularies.items()
        },
        **ordinal_cuts(job.log.time_unit, histories, plan),
        **_settings_record(job),
    }
    counts = {"users": len(users), "events": histories.num_events, "items": len(ids)}
    return make_manifest(job, protocol, rule, plan.cut_times, counts, record)


def part_of_users(job: Job, protocol: Protocol, rule: NegativeRule) -> Job:
    """The job with the events of the users whom the settings choose, if they choose some.

    Raises:
        UsageError: the protocol does not fit a part of the users.
    """
    if job.settings.part is None:
        return job
    # Loaded where it is asked for.
    from lifelong.offline.preparation.user_part import take_part

    cuts = job.cut_times or cuts_of(job.log.impressions if protocol == "impressions" else job.log.events, job.settings)
    width = training_window(rule, cuts)
    return take_part(job, protocol, cuts, None if width is None else cuts[0] - width)


def check_job(job: Job) -> dict[str, int]:
    """Check the log and the fields of the settings and of the earlier dataset; count the events.

    Raises:
        UsageError: a setting does not fit this log, or the earlier dataset has other fields.
        DataError: an event lacks something.
    """
    log = job.log
    check_fields(log, job.settings)
    if job.earlier is not None:
        job.earlier.check_fields(log.item_fields, log.event_types, log.user_fields)
    return check_log(log)


def write_events(job: Job, numbered: Numbered, *, labelled: bool) -> Histories:
    """Write the histories, and the impressions where the labels are logged."""
    write_histories(job, numbered)
    if labelled:
        write_impressions(job, numbered)
    return Histories.open(job.folder / "histories")


def save_training_period(job: Job, numbered: Numbered, plan: Plan, histories: Histories) -> dict[str, Any]:
    """Write what comes from the training period besides items: event types, which users are in it, and profiles.

    Returns:
        The part of the record on profiles.
    """
    if job.log.event_types:
        code_N = np.load(job.work / "type_code.npy", mmap_mode="r")
        count = plan.training_counts(histories, len(numbered.types), values=code_N)
        if job.whole:
            count = np.array([job.whole.types[name] for name in numbered.types])
        save_event_types(job, count, numbered.types)
    return {} if job.log.users is None else save_profiles(job, numbered, trained_users(histories, plan))


def _settings_record(job: Job) -> dict[str, Any]:
    """The settings, without those that are unset or recorded elsewhere, and the dataset that numbers were kept from."""
    optional = ("tasks", "vault", "window", "part")
    unset = {name for name in optional if not getattr(job.settings, name)}
    unset |= {"ties"} if job.settings.ties == "hidden" else set()
    left_out = {"overwrite", "options", "mapping", "start", *unset}
    record: dict[str, Any] = {"settings": job.settings.model_dump(mode="json", exclude=left_out)}
    if job.earlier is not None:
        known = {field: len(each.index) for field, each in job.earlier.vocabularies.items()}
        record["from"] = {**job.earlier.origin, "known_before": known}
    return record


def make_manifest(
    job: Job,
    protocol: Protocol,
    rule: NegativeRule,
    cut_times: tuple[int, ...],
    counts: dict[str, int],
    record: dict[str, Any],
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
            tasks=job.tasks(rule),
        ),
        negatives=rule,
        cut_times=cut_times,
        counts=counts,
        # Under the protocol `given` the source may have sampled negatives itself, and then the rate means nothing.
        base_rate=float(np.mean(labels[:, 0])) if protocol == "impressions" else None,
        data_hash="",
        record=record,
    )


def make_plan(job: Job, protocol: Protocol, histories: Histories, types: tuple[str, ...], users: IdIndex) -> Plan:
    """Apply the protocol.

    Raises:
        DataError: it leaves a split empty.
        UsageError: the log has none of the target types.
    """
    log, settings = job.log, job.settings
    if protocol == "given":
        return given(histories, job.work, users.hashes())
    if protocol == "impressions":
        return impressions(histories, job.work, job.cut_times or cuts_of(log.impressions, settings))
    moments = moments_of(job, types)
    if protocol == "paper":
        return paper(moments, histories.num_users)
    return temporal(moments, job.cut_times or cuts_of(log.events, settings))


def moments_of(job: Job, types: tuple[str, ...]) -> Moments:
    """The events that make a target.

    Raises:
        UsageError: the log has none of the target types.
    """
    log, tasks = job.log, task_codes(job.log, job.settings, types)
    seen = job.settings.ties == "seen"
    moments = Moments(job.folder / "histories", None, job.type_code, tasks, ties_seen=seen)
    if log.target_types is None:
        return moments
    codes = tuple(place for place, value in enumerate(types) if value in log.target_types)
    if not codes:
        raise UsageError(
            f"no event has a target type ({', '.join(log.target_types)})",
            expected=f"some of {', '.join(types)}",
            fix="check the spelling of the target types",
        )
    return replace(moments, target_codes=tuple(sorted({*codes, *(code for task in tasks for code in task)})))


def task_codes(log: RawLog, settings: PrepareSettings, types: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Codes of the event types of each task; `any` has all types that make a target.

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


def cuts_of(table: Any, settings: PrepareSettings) -> tuple[int, ...]:
    """The cut times of a table: two, and a third where a share is put aside."""
    total, shares = count(table), (*settings.cuts, *((1 - settings.vault,) if settings.vault else ()))
    return kth_smallest(table["time"], *(int(share * total) for share in shares))


def save_users(job: Job, numbered: Numbered) -> IdIndex:
    """Write the index of users.

    Raises:
        DataError: there is only one user.
    """
    users = id_index(job.connection, numbered.users, "user", "user_index")
    if len(users) < 2:
        raise DataError(f"{job.log.name} holds one user", expected="many users", fix="check which column is the user")
    users.save(job.folder / "users")
    return users


def save_catalogue(job: Job, numbered: Numbered, ids: IdIndex, count_V: IntArray) -> Catalogue:
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
    if job.log.titled:
        codes, values = field_codes(numbered.items, TITLE)
        catalogue.titles = TextColumn.of([*values, ""][code] for code in codes.tolist())
    for field, vocabulary in catalogue.vocabularies.items():
        vocabulary.save(job.folder / "vocabulary" / field)
    catalogue.save(job.folder / "catalogue")
    return catalogue


def save_event_types(job: Job, count: IntArray, types: tuple[str, ...]) -> None:
    """Write the vocabulary of event types, and the number of each event's type.

    Args:
        job: the job.
        count: events of each type in the training period.
        types: in order of their codes.
    """
    code = job.work / "type_code.npy"
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


def count_splits(
    folder: Path, trained_V: BoolArray, numbered_V: BoolArray, *, tasks: tuple[str, ...]
) -> Mapping[Split, dict[str, int]]:
    """Counts of all splits' examples, with the positives of each task where there are several.

    Raises:
        DataError: a split has no example.
    """
    splits = {split: count_split(Examples.open(folder / "examples" / split), trained_V, numbered_V) for split in SPLITS}
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
