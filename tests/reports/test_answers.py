import numpy as np
import pytest
from support.comparisons import made_study

from lifelong.evaluation.attention import AgeClass, SlotContents
from lifelong.evaluation.compare import DifferenceEstimate
from lifelong.reports import answers

MADE = made_study(models=4)
STUDY = MADE.model_copy(update={"rows": [row.model_copy(update={"seeds": 3}) for row in MADE.rows]})


def gap(value, p):
    return DifferenceEstimate(value=value, low=value - 0.01, high=value + 0.01, p_value=p)


def swept(**given):
    """HPMN alone; number of events (as e20) -> (AUC, p of the difference to all events)."""
    points = []
    for point in STUDY.sweep:
        if point.model == "hpmn":
            auc, p = given.get(f"e{point.events}", (None, None)) if point.events else (0.7, None)
            if auc is not None:
                value = point.metrics["auc"].model_copy(update={"value": auc, "low": auc - 0.01, "high": auc + 0.01})
                points.append(
                    point.model_copy(
                        update={"metrics": {"auc": value}, "difference": None if p is None else gap(auc - 0.7, p)}
                    )
                )
    return STUDY.model_copy(update={"sweep": points})


@pytest.mark.parametrize(
    ("comparison", "start"),
    [
        (swept(e20=(0.5, 0.001), e1000=(0.6, 0.01)), "Yes: all events are better than every shorter window."),
        (swept(e20=(0.5, 0.001), e1000=(0.69, 0.4)), "In part: better than the last 20, no difference to 1,000."),
        (swept(e20=(0.69, 0.3), e1000=(0.69, 0.4)), "Not shown: no shorter window is measurably worse."),
        (swept(e20=(0.5, 0.001), e1000=(0.75, 0.001)), "Not always: it does better with the last 1,000 alone."),
        (swept(e20=(0.75, 0.001), e1000=(0.75, 0.001)), "No: it does better with the last 20, 1,000 alone."),
        (swept(e20=(0.5, None)), "Not tested"),
        (swept(), "Not measured: no sweep over numbers of recent events holds HPMN."),
    ],
    ids=["yes", "in part", "not shown", "not always", "no", "not tested", "not measured"],
)
def test_whether_the_whole_history_helps_follows_the_numbers(comparison, start):
    assert answers.whole_history(comparison, "hpmn").text.startswith(start)


def test_the_answer_names_the_test_and_its_examples():
    text = answers.whole_history(STUDY, "hpmn").text
    assert "Paired bootstrap over users, two-sided, on the same 20,000 test examples with at least 1,000" in text
    assert "with the last 20 0.550 [0.545, 0.555] (−0.1500 [−0.1540, −0.1460], p = 0.002)" in text


def test_a_lifelong_model_pays_from_the_first_number_of_events_whose_lower_bound_is_above_short_windows():
    comparison = swept(e50=(0.60, 0.1), e100=(0.609, 0.1), e300=(0.62, 0.1))
    assert "HPMN pays from 300 events on: the lower bound of its interval there, 0.610, exceeds that" in (
        answers.pays_from(comparison, "hpmn")
    )


def test_the_short_window_to_beat_is_the_best_of_all_models():
    other = next(point for point in STUDY.sweep if point.model == "counts" and point.events == 50)
    strong = other.metrics["auc"].model_copy(update={"value": 0.72})
    comparison = swept(e50=(0.6, 0.1), e100=(0.65, 0.1))
    comparison = comparison.model_copy(
        update={"sweep": [*comparison.sweep, other.model_copy(update={"metrics": {"auc": strong}})]}
    )
    text = answers.pays_from(comparison, "hpmn")
    assert "The best with at most 50 recent events is Target counts with the last 50, AUC 0.720." in text
    assert (
        "exceeds that at no number of events (highest: 0.690 with all events), so it is not shown to pay here" in text
    )


def test_without_short_windows_it_is_not_said_from_where_it_pays():
    assert "was not measured" in answers.pays_from(swept(e300=(0.6, 0.1)), "hpmn")


@pytest.mark.parametrize(
    ("model", "pair", "start"),
    [
        ("hpmn", gap(0.01, 0.01), "Yes: HPMN is better than every other model."),
        ("hpmn", gap(0.01, 0.3), "Not shown: HPMN has the highest AUC, but the difference may be chance."),
        ("counts", gap(-0.02, 0.01), "No: HPMN is better."),
        ("counts", gap(-0.02, 0.3), "Not shown: HPMN has the higher AUC"),
        ("hpmn", None, "By value yes, but the two were not tested against each other."),
        ("gru4rec", None, "Not measured: gru4rec: it was not compared."),
    ],
)
def test_whether_the_lifelong_model_is_best_follows_the_numbers(model, pair, start):
    assert answers.best(STUDY, model, pair).text.startswith(start)


def test_with_fewer_than_three_seeds_no_model_is_called_better():
    text = answers.best(MADE, "hpmn", gap(0.01, 0.01)).text
    assert text.startswith("Not shown: HPMN has the highest AUC, but fewer than 3 seeds carry no claim.")


def test_the_rival_is_the_best_of_the_others_and_the_place_is_counted():
    text = answers.best(STUDY, "counts", gap(-0.02, 0.01)).text
    assert "Target counts has AUC 0.680 [0.675, 0.685], place 3 of 4; the best other model, HPMN, has 0.700" in text
    assert "not corrected for choosing the best" in text


def test_a_limit_in_the_training_of_either_is_told():
    costs = {name: cost.model_copy(update={"hit_limit": name == "hpmn"}) for name, cost in STUDY.costs.items()}
    text = answers.best(STUDY.model_copy(update={"costs": costs}), "hpmn", gap(0.01, 0.01)).text
    assert text.endswith("A limit ended the training of HPMN while validation still rose.")


def contents(correlation, p):
    classes = (AgeClass("1 to 10", 50, np.array([0.7, 0.3])), AgeClass("33 to 100", 50, np.array([0.4, 0.6])))
    return SlotContents((1, 32), classes, 100, correlation, correlation - 0.1, correlation + 0.1, p)


@pytest.mark.parametrize(
    ("found", "start"),
    [
        (contents(0.4, 0.001), "Time scales: the older the related events, the more the slower slots are read."),
        (contents(0.05, 0.001), "Time scales: the older the related events, the more the slower slots are read, but w"),
        (contents(-0.4, 0.001), "Not the time scales of the paper: slower slots are read more where related events ar"),
        (contents(0.4, 0.2), "No link between a slot's period and the age of related events was found."),
        (SlotContents((1, 2), (), 0, None, None, None, None), "Not measurable: too few targets"),
        (None, "Not measured: no artifact."),
    ],
)
def test_what_the_slots_hold_follows_the_numbers(found, start):
    assert answers.slots(found, "HPMN", "no artifact").text.startswith(start)


def test_the_slots_answer_shows_the_young_and_the_old_end():
    text = answers.slots(contents(0.4, 0.001), "HPMN", "").text
    assert "Where the latest related event is 1 to 10 events old, the slot written every 32 events gets 0.30" in text
    assert "where it is 33 to 100, 0.60 and 0.40" in text
    assert "+0.400 [+0.300, +0.500], p = 0.001" in text
