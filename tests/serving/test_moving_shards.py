"""Three nodes as processes: a shard moves, an owner is lost, its standby takes over, and it comes back."""

import json

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("rocksdict")

from support import nodes


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_shards_move_and_owners_are_lost_while_each_event_counts_once(artifact, kafka, tmp_path):
    with nodes.nodes(tmp_path, artifact, kafka, total=100_000) as some:
        found = nodes.play(some)
    print(json.dumps(found))
    assert found["events"] == 100_000 and found["compared"] <= 100_000
