"""What a reader sees first: which model, what it costs, where not to use it."""

import pytest
from support.comparisons import made_study

from lifelong.offline.evaluation.compare import DifferenceEstimate
from lifelong.offline.evaluation.results import Estimate
from lifelong.offline.reports.verdict import verdict


def seeded(study, seeds=3):
    return study.model_copy(update={"rows": [row.model_copy(update={"seeds": seeds}) for row in study.rows]})


def gap(value, p):
    return DifferenceEstimate(value=value, low=value - 0.01, high=value + 0.01, p_value=p)


def with_auc(study, model, value, low, high):
    """The same with another AUC of one model: of its row, and of its one seed."""
    auc = {"auc": Estimate(value=value, low=low, high=high)}
    rows = [
        row.model_copy(update={"metrics": {**row.metrics, **auc}}) if row.model == model else row for row in study.rows
    ]
    results = [
        of.model_copy(update={"metrics": {**of.metrics, **auc}}) if of.model == model else of for of in study.results
    ]
    return study.model_copy(update={"rows": rows, "results": results})


STUDY = with_auc(made_study(models=4), "popularity", 0.5, 0.49, 0.51)


@pytest.mark.parametrize(
    ("seeds", "model", "pair", "start"),
    [
        (
            3,
            "hpmn",
            gap(0.01, 0.01),
            "Use HPMN: AUC 0.700 [0.695, 0.705] against 0.680 [0.675, 0.685] for Target counts",
        ),
        (3, "gbdt", gap(-0.03, 0.01), "Use HPMN: AUC 0.700 [0.695, 0.705] against 0.670 [0.665, 0.675] for LightGBM"),
        (3, "hpmn", gap(0.01, 0.4), "HPMN and Target counts, the best other model, are level"),
        (
            2,
            "hpmn",
            gap(0.01, 0.01),
            "HPMN is ahead of Target counts, AUC 0.700 [0.695, 0.705] against 0.680 [0.675, 0.685] (HPMN minus Target",
        ),
        (1, "hpmn", gap(0.01, 0.4), "HPMN and Target counts, the best other model, are level"),
        (3, "hpmn", None, "No verdict: HPMN is ahead of Target counts"),
    ],
    ids=["better", "worse", "level", "few seeds", "one seed, level", "not tested"],
)
def test_the_first_sentence_says_which_model_to_use_or_why_that_is_open(seeds, model, pair, start):
    assert verdict(seeded(STUDY, seeds), model, pair)[0].startswith(start)


@pytest.mark.parametrize(("p", "seeds"), [(0.01, 1), (0.4, 2)])
def test_with_few_seeds_the_first_sentence_shows_what_they_say_and_how_to_claim_it(p, seeds):
    said = verdict(seeded(STUDY, seeds), "hpmn", gap(0.01, p))[0]
    assert "+0.0100 [+0.0000, +0.0200], p" in said
    assert said.endswith("It takes 3 trainings of each to claim that: `lifelong compare` with --seeds 3.")
    assert "Choose by cost" not in said


def test_lightgbm_and_the_cost_of_a_request_are_named():
    said = " ".join(verdict(seeded(STUDY), "hpmn", gap(0.01, 0.01)))
    assert "LightGBM on exact counts has AUC 0.670 [0.665, 0.675]." in said
    assert "Cost of 100 candidates after 1,000 events: HPMN 0.6 ms and 200 bytes a user;" in said
    without = seeded(with_auc(made_study(models=3), "popularity", 0.5, 0.49, 0.51))
    assert "LightGBM, the usual baseline, was not compared (--models ...,gbdt)." in verdict(seeded(without), "hpmn")


def test_a_model_that_cannot_be_served_is_said_to_be_so_and_a_slow_one_has_no_exponent():
    costs = {name: cost.model_copy(deep=True) for name, cost in STUDY.costs.items()}
    costs["hpmn"] = costs["hpmn"].model_copy(update={"latency_ms": {1000: 1063.2}})
    costs["gbdt"] = costs["hpmn"].model_copy(update={"latency_ms": None, "state_bytes": None})
    said = " ".join(verdict(seeded(STUDY.model_copy(update={"costs": costs})), "hpmn", gap(0.01, 0.01)))
    assert "HPMN 1,063 ms and 200 bytes a user;" in said
    assert "LightGBM on exact counts cannot be served." in said


def test_lengths_of_history_at_which_another_model_is_better_are_named():
    assert "At no length of history is another model clearly better than HPMN (first seed)." in verdict(STUDY, "hpmn")
    results = [result.model_copy(deep=True) for result in STUDY.results]
    results[0].slices[1].metrics["auc"] = Estimate(value=0.5, low=0.45, high=0.55)
    study = STUDY.model_copy(update={"results": results})
    name = results[0].slices[1].name
    assert any(
        said.startswith(f"Do not use HPMN for users with {name} events, where Item popularity is better (0.700")
        for said in verdict(study, "hpmn")
    )


def test_a_model_that_learned_nothing_is_named_and_not_recommended():
    study = with_auc(with_auc(seeded(STUDY), "counts", 0.51, 0.49, 0.53), "gbdt", 0.65, 0.64, 0.66)
    study = with_auc(study, "popularity", 0.66, 0.65, 0.67)
    said = verdict(study, "hpmn", gap(0.01, 0.01))
    assert said[-2:] == [
        "Learned nothing from histories here: Target counts (AUC 0.510 [0.490, 0.530] is not above guessing, 0.5) and "
        "LightGBM on exact counts (AUC 0.650 [0.640, 0.660] is not above item popularity, 0.660).",
        "More examples or other settings may change that: such figures say nothing about the models themselves.",
    ]
    assert " ".join(said).count("earned nothing") == 1
    first, *rest = verdict(study, "counts", gap(-0.2, 0.01))
    assert first.startswith("Do not use Target counts as it was trained here: it learned nothing from histories (AUC")
    # What was said of it first is not said again.
    assert not any("Target counts" in one for one in rest if "earned nothing" in one)


def test_seeds_that_differ_do_not_make_a_model_one_that_learned_nothing_while_each_is_sure_that_it_did():
    wide = Estimate(value=0.68, low=0.2, high=1.0)
    rows = [row.model_copy(update={"metrics": {"auc": wide}}) if row.model == "counts" else row for row in STUDY.rows]
    assert not any("earned nothing" in said for said in verdict(STUDY.model_copy(update={"rows": rows}), "hpmn"))


def test_where_no_cost_was_measured_none_is_told():
    costs = {name: cost.model_copy(update={"latency_ms": None}) for name, cost in STUDY.costs.items()}
    assert not any("Cost" in said for said in verdict(STUDY.model_copy(update={"costs": costs}), "hpmn"))


def test_one_model_alone_is_compared_with_nothing():
    said = verdict(made_study(models=1), "hpmn")
    assert said[0].startswith("Only HPMN was compared (AUC 0.700 [0.695, 0.705]), so this page cannot say")


def test_without_any_auc_nothing_is_claimed():
    study = made_study(models=1)
    assert verdict(with_auc(study, "hpmn", None, None, None), "hpmn")[0].startswith("No model has an AUC here")
