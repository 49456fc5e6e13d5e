"""Whole runs on a tiny dataset."""

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.artifacts import empty_graphs
from support.steps import after_steps

from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.examples import Examples, Split
from lifelong.dataset.folder import Dataset
from lifelong.errors import ArtifactError, MismatchError, UsageError
from lifelong.offline.data.cooccurrence import cooccurrence_vectors, unit_factors
from lifelong.offline.data.counts import target_counts
from lifelong.offline.evaluation import metrics
from lifelong.offline.evaluation.calibration import fit_calibrator
from lifelong.offline.evaluation.evaluate import predict
from lifelong.offline.export import saving
from lifelong.offline.export.saving import load_model
from lifelong.offline.models import model_class, tally
from lifelong.offline.models.tally import best_weight
from lifelong.offline.nn.counted import TargetPopularity
from lifelong.offline.training.loop import DivergedError, log_loss_of_shares, measure_tasks, validation_subset
from lifelong.offline.training.trainer import train
from lifelong.online.memory.filling import backfill
from lifelong.online.store.opening import open_store
from lifelong.tally.spec import FEATURES
from lifelong.testing.datasets import tiny_dataset

SMALL = {"min_steps": 0, "seed": 3, "threads": 1, "max_epochs": 2, "max_targets": 10, "batch_targets": 200}
SMALL |= {"validate_every": 0.5}


@pytest.fixture(autouse=True)
def no_graphs(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Exporting graphs takes seconds and has its own tests."""
    if "graphs" not in request.node.name:
        monkeypatch.setattr(saving, "write_graphs", empty_graphs)


def run(
    dataset: Dataset,
    out: Path,
    *,
    model: str | None = "dnn",
    own: dict[str, Any] | None = None,
    start: Any = None,
    resume: bool = False,
    **train_settings: Any,
) -> Any:
    config = RunConfig(train=TrainSettings.model_validate({**SMALL, **train_settings}), model=own or {})
    return train(dataset, model, out, config=config, start=start, resume=resume, progress=False)


def on_two_logs(dataset: Dataset, folder: Path, **own: Any) -> tuple[tuple[Any, Dataset], tuple[Any, Dataset]]:
    """Tally of a log, and one that went on from it with a newer log; each with its log."""
    newer = tiny_dataset(folder / "newer", num_users=35)
    first = run(dataset, folder / "a", model="tally", own={"width": 4, "embedding": 5, **own})
    return (first, dataset), (run(newer, folder / "b", model=None, start=first), newer)


def weights(artifact: Any) -> dict[str, torch.Tensor]:
    return load_file(artifact.path / "weights.safetensors")


def same_numbers(one: Any, two: Any) -> bool:
    mine, theirs = weights(one), weights(two)
    curves = [
        [(point["examples"], point["train_loss"], point["auc"], point["log_loss"]) for point in curve]
        for curve in (one.metrics["learning_curve"], two.metrics["learning_curve"])
    ]
    return all(torch.equal(mine[name], theirs[name]) for name in mine) and curves[0] == curves[1]


def test_an_artifact_holds_the_best_weights_and_says_what_was_done(dataset: Dataset, tmp_path: Path) -> None:
    artifact = run(dataset, tmp_path / "out")
    record, size = artifact.metrics, len(dataset.examples("train"))
    best = max(record["learning_curve"], key=lambda point: point["auc"])
    assert record["best"] == best
    validation = dataset.examples("validation")
    logit_N = predict(load_model(artifact), dataset, validation)[:, 0]
    auc = metrics.auc(np.asarray(validation.label_NT[:, 0]), logit_N)
    assert auc == pytest.approx(best["auc"], abs=1e-6)
    assert record["validation"]["auc"] == pytest.approx(auc, abs=1e-6)
    assert (record["examples_seen"], record["epochs"], record["stopped_by"]) == (4 * size, 2.0, "examples")
    assert record["data_hash"] == dataset.manifest.data_hash
    assert (record["negatives"]["rule"], record["cut"]["targets"]) == ("popularity", size)
    assert (record["seed"], record["threads"], record["config"]["train"]["seed"]) == (3, 1, 3)
    assert {"open", "train", "validate", "calibrate"} <= record["seconds"].keys()
    assert {"python", "lifelong", "torch", "numpy"} <= record["versions"].keys()
    assert record["peak_memory"] > 0
    assert all(math.isfinite(point["train_loss"]) for point in record["learning_curve"])
    # No checkpoint is left behind.
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("threads", [1, 2])
def test_record_says_where_the_time_went(dataset: Dataset, tmp_path: Path, threads: int) -> None:
    record = run(dataset, tmp_path / "out", threads=threads).metrics
    shares = record["shares"]
    assert shares.keys() == {"wait", "forward", "backward", "optimiser", "validate", "other"}
    assert all(shares[stage] > 0 for stage in ("forward", "backward", "optimiser", "validate"))
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.01)
    inside = sum(shares[stage] for stage in ("forward", "backward", "optimiser"))
    seconds = record["seconds"]
    whole = sum(seconds[stage] for stage in ("wait", "train", "validate", "checkpoint"))
    assert inside <= seconds["train"] / whole + 0.01


def test_test_split_is_never_read(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = dataset.examples

    def refuse_test(split: Split) -> Examples:
        assert split != "test"
        return examples(split)

    monkeypatch.setattr(dataset, "examples", refuse_test)
    run(dataset, tmp_path / "out", max_epochs=1)


def test_same_seed_same_numbers_other_seed_others(dataset: Dataset, tmp_path: Path) -> None:
    first, again, other = (run(dataset, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert same_numbers(first, again)
    assert not same_numbers(first, other)


@pytest.mark.parametrize(("model", "embeddings"), [("dnn", "dense"), ("hpmn", "dense"), ("dnn", "sparse")])
@pytest.mark.parametrize("number", [1, 9])
def test_interrupted_and_resumed_run_ends_with_the_same_numbers(
    dataset: Dataset, tmp_path: Path, model: str, embeddings: str, number: int
) -> None:
    straight = run(dataset, tmp_path / "straight", model=model, embeddings=embeddings)
    interrupted = pytest.raises(KeyboardInterrupt, match="train again with --resume")
    with after_steps(number, lambda: signal.raise_signal(signal.SIGINT)), interrupted:
        run(dataset, tmp_path / "resumed", model=model, embeddings=embeddings)
    assert not (tmp_path / "resumed").exists()
    resumed = run(dataset, tmp_path / "resumed", model=model, embeddings=embeddings, resume=True)
    assert same_numbers(straight, resumed)
    assert resumed.metrics["examples_seen"] == straight.metrics["examples_seen"]


def test_a_place_that_cannot_be_written_to_is_refused_before_training(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifelong.offline.training.trainer.build_model", None)
    # Root, too, cannot write there.
    with pytest.raises(OSError, match="/proc"):
        train(dataset, "popularity", Path("/proc/none/artifact"))


def test_a_fit_has_nothing_to_resume(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        run(dataset, tmp_path / "out", resume=True, model="popularity")


def test_fitted_model_gets_the_same_record(dataset: Dataset, tmp_path: Path) -> None:
    record = run(dataset, tmp_path / "out", model="counts").metrics
    assert record["stopped_by"] == "fitted"
    assert record["validation"]["auc"] > 0.6
    assert record["data_hash"] == dataset.manifest.data_hash
    assert {"train", "calibrate"} <= record["seconds"].keys()


def test_a_model_given_counts_is_trained_and_scored_and_has_no_graphs_to_serve(
    dataset: Dataset, tmp_path: Path
) -> None:
    artifact = run(dataset, tmp_path / "a", model="gru4rec", own={"counts": True, "embedding": 4})
    assert (artifact.config.memory, artifact.config.settings["counts"]) == (None, True)
    assert not (tmp_path / "a" / "graphs").exists() and not (tmp_path / "a" / "tables").exists()
    model, examples = load_model(artifact), dataset.examples("validation")
    scale_K = model.exact.scale.scale_K
    assert bool((scale_K != 1).all()) and bool(scale_K.isfinite().all())
    logit_NT = predict(model, dataset, examples)
    assert metrics.auc(examples.label_NT[:, 0], logit_NT[:, 0]) == pytest.approx(artifact.metrics["validation"]["auc"])
    with pytest.raises(
        ArtifactError, match=r"GRU4Rec \+ counts, which cannot be served .*exact counts of a whole history"
    ):
        backfill(artifact, dataset, open_store("memory://"))


def test_popularity_is_that_of_a_runs_own_targets_and_not_learned(dataset: Dataset, tmp_path: Path) -> None:
    for artifact, of in on_two_logs(dataset, tmp_path, state=512):
        for place, (field, count_V) in enumerate(target_counts(of).items()):
            column_V = weights(artifact)[f"embed.table_list.{place}.weight"][:, 5 + FEATURES]
            wanted_V = np.log((count_V + 1) / count_V.sum())
            np.testing.assert_allclose(column_V, wanted_V, rtol=1e-6, err_msg=field)


def test_factors_are_made_of_a_runs_own_log(dataset: Dataset, tmp_path: Path) -> None:
    for artifact, of in on_two_logs(dataset, tmp_path, state=1024):
        whole, _ = unit_factors(of, {"item": 8, "category": 4}, seed=SMALL["seed"])
        for place, factor_VD in enumerate(whole.values()):
            assert factor_VD.any()
            np.testing.assert_array_equal(weights(artifact)[f"embed.factor_{place}"], factor_VD)


def test_tally_scales_counts_by_a_runs_own_targets_and_weighs_its_heads_on_validation(
    dataset: Dataset, tmp_path: Path
) -> None:
    (first, _), (second, _) = on_two_logs(dataset, tmp_path)
    names = [f"head.{head}.layers.0.{name}" for head in ("head", "counter") for name in ("mean_X", "scale_X")]
    for head in ("head", "counter"):
        mean_X, scale_X = (weights(first)[f"head.{head}.layers.0.{name}"] for name in ("mean_X", "scale_X"))
        scaled_X = mean_X != 0
        assert scaled_X.any()
        assert not torch.any(scale_X[scaled_X] == 1)
    model, validation = load_model(first), dataset.examples("validation")
    logits = []
    for weight in (0.0, 1.0):
        model.get_buffer("head.steady").fill_(weight)
        logits.append(predict(model, dataset, validation))
    assert float(weights(first)["head.steady"]) == best_weight(*logits, np.asarray(validation.label_NT))
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in names)


def test_an_artifact_has_the_weight_of_tallys_second_head_that_validation_found(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The best weight of this little log is the one that a new model begins with, so another one is found.
    monkeypatch.setattr(tally, "best_weight", lambda first_NT, second_NT, label_NT: 0.65)
    artifact = run(dataset, tmp_path / "a", model="tally", own={"width": 4, "embedding": 5}, max_epochs=1)
    assert float(weights(artifact)["head.steady"]) == pytest.approx(0.65) != tally.STEADY


def test_training_from_an_artifact_keeps_its_scale_of_counts(dataset: Dataset, tmp_path: Path) -> None:
    first = run(dataset, tmp_path / "a", own={"counts": True})
    second = run(dataset, tmp_path / "b", model=None, start=first, seed=9)
    assert second.config.settings["counts"] is True
    names = ("exact.scale.mean_K", "exact.scale.scale_K")
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in names)


def test_who_is_given_counts_is_told_the_popularity_of_the_training(dataset: Dataset, tmp_path: Path) -> None:
    found = weights(run(dataset, tmp_path / "a", own={"counts": True}))
    expected = TargetPopularity(dataset.inputs.item)
    expected.learn(target_counts(dataset))
    for place, count_V in enumerate(target_counts(dataset).values()):
        assert torch.equal(found[f"exact.popular.popular_{place}"], expected.get_buffer(f"popular_{place}"))
        assert int(found[f"exact.popular.popular_{place}"].argmax()) == int(count_V.argmax())


def test_calibrator_is_fitted_on_more_than_decides_when_to_stop(dataset: Dataset, tmp_path: Path) -> None:
    # This model knows enough for a slope above 0 on few examples, too.
    artifact = run(dataset, tmp_path / "out", model="counts", validation_examples=40)
    examples, found = dataset.examples("validation"), artifact.metrics["validation"]
    assert found["examples"] <= 40 < found["calibration_examples"] == len(examples)
    wanted = fit_calibrator(predict(saving.load_model(artifact), dataset, examples)[:, 0], examples.label_NT[:, 0])
    assert artifact.config.calibrator.a == pytest.approx(wanted.a)
    assert artifact.config.calibrator.b == pytest.approx(wanted.b)
    few = run(dataset, tmp_path / "few", model="counts", validation_examples=40, calibration_examples=1)
    assert few.metrics["validation"]["calibration_examples"] == found["examples"]
    assert few.config.calibrator.a != pytest.approx(wanted.a)


def test_foreign_folder_is_refused_before_training(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not an artifact"):
        run(dataset, tmp_path / "out")


def test_nan_loss_ends_the_run_with_advice(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"the loss became nan .* a lower train\.learning_rate than 1e\+30"):
        run(dataset, tmp_path / "out", learning_rate=1e30, clip=0)


@pytest.mark.parametrize(
    ("stopped_by", "validations", "settings"),
    # A learning rate so small that nothing ever becomes better.
    [("patience", 3, {"learning_rate": 1e-30, "patience": 2}), ("time", 1, {"max_minutes": 1e-9})],
)
def test_patience_and_time_end_the_run(
    dataset: Dataset, tmp_path: Path, stopped_by: str, validations: int, settings: dict[str, Any]
) -> None:
    record = run(dataset, tmp_path / "out", max_epochs=50, **settings).metrics
    assert (record["stopped_by"], len(record["learning_curve"])) == (stopped_by, validations)


def test_a_constant_has_the_log_loss_of_the_shares_of_positives(dataset: Dataset) -> None:
    examples = dataset.examples("validation")
    share = float(np.asarray(examples.label_NT).mean())
    logit = np.full((len(examples), 1), np.log(share / (1 - share)), np.float32)
    wanted = measure_tasks(logit, examples, dataset.schema.tasks)[dataset.schema.tasks[0]]["log_loss"]
    assert log_loss_of_shares(examples, dataset.schema.tasks, None) == pytest.approx(wanted, rel=1e-5)


def test_selection_by_log_loss(dataset: Dataset, tmp_path: Path) -> None:
    record = run(dataset, tmp_path / "out", select_on="log_loss").metrics
    assert record["best"]["log_loss"] == min(point["log_loss"] for point in record["learning_curve"])


def test_half_precision_trains_on_a_cpu_too(dataset: Dataset, tmp_path: Path) -> None:
    record = run(dataset, tmp_path / "out", precision="bf16", model="hpmn", max_epochs=1).metrics
    assert record["precision"] == "bf16-mixed"
    assert math.isfinite(record["validation"]["log_loss"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_named(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="finds no GPU"):
        run(dataset, tmp_path / "out", device="cuda")


def test_threads_random_state_and_signal_handler_are_put_back(dataset: Dataset, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    run(dataset, tmp_path / "out", max_epochs=1)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert signal.getsignal(signal.SIGINT) is handler


def test_validation_subset_keeps_users_whole(dataset: Dataset) -> None:
    validation = dataset.examples("validation")
    chosen = validation_subset(validation, len(validation) // 2)
    assert 0 < len(chosen) <= len(validation) // 2
    for user in np.unique(chosen.user_N):
        assert (np.asarray(chosen.user_N) == user).sum() == (np.asarray(validation.user_N) == user).sum()
    more = validation_subset(validation, 3 * len(validation) // 4)
    assert {*np.asarray(chosen.user_N)} < {*np.asarray(more.user_N)}


def test_every_seed_validates_on_the_same_examples(dataset: Dataset, tmp_path: Path) -> None:
    half = len(dataset.examples("validation")) // 2
    of_seed = [
        run(dataset, tmp_path / str(seed), model="popularity", seed=seed, validation_examples=half).metrics
        for seed in (0, 9)
    ]
    everything = run(dataset, tmp_path / "all", model="popularity", validation_examples=None).metrics
    assert of_seed[0]["validation"] == of_seed[1]["validation"] != everything["validation"]


def test_validation_subset_of_one_label_is_refused(dataset: Dataset) -> None:
    validation = dataset.examples("validation")
    label_NT = (np.asarray(validation.user_N) == validation.user_N[-1]).astype(np.float32)[:, None]
    skewed = Examples(validation.user_N, validation.row_N, validation.time_N, validation.position_N, label_NT)
    with pytest.raises(MismatchError, match=r"raise train\.validation_examples"):
        validation_subset(skewed, 2)


def test_progress_lines_go_to_stderr(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(train=TrainSettings.model_validate({**SMALL, "max_epochs": 1}))
    train(dataset, "dnn", tmp_path / "out", config=config, progress=True)
    shown = capsys.readouterr()
    assert not shown.out
    assert "validation: AUC" in shown.err
    for stage in ("training on", "to calibrate", "writing"):
        assert stage in shown.err
    run(dataset, tmp_path / "quiet", max_epochs=1)
    assert not capsys.readouterr().err


def beginning(dataset: Dataset, out: Path, model: str | None, **settings: Any) -> dict[str, torch.Tensor]:
    """Weights after a step that hardly moves them."""
    return weights(run(dataset, out, model=model, max_examples=1, learning_rate=1e-9, **settings))


@pytest.mark.parametrize("model", ["hpmn", "tally"])
def test_vectors_of_items_begin_as_those_of_cooccurrence(dataset: Dataset, tmp_path: Path, model: str) -> None:
    random = beginning(dataset, tmp_path / "random", model, initial_vectors="random")
    begun = beginning(dataset, tmp_path / "begun", model, initial_vectors="cooccurrence")
    spread, expected = model_class(model, {}).vector_spread, cooccurrence_vectors(dataset, 16, seed=3)
    fields = {f"embed.table_list.{place}.weight": field for place, field in enumerate(dataset.inputs.item)}
    for name, weight in begun.items():
        if name not in fields:
            assert torch.allclose(weight, random[name], atol=1e-6)
            continue
        given_VD = spread * torch.from_numpy(expected[fields[name]])
        known_V = given_VD.any(dim=1)
        assert known_V.any()
        assert torch.allclose(weight[known_V, :16], given_VD[known_V], atol=1e-6)
        assert torch.allclose(weight[~known_V], random[name][~known_V], atol=1e-6)
        assert torch.allclose(weight[:, 16:], random[name][:, 16:], atol=1e-6)


@pytest.mark.parametrize("model", ["hpmn", "sim"])
def test_every_model_begins_with_factors_unless_another_beginning_is_named(
    dataset: Dataset, tmp_path: Path, model: str
) -> None:
    unnamed = beginning(dataset, tmp_path / "unnamed", model)
    begun = beginning(dataset, tmp_path / "begun", model, initial_vectors="cooccurrence")
    assert all(torch.equal(weight, unnamed[name]) for name, weight in begun.items())


@pytest.mark.parametrize("model", ["lr", "svdpp"])
def test_models_whose_vectors_mean_something_else_begin_at_random(dataset: Dataset, tmp_path: Path, model: str) -> None:
    random = beginning(dataset, tmp_path / "random", model, initial_vectors="random")
    begun = beginning(dataset, tmp_path / "begun", model, initial_vectors="cooccurrence")
    assert all(torch.equal(weight, random[name]) for name, weight in begun.items())


def test_a_start_keeps_its_vectors(dataset: Dataset, tmp_path: Path) -> None:
    start = run(dataset, tmp_path / "start")
    after = beginning(dataset, tmp_path / "after", None, start=start, initial_vectors="cooccurrence")
    assert all(torch.allclose(weight, after[name], atol=1e-6) for name, weight in weights(start).items())
