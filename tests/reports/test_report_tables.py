import csv
import io

import pytest
from support.results import made_comparison, made_result

from lifelong.offline.evaluation.compare import DifferenceEstimate
from lifelong.offline.evaluation.results import Estimate
from lifelong.offline.reports import comparison_tables, tables
from lifelong.offline.reports.page import write_table
from lifelong.offline.reports.tables import Quantity, Table

ESTIMATE = Estimate(value=0.66912, low=0.6618, high=0.6759)
DIFFERENCE = DifferenceEstimate(value=-0.0123, low=-0.02, high=-0.0041, p_value=0.004)
TABLE = Table(["model", "examples", "AUC", "gain"], [["A & B | <C>", 1234, ESTIMATE, DIFFERENCE]], "100 % sure.")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (1234567, "1,234,567"),
        ("as it is", "as it is"),
        (ESTIMATE, "0.6691 [0.6618, 0.6759]"),
        (Estimate(value=0.5), "0.5000"),
        (Estimate(value=None, reason="all labels are positive"), "all labels are positive"),
        (DIFFERENCE, "−0.0123 [−0.0200, −0.0041], p = 0.004"),
        (DifferenceEstimate(value=0.1, low=0.05, high=0.15, p_value=0.0002), "+0.1000 [+0.0500, +0.1500], p < 0.001"),
        (DifferenceEstimate(value=None, low=None, high=None, p_value=None), "–"),
    ],
)
def test_a_cell_reads_like_a_sentence_of_numbers(cell, text):
    assert tables.text(cell) == text


def written(table, folder, kind):
    write_table(table, folder / "x")
    return (folder / f"x.{kind}").read_text()


def test_markdown_keeps_bars_of_names_inside_their_cell(tmp_path):
    head, rule, row, *rest = written(TABLE, tmp_path, "md").splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["model", "examples", "AUC", "gain"]
    assert [cell.strip("-") for cell in rule.split("|")[1:-1]] == [":", *[":"] * 3] and rule.endswith("-:|")
    assert row.startswith("| A & B \\| <C> |") and "1,234 | 0.6691 [0.6618, 0.6759] | −0.0123" in row
    assert rest == ["", "100 % sure."]


def test_csv_has_full_numbers_in_columns_of_their_own(tmp_path):
    head, row = csv.reader(io.StringIO(written(TABLE, tmp_path, "csv")))
    assert ",".join(head) == "model,examples,AUC,AUC low,AUC high,gain,gain low,gain high,gain p,gain p all"
    assert row == ["A & B | <C>", "1234", "0.66912", "0.6618", "0.6759", "-0.0123", "-0.02", "-0.0041", "0.004", ""]


def test_a_column_of_the_csv_stays_in_its_place_where_the_first_row_has_no_estimate(tmp_path):
    table = Table(["model", "time", "gain"], [["a", Quantity(750.25, "12.5 min"), None], ["b", 3, DIFFERENCE]])
    assert written(table, tmp_path, "csv").splitlines() == [
        "model,time,gain,gain low,gain high,gain p,gain p all",
        "a,750.25,,,,,",
        "b,3,-0.0123,-0.02,-0.0041,0.004,",
    ]


def test_latex_escapes_what_latex_reads_as_commands(tmp_path):
    text = written(TABLE, tmp_path, "tex")
    assert r"A \& B | \textless{}C\textgreater{} & 1,234 &" in text
    assert r"\caption{100 \% sure.}" in text
    assert "$-$0.0123" in text
    assert r"\begin{tabular}{lrrr}" in text and "resizebox" not in text


def test_a_wide_table_is_scaled_to_the_page_in_latex(tmp_path):
    text = written(Table([f"c{place}" for place in range(9)], [[*"abcdefghi"]]), tmp_path, "tex")
    assert text.index(r"\resizebox{\textwidth}{!}{%") < text.index(r"\begin{tabular}")
    assert r"\end{tabular}}" in text


def test_a_metric_of_another_package_is_in_the_row_of_a_result_and_of_each_task():
    result = made_result()
    result = result.model_copy(
        update={"metrics": {**result.metrics, "brier": ESTIMATE}, "other_tasks": {"buy": {"brier": ESTIMATE}}}
    )
    for table in (tables.metrics_table(result), tables.tasks_table(result)):
        assert table.columns[-1] == "brier" and all(row[-1] == ESTIMATE for row in table.rows)


def test_the_metrics_table_has_all_metrics_in_one_row():
    table = tables.metrics_table(made_result("counts", title="Target counts", auc=0.8))
    assert [row[0] for row in table.rows] == ["Target counts"]
    assert table.columns[:3] == ["model", "AUC", "GAUC"]
    assert table.rows[0][1].value == 0.8


def test_the_slices_table_ends_with_unseen_items_and_says_why_a_slice_is_empty():
    table = tables.slices_table(made_result(auc=0.7))
    assert [row[0] for row in table.rows][-4:] == [
        "1000+ events",
        "item had before",
        "item not had before",
        "item unseen in training",
    ]
    assert [tables.text(cell) for cell in table.rows[-4]] == ["1000+ events", "0", "0", "no examples"]
    assert [cell.value for row in (table.rows[0], *table.rows[-3:]) for cell in row[3:]] == pytest.approx(
        [0.71, 0.72, 0.65, 0.6]
    )


def test_models_side_by_side_have_every_part():
    table = comparison_tables.slices_by_model([made_result(auc=0.7), made_result("counts", title="Counts", auc=0.6)])
    assert list(table.columns[-4:]) == [
        "300-999 events",
        "item had before",
        "item not had before",
        "item unseen in training",
    ]
    assert [tables.text(cell) for cell in table.rows[0]][-4:] == ["20", "20", "20", "20"]
    first, second = ([cell and cell.value for cell in row[-4:]] for row in table.rows[1:])
    assert first == pytest.approx([0.71, 0.72, 0.65, 0.6])
    assert second == pytest.approx([0.61, 0.62, 0.55, 0.5])


def test_delays_are_named_as_they_are_typed_and_calibration_has_two_rows_and_neither_is_there_unmeasured():
    assert [row[0] for row in tables.delays_table(made_result()).rows] == ["0s", "1h"]
    assert [row[0] for row in tables.calibration_table([made_result()]).rows] == ["HPMN, raw", "HPMN, calibrated"]
    plain = made_result().model_copy(update={"delays": [], "calibrated": None})
    assert tables.delays_table(plain) is None
    assert tables.calibration_table([plain]) is None


def test_the_comparison_table_shows_differences_to_the_reference():
    table = comparison_tables.comparison_table(made_comparison())
    assert table.columns[2:] == ["AUC", "AUC against Target counts", "log loss", "log loss against Target counts"]
    assert [tables.text(cell) for cell in table.rows[0][3::2]] == ["–", "–"]
    assert table.rows[1][-1].p_value == 0.004
