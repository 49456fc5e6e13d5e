"""The vocabularies of an earlier dataset or artifact; a new dataset keeps their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lifelong.artifact.folder import Artifact
from lifelong.dataset.events import user_context
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import Vocabulary
from lifelong.errors import UsageError


@dataclass(frozen=True, slots=True)
class EarlierDataset:
    """What a new dataset takes over from an earlier dataset or artifact.

    Args:
        folder: where it is.
        origin: `data_hash` of a dataset, `artifact` id of an artifact; kept in the record.
        vocabularies: field -> its vocabulary; also for `event_type` if there are types, and `user.<field>` if there are
            profiles.
    """

    folder: Path
    origin: Mapping[str, str]
    vocabularies: Mapping[str, Vocabulary]

    @classmethod
    def open(cls, folder: Path) -> EarlierDataset:
        """Open a dataset's or an artifact's folder.

        Raises:
            UsageError: it is neither a dataset nor an artifact.
            DatasetError, ArtifactError: it is damaged.
        """
        if (folder / "dataset.json").exists():
            dataset = Dataset(folder)
            schema, origin = dataset.schema, {"data_hash": dataset.manifest.data_hash}
        elif (folder / "manifest.json").exists():
            artifact = Artifact.open(folder, verify="sizes")
            schema, origin = artifact.config.dataset_schema, {"artifact": artifact.id}
        else:
            raise UsageError(
                f"{folder} is neither a dataset nor an artifact",
                expected="a folder that `lifelong prepare` or `lifelong train` wrote",
                fix="check the path of start",
            )
        names = (*schema.item_fields, *["event_type"] * schema.event_types, *map(user_context, schema.user_fields))
        vocabularies = {name: Vocabulary.open(folder / "vocabulary" / name) for name in names}
        return cls(folder, origin, vocabularies)

    def check_fields(self, fields: tuple[str, ...], event_types: bool, user_fields: tuple[str, ...] = ()) -> None:
        """Refuse a log with other fields: no training could continue from one to the other.

        Raises:
            UsageError: the fields differ; names both.
        """
        own = set(self.vocabularies)
        now = {"item", *fields} | ({"event_type"} if event_types else set())
        now |= set(map(user_context, user_fields))
        if own != now:
            raise UsageError(
                f"{self.folder} has the fields {', '.join(sorted(own))}, this log has {', '.join(sorted(now))}",
                expected="equal fields, so that training can continue from an artifact",
                fix="map equal fields, or prepare without a start",
            )
