"""Features of a memory by a real `feast.FeatureStore`: equal online, from a running service, and offline.

Feast needs an older pandas than the tests' environment has, so this runs in one of its own: `make test-feast`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

feast: Any = pytest.importorskip("feast", reason="feast is in an environment of its own: make test-feast")
pandas: Any = pytest.importorskip("pandas")
from support.events import events_of  # noqa: E402

from lifelong.dataset.folder import Dataset  # noqa: E402
from lifelong.errors import UsageError  # noqa: E402
from lifelong.feast import TIME, LifelongOnlineStore, LifelongOnlineStoreConfig, export, feature_view  # noqa: E402
from lifelong.online.memory.updater import Updater  # noqa: E402
from lifelong.online.opening import open_artifact  # noqa: E402
from lifelong.online.store.opening import open_store  # noqa: E402
from lifelong.testing.datasets import tiny_dataset  # noqa: E402

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("default")]
ARTIFACT = Path(__file__).parent / "assets" / "tiny_artifact"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exported(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Path and rows of the test split."""
    path = tmp_path_factory.mktemp("exported") / "test.parquet"
    assert export(ARTIFACT, dataset, path, split="test") == len(dataset.examples("test"))
    return path, pandas.read_parquet(path)


@pytest.fixture(scope="module")
def last(exported: Any) -> Any:
    """The rows of each user's last target, with one candidate more at that moment."""
    rows = exported[1].sort_values("time", kind="stable")
    return rows.groupby("user").tail(1).sort_values("user").head(3)


@pytest.fixture(scope="module")
def service(dataset: Dataset, last: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that knows the events of some users before their targets."""
    url = f"rocksdb://{tmp_path_factory.mktemp('served')}/store"
    before = dict(zip(last["user"], last["time"], strict=True))
    with contextlib.closing(open_store(url)) as store:
        events = [one for one in events_of(dataset) if one.user in before and one.time < before[one.user]]
        Updater(open_artifact(ARTIFACT), store).apply(events)
    words = [sys.executable, "-m", "lifelong", "serve", str(ARTIFACT), "--store", url, "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]
        process.send_signal(signal.SIGTERM)


def opened(folder: Path, service: str, time: int | None = None) -> Any:
    """A feature store with a registry in a file."""
    config = feast.RepoConfig(
        project="shop",
        registry=str(folder / "registry.db"),
        provider="local",
        online_store={"type": "lifelong.feast.LifelongOnlineStore", "service": service, "time": time},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    assert isinstance(config.online_store, LifelongOnlineStoreConfig)
    return feast.FeatureStore(config=config)


def test_values_are_equal_online_and_offline(exported, last, service, tmp_path) -> None:
    view = feature_view(exported[0])
    names = [f"memory:{field.name}" for field in view.features]
    assert {"memory:events", "memory:score", "memory:readout_0"} <= set(names)
    for row in last.to_dict("records"):
        store = opened(tmp_path, service, time=row["time"])
        store.apply([*(feast.Entity(name=key, value_type=feast.ValueType.STRING) for key in ("user", "item")), view])
        entity = {"user": row["user"], "item": row["item"]}
        online = store.get_online_features(features=names, entity_rows=[entity]).to_dict()
        frame = pandas.DataFrame([{**entity, TIME: row[TIME]}])
        offline = store.get_historical_features(entity_df=frame, features=names).to_df().to_dict("list")
        assert online["events"][0] > 0
        for name in (one.removeprefix("memory:") for one in names):
            (left,), (right,) = online[name], offline[name]
            assert right == right if left is not None else right != right, name
            assert left is None or left == pytest.approx(right, abs=1e-5), name


def test_answers_keep_the_order_of_the_rows_and_unknown_users_have_no_events(exported, last, service, tmp_path) -> None:
    store, (first, second, _) = opened(tmp_path, service), last["user"]
    store.apply([*(feast.Entity(name=key, value_type=feast.ValueType.STRING) for key in ("user", "item")),
                 feature_view(exported[0])])  # fmt: skip
    pairs = [(first, "i1"), ("nobody", "i1"), (second, "i2"), (first, "i2"), (first, "i1")]
    rows = [{"user": user, "item": item} for user, item in pairs]
    found = store.get_online_features(features=["memory:events", "memory:score"], entity_rows=rows).to_dict()
    assert list(zip(found["user"], found["item"], strict=True)) == pairs
    assert found["events"][1] == 0 and found["events"][0] == found["events"][3] > 0
    assert found["score"][0] == found["score"][4] != found["score"][3]
    with pytest.raises(UsageError, match="events: they alone write memories"):
        LifelongOnlineStore().online_write_batch(None, feature_view(exported[0]), [], None)
