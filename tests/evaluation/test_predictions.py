"""Scores of a dataset's examples, and results, as tables."""

import numpy as np
import pytest

pytest.importorskip("pandas")
from lifelong.api import predict
from lifelong.offline.evaluation import evaluate
from lifelong.offline.evaluation.results import Result
from lifelong.offline.export.saving import load_model


def test_predictions_are_those_that_evaluate_measures(artifact, dataset) -> None:
    found, examples = predict(artifact, dataset, base_rate=0.1).to_pandas(), dataset.examples("test")
    wanted = evaluate.predict(load_model(artifact), dataset, examples)[:, 0]
    np.testing.assert_allclose(found["score"], wanted, atol=1e-6)
    np.testing.assert_array_equal(found["label"], examples.label_NT[:, 0])
    np.testing.assert_array_equal(found["time"], examples.time_N)
    np.testing.assert_array_equal(found["events"], examples.position_N)
    assert found["user"].iloc[0] == dataset.users.id_at(int(examples.user_N[0]))
    assert found["item"].iloc[-1] == dataset.catalogue.id_of(int(examples.row_N[-1]))
    probability_N, _ = artifact.probability(wanted, 0.1)
    np.testing.assert_allclose(found["probability"], probability_N, atol=1e-6)


def test_delayed_predictions_know_fewer_events_and_sampled_ones_have_no_probability(artifact, dataset) -> None:
    now, late = predict(artifact, dataset), predict(artifact, dataset, delay=30 * 86_400)
    assert sum(late["events"].to_pylist()) < sum(now["events"].to_pylist())
    assert now["probability"].null_count == now.num_rows > 0


def test_a_result_is_a_frame_of_every_metric(result: Result) -> None:
    frame = result.to_frame().set_index(["part", "metric"])
    assert frame.loc[("all", "auc"), "value"] == result.metrics["auc"].value
    assert frame.loc[("all", "auc"), "low"] == result.metrics["auc"].low
    assert len(frame.loc["unseen"]) == len(result.unseen.metrics)
    for part in result.repeats:
        assert frame.loc[(part.name, "auc"), "value"] == pytest.approx(part.metrics["auc"].value, nan_ok=True)
