"""The public functions: paths or objects alike, settings by their names, the house's errors for wrong arguments."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ibis")
import lifelong
from lifelong.errors import ConfigError, DatasetError, LifelongError, UsageError

pytestmark = pytest.mark.torch
QUICK = {"epochs": 1, "threads": 1, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and an artifact under their usual names."""
    folder = tmp_path_factory.mktemp("api")
    lifelong.prepare("synthetic", out=folder / "data", world="lag", users=40, threads=1)
    lifelong.train(folder / "data", "tally", width=6, embedding=3, **QUICK)
    return folder


def test_an_artifact_lies_next_to_its_dataset_and_has_the_named_settings(folder: Path) -> None:
    artifact = lifelong.open_artifact(folder / "data-tally")
    run = artifact.metrics["config"]
    assert (run["train"]["max_epochs"], run["model"]["width"]) == (1, 6)
    assert lifelong.open_artifact(artifact) is artifact


def test_paths_and_objects_give_the_same(folder: Path) -> None:
    dataset, artifact = lifelong.Dataset(folder / "data"), lifelong.open_artifact(folder / "data-tally")
    by_path = lifelong.evaluate(str(folder / "data-tally"), str(folder / "data"), bootstrap=9, delays="0s")
    assert by_path.metrics == lifelong.evaluate(artifact, dataset, bootstrap=9).metrics
    assert lifelong.predict(artifact, dataset).equals(lifelong.predict(folder / "data-tally", folder / "data"))
    url = f"rocksdb://{folder / 'store'}"
    assert lifelong.backfill(folder / "data-tally", folder / "data", url, event_log=True).users > 0
    log = folder / "new.csv"
    log.write_text("user,item,time\nann,i1,1900000\n")
    assert lifelong.ingest(artifact, url, log).applied + 1 > 0
    assert lifelong.verify(artifact, None, url, users=3).equal
    user = dataset.users.id_at(0)
    with lifelong.Scorer(folder / "data-tally", url) as scorer:
        score = scorer.score(user, ["i1"])[0].score
        explained = lifelong.explain(scorer, user, ["i1"], dataset=folder / "data")
        assert lifelong.history(scorer, user).num_rows > 0
    # The store was closed, or it could not be opened for writing now.
    store = lifelong.open_store(url)
    assert lifelong.Scorer(artifact, store).score(user, ["i1"])[0].score == pytest.approx(score, abs=0.05)
    store.close()
    assert explained.candidates[0].item == "i1"


def test_compare_takes_models_with_settings_and_seeds(folder: Path, tmp_path: Path) -> None:
    models = {"popularity": {}, "counts": {"l2": 0.5}}
    comparison = lifelong.compare(folder / "data", models, tmp_path / "out", seeds=[0, 3], **QUICK)
    assert [(row.model, row.seeds) for row in comparison.rows] == [("popularity", 2), ("counts", 2)]
    assert (tmp_path / "out" / "index.html").exists()
    assert comparison.results[-1].config["model"]["l2"] == 0.5
    assert "<td>Counts</td>" in comparison._repr_html_() and "Popularity auc 0." in repr(comparison)


def test_tune_keeps_what_was_set_by_name(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    tuned = lifelong.tune(
        folder / "data", "popularity", tmp_path / "a.toml", trials=2, examples=200, threads=1, progress=False
    )
    assert len(tuned.trials) == 2 and (tmp_path / "a.toml").exists()


def test_progress_is_a_function_of_lines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    options = {**QUICK, "progress": lines.append}
    artifact = lifelong.train(str(folder / "data"), "dnn", tmp_path / "a", config={"embedding": 4}, **options)
    assert lines[0].startswith("initial vectors") and lines[1].startswith("training on")
    assert "validation: AUC" in lines[2] and not capsys.readouterr().err
    assert artifact.metrics["config"]["model"]["embedding"] == 4


def test_what_is_shown_has_the_numbers(folder: Path) -> None:
    dataset, artifact = lifelong.Dataset(folder / "data"), lifelong.open_artifact(folder / "data-tally")
    counts, auc = dataset.manifest.counts, artifact.metrics["validation"]["auc"]
    assert f"{counts['users']} users, {counts['events']:,} events" in repr(dataset)
    assert f"<td>events</td><td>{counts['events']:,}</td>" in dataset._repr_html_()
    assert f"AUC {auc:.4f}" in repr(artifact) and f"<td>AUC</td><td>{auc:.4f}</td>" in artifact._repr_html_()
    result = lifelong.evaluate(artifact, dataset, bootstrap=9)
    assert (
        f"auc {result.metrics['auc'].value:.4f} (" in repr(result) == str(result)
        and "<td>gauc</td>" in result._repr_html_()
    )
    models = lifelong.models()
    assert models["tally"].served and models["tally"].settings["state"] == 4096
    assert "<td>tally</td>" in models._repr_html_()


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("prepare", ("synthetic",), {"out": 5}, "out of type int"),
    ("prepare", ("table", 5), {"out": "new"}, "files of type int"),
    ("prepare", ("table", "absent.csv"), {"out": "new"}, "absent.csv: there is no such file"),
    ("prepare", ("synthetic",), {"out": "new", "progress": 3}, "progress = 3.*True, False, or a function"),
    ("train", (3, "tally"), {}, "a dataset of type int"),
    ("train", ("nowhere", "tally"), {}, "is not a prepared dataset"),
    ("train", ("data", 5), {}, "a model of type int"),
    ("train", ("data", "taly"), {}, "no model 'taly'"),
    ("train", ("data",), {}, "no model was given"),
    ("train", ("data", "tally", 7), {}, "out of type int"),
    ("train", ("data", "tally"), {"epochs": "many"}, "train.max_epochs"),
    ("train", ("data", "tally"), {"epoch": 1}, "no setting 'epoch' .did you mean 'epochs'"),
    ("train", ("data", "tally"), {"widht": 1, "seed": -1}, "(?s)'widht' .did you mean 'width'.*train.seed"),
    ("train", ("data", "tally"), {"device": "gpu"}, "auto, cpu, cuda or a certain GPU"),
    ("train", ("data", "tally"), {"config": 3}, "settings of type int"),
    ("train", ("data", "tally"), {"progress": "yes"}, "progress = 'yes'"),
    ("train", ("data",), {"start": 3}, "an artifact of type int"),
    ("evaluate", ("data", "data"), {}, "data is a dataset. Expected: an artifact folder"),
    ("evaluate", ("data-tally", "data"), {"split": "tset"}, "split = 'tset'"),
    ("evaluate", ("data-tally", "data"), {"delays": "soon"}, "is not a duration"),
    ("evaluate", ("data-tally", "data"), {"delays": [1.5]}, "delay = 1.5"),
    ("evaluate", ("data-tally", "data"), {"delays": None}, "delay = None"),
    ("evaluate", ("data-tally", "data"), {"bootstrap": 0}, "bootstrap = 0"),
    ("evaluate", ("data-tally", "data"), {"threads": "two"}, "threads = 'two'"),
    ("predict", ("data-tally", "data"), {"split": 3}, "split = 3"),
    ("predict", ("data-tally", "data"), {"threads": 0}, "threads = 0"),
    ("predict", ("data-tally", "data"), {"base_rate": "2%"}, "a base rate of 2%"),
    ("compare", ("data", 3), {}, "models of type int"),
    ("compare", ("data", ["tally"]), {"seeds": 0}, "seeds = 0"),
    ("compare", ("data", ["tally"]), {"seeds": ["x"]}, "seed = 'x'"),
    ("compare", ("data", ["tally"]), {"seeds": 2.5}, "seeds = 2.5"),
    ("compare", ("data", ["tally"]), {"seeds": "3"}, "seeds = '3'"),
    ("compare", ("data", ["tally"]), {"seeds": []}, r"seeds = \[\]"),
    ("compare", ("data", []), {}, "nothing to compare"),
    ("compare", ("data", ["tally"]), {"jobs": 0}, "jobs = 0"),
    ("compare", ("data", ["tally"]), {"max_minutes": "30m"}, "train.max_minutes: must be a number"),
    ("compare", ("data", ["tally"]), {"max_minutes": -1}, "train.max_minutes: must be above 0"),
    ("tune", ("data", "tally"), {"trials": "ten"}, "trials = 'ten'"),
    ("tune", ("data", None), {}, "a model of type NoneType"),
    ("backfill", ("data-tally", "data", 3), {}, "a store of type int"),
    ("backfill", ("data-tally", "data", "nowhere"), {}, "not the URL of a store"),
    ("ingest", ("data-tally", "memory://", 3), {}, "events of type int"),
    ("ingest", ("data-tally", "memory://", "new.csv"), {"usr": "x"}, "no column 'usr'"),
    ("ingest", ("data-tally", "memory://", "new.csv"), {"max_ahead": "2d"}, "max_ahead = '2d'"),
    ("ingest", ("data-tally", "memory://", "new.csv"), {"dead_letters": "bad.jsonl"}, "with put, flush and close"),
    ("explain", ("data-tally", "ann", ["i1"]), {}, "a scorer of type str"),
    ("features", ("data-tally", "ann", ["i1"]), {}, "a scorer of type str"),
    ("history", (None, "ann"), {}, "a scorer of type NoneType"),
    ("ingest", ("data-tally", "memory://", "new.csv"), {"progress": True}, r"progress = True.*\(done, total\)"),
    ("export_features", ("data-tally", "data", None), {}, "out of type NoneType"),
    ("Dataset", (3,), {}, "a dataset's folder of type int"),
    ("verify", ("data-tally", 3, "memory://"), {}, "a dataset of type int"),
    ("open_artifact", (3,), {}, "an artifact of type int"),
    ("open_artifact", ("data-tally",), {"verify": "yes"}, "verify = 'yes'"),
    ("open_store", (3,), {}, "a URL of type int"),
    ("Scorer", (None, "memory://"), {}, "an artifact of type NoneType"),
]


@pytest.mark.parametrize(("name", "arguments", "named", "found"), WRONG)
def test_a_wrong_argument_is_said_in_words(
    name: str, arguments: Any, named: Any, found: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(LifelongError, match=found):
        getattr(lifelong, name)(*arguments, **named)


def test_progress_that_is_false_is_silent_everywhere(folder: Path) -> None:
    log = folder / "one.csv"
    log.write_text("user,item,time\nann,i1,1600000000\n")
    artifact, store = lifelong.open_artifact(folder / "data-tally"), lifelong.open_store("memory://")
    assert lifelong.backfill(artifact, folder / "data", store, event_log=True, progress=False).users == 40
    assert lifelong.ingest(artifact, store, log, progress=False).applied == 1
    assert lifelong.verify(artifact, None, store, users=3, progress=False).equal


def test_training_and_comparing_from_python_use_the_models_recipe_where_nothing_is_named(folder: Path) -> None:
    (folder / "tally.toml").write_text("[train]\nlearning_rate = 0.01\n")
    for config in (None, {"learning_rate": 0.01}, folder / "tally.toml"):
        named: dict[str, Any] = {"config": config, "overwrite": True, "epochs": 1, "state": 1024, "progress": False}
        made = lifelong.train(folder / "data", "tally", folder / "by-recipe", **named)
        settings = made.config.run["train"]
        assert settings["max_epochs"] == 1 and settings["learning_rate"] == (0.01 if config else 0.003)
        found = [settings[name] for name in ("initial_vectors", "max_history", "schedule")]
        assert found == ["crossfitted", 8192, "cosine"]
    of: dict[str, dict[str, object]] = {"tally": {"state": 1024}}
    lifelong.compare(folder / "data", of, folder / "compared", epochs=1, seeds=1, progress=False)
    compared = lifelong.open_artifact(folder / "compared" / "runs" / "tally-seed0" / "artifact")
    assert compared.config.run["train"]["initial_vectors"] == "crossfitted"


def test_a_torch_device_is_a_device(folder: Path) -> None:
    import torch

    from lifelong.offline.training.named import run_config

    assert run_config("tally", None, {"device": torch.device("cuda", 1)}).train.device == "cuda:1"
    with pytest.raises(UsageError, match=r"cuda:1.*no GPU|the GPUs are"):
        lifelong.train(folder / "data", "dnn", device=torch.device("cuda", 1))
    assert issubclass(ConfigError, UsageError) and not issubclass(DatasetError, UsageError)
