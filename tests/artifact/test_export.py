"""Writing artifacts, and models that come back from them."""

import contextlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnxruntime
import torch
from support.artifacts import SETTINGS, tiny_artifact
from torch import nn

import lifelong
from lifelong import atomic as folders
from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.dataset.negatives import drawn_counts
from lifelong.errors import ArtifactError, UsageError
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export import graphs
from lifelong.offline.export.saving import check_replaceable, load_model, write_artifact
from lifelong.offline.models import MODELS, SERVED, build
from lifelong.offline.models.base import FittedModel, MemoryModel, Model
from lifelong.offline.nn.head import weights_of
from lifelong.online.store.opening import open_store
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def hpmn(dataset, tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("hpmn") / "artifact", dataset)


def write(out, model, dataset, settings, metrics=None):
    return write_artifact(out, model, dataset, run={"model": settings}, metrics=metrics or {}, calibrator=None)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_comes_back_with_the_same_logits(name, dataset, tmp_path):
    settings = SETTINGS.get(name, {})
    model = build(name, dataset.inputs, settings)
    if isinstance(model, FittedModel):
        model.fit(dataset, seed=1)
    write(tmp_path / "artifact", model, dataset, settings)
    artifact = Artifact.open(tmp_path / "artifact")
    examples = dataset.examples("test")
    assert np.array_equal(predict(load_model(artifact), dataset, examples), predict(model, dataset, examples))
    expected = "fitted" if isinstance(model, FittedModel) else "memory" if isinstance(model, MemoryModel) else "history"
    assert artifact.config.kind == expected
    assert (artifact.config.memory is not None) == isinstance(model, SERVED)
    assert not any(_holds_users(path, dataset) for path in artifact.path.rglob("*") if path.is_file())


def _holds_users(path, dataset):
    """Whether a file holds ids of users, one after another as an index has them or in quotes."""
    content, ids = path.read_bytes(), dataset.users.ids()
    return "".join(ids[:9]).encode() in content or f'"{ids[-1]}"'.encode() in content


def test_ids_of_users_would_be_found(dataset):
    assert any(_holds_users(path, dataset) for path in (dataset.folder / "users").iterdir())


def test_a_form_that_cannot_be_served_is_kept_and_says_why(dataset, tmp_path):
    settings = {"authors_mode": True, "sequence": 40}
    artifact = write(tmp_path / "artifact", build("hpmn", dataset.inputs, settings), dataset, settings)
    assert artifact.config.kind == "history"
    assert type(load_model(artifact)).__name__ == "HpmnAuthors"
    with pytest.raises(ArtifactError, match="depends on the target"):
        artifact.graph("read")
    with pytest.raises(ArtifactError, match="depends on the target"):
        _ = artifact.tables


def test_a_loaded_model_is_in_evaluation_mode(hpmn):
    assert not load_model(hpmn).training


def test_it_holds_how_often_items_are_drawn_as_negatives_where_they_are_not_drawn_alike(dataset, hpmn, tmp_path):
    assert hpmn.drawn.tolist() == drawn_counts(dataset).tolist() and hpmn.drawn.sum() > 0
    negatives = dataset.manifest.negatives.model_copy(update={"rule": "uniform"})
    alike = Dataset(dataset.folder)
    alike.manifest = alike.manifest.model_copy(update={"negatives": negatives})
    assert tiny_artifact(tmp_path / "alike", alike).drawn is None
    # Nobody ranks with one that is not served.
    fitted = build("popularity", dataset.inputs, {})
    fitted.fit(dataset)
    assert write(tmp_path / "fitted", fitted, dataset, {}).drawn is None


def test_tables_are_the_embeddings(hpmn):
    model = load_model(hpmn)
    assert isinstance(model, MemoryModel)
    for field, table in model.embed.tables.items():
        assert np.array_equal(hpmn.tables[field], table.weight.detach().numpy())


def test_equal_models_have_equal_ids(dataset, hpmn, tmp_path):
    assert tiny_artifact(tmp_path / "same", dataset).id == hpmn.id


def test_settings_left_out_are_written_with_their_defaults(dataset, tmp_path):
    artifact = write(tmp_path / "artifact", build("popularity", dataset.inputs, {}), dataset, {})
    assert artifact.config.settings == {"smoothing": 10.0}


def test_settings_of_another_model_are_refused(dataset, tmp_path):
    model = build("gru4rec", dataset.inputs, {"width": 8})
    with pytest.raises(UsageError, match="another gru4rec"):
        write(tmp_path / "artifact", model, dataset, {"width": 16})
    assert list(tmp_path.iterdir()) == []


def test_metrics_and_run_are_kept_as_plain_json(dataset, tmp_path):
    model = build("popularity", dataset.inputs, {})
    model.fit(dataset)
    artifact = write(tmp_path / "artifact", model, dataset, {}, {"auc": np.float64(0.5), "users": np.int64(3)})
    assert artifact.metrics == {"auc": 0.5, "users": 3}


def test_a_failure_leaves_nothing_and_keeps_the_old_artifact(dataset, hpmn, tmp_path, monkeypatch):
    out = tmp_path / "artifact"
    shutil.copytree(hpmn.path, out)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(folders, "sync", fail)
    with pytest.raises(OSError, match="disk full"):
        tiny_artifact(out, dataset, model="popularity")
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    assert Artifact.open(out).id == hpmn.id


def test_a_rename_that_fails_puts_the_old_artifact_back(dataset, hpmn, tmp_path, monkeypatch):
    out, rename = tmp_path / "artifact", Path.rename
    shutil.copytree(hpmn.path, out)

    def fail(path, target):
        if path.name.endswith(".unfinished"):
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(folders, "exchange", lambda *names: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        tiny_artifact(out, dataset, model="popularity")
    assert Artifact.open(out).id == hpmn.id


def test_an_artifact_that_is_served_is_not_replaced(hpmn, dataset, tmp_path, capsys):
    from lifelong.cli.program import run
    from lifelong.online.serving.app import create_app

    folder = shutil.copytree(hpmn.path, tmp_path / "artifact")
    with contextlib.closing(open_store(f"rocksdb://{tmp_path}/store")) as store:
        app = create_app(Artifact.open(folder), store)
        train = ["train", str(dataset.folder), "--model", "hpmn", "--out", str(folder), "--overwrite"]
        assert run(train) == 2
        said = capsys.readouterr().err
        assert "is the artifact of a service or command that runs" in said and "lifelong switch" in said
        assert Artifact.open(folder).id == hpmn.id
        app.state.service.close()
    check_replaceable(folder, overwrite=True)


def test_an_artifact_whose_memories_a_command_writes_is_not_replaced(hpmn, dataset, tmp_path):
    from lifelong.cli.opening import open_pair

    folder = shutil.copytree(hpmn.path, tmp_path / "artifact")
    used = open_pair(folder, f"rocksdb://{tmp_path}/store", read_only=False)
    with used, pytest.raises(UsageError, match="that runs"):
        lifelong.train(dataset, "popularity", folder, overwrite=True, progress=False)
    assert Artifact.open(folder).id == hpmn.id


def test_an_artifact_is_only_replaced_if_the_user_says_so(hpmn, dataset, tmp_path, capsys):
    from lifelong.cli.program import run

    folder = shutil.copytree(hpmn.path, tmp_path / "artifact")
    train = ["train", str(dataset.folder), "--model", "popularity", "--out", str(folder)]
    assert run(train) == 2
    assert "already holds an artifact" in (said := capsys.readouterr().err) and "--overwrite" in said
    with pytest.raises(UsageError, match="already holds an artifact"):
        lifelong.train(dataset, "popularity", folder, progress=False)
    assert Artifact.open(folder).id == hpmn.id
    assert run([*train, "--overwrite"]) == 0
    assert Artifact.open(folder).config.model == "popularity"
    assert lifelong.train(dataset, "popularity", folder, overwrite=True, progress=False).path == folder


def test_anything_else_is_not_replaced(dataset, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="not an artifact"):
        tiny_artifact(tmp_path, dataset)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_graph_that_differs_from_its_model_is_not_written(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="differs from the model"):
        tiny_artifact(tmp_path / "artifact", dataset, model="dnn")
    assert list(tmp_path.iterdir()) == []


def test_graphs_hold_no_notes_of_where_they_were_made(hpmn):
    onnx = pytest.importorskip("onnx")
    for name in ("write", "read", "head"):
        model = onnx.load(hpmn.graph(name))
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_weights_that_do_not_fit_the_settings_are_refused(hpmn):
    settings = {**hpmn.config.settings, "width": 9}
    broken = Artifact(hpmn.path, hpmn.manifest, hpmn.config.model_copy(update={"settings": settings}))
    with pytest.raises(ArtifactError, match="do not fit"):
        load_model(broken)


def test_scaled_inputs_cost_a_service_nothing(dataset, tmp_path):
    def operators(model: Model, folder: Path) -> Counter[str]:
        graphs.write_graphs(model.eval(), folder)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        onnxruntime.InferenceSession(folder / "head.onnx", options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)

    model = build("tally", dataset.inputs, SETTINGS["tally"])
    heads = (model.head.head, model.head.counter)
    for head in heads:
        head.first.mean_X.fill_(0.5)
        head.first.scale_X.fill_(2.0)
    found = operators(model, tmp_path / "scaled")
    for head in heads:
        plain = nn.Linear(head.first.in_features, head.first.out_features)
        with torch.no_grad():
            for part, value in zip((plain.weight, plain.bias), weights_of(head.first), strict=True):
                part.copy_(value)
        head.layers[0] = plain
    assert found == operators(model, tmp_path / "plain")


def test_the_committed_artifact_is_of_this_format(hpmn):
    committed = Path(__file__).parents[1] / "assets" / "tiny_artifact"
    kept, now = (json.loads((folder / "config.json").read_text()) for folder in (committed, hpmn.path))
    del kept["versions"], now["versions"]
    assert kept == now, "python tests/assets/make_tiny_artifact.py"
    load_model(Artifact.open(committed))
