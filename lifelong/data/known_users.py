"""Who the users of a training were, for a model with a vector of each: hash of the id -> number and profile.

    FOLDER/  hash.npy  uint64 [U], ascending      number.npy  int32 [U]      profile.npy  int32 [U, F]

Ids are not kept. Whoever has an id finds its number; from a hash alone an id is found by trying ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifelong.data.vocabulary import UNKNOWN
from lifelong.errors import DatasetError

if TYPE_CHECKING:
    from lifelong.data.dataset import Dataset

IntArray = npt.NDArray[np.int64]
_PARTS = {"hash": np.uint64, "number": np.int32, "profile": np.int32}


@dataclass(frozen=True, slots=True)
class KnownUsers:
    """The users of a training.

    Args:
        hash_U: of their ids, ascending.
        number_U: by which the model knows them.
        profile_UF: numbers of the fields of their profiles.
    """

    hash_U: npt.NDArray[np.uint64]
    number_U: npt.NDArray[np.int32]
    profile_UF: npt.NDArray[np.int32]

    @classmethod
    def of(cls, dataset: Dataset) -> KnownUsers:
        """Those of a dataset who have an event in the training period."""
        index_U = np.flatnonzero(dataset.item_histories.trained_U)
        hash_U = _hashes([dataset.users.id_at(int(index)) for index in index_U])
        order_U = np.argsort(hash_U)
        index_U = index_U[order_U]
        number_U = dataset.item_histories.numbers(index_U).astype(np.int32)
        return cls(hash_U[order_U], number_U, np.asarray(dataset.profile_UF, np.int32)[index_U])

    @classmethod
    def open(cls, folder: Path, fields: int) -> KnownUsers:
        """Map saved ones.

        Args:
            folder: where `save` wrote them.
            fields: of a profile.

        Raises:
            DatasetError: a file is missing or of another type or size.
        """
        parts = {}
        for name, dtype in _PARTS.items():
            path = folder / f"{name}.npy"
            try:
                parts[name] = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise DatasetError(f"{path} cannot be read: {error}") from error
            wanted = (len(parts["hash"]), fields) if name == "profile" else (len(parts["hash"]),)
            if parts[name].dtype != dtype or parts[name].shape != wanted:
                raise DatasetError(f"{path} holds {parts[name].dtype} {parts[name].shape}", expected=str(wanted))
        return cls(parts["hash"], parts["number"], parts["profile"])

    def save(self, folder: Path) -> None:
        """Write one file per array."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "hash.npy", self.hash_U)
        np.save(folder / "number.npy", self.number_U)
        np.save(folder / "profile.npy", self.profile_UF)

    def numbers(self, users: Sequence[str]) -> IntArray:
        """Number and profile of each user `[N, 1 + F]`; all of it unknown of whoever was not in training."""
        number_NF = np.full((len(users), 1 + self.profile_UF.shape[1]), UNKNOWN, np.int64)
        hash_N = _hashes(users)
        place_N = np.searchsorted(self.hash_U, hash_N)
        known_N = place_N < len(self.hash_U)
        known_N[known_N] = self.hash_U[place_N[known_N]] == hash_N[known_N]
        place_N = place_N[known_N]
        number_NF[known_N] = np.concatenate([self.number_U[place_N, None], self.profile_UF[place_N]], axis=1)
        return number_NF


def _hashes(users: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits of BLAKE2b of each id."""
    whole = b"".join(hashlib.blake2b(user.encode(), digest_size=8).digest() for user in users)
    return np.frombuffer(whole, np.uint64)
