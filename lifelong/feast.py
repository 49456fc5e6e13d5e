"""The features of a memory in Feast: read online from a running service, and joined point in time from parquet.

    feast.get_online_features     --LifelongOnlineStore--> GET /v1/users/{user}/features?items=...     `lifelong serve`
    feast.get_historical_features --FileSource-----------> what `export` wrote, a row for each example

In `feature_store.yaml`:

    online_store: {type: lifelong.feast.LifelongOnlineStore, service: "http://127.0.0.1:8000"}
    entity_key_serialization_version: 3

Memories are written by events and not by `feast materialize`, which is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.repo_config import FeastConfigBaseModel
from feast.type_map import python_values_to_proto_values
from feast.types import Float64, Int64

from lifelong.atomic import write_whole
from lifelong.cli.remote import Remote
from lifelong.dataset.examples import Split
from lifelong.errors import UsageError, require
from lifelong.online.opening import AnyArtifact, AnyDataset
from lifelong.online.scoring.features import export_features

USER, ITEM, TIME = "user", "item", "event_timestamp"
_KEYS = ("example", USER, ITEM, "time", TIME)
_ITEMS = 100
"""Candidates of one request, so that its address stays short."""


def export(artifact: AnyArtifact, dataset: AnyDataset, out: Path | str, *, split: Split = "train") -> int:
    """Write what `lifelong.export_features` writes, with `event_timestamp` as Feast reads times; counts the rows.

    Args:
        artifact: of a model that is served, or its folder.
        dataset: with the fields and vocabularies of training, or its folder.
        out: `.parquet`; it appears when it is complete.
        split: train, validation or test.

    Raises:
        ArtifactError: the model cannot be served, and why.
        MismatchError: the dataset does not fit the model.
        UsageError: `out` is no parquet file, or there is no such split.
    """
    arrow = require("pyarrow", extra="train", purpose="writing parquet")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet")
    path, rows = Path(out), export_features(artifact, dataset, out, split=split)
    table = parquet.read_table(path)
    time = table["time"].cast(arrow.timestamp("s", tz="UTC")).cast(arrow.timestamp("us", tz="UTC"))
    with write_whole(path) as draft:
        parquet.write_table(table.append_column(TIME, time), draft)
    return rows


def feature_view(path: Path | str, *, name: str = "memory", ttl: timedelta | None = None) -> Any:
    """A `feast.FeatureView` of the entities `user` and `item`, for `apply`.

    Args:
        path: of what `export` wrote; its columns are the features.
        name: of the view.
        ttl: how old a row may be that a time is joined with; None for any age.
    """
    schema = require("pyarrow.parquet", extra="train", purpose="reading parquet").read_schema(path)
    columns = [field for field in schema if field.name not in _KEYS and not field.name.startswith("label")]
    return FeatureView(
        name=name,
        entities=[Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in (USER, ITEM)],
        ttl=ttl,
        schema=[Field(name=column.name, dtype=Int64 if str(column.type) == "int64" else Float64) for column in columns],
        source=FileSource(path=str(Path(path).resolve()), timestamp_field=TIME),
    )


class LifelongOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """The part `online_store` of `feature_store.yaml`.

    Args:
        service: address of a `lifelong serve`.
        key_file: file with a key of that service; None for a service without keys.
        time: moment of all requests, UTC seconds, to compare with the past; None for now.
    """

    type: str = "lifelong.feast.LifelongOnlineStore"
    service: str
    key_file: Path | None = None
    time: int | None = None


class LifelongOnlineStore(OnlineStore):  # type: ignore[misc]
    """Reads features of user and item from a running service; it holds nothing itself."""

    def online_read(
        self, config: Any, table: Any, entity_keys: Sequence[Any], requested_features: Sequence[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """The features of each pair of user and item, in the order of the keys."""
        settings, pairs = config.online_store, [_pair(key) for key in entity_keys]
        types = {field.name: field.dtype.to_value_type() for field in table.features}
        names = list(requested_features or types)
        moment = datetime.now(UTC) if settings.time is None else datetime.fromtimestamp(settings.time, UTC)
        features_of = _ask(Remote.of(settings.service, settings.key_file), pairs, settings.time)
        columns = [
            python_values_to_proto_values([features_of[pair][name] for pair in pairs], types[name]) for name in names
        ]
        return [(moment, dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]

    def online_write_batch(self, config: Any, table: Any, data: Any, progress: Any) -> None:
        """Refused, by a UsageError."""
        raise UsageError(
            f"Feast writes the view {table.name!r}",
            expected="events: they alone write memories",
            fix="POST /v1/events or `lifelong ingest`; set online=False for views that Feast materializes elsewhere",
        )

    def update(self, config: Any, tables_to_delete: Any, tables_to_keep: Any, *args: Any, **options: Any) -> None:
        """Nothing to make: the service has its store."""

    def teardown(self, config: Any, tables: Any, entities: Any) -> None:
        """Nothing to take away: memories stay in the service's store."""


def _pair(key: Any) -> tuple[str, str]:
    value_of = dict(zip(key.join_keys, (value.string_val for value in key.entity_values), strict=True))
    if set(value_of) != {USER, ITEM}:
        wrong = f"a view of the entities {', '.join(value_of)}"
        raise UsageError(wrong, expected="the entities user and item, of texts", fix="define the view with both")
    return value_of[USER], value_of[ITEM]


def _ask(
    service: Remote, pairs: Sequence[tuple[str, str]], time: int | None
) -> Mapping[tuple[str, str], dict[str, Any]]:
    """The features of each pair; one request for each user and 100 items."""
    features_of: dict[tuple[str, str], dict[str, Any]] = {}
    items_of: dict[str, dict[str, None]] = {}
    for user, item in pairs:
        items_of.setdefault(user, {})[item] = None
    for user, items in items_of.items():
        for at in range(0, len(items), _ITEMS):
            asked = {"items": list(items)[at : at + _ITEMS]} | ({} if time is None else {"time": [time]})
            reply = service.ask("GET", f"/v1/users/{quote(user, safe='')}/features?{urlencode(asked, doseq=True)}")
            rows = zip(reply["items"], reply["values"], strict=True)
            features_of |= {(user, item): dict(zip(reply["names"], row, strict=True)) for item, row in rows}
    return features_of
