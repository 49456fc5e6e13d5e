"""What a comparison trains, and what it makes of it."""

import numpy as np
import pytest

from lifelong.config import RunConfig, TrainSettings
from lifelong.dataset.negatives import labelled_training_examples
from lifelong.errors import UsageError
from lifelong.offline.evaluation.compare import Comparison, Runs, compare
from lifelong.offline.evaluation.costs import Serving, hit_limit
from lifelong.offline.training import trainer
from lifelong.offline.training.runs import Run, gather
from lifelong.offline.training.settings import with_recipe
from lifelong.offline.training.study import RunsFailedError, Study, plan, run_study

TRAIN = TrainSettings(threads=1, max_examples=200, validate_every=100, batch_targets=64)


DATASET = {"num_users": 12, "num_items": 30, "mean_events": 20}


def configs(*models):
    return {model: RunConfig(train=TRAIN, model={"embedding": 4} if model == "dnn" else {}) for model in models}


# the plan


def test_first_seeds_of_all_models_come_before_second_ones(tmp_path, dataset, monkeypatch):
    begun = []
    monkeypatch.setattr(Run, "do", lambda run, dataset, progress: begun.append(run.name))
    with pytest.raises(RunsFailedError):
        run_study(dataset, tmp_path, Study(configs("popularity", "dnn"), seeds=range(2)))
    assert begun == ["popularity-seed0", "dnn-seed0", "popularity-seed1", "dnn-seed1"]


def test_a_limit_of_time_lowers_a_models_own_and_never_raises_it(tmp_path, dataset):
    own = {"dnn": RunConfig(train=TrainSettings(max_minutes=5))}
    assert plan(Study(own, max_minutes=180), tmp_path)["dnn"][0].settings(dataset).train.max_minutes == 5
    assert plan(Study(own, max_minutes=1), tmp_path)["dnn"][0].settings(dataset).train.max_minutes == 1


def test_a_model_is_compared_after_as_many_epochs_as_it_is_trained_for_alone(tmp_path, dataset):
    (run,) = plan(Study({"tally": RunConfig()}, max_minutes=180), tmp_path)["tally"]
    alone, compared = with_recipe(RunConfig(), "tally", dataset).train, run.settings(dataset).train
    assert alone.max_epochs < TrainSettings().max_epochs
    assert compared == alone.model_copy(update={"max_minutes": 180.0})
    trained = with_recipe(run.settings(dataset), "tally", dataset).train
    assert trained == compared


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"reference": "hpmn"}, "'hpmn' is not compared"),
        ({"seeds": ()}, "nothing to compare"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, change, found):
    with pytest.raises(UsageError, match=found):
        plan(Study(**{"configs": configs("dnn"), **change}), tmp_path)


# the outcome


@pytest.fixture(scope="module")
def outcome(dataset, tmp_path_factory):
    study = Study(
        configs("popularity", "counts", "dnn"),
        seeds=range(2),
        resamples=20,
        notes=("n",),
    )
    measure = lambda artifact: Serving(7, {100: 1.5}) if artifact.config.model == "dnn" else None  # noqa: E731
    out = tmp_path_factory.mktemp("study")
    return run_study(dataset, out, study, measure=measure, command="lifelong compare"), out, study


def test_every_part_of_the_comparison_is_there_and_kept(outcome):
    made, out, _ = outcome
    comparison = made.comparison
    assert made.failures == {}
    assert Comparison.load(out / "comparison.json") == comparison
    assert [row.model for row in comparison.rows] == ["popularity", "counts", "dnn"]
    assert [row.seeds for row in comparison.rows] == [2, 2, 2]
    assert (comparison.command, comparison.notes[0]) == ("lifelong compare", "n")


def test_costs_are_of_the_first_seed_and_none_where_they_do_not_apply(outcome):
    made, _, _ = outcome
    costs = made.comparison.costs
    assert costs["dnn"].examples_seen == 200
    assert costs["dnn"].parameters > 0
    assert (costs["dnn"].state_bytes, costs["dnn"].latency_ms) == (7, {100: 1.5})
    counts = costs["counts"]
    assert (counts.stopped_by, counts.hit_limit, counts.parameters, counts.latency_ms) == ("fitted", False, None, None)


def test_a_second_call_trains_nothing_and_finds_the_same(outcome, dataset, monkeypatch):
    made, out, study = outcome
    monkeypatch.setattr(trainer, "train", None)
    monkeypatch.setattr("lifelong.offline.training.runs.evaluate.predict", None)
    again = run_study(dataset, out, study, command="lifelong compare").comparison
    assert again.rows == made.comparison.rows


def test_a_model_that_fails_is_noted_and_another_takes_its_place_as_reference(dataset, tmp_path, failing):
    failing("popularity")
    made = run_study(dataset, tmp_path, Study(configs("popularity", "counts"), resamples=5))
    assert made.failures == {"popularity-seed0": "ValueError: no luck"}
    assert made.comparison.reference == "counts"
    assert made.comparison.notes[0] == "popularity-seed0 failed: ValueError: no luck"


def test_nothing_that_succeeds_is_an_error(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train", None)
    with pytest.raises(RunsFailedError, match="no run succeeded; popularity-seed0: TypeError"):
        run_study(dataset, tmp_path, Study(configs("popularity")))


@pytest.fixture
def trained(monkeypatch):
    """The models that were trained, each with its seed."""
    real, calls = trainer.train, []

    def train(dataset, model, out, *, config, **options):
        calls.append((model, config.train.seed))
        return real(dataset, model, out, config=config, **options)

    monkeypatch.setattr(trainer, "train", train)
    return calls


def test_seeds_of_gbdt_have_other_examples_and_trees_and_count_in_its_interval(dataset, tmp_path):
    pytest.importorskip("lightgbm")
    small = {"rounds": 5, "leaves": 4, "leaf_examples": 5, "max_examples": 100, "vectors": 0}
    config = RunConfig(train=TrainSettings(threads=1), model=small)
    study = Study({"gbdt": config}, seeds=range(3), resamples=200)
    (row,) = run_study(dataset, tmp_path, study).comparison.rows
    runs = plan(study, tmp_path)["gbdt"]
    assert len({run.logits.tobytes() for run in runs}) == 3
    drawn = {labelled_training_examples(dataset, seed=run.config.train.seed, limit=100).row_N.tobytes() for run in runs}
    assert len(drawn) == 3
    values = [run.result.metrics["auc"].value for run in runs]
    assert (row.seeds, row.spread["auc"].values) == (3, values)
    assert row.metrics["auc"].value == pytest.approx(np.mean(values))
    # The same fit thrice has users in its interval, and nothing else.
    same = Runs("LightGBM", gather(runs[:1], dataset).samples * 3)
    of_users = compare({"gbdt": same}, reference="gbdt", resamples=200)[0].metrics["auc"]
    of_both = row.metrics["auc"]
    assert of_both.high - of_both.low > of_users.high - of_users.low


def test_a_second_call_trains_only_what_is_not_finished(dataset, tmp_path, trained):
    first = run_study(dataset, tmp_path, Study(configs("popularity"), resamples=10)).comparison
    second = run_study(dataset, tmp_path, Study(configs("popularity", "counts"), resamples=10)).comparison
    assert trained == [("popularity", 0), ("counts", 0)]
    assert second.rows[0] == first.rows[0]


def test_a_run_that_was_trained_and_not_scored_to_the_end_is_only_scored_again(dataset, tmp_path, trained):
    study = Study(configs("popularity"), resamples=5)
    first = run_study(dataset, tmp_path, study).comparison
    (tmp_path / "runs" / "popularity-seed0" / "result-test.json").unlink()
    assert run_study(dataset, tmp_path, study).comparison.rows == first.rows
    assert trained == [("popularity", 0)]


@pytest.mark.parametrize(
    ("stopped_by", "best", "expected"),
    [("time", 2, True), ("examples", 2, True), ("examples", 1, False), ("patience", 2, False), ("fitted", None, False)],
)
def test_a_limit_was_hit_if_it_ended_a_training_that_was_still_rising(stopped_by, best, expected):
    curve = [{"examples": n} for n in (10, 20, 30)] if best is not None else []
    record = {"stopped_by": stopped_by, "learning_curve": curve, "best": None if best is None else curve[best]}
    assert hit_limit(record) is expected
