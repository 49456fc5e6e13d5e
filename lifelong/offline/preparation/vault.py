"""A part of the log that is put aside before anything is made of it: the split after test.

    log --put_aside--> outside (before the cut) --assemble--> DATA         as if the log had ended there
                       whole log --with DATA's numbers------> DATA/vault   histories to the end, and the vault's targets

Nothing in DATA comes from what is put aside but the cut times: neither ids nor counts, vocabularies, fields of items or
negatives. DATA/vault is a dataset of its own, as a log that has grown is one.

Where a protocol cuts by time (temporal, impressions), what happens from the last cut time on is put aside; where it
does not (paper, given), some users with all they did: those with the latest last target, or of the users given for
testing those with the smallest id hashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lifelong.dataset.catalogue import FIRST_ROW, Catalogue
from lifelong.dataset.examples import SPLITS, VAULT, Examples
from lifelong.dataset.folder import Dataset, Manifest, VaultEntry, array_hash, write_manifest
from lifelong.dataset.histories import Histories
from lifelong.dataset.vocabulary import IdIndex
from lifelong.errors import DataError, UsageError
from lifelong.offline.preparation.assemble import (
    ANY,
    cuts_of,
    moments_of,
    part_of_users,
    save_catalogue,
    save_event_types,
    save_users,
    write_events,
)
from lifelong.offline.preparation.earlier_dataset import EarlierDataset
from lifelong.offline.preparation.engine import stage
from lifelong.offline.preparation.manifest_counts import too_small
from lifelong.offline.preparation.numbering import Numbered, id_index, number_ids
from lifelong.offline.preparation.protocols import (
    PERIODS,
    Plan,
    given_for_testing,
    impressions,
    last_targets,
    of_users,
    temporal,
)
from lifelong.offline.preparation.settings import Job, PrepareSettings, choose_protocol
from lifelong.offline.preparation.sources import RawLog
from lifelong.offline.preparation.stored_examples import write_examples
from lifelong.offline.preparation.user_profiles import save_profiles


@dataclass(frozen=True, slots=True)
class Aside:
    """What is put aside of a log.

    Args:
        cut_times: of a protocol that cuts by time, the last one of them the vault's; () of another.
        users: ids of the users who are put aside, where no time decides.
    """

    cut_times: tuple[int, ...] = ()
    users: tuple[str, ...] = ()


def put_aside(connection: Any, log: RawLog, settings: PrepareSettings) -> tuple[Aside, RawLog]:
    """Decide what is put aside.

    Args:
        connection: of the engine.
        log: opened, and labelled by its ratings where it is asked for.
        settings: their `vault` is not 0.

    Returns:
        What is put aside, and the log without it.

    Raises:
        DataError: two cut times are equal, or too few users are left.
        UsageError: the vault leaves no room for test, or the protocol does not fit the log.
    """
    protocol = choose_protocol(log, settings)
    if protocol in ("temporal", "impressions"):
        if settings.cuts[1] >= 1 - settings.vault:
            raise UsageError(
                f"test begins at {settings.cuts[1]:g} of the events, and the vault at {1 - settings.vault:g}",
                expected="a vault after test",
                fix="choose a smaller vault or an earlier second cut",
            )
        cuts = cuts_of(log.events if protocol == "temporal" else log.impressions, settings)
        if cuts[1] >= cuts[2]:
            raise DataError(
                f"the cut times before test and before the vault are both {cuts[1]}, so test would be empty",
                expected="targets at enough different times",
                fix="choose a smaller vault or other cuts",
            )
        return Aside(cuts), within(log, lambda table: table.filter(table["time"] < cuts[2]))
    chosen = _latest(log, settings) if protocol == "paper" else _given(log, settings)
    import pyarrow as pa

    table = pa.table({"user": pa.array(chosen, pa.string())})
    staged = stage(connection, [table], table.schema)
    return Aside(users=tuple(chosen)), within(log, lambda rows: rows.anti_join(staged, "user"))


def within(log: RawLog, keep: Any) -> RawLog:
    """A part of a log.

    Args:
        log: whole.
        keep: leaves some rows of a table with the columns `user` and `time`.
    """
    return replace(
        log,
        events=keep(log.events),
        impressions=None if log.impressions is None else keep(log.impressions),
        ratings=None if log.ratings is None else keep(log.ratings),
        items=log.items if log.items_within is None else log.items_within(keep),
    )


def _latest(log: RawLog, settings: PrepareSettings) -> list[str]:
    """The users with the latest last target."""
    targets = log.events
    if log.target_types is not None:
        # Tasks may name types that are no targets otherwise; ANY stands for all of them and names none.
        wanted = {*log.target_types, *(task for task in settings.tasks or () if task != ANY)}
        targets = targets.filter(targets["event_type"].isin(sorted(wanted)))
    last_of_users = targets.group_by("user").aggregate(last=targets["time"].max()).to_pyarrow()
    last_U = last_of_users.column("last").to_numpy()
    cut = np.sort(last_U)[int((1 - settings.vault) * len(last_U))] if len(last_U) else 0
    # At the cut, too: users of one time are not told apart by chance.
    chosen_U = last_U >= cut
    if (~chosen_U).sum() < len(SPLITS):
        raise DataError(
            f"{int(chosen_U.sum())} of {len(last_U)} users have their last target at {cut} or later",
            expected="more users, with earlier ones",
            fix="choose another share for the vault, or protocol=temporal",
        )
    users: list[str] = last_of_users.column("user").filter(chosen_U.tolist()).to_pylist()
    return sorted(users)


def _given(log: RawLog, settings: PrepareSettings) -> list[str]:
    """Of the users given for testing those with the smallest id hashes, as many as the share is of all users."""
    shown = log.impressions
    assert shown is not None
    every = shown.group_by("user").aggregate(tested=(shown["split"] == "test").any()).to_pyarrow()
    tested = IdIndex.build(sorted(every.filter(every.column("tested")).column("user").to_pylist()))
    # A share of all users, as under the paper's protocol, and not of those that are given for testing.
    number = max(int(settings.vault * len(every)), 1)
    if number >= len(tested):
        raise DataError(
            f"{settings.vault:g} of all users would be {number}, and {len(tested)} users are given for testing",
            expected="fewer than those",
            fix="choose a smaller vault",
        )
    order_U = np.argsort(tested.hashes(), kind="stable")[:number]
    return sorted(np.array(tested.ids(), object)[order_U].tolist())


def assemble_vault(job: Job, main: Dataset, aside: Aside) -> VaultEntry:
    """Write the dataset of the whole log, with only the examples that were put aside.

    Args:
        job: of the whole log; its folder is that of the vault.
        main: the finished dataset of the rest; its numbers are kept.
        aside: what was put aside.

    Raises:
        DataError: nothing was put aside.
    """
    job.progress(f"the vault: numbering what was put aside ({job.settings.vault:g})")
    job = replace(job, earlier=EarlierDataset.open(main.folder))
    rule = main.manifest.negatives
    job = part_of_users(replace(job, cut_times=aside.cut_times), main.manifest.protocol, rule)
    numbered = number_ids(job)
    users, ids = save_users(job, numbered), id_index(job.connection, numbered.items, "item", "row")
    histories = write_events(job, numbered, labelled=rule.rule == "none")
    # No value is counted, so that only those that the rest of the log has known keep a number of their own.
    catalogue = save_catalogue(job, numbered, ids, np.zeros(FIRST_ROW + len(ids), np.int64))
    if job.log.event_types:
        save_event_types(job, np.zeros(len(numbered.types), np.int64), numbered.types)
    if job.log.users is not None:
        save_profiles(job, numbered, np.zeros(len(users), np.int64))
    return _write_examples(job, main, _plan(job, main, aside, histories, numbered, users), histories, catalogue, aside)


def _plan(job: Job, main: Dataset, aside: Aside, histories: Histories, numbered: Numbered, users: IdIndex) -> Plan:
    protocol = main.manifest.protocol
    if protocol == "impressions":
        return impressions(histories, job.work, aside.cut_times)
    if protocol == "temporal":
        return temporal(moments_of(job, numbered.types), aside.cut_times)
    chosen_U = np.zeros(len(users), bool)
    chosen_U[users.find(aside.users)] = True
    if protocol == "paper":
        return of_users(lambda: last_targets(moments_of(job, numbered.types)), chosen_U)
    return of_users(lambda: given_for_testing(histories, job.work), chosen_U)


def _small(counts: Mapping[str, int], examples: Examples) -> dict[str, Any]:
    """The caution for the record if nothing can be concluded from the vault."""
    sizes = {"examples": counts["vault_examples"], "positives": counts["vault_positives"]}
    cautions = too_small({VAULT: {**sizes, "users": len(np.unique(examples.user_N))}})
    return {"too_small": cautions} if cautions else {}


def _write_examples(
    job: Job, main: Dataset, plan: Plan, histories: Histories, catalogue: Catalogue, aside: Aside
) -> VaultEntry:
    """Write examples and manifest."""
    # Some models read a user's logged answers of earlier splits; drawn negatives are nobody's answers.
    splits = PERIODS if main.manifest.negatives.rule == "none" and aside.cut_times else (VAULT,)
    drawn = write_examples(job, plan, main.manifest.negatives, histories, catalogue, splits=splits)
    examples = Examples.open(job.folder / "examples" / VAULT)
    if not len(examples):
        raise DataError(
            "the vault has no target",
            expected="targets in all splits",
            fix="choose another share for the vault, other cuts, or check times and event types",
        )
    counts = {
        "users": histories.num_users,
        "events": histories.num_events,
        "items": len(catalogue.ids),
        "vault_examples": len(examples),
        "vault_positives": int((examples.label_NT[:, 0] > 0).sum()),
    }
    entry = VaultEntry(
        share=job.settings.vault,
        start=aside.cut_times[-1] if aside.cut_times else None,
        users=None if aside.cut_times else len(aside.users),
        examples=counts["vault_examples"],
        positives=counts["vault_positives"],
        data_hash="",
    )
    # Before the hash: intermediate files are no part of the data.
    shutil.rmtree(job.work)
    entry = entry.model_copy(update={"data_hash": array_hash(job.folder)})
    manifest: Manifest = main.manifest.model_copy(
        update={
            "counts": counts,
            "data_hash": entry.data_hash,
            "record": {"negatives": drawn, **_small(counts, examples)},
        }
    )
    write_manifest(job.folder, manifest)
    return entry
