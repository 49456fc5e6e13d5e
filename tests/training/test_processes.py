"""Two processes of torchrun against one: `several.py` is what they run."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from support import several
from support.artifacts import empty_graphs
from support.steps import after_steps

from lifelong.artifact.folder import Artifact
from lifelong.dataset.folder import Dataset
from lifelong.errors import UsageError
from lifelong.launch import Launch, launch
from lifelong.offline.evaluation.evaluate import evaluate, predict
from lifelong.offline.export import saving
from lifelong.offline.export.saving import load_model
from lifelong.offline.training.trainer import train
from lifelong.testing.datasets import tiny_dataset

pytestmark = pytest.mark.slow
SCRIPT = str(Path(several.__file__))
TOLERANCE = 1e-5
"""Of losses and metrics between one process and two: float32 sums in another order, over a dozen steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return tiny_dataset(folder / "data", num_users=20)


@pytest.fixture(scope="module", autouse=True)
def no_graphs() -> Any:
    """Exporting graphs takes seconds and has its own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "write_graphs", empty_graphs)
        yield


@pytest.fixture(scope="module")
def alone(dataset: Dataset, folder: Path) -> Artifact:
    """Trained by one process."""
    return train(dataset, "dnn", folder / "alone", config=several.run_config(), progress=False)


@pytest.fixture(scope="module")
def seen(dataset: Dataset, alone: Artifact, folder: Path) -> list[dict[str, Any]]:
    """What the two processes saw, in one run of torchrun."""
    begin = {"config": several.run_config(), "progress": False}
    with after_steps(3, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        train(dataset, "dnn", folder / "begun-alone", **begin)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    done = subprocess.run(
        [sys.executable, *words, str(dataset.folder), str(folder)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def curve(record: dict[str, Any]) -> list[list[float]]:
    return [
        [point[name] for name in ("examples", "train_loss", "auc", "log_loss")] for point in record["learning_curve"]
    ]


@pytest.mark.parametrize("batch", several.BATCHES)
@pytest.mark.parametrize("model", several.MODELS)
def test_gradients_and_loss_are_those_of_the_whole_batch(seen: list[dict[str, Any]], model: str, batch: str) -> None:
    for one in seen:
        found = one["gradients"][f"{model}, {batch}"]
        assert found["gradient"] < 1e-6, found
        assert found["loss"] < 1e-6, found


def test_yes_of_one_process_is_heard_by_all(seen: list[dict[str, Any]]) -> None:
    assert {tuple(found["answers"]) for one in seen for found in one["gradients"].values()} == {(True, False)}


def test_rows_of_all_processes_stand_one_process_after_another(seen: list[dict[str, Any]]) -> None:
    assert all(one["rows"] == [[0, 10, 11, 12], [0.0, 10.0, 11.0, 12.0]] for one in seen)


def test_two_processes_train_the_weights_of_one(seen: list[dict[str, Any]], alone: Artifact, folder: Path) -> None:
    two = seen[0]["two"]
    assert (two["processes"], alone.metrics["processes"]) == (2, 1)
    for name in ("examples_seen", "steps", "stopped_by"):
        assert two[name] == alone.metrics[name]
    np.testing.assert_allclose(curve(two), curve(alone.metrics), rtol=TOLERANCE, atol=0)
    mine, theirs = (load_file(folder / name / "weights.safetensors") for name in ("alone", "two"))
    # Adam divides by the size of a gradient: where that is near nothing, its rounding moves a weight most.
    distance = [float((mine[name] - theirs[name]).abs().max()) for name in mine]
    assert max(distance) < 1e-3, distance


def test_numbers_of_every_kind_come_from_the_first(seen: list[dict[str, Any]]) -> None:
    assert all(one["spread"] == [[[1.0]], [[1.0]], [[1]], [[1]], [[True]]] for one in seen)


@pytest.mark.parametrize("form", ["divided", "resumed"])
@pytest.mark.parametrize("model", several.SPARSE)
def test_divided_tables_are_trained_as_whole_ones(
    seen: list[dict[str, Any]], folder: Path, model: str, form: str
) -> None:
    found, whole = (load_file(folder / f"{kind} {model}" / "weights.safetensors") for kind in (form, "whole"))
    assert found.keys() == whole.keys()
    distance = [float((found[name] - whole[name]).abs().max()) for name in whole]
    assert max(distance) < 1e-6, distance


@pytest.mark.parametrize("model", several.SPARSE)
def test_a_process_has_its_share_of_tables_and_moments(seen: list[dict[str, Any]], model: str) -> None:
    shares = [one["divided"][model] for one in seen]
    assert sum(shares) == pytest.approx(1) and max(shares) <= 1.1 / 2, shares


def test_all_processes_have_the_same_record_of_it(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["two"] == seen[1]["two"]


def test_run_begun_by_one_process_is_ended_by_two(seen: list[dict[str, Any]], alone: Artifact) -> None:
    for one in seen:
        np.testing.assert_allclose(curve(one["resumed"]), curve(alone.metrics), rtol=TOLERANCE, atol=0)


def test_run_interrupted_in_one_process_stops_all_and_is_ended_by_one(
    seen: list[dict[str, Any]], dataset: Dataset, alone: Artifact, folder: Path
) -> None:
    assert all("train again with --resume" in one["interrupted"] for one in seen)
    assert seen[0]["interrupted"] == seen[1]["interrupted"]
    ended = train(dataset, "dnn", folder / "begun-together", config=several.run_config(), resume=True, progress=False)
    np.testing.assert_allclose(curve(ended.metrics), curve(alone.metrics), rtol=TOLERANCE, atol=0)


def test_time_is_over_for_all_at_the_same_step(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["late"] == seen[1]["late"]
    assert seen[0]["late"]["stopped_by"] == "time"
    assert seen[0]["late"]["steps"] < seen[0]["two"]["steps"]


def test_logits_scored_in_shares_are_the_same_bits(
    seen: list[dict[str, Any]], dataset: Dataset, alone: Artifact, folder: Path
) -> None:
    expected = predict(load_model(alone), dataset, dataset.examples("test"))
    for rank in range(2):
        assert np.array_equal(np.load(folder / f"logits-{rank}.npy"), expected)


def test_evaluation_by_two_is_that_of_one(seen: list[dict[str, Any]], dataset: Dataset, alone: Artifact) -> None:
    expected = evaluate(alone, dataset, delays=(0, 86_400), bootstrap=20).model_dump(mode="json")
    for one in seen:
        for name in ("metrics", "slices", "repeats", "delays", "unseen", "counts", "calibrated"):
            assert one["record"][name] == expected[name]


def test_the_first_process_alone_prints(seen: list[dict[str, Any]]) -> None:
    (code, said), (other_code, other_said) = (one["evaluate"] for one in seen)
    assert (code, other_code) == (0, 0)
    assert json.loads(said)["metrics"]["auc"]["value"] == seen[0]["record"]["metrics"]["auc"]["value"]
    assert other_said == ""


def test_other_commands_are_refused(seen: list[dict[str, Any]]) -> None:
    code, said = seen[0]["models"]
    assert code == 2
    assert "2 processes of `lifelong models`" in json.loads(said)["error"]["found"]
    assert seen[1]["models"] == [2, ""]


def test_failure_of_the_first_is_told_to_all(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["failures"]["first"] == "LifelongError: the disk is full."
    reason = "process 0 failed: the disk is full. To do: see the log of process 0, remove the cause, and start again."
    assert seen[1]["failures"]["first"] == f"LostProcessError: {reason}"


def test_processes_with_different_data_are_refused_in_all(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert "the data is 1 in process 1 of 2 (on " in one["failures"]["same"]
        assert "but 0 in process 0" in one["failures"]["same"]


def test_model_that_needs_whole_batches_is_refused_with_the_reason(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert "centroids" in one["failures"]["sim"] and "without torchrun" in one["failures"]["sim"]


@pytest.mark.parametrize("fate", ["dies", "hangs"])
def test_process_whose_peer_is_lost_says_so_and_ends(dataset: Dataset, tmp_path: Path, fate: str) -> None:
    """As on two machines: nobody is there who would end the survivor."""
    (code, said, errors), _ = on_two_machines(dataset, tmp_path / "out", fate)
    assert code == 1, errors
    error = json.loads(said)["error"]
    assert error["type"] == "LostProcessError"
    assert "process 0 of 2" in error["found"]
    assert "--resume" in error["fix"]


def test_machine_without_the_first_ones_disk_ends_well_and_writes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    (code, said, errors), (other_code, other_said, other_errors) = on_two_machines(
        dataset, tmp_path / "out", "is elsewhere"
    )
    assert (code, other_code) == (0, 0), errors + other_errors
    assert json.loads(said)["artifact"] == str(tmp_path / "out")
    assert (other_said, other_errors) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def on_two_machines(dataset: Dataset, out: Path, fate: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of two processes that torchrun starts on machines of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "x"}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(dataset.folder), str(out), fate],
            env=os.environ | shared | {"RANK": str(rank), "GROUP_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        texts = [started[0].communicate(timeout=300)]
        if fate == "hangs":
            started[1].kill()
        texts.append(started[1].communicate(timeout=60))
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(started, texts, strict=True)]


def test_run_that_torchrun_starts_anew_goes_on_from_its_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", SCRIPT]
    done = subprocess.run(
        [sys.executable, *words, str(dataset.folder), str(tmp_path / "out"), "dies once"],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    record = Artifact.open(tmp_path / "out").metrics
    assert record["examples_seen"] == 4 * len(dataset.examples("train"))
    assert done.stdout.count("Artifact ") == 1
    assert done.stderr.count("going on after") == 1
    assert "exitcode: 9" in done.stderr
    assert not (tmp_path / "out.checkpoint").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not list the threads of a process")
def test_threads_of_the_group_have_ended_when_the_interpreter_ends(seen: list[dict[str, Any]], folder: Path) -> None:
    names = [json.loads((folder / f"threads-{rank}.json").read_text()) for rank in range(len(seen))]
    assert all("python" in threads for threads in names)
    assert not [name for threads in names for name in threads if "gloo" in name]


def test_without_torchrun_there_is_one_process() -> None:
    assert launch({}) == Launch()
    assert launch({"RANK": "3"}) == Launch()


def test_place_is_what_torchrun_says() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place = launch({**said, "TORCHELASTIC_RESTART_COUNT": "1"})
    assert place == Launch(3, 4, 1, 2, 1)
    assert place.several and not place.first


@pytest.mark.parametrize("rank", ["4", "-1", "first"])
def test_nonsense_in_the_environment_is_named(rank: str) -> None:
    with pytest.raises(UsageError, match=f"RANK={rank}, WORLD_SIZE=4"):
        launch({"RANK": rank, "WORLD_SIZE": "4"})
