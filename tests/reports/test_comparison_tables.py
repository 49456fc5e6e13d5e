from support.comparisons import made_study

from lifelong.offline.evaluation.compare import DifferenceEstimate
from lifelong.offline.evaluation.results import Estimate
from lifelong.offline.reports import comparison_tables as made
from lifelong.offline.reports.tables import text

STUDY = made_study(models=12)


def row_of(table, name):
    found = next(row for row in table.rows if str(row[0]).startswith(name))
    return dict(zip(table.columns, map(text, found), strict=True))


def test_the_main_table_has_quality_tests_and_cost_of_each_model():
    row = row_of(made.main_table(STUDY), "Target counts")
    assert row["AUC"] == "0.6800 [0.6750, 0.6850]"
    assert row["AUC against HPMN"] == "−0.0200 [−0.0240, −0.0160], p = 0.002"
    assert (row["Mann-Whitney p"], row["t test p"], row["SD of AUC over seeds"]) == ("< 0.001", "0.030", "0.0014")
    assert (row["parameters"], row["training time"], row["examples / s"]) == ("1,220,000", "30 min", "3,000")
    assert (row["state, bytes a user"], row["latency, 1,000 events"]) == ("800", "1.2 ms")


def test_a_metric_of_another_package_has_its_columns():
    estimate, reference = Estimate(value=0.2, low=0.1, high=0.3), STUDY.reference
    difference = DifferenceEstimate(value=0.02, low=0.01, high=0.03, p_value=0.004)
    rows = [
        row.model_copy(
            update={
                "metrics": {**row.metrics, "brier": estimate},
                "differences": None if row.model == reference else {**(row.differences or {}), "brier": difference},
            }
        )
        for row in STUDY.rows
    ]
    study = STUDY.model_copy(update={"rows": rows})
    for table in (made.main_table(study), made.comparison_table(study)):
        row = row_of(table, "Target counts")
        assert (row["brier"], row["brier against HPMN"]) == (text(estimate), text(difference))


def test_the_best_model_stands_first():
    reordered = STUDY.model_copy(update={"rows": STUDY.rows[::-1]})
    assert made.main_table(reordered).rows[0][0] == "HPMN"


def test_rows_that_hit_a_limit_are_marked_and_the_mark_is_explained():
    table = made.main_table(STUDY)
    assert [row[0] for row in table.rows if made.MARK in str(row[0])] == ["DNN †"]
    assert "† A limit ended the training" in table.caption
    without = STUDY.model_copy(
        update={"costs": {name: cost.model_copy(update={"hit_limit": False}) for name, cost in STUDY.costs.items()}}
    )
    assert "†" not in made.main_table(without).caption


def test_what_was_not_measured_is_a_dash_and_not_a_nought():
    row = row_of(made.main_table(STUDY), "Item popularity")
    assert row["parameters"] == row["examples / s"] == row["latency, 100 events"] == "–"
    assert row["training time"] == "0.8 s"


def test_without_any_latency_there_are_no_such_columns():
    costs = {name: cost.model_copy(update={"latency_ms": None}) for name, cost in STUDY.costs.items()}
    table = made.main_table(STUDY.model_copy(update={"costs": costs}))
    assert not [name for name in table.columns if "latency" in name]
    assert "Latency" not in table.caption
