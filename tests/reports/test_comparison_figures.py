import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from support.comparisons import TITLES, made_study

from lifelong.errors import UsageError
from lifelong.evaluation.attention import AgeClass, SlotContents
from lifelong.reports import comparison_figures, drawing, figures, slots
from lifelong.reports.figures import Curve
from lifelong.reports.labels import place_labels

STUDY = made_study()


def words_in(figure):
    root = ElementTree.fromstring(figure.svg.read_text())
    return [" ".join("".join(node.itertext()).split()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_of_many_models_the_best_are_named_and_the_rest_are_counted(tmp_path):
    words = words_in(figures.metric_by_history(STUDY.results, tmp_path, always=["DIN"]))
    assert {"HPMN", "Target counts", "FM", "DIN", "21 other models"} <= set(words)
    assert "MF" not in words


def test_of_few_models_all_are_coloured(tmp_path):
    figure = figures.metric_by_history(STUDY.results[:8], tmp_path)
    assert set(list(TITLES.values())[:8]) <= set(words_in(figure))
    assert "other model" not in figure.svg.read_text() + figure.caption


def test_the_best_stand_out_and_those_that_always_do():
    values = {f"m{place}": float(place) for place in range(12)}
    assert figures.standing_out(values, ["m0", "absent"]) == {f"m{place}" for place in range(6, 12)} | {"m0"}
    assert figures.standing_out({**values, "undefined": None}) == {f"m{place}" for place in range(6, 12)}


def test_learning_curves_of_many_models_keep_the_lifelong_one_in_sight(tmp_path):
    curves = {f"m{place:02}": Curve([1, 2], [0.5, 0.5 + place / 100]) for place in range(20)}
    words = words_in(figures.learning_curves(curves, tmp_path, always=["m03"]))
    assert {"m19", "m14", "m03", "13 other models"} <= set(words)
    assert "m13" not in words


def test_the_sweep_names_its_steps_and_tells_its_values(tmp_path):
    figure = comparison_figures.sweep(STUDY, tmp_path, sentence="It pays from 100 events on.", always=["dnn"])
    assert {"20", "50", "100", "300", "1,000", "all", "DNN", "21 other models"} <= set(words_in(figure))
    assert figure.caption.startswith("It pays from 100 events on.")
    assert "HPMN with all: 0.700 [0.695, 0.705]" in figure.alt


def test_ablations_are_differences_to_the_base(tmp_path):
    figure = comparison_figures.ablations(STUDY.ablations, tmp_path)
    words = words_in(figure)
    assert {"slots-1", "−0.0300", "+0.0010"} <= set(words)
    assert "base" not in words
    assert "The base has AUC 0.7000." in figure.caption


def test_quality_against_cost_labels_every_point_and_tells_who_is_missing(tmp_path):
    points = {"cheap": (2.0, 0.6), "good": (40.0, 0.7), "bad": (90.0, 0.65)}
    figure = comparison_figures.quality_against(points, tmp_path, name="trade", cost="state, bytes", left_out=["none"])
    words = words_in(figure)
    assert {"cheap", "good", "bad", "state, bytes (logarithmic)"} <= set(words)
    assert {"5", "10", "20"} <= set(words)
    assert "it was not measured: none." in figure.caption


def test_the_best_trades_are_those_that_no_other_beats_in_both():
    points = {"cheap": (1.0, 0.6), "dear": (9.0, 0.7), "beaten": (5.0, 0.6), "twin": (1.0, 0.5), "worst": (10.0, 0.5)}
    assert comparison_figures.best_trades(points) == ["cheap", "dear"]


def test_names_do_not_cover_each_other_or_points():
    """Thirty points, many close together, as in a comparison of all models."""
    rng = np.random.default_rng(0)
    points = {f"model {place}": (float(x), float(y)) for place, (x, y) in enumerate(rng.random((30, 2)) ** 1.5)}
    canvas = Canvas(figsize=(9.1, 5.6), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    for point in points.values():
        axes.plot(*point, "o")
    axes.margins(0.15)
    place_labels(canvas, axes, points, ["model 3"], drawing.LIGHT)
    canvas.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 30
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points.values())
        assert axes.get_window_extent().contains(box.x0, box.y0)
        assert axes.get_window_extent().contains(box.x1, box.y1)


def test_attention_by_slot_has_a_line_per_slot(tmp_path):
    classes = (AgeClass("1 to 10", 5, np.array([0.7, 0.3])), AgeClass("none", 5, np.array([0.5, 0.5])))
    figure = slots.slots_figure(SlotContents((1, 8), classes, 5, 0.1, 0.0, 0.2, 0.04), tmp_path)
    assert {"every event", "every 8 events", "1 to 10", "none"} <= set(words_in(figure))
    assert "1 to 10: 0.70, 0.30" in figure.alt


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: comparison_figures.sweep(STUDY.model_copy(update={"sweep": []}), folder, sentence=""),
        lambda folder: comparison_figures.ablations(STUDY.ablations[:1], folder),
        lambda folder: comparison_figures.quality_against({}, folder, name="x", cost="y"),
    ],
    ids=["sweep", "ablations", "trade"],
)
def test_nothing_to_draw_is_refused(tmp_path, call):
    with pytest.raises(UsageError, match="Expected: at least one"):
        call(tmp_path)
