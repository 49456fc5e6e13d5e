"""What a damaged, foreign or newer artifact folder says. No torch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifelong.artifact.folder import Artifact, artifact_id, make_manifest
from lifelong.errors import ArtifactError
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
    assert (artifact.config.kind, artifact.config.model, artifact.config.settings["periods"]) == (
        "memory",
        "hpmn",
        [1, 2, 4],
    )
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


def test_one_that_was_written_before_there_were_scales_reads_what_it_read():
    spec = Artifact.open(TINY).config.input_spec
    older = replace(spec, context={field: spec.context[field] for field in ("gap", "hour", "weekday")})
    assert older.context_fields == spec.context_fields == ("gap", "hour", "weekday")


def test_it_does_not_hold_who_the_users_were():
    assert not any("users" in path.name for path in TINY.rglob("*"))


def test_tables_are_mapped_and_padding_is_zero():
    tables = Artifact.open(TINY).tables
    assert set(tables) == {"item", "category", "event_type", "gap", "hour", "weekday"}
    assert all(isinstance(table, np.memmap) and not table[0].any() for table in tables.values())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        Artifact.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=f"{name} is truncated"):
        Artifact.open(folder, verify="sizes")


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


def test_a_path_out_of_the_folder_is_refused(folder):
    manifest = make_manifest(folder)
    files = {**manifest.files, "../secret": manifest.files["config.json"]}
    changed = manifest.model_copy(update={"files": files, "id": artifact_id(files)})
    (folder / "manifest.json").write_text(changed.model_dump_json())
    with pytest.raises(ArtifactError, match="outside of the folder"):
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


def test_metrics_are_not_part_of_the_id_and_weights_are(folder):
    before = Artifact.open(folder).id
    (folder / "metrics.json").write_text('{"auc": 1}')
    assert Artifact.open(sealed(folder)).id == before
    (folder / "weights.safetensors").write_bytes(b"other")
    assert Artifact.open(sealed(folder)).id != before
