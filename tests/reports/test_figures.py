import re
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("matplotlib")

from support.comparisons import TITLES, made_study
from support.results import made_result

from lifelong.errors import MissingExtraError
from lifelong.offline.reports import drawing, figures

STUDY = made_study()
RESULTS = [made_result(auc=0.7), made_result("counts", title="Target counts", auc=0.8)]


def words_in(figure):
    """All texts of an SVG, as a reader sees them."""
    root = ElementTree.fromstring(figure.path.read_text())
    return [" ".join("".join(node.itertext()).split()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_models_stand_from_worst_to_best_with_their_values(tmp_path):
    figure = figures.metric_by_model(RESULTS, tmp_path)
    words = words_in(figure)
    assert words.index("HPMN") < words.index("Target counts")
    assert {"0.700", "0.800", "chance"} <= set(words)


def test_slices_without_examples_are_not_drawn(tmp_path):
    words = words_in(figures.metric_by_history(RESULTS, tmp_path))
    assert "<50" in words
    assert "1000+" not in words
    assert words.count("20 examples") == 4


def test_of_many_models_the_best_are_named_and_the_rest_are_counted(tmp_path):
    words = words_in(figures.metric_by_history(STUDY.results, tmp_path, always=["DIN"]))
    assert {"HPMN", "Target counts", "FM", "DIN", "21 other models"} <= set(words)
    assert "MF" not in words


def test_of_few_models_all_are_coloured(tmp_path):
    figure = figures.metric_by_history(STUDY.results[:8], tmp_path)
    assert set(list(TITLES.values())[:8]) <= set(words_in(figure))
    assert "other model" not in figure.path.read_text()


def test_the_best_stand_out_and_those_that_always_do():
    values = {f"m{place}": float(place) for place in range(12)}
    assert figures.standing_out(values, ["m0", "absent"]) == {f"m{place}" for place in range(6, 12)} | {"m0"}
    assert figures.standing_out({**values, "undefined": None}) == {f"m{place}" for place in range(6, 12)}


def test_learning_curves_of_many_models_keep_the_lifelong_one_in_sight(tmp_path):
    curves = {f"m{place:02}": [(1, 0.5), (2, 0.5 + place / 100)] for place in range(20)}
    figure = figures.learning_curves(curves, tmp_path, always=["m03"])
    words = words_in(figure)
    assert {"m19", "m14", "m03", "13 other models"} <= set(words)
    assert "m13" not in words


def test_quality_against_cost_labels_every_point(tmp_path):
    points = {"cheap": (2.0, 0.6), "good": (40.0, 0.7), "bad": (90.0, 0.65)}
    words = words_in(figures.quality_against(points, tmp_path, name="trade", cost="state, bytes"))
    assert {"cheap", "good", "bad", "state, bytes (logarithmic)", "5", "10", "20"} <= set(words)


def test_the_best_trades_are_those_that_no_other_beats_in_both():
    points = {"cheap": (1.0, 0.6), "dear": (9.0, 0.7), "beaten": (5.0, 0.6), "twin": (1.0, 0.5), "worst": (10.0, 0.5)}
    assert figures.best_trades(points) == ["cheap", "dear"]


def test_both_files_are_written_and_the_png_is_an_image(tmp_path):
    figure = figures.metric_by_history(RESULTS, tmp_path / "deep")
    assert figure.path == tmp_path / "deep" / "auc-by-history.svg"
    assert figure.path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_every_colour_of_an_svg_follows_light_and_dark(tmp_path):
    svg = figures.metric_by_history(RESULTS, tmp_path).path.read_text()
    assert "var(--ink, #24292f)" in svg
    assert "var(--series-1, #0072b2)" in svg
    assert "prefers-color-scheme: dark" in svg
    assert not re.findall(r"(?:fill|stroke): #", svg)


def test_drawing_twice_gives_the_same_file(tmp_path):
    points = {of.title: (2.0 + place % 3, of.metrics["auc"].value) for place, of in enumerate(STUDY.rows)}
    first, second = (
        figures.quality_against(points, tmp_path / folder, name="x", cost="y").path.read_bytes() for folder in "ab"
    )
    assert first == second


def test_drawing_leaves_the_readers_matplotlib_settings_alone(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.metric_by_model(RESULTS, tmp_path)
    assert dict(mpl.rcParams) == before


def test_series_colours_differ_from_each_other_and_from_the_paper_in_both_themes():
    for theme in (drawing.LIGHT, drawing.DARK):
        assert len(set(theme.series)) == 8
        assert all(contrast(colour, theme.paper) >= 3 for colour in theme.series)
        assert contrast(theme.ink, theme.paper) >= 7


def contrast(first, second):
    """WCAG contrast ratio of two hex colours."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_names_from_data_are_texts_and_neither_markup_nor_formulas(tmp_path):
    figure = figures.metric_by_model([made_result(title="<script>x</script> $a$ & co")], tmp_path)
    assert "<script>" not in figure.path.read_text()
    assert "<script>x</script> $a$ & co" in words_in(figure)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"lifelong\[report\]"):
        figures.metric_by_model(RESULTS, tmp_path)
