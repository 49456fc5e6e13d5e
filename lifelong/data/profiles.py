"""What is known of users beside their events: an age group, a region. Categories, one value a user and field.

PROFILE of a dataset
  profile.npy                  int32 [U, F], a row per user in the order of the histories
  vocabulary/user.<field>/     values that users with events in the training period have

A profile is what the source's table says, whenever it was asked; a field that changes with what the user does (such as
her number of purchases) would tell of later events, and does not belong here. An artifact takes the vocabularies and
not the rows: online a profile comes with each request, and no store keeps it. A model with a side of items reads those
of an item's users, too: its artifact has the rows of the users of the training (`known_users`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.data.arrays import user_chunks
from lifelong.data.dataset import PROFILE
from lifelong.data.events import user_context
from lifelong.data.histories import Histories
from lifelong.data.protocols import Plan
from lifelong.data.training_vocabulary import field_codes, field_vocabulary
from lifelong.data.vocabulary import UNKNOWN, Vocabulary

IntArray = npt.NDArray[np.int64]


def save_profiles(
    table: Any,
    fields: Sequence[str],
    folder: Path,
    trained_U: IntArray,
    *,
    min_count: int,
    earlier: Mapping[str, Vocabulary],
) -> dict[str, Any]:
    """Write the profiles of all users, and their vocabularies.

    Args:
        table: Ibis table `user_index` and the fields, one row per user.
        fields: names.
        folder: of the dataset.
        trained_U: 1 where a user has events in the training period.
        min_count: a value of fewer such users is unknown.
        earlier: `user.<field>` -> known values that keep their numbers.

    Returns:
        For the record: users without any value, and known values of each field.
    """
    number_UF = np.full((len(trained_U), len(fields)), UNKNOWN, np.int32)
    record: dict[str, Any] = {}
    for column, field in enumerate(fields):
        name = user_context(field)
        codes, values = field_codes(table, field, order="user_index")
        vocabulary, of_value = field_vocabulary(
            name, codes, values, trained_U, min_count=min_count, buckets=0, earlier=earlier.get(name)
        )
        number_UF[:, column] = np.append(of_value, UNKNOWN)[codes]
        vocabulary.save(folder / "vocabulary" / name)
        record[field] = len(vocabulary.index)
    np.save(folder / PROFILE, number_UF)
    return {"users_without_profile": int((number_UF == UNKNOWN).all(axis=1).sum()), "user_fields": record}


def trained_users(histories: Histories, plan: Plan) -> IntArray:
    """1 for each user with an event in the training period, else 0."""
    found_U = np.zeros(histories.num_users, np.int64)
    offset_U = np.asarray(histories.offset_U)
    for first, last in user_chunks(offset_U):
        user_N = np.repeat(np.arange(first, last), np.diff(offset_U[first : last + 1]))
        split_N = plan.split_of(user_N, np.asarray(histories.time_N[offset_U[first] : offset_U[last]]))
        found_U[user_N[split_N == 0]] = 1
    return found_U
