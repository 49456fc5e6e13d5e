"""Whatever bytes stand in a record, an event of the log, or a file: a value or an error of ours, never a crash."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong.artifact.folder import Artifact, FieldLayout
from lifelong.errors import LifelongError, SourceError, StoreCorruptError
from lifelong.online.ingestion.files import ingest
from lifelong.online.memory.codec import CODECS, make_codec
from lifelong.online.memory.state import States
from lifelong.online.store.ram import InMemoryStore

LAYOUT = (
    FieldLayout(name="slot", shape=(2, 3), dtype="float32"),
    FieldLayout(name="number", shape=(2,), dtype="int32"),
)
ANY = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))


def record(codec):
    rng = np.random.default_rng(0)
    fields = {"slot": rng.normal(size=(1, 2, 3)).astype(np.float32), "number": np.array([[1, 2]], np.int32)}
    return codec.encode(States(np.array([5]), np.array([7]), fields))[0]


@pytest.mark.parametrize("name", CODECS)
@given(value=st.binary(max_size=80))
@ANY
def test_any_bytes_are_no_record(name, value):
    with pytest.raises(StoreCorruptError):
        make_codec(name, LAYOUT).decode([value])


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
@ANY
def test_a_record_with_one_bit_turned_is_found_among_others(name, data):
    codec = make_codec(name, LAYOUT)
    good = record(codec)
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreCorruptError, match="memory 1"):
        codec.decode([good, bytes(bad), good])


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
@ANY
def test_a_record_that_was_cut_or_grew_is_found(name, data):
    codec = make_codec(name, LAYOUT)
    good = record(codec)
    bad = good[: data.draw(st.integers(0, len(good) - 1))] if data.draw(st.booleans()) else good + b"\0"
    with pytest.raises(StoreCorruptError, match="memory 0"):
        codec.decode([bad, good])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "csv.gz", "jsonl.gz", "parquet"])
@given(value=st.binary(max_size=200))
@settings(ANY, max_examples=40)
def test_any_bytes_as_a_file_of_events_are_events_or_an_error(artifact, tmp_path, ending, value):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"log.{ending}"
    path.write_bytes(value)
    with contextlib.suppress(SourceError):
        ingest(artifact, InMemoryStore(), path)


HEAD = "user,item,time,event_type,category\n"
CELL = st.text(st.sampled_from('ab1,"\r\n \0ü'), max_size=4)


@given(rows=st.lists(st.lists(CELL, min_size=3, max_size=6), max_size=6))
@settings(ANY, max_examples=100)
def test_any_cells_are_read_alike_in_columns_and_one_by_one(artifact, tmp_path, rows):
    """A file with a quoted cell in front is read by the rules from there on, the same file without it by columns."""
    text = "".join(",".join(row) + "\n" for row in rows)
    outcomes = []
    for first in ("u,i,5,,\n", '"u",i,5,,\n'):
        path, store = tmp_path / "log.csv", InMemoryStore()
        path.write_bytes((HEAD + first + text).encode())
        try:
            applied = ingest(artifact, store, path)
        except SourceError as error:
            applied = (error.line, error.column)
        outcomes.append((applied, {user: store.events(user) for user, _ in store.scan()}))
    assert outcomes[0] == outcomes[1]


@given(data=st.data())
@settings(ANY, max_examples=40)
def test_an_artifact_with_one_byte_changed_is_refused(artifact, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("altered") / "artifact"
    shutil.copytree(artifact.path, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        same = Artifact.open(folder).id == artifact.id
    except LifelongError:
        same = True
    # Space between the parts of the manifest says nothing.
    assert same
    shutil.rmtree(folder)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
@settings(ANY, max_examples=60)
def test_any_json_as_a_manifest_is_refused(artifact, tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("manifest") / "artifact"
    shutil.copytree(artifact.path, folder)
    (folder / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(LifelongError):
        Artifact.open(folder)
    shutil.rmtree(folder)
