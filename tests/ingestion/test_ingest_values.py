"""Values of a line that cannot be an id."""

import json
from pathlib import Path
from typing import Any

import pytest

from lifelong.artifact.folder import Artifact
from lifelong.errors import SourceError
from lifelong.ingestion.files import ingest
from lifelong.store.opening import open_store


@pytest.mark.parametrize("column", ["user", "item", "event_type", "category"])
@pytest.mark.parametrize("value", [["i1"], {"id": "i1"}])
def test_a_list_or_an_object_in_place_of_a_text_is_refused_by_name(
    artifact: Artifact, tmp_path: Path, column: str, value: Any
) -> None:
    good = {"user": "u", "item": "i1", "time": 5}
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps({**good, column: value})}\n")
    store = open_store("memory://")
    with pytest.raises(SourceError, match=f"line 2, column {column}: a list or an object"):
        ingest(artifact, store, path)
    assert [user for user, _ in store.scan()] == ["u"]
