"""What is known of users besides their events, such as an age group or a region: one category per user and field.

PROFILE of a dataset
  profile.npy                  int32 [U, F], a row per user in the order of the histories
  vocabulary/user.<field>/     values that users with events in the training period have

A profile is what the source's table says, at whatever time it was made. A field that changes with the user's events
(such as the number of purchases) would reveal later events, and does not belong here. An artifact takes the
vocabularies but not the rows: online a profile comes with each request, and no store keeps it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lifelong.dataset.arrays import event_chunks
from lifelong.dataset.events import user_context
from lifelong.dataset.folder import PROFILE
from lifelong.dataset.histories import Histories
from lifelong.dataset.vocabulary import UNKNOWN, Vocabulary
from lifelong.dtypes import IntArray
from lifelong.errors import DataError
from lifelong.offline.preparation.engine import count, materialise
from lifelong.offline.preparation.numbering import Numbered
from lifelong.offline.preparation.protocols import Plan
from lifelong.offline.preparation.settings import Job
from lifelong.offline.preparation.training_vocabulary import field_codes, field_vocabulary


def save_profiles(job: Job, numbered: Numbered, trained_U: IntArray) -> dict[str, Any]:
    """Write the profiles of all users, and their vocabularies.

    Args:
        job: its log has a table of users. A value that fewer than `field_min_count` users in training have is unknown.
        numbered: tables of ids.
        trained_U: 1 where a user has events in the training period.

    Returns:
        For the record: the number of users without any value, and of known values of each field.

    Raises:
        DataError: the table of users names a user twice.
    """
    log, fields, earlier = job.log, job.log.user_fields, {} if job.earlier is None else job.earlier.vocabularies
    assert log.users is not None
    table = numbered.users.left_join(log.users.select("user", *fields), "user").select("user_index", *fields)
    table = materialise(job.connection, "lifelong_profiles", table)
    if count(table) != len(trained_U):
        raise DataError(
            "the table of users names a user twice",
            expected="one row per user",
            fix="remove the other rows of the user",
        )
    number_UF = np.full((len(trained_U), len(fields)), UNKNOWN, np.int32)
    record: dict[str, Any] = {}
    for column, field in enumerate(fields):
        name = user_context(field)
        codes, values = field_codes(table, field, order="user_index")
        how: dict[str, Any] = {"min_count": job.settings.field_min_count, "buckets": 0, "earlier": earlier.get(name)}
        if job.whole is None:
            vocabulary, of_value = field_vocabulary(name, codes, values, trained_U, **how)
        else:
            vocabulary, of_value = _of_whole(name, job.whole.profiles, field, values, **how)
        number_UF[:, column] = np.append(of_value, UNKNOWN)[codes]
        vocabulary.save(job.folder / "vocabulary" / name)
        record[field] = len(vocabulary.index)
    np.save(job.folder / PROFILE, number_UF)
    return {"users_without_profile": int((number_UF == UNKNOWN).all(axis=1).sum()), "user_fields": record}


def _of_whole(name: str, profiles: Any, field: str, values: list[str], **how: Any) -> tuple[Vocabulary, IntArray]:
    """The vocabulary of the users of the whole log, and the numbers of a part's values."""
    codes, known = field_codes(profiles, field, order="user")
    vocabulary, _ = field_vocabulary(name, codes, known, np.ones(len(codes), np.int64), **how)
    return vocabulary, vocabulary.numbers(values)


def trained_users(histories: Histories, plan: Plan) -> IntArray:
    """1 for each user with an event in the training period, else 0."""
    found_U = np.zeros(histories.num_users, np.int64)
    for user_N, events in event_chunks(np.asarray(histories.offset_U)):
        split_N = plan.split_of(user_N, np.asarray(histories.time_N[events]))
        found_U[user_N[split_N == 0]] = 1
    return found_U
