"""The vocabularies of an earlier dataset or artifact, whose numbers a new dataset keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.data.dataset import Dataset
from lifelong.data.events import user_context
from lifelong.data.vocabulary import Vocabulary
from lifelong.errors import DatasetError, UsageError


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier dataset or artifact knows.

    Args:
        folder: where it is.
        origin: `data_hash` of a dataset, `artifact` id of an artifact; kept in the record.
        item_fields: names, `item` first.
        vocabularies: field -> its values; `event_type` is among them if there are types, `user.<field>` if there are
            profiles.
        rating_range: see `Schema`.
    """

    folder: Path
    origin: Mapping[str, str]
    item_fields: tuple[str, ...]
    vocabularies: Mapping[str, Vocabulary]
    rating_range: tuple[float, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> Earlier:
        """Open a dataset's or an artifact's folder.

        Raises:
            UsageError: it is neither.
            DatasetError: it is damaged.
        """
        if (folder / "dataset.json").exists():
            dataset = Dataset(folder)
            fields, types = dataset.schema.item_fields, dataset.schema.event_types
            of_users, rated = dataset.schema.user_fields, dataset.schema.rating_range
            origin = {"data_hash": dataset.manifest.data_hash}
        elif (folder / "manifest.json").exists():
            fields, types, of_users, rated, origin = _of_artifact(folder)
        else:
            raise UsageError(
                f"{folder} is neither a dataset nor an artifact",
                expected="a folder that `lifelong prepare` or `lifelong train` wrote",
                fix="check the path after --from",
            )
        names = (*fields, *(("event_type",) if types else ()), *map(user_context, of_users))
        vocabularies = {name: Vocabulary.open(folder / "vocabulary" / name) for name in names}
        return cls(folder, origin, fields, vocabularies, rated)

    def check_fields(self, fields: tuple[str, ...], event_types: bool, user_fields: tuple[str, ...] = ()) -> None:
        """Refuse a log with other fields: no model could go on from the one to the other.

        Raises:
            UsageError: names both.
        """
        own = set(self.vocabularies)
        now = {"item", *fields} | ({"event_type"} if event_types else set())
        now |= set(map(user_context, user_fields))
        if own != now:
            raise UsageError(
                f"{self.folder} has the fields {', '.join(sorted(own))}, this log has {', '.join(sorted(now))}",
                expected="the same fields, so that training can go on from an artifact",
                fix="map the same fields, or prepare without --from",
            )


def _of_artifact(
    folder: Path,
) -> tuple[tuple[str, ...], bool, tuple[str, ...], tuple[float, ...], dict[str, str]]:
    """Item fields, whether there are event types, user fields, range of ratings, and the id.

    Read as plain JSON: data knows no artifacts.
    """
    try:
        schema: dict[str, Any] = json.loads((folder / "config.json").read_text())["dataset_schema"]
        origin = {"artifact": str(json.loads((folder / "manifest.json").read_text())["id"])}
        of_users, rated = tuple(schema.get("user_fields", ())), tuple(schema.get("rating_range", ()))
        return tuple(schema["item_fields"]), bool(schema["event_types"]), of_users, rated, origin
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder} cannot be read as an artifact: {error!r}",
            expected="config.json and manifest.json as `lifelong train` wrote them",
            fix="copy the whole folder again, or prepare without --from",
        ) from error
