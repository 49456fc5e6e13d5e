"""What a damaged, foreign or newer artifact folder says. No torch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lifelong.artifact.folder import Artifact
from lifelong.artifact.list_order import INPUTS
from lifelong.artifact.manifest import artifact_id, make_manifest
from lifelong.errors import ArtifactError, LifelongError
from lifelong.online.memory.runtime import Runtime
from lifelong.online.scoring.scorer import Scorer
from lifelong.online.store.ram import InMemoryStore
from lifelong.testing.datasets import tiny_dataset

TINY = Path(__file__).parents[1] / "assets" / "tiny_artifact"
FILES = ["config.json", "metrics.json", "tables/item.npy", "graphs/read.onnx", "vocabulary/item/hash.npy"]


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "artifact"))


def sealed(folder):
    """The folder with a manifest that fits its files."""
    (folder / "manifest.json").write_text(make_manifest(folder).model_dump_json())
    return folder


def test_an_artifact_says_what_it_is():
    artifact = Artifact.open(TINY)
    config = artifact.config
    assert (config.kind, config.model, config.settings["periods"]) == ("memory", "hpmn", [1, 2, 4])
    assert [(part.name, part.shape) for part in artifact.config.memory] == [("slot", (3, 6))]
    assert artifact.metrics == {}


def test_it_holds_the_vocabularies_and_catalogue_of_its_dataset(tmp_path):
    artifact, dataset = Artifact.open(TINY), tiny_dataset(tmp_path / "data")
    assert artifact.catalogue.ids.ids() == dataset.catalogue.ids.ids()
    assert np.array_equal(artifact.catalogue.number_VF, dataset.catalogue.number_VF)
    assert {name: v.content_hash() for name, v in artifact.vocabularies.items()} == {
        name: v.content_hash() for name, v in dataset.vocabularies.items()
    }
    assert artifact.event_types.content_hash() == dataset.event_types.content_hash()
    assert artifact.config.input_spec == dataset.inputs


@pytest.mark.parametrize("wrong", [np.zeros(3, np.int64), np.zeros(43), np.full(43, -1)], ids=["short", "float", "-1"])
def test_counts_of_negatives_that_do_not_fit_are_refused(folder, wrong):
    size = len(Artifact.open(folder).catalogue)
    np.save(folder / "drawn.npy", wrong if len(wrong) == 3 else np.full(size, wrong[0]))
    with pytest.raises(ArtifactError, match=r"drawn.npy holds .* Expected: int64"):
        Artifact.open(sealed(folder))


def test_it_does_not_hold_who_the_users_were():
    assert not any("users" in path.name for path in TINY.rglob("*"))


def test_tables_are_mapped_and_padding_is_zero():
    tables = Artifact.open(TINY).tables
    assert set(tables) == {"item", "category", "event_type", "gap", "hour", "weekday"}
    assert all(isinstance(table, np.memmap) and not table[0].any() for table in tables.values())


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_truncated_or_missing_is_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=f"{name} is truncated"):
        Artifact.open(folder, verify="sizes")
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Artifact.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_of_the_same_size_is_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was altered"):
        Artifact.open(folder)


def test_a_manifest_that_was_changed_to_fit_an_altered_file_is_noticed(folder):
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = make_manifest(folder).files["config.json"].model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"manifest\.json was altered"):
        Artifact.open(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../secret", "outside of the folder"),
        *((name, "not a file name") for name in ("a\nb", "./config.json", "catalogue//text.npy")),
    ],
)
def test_a_path_out_of_the_folder_is_refused(folder, name, said):
    manifest = make_manifest(folder)
    files = {**manifest.files, name: manifest.files["config.json"]}
    changed = manifest.model_copy(update={"files": files, "id": artifact_id(files)})
    (folder / "manifest.json").write_text(changed.model_dump_json())
    with pytest.raises(ArtifactError, match=said):
        Artifact.open(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "artifact format 2"),
        ({"format": "other"}, "not of an artifact"),
        ({"files": 3}, "cannot be read"),
    ],
)
def test_a_foreign_or_newer_manifest_is_said(folder, change, said):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ArtifactError, match=said):
        Artifact.open(folder)


def test_a_folder_that_is_none_says_where_artifacts_come_from(tmp_path):
    for path, said in ((tmp_path / "none", "does not exist"), (tmp_path, "no manifest")):
        with pytest.raises(ArtifactError, match=said) as caught:
            Artifact.open(path)
        assert "lifelong train" in str(caught.value)


def test_a_config_with_an_unknown_key_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "colour": 1}))
    with pytest.raises(ArtifactError, match="colour"):
        Artifact.open(sealed(folder))


def test_a_table_that_does_not_fit_its_field_is_refused(folder):
    np.save(folder / "tables" / "item.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(ArtifactError, match=r"item\.npy holds float32 \(3, 2\)"):
        _ = Artifact.open(sealed(folder)).tables


@pytest.mark.parametrize("name", ["graphs/run.onnx", "notes.txt", "vocabulary/item/scale.json", ".DS_Store"])
@pytest.mark.parametrize("verify", ["full", "sizes"])
def test_a_file_that_the_manifest_does_not_name_is_refused(folder, name, verify):
    shutil.copy(folder / "graphs" / "write.onnx", folder / name)
    with pytest.raises(ArtifactError, match=rf"{name} is not in the manifest"):
        Artifact.open(folder, verify=verify)


def test_a_link_to_a_folder_is_refused_and_a_linked_artifact_is_not(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert Artifact.open(link).id == Artifact.open(folder).id
    (folder / "more").symlink_to(folder / "graphs")
    with pytest.raises(ArtifactError, match="more is not in the manifest"):
        Artifact.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("tables", "tables/gap.npy", "graphs", "graphs/head.onnx", "vocabulary/category", "catalogue/number.npy"),
        *("weights.safetensors", "metrics.json"),
    ],
)
def test_a_manifest_that_leaves_out_what_the_model_needs_is_refused(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ArtifactError, match=rf"manifest\.json does not name {name}.*, which its HPMN needs"):
        Artifact.open(sealed(folder), verify="sizes")


def test_a_foreign_graph_under_a_manifest_of_its_own_is_refused_before_a_request(folder):
    shutil.copy(folder / "graphs" / "write.onnx", folder / "graphs" / "head.onnx")
    with pytest.raises(ArtifactError, match="cannot be run on its layout"):
        Runtime(Artifact.open(sealed(folder)))


ARRAYS = sorted(path.relative_to(TINY).as_posix() for path in TINY.rglob("*.npy"))
LENGTHS = st.sampled_from([0, 1, 2, 3, 61, 62, 10**6, 10**12, 2**62, 2**63, 10**30, -1])
TYPES = st.sampled_from(["<i8", "<i4", "<f4", "|u1", "<u8", "|O", "<M8[s]", "|V8", "nonsense"])


def header(shape: tuple[int, ...], kind: str) -> bytes:
    text = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def opens_or_says_why(folder: Path) -> None:
    """What a service does with a folder, up to a score; anything but an error of ours is a failure."""
    try:
        scorer = Scorer(Artifact.open(sealed(folder)), InMemoryStore())
        scorer.score("u1", ["i1", "i2", "never seen"], time=1_700_000_000)
    except LifelongError:
        pass


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(ARRAYS), shape=st.lists(LENGTHS, max_size=3), kind=TYPES, keep=st.booleans())
@example(name="tables/item.npy", shape=[10**12, 4], kind="<f4", keep=True)
@example(name="catalogue/offset.npy", shape=[10**12], kind="<i8", keep=True)
@example(name="vocabulary/item/text.npy", shape=[], kind="|u1", keep=True)
def test_lengths_in_headers_never_go_beyond_the_file(tmp_path_factory, name, shape, kind, keep):
    folder = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("artifact") / "a"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(header(tuple(shape), kind) + (content[128:] if keep else b""))
    opens_or_says_why(folder)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_the_config_opens_or_is_refused_in_words(tmp_path_factory, data):
    folder = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("artifact") / "a"))
    config = json.loads((folder / "config.json").read_text())
    part = config
    key = data.draw(st.sampled_from(sorted(part)))
    while isinstance(part[key], dict | list) and part[key] and data.draw(st.booleans()):
        part = part[key]
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
    odd = st.sampled_from([10**12, 2**63, 10**30, -1, 0, 1.5, None, True, "", "x" * 300, "../..", [], {}, [[]], "\0"])
    part[key] = data.draw(odd)
    (folder / "config.json").write_text(json.dumps(config))
    opens_or_says_why(folder)


@pytest.mark.parametrize(
    "name", [*ARRAYS, "config.json", "metrics.json", "graphs/head.onnx", "vocabulary/item/vocabulary.json"]
)
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"[" * 5000, b"\xff\xfe{}"])
def test_a_file_of_something_else_is_refused_in_words(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError):
        Scorer(Artifact.open(sealed(folder)), InMemoryStore())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory": [{"name": "slot", "shape": [10**12, 6]}]}, "at most 16,777,216 numbers"),
        ({"memory": [{"name": "slot", "shape": [3, 7]}]}, "cannot be run on its layout|give memories of"),
        ({"inputs": {"item": {"item": 10**12}, "event": {}, "context": {}}}, "inputs.item are the fields item"),
        ({"list_order": {"popularity": 1.0, "counts": {"brand": [0.0] * INPUTS}}}, "list_order has weights of brand"),
        ({"list_order": {"popularity": 1.0, "counts": {"item": [0.0]}}}, "list_order.counts.item"),
        ({"run": None}, "run"),
    ],
)
def test_a_size_in_the_config_that_does_not_fit_is_said(folder, change, said):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ArtifactError, match=said):
        Runtime(Artifact.open(sealed(folder)))


def test_an_item_number_beyond_its_table_is_refused_at_opening(folder):
    number_VF = np.load(folder / "catalogue" / "number.npy")
    number_VF[5, 0] = 10**6
    np.save(folder / "catalogue" / "number.npy", number_VF)
    with pytest.raises(ArtifactError, match="contradict themselves"):
        Artifact.open(sealed(folder))


def test_metrics_are_not_part_of_the_id_and_weights_are(folder):
    before = Artifact.open(folder).id
    (folder / "metrics.json").write_text('{"auc": 1}')
    assert Artifact.open(sealed(folder)).id == before
    (folder / "weights.safetensors").write_bytes(b"other")
    assert Artifact.open(sealed(folder)).id != before
