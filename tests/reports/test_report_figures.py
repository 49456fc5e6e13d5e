import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from support.results import made_result

from lifelong.errors import MissingExtraError, UsageError
from lifelong.reports import drawing, figures, timeline
from lifelong.reports.figures import Curve
from lifelong.reports.timeline import UserAttention

RESULTS = [made_result(auc=0.7), made_result("counts", title="Target counts", auc=0.8)]


def words_in(figure):
    """All texts of an SVG, as a reader sees them."""
    root = ElementTree.fromstring(figure.svg.read_text())
    return [" ".join("".join(node.itertext()).split()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def made_attention(**changes):
    return UserAttention(
        **{
            "user": "u1",
            "time_L": np.array([0, 86_400, 172_800, 2_592_000]),
            "group_L": ["milk", "bread", "milk", "tea"],
            "periods": [1, 2],
            "targets": ["oat milk", "cocoa"],
            "attention_CS": np.array([[0.25, 0.75], [np.nan, np.nan]]),
            **changes,
        }
    )


def test_models_stand_from_worst_to_best_with_their_values(tmp_path):
    figure = figures.metric_by_model(RESULTS, tmp_path)
    words = words_in(figure)
    assert words.index("HPMN") < words.index("Target counts")
    assert {"0.700", "0.800", "chance"} <= set(words)
    assert "AUC (value and 95 % interval over users)" in words


def test_the_alt_text_tells_the_numbers(tmp_path):
    assert figures.metric_by_model(RESULTS, tmp_path).alt == "AUC per model. Target counts: 0.800; HPMN: 0.700."
    alt = figures.metric_by_history(RESULTS, tmp_path).alt
    assert "HPMN: <50: 0.710, 50-99: 0.710" in alt


def test_slices_without_examples_are_not_drawn(tmp_path):
    words = words_in(figures.metric_by_history(RESULTS, tmp_path))
    assert "<50" in words
    assert "1000+" not in words
    assert words.count("20 examples") == 4


def test_both_files_are_written_and_the_png_is_an_image(tmp_path):
    figure = figures.metric_by_history(RESULTS, tmp_path / "deep")
    assert figure.svg == tmp_path / "deep" / "auc-by-history.svg"
    assert figure.png.read_bytes().startswith(b"\x89PNG")


def test_the_svg_follows_light_and_dark_and_keeps_no_placeholder(tmp_path):
    svg = figures.metric_by_model(RESULTS, tmp_path).svg.read_text()
    assert "var(--ink, #24292f)" in svg
    assert "var(--series-1, #0072b2)" in svg
    assert "prefers-color-scheme: dark" in svg
    assert "#0a0b" not in svg
    # Every colour that is drawn is one of the roles.
    assert not re.findall(r"(?:fill|stroke): #", svg)


def test_drawing_twice_gives_the_same_file(tmp_path):
    first = figures.metric_by_model(RESULTS, tmp_path / "a").svg.read_bytes()
    assert first == figures.metric_by_model(RESULTS, tmp_path / "b").svg.read_bytes()


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
    named = [made_result(title="<script>x</script> $a$ & co")]
    figure = figures.metric_by_model(named, tmp_path)
    assert "<script>" not in figure.svg.read_text()
    assert "<script>x</script> $a$ & co" in words_in(figure)


def test_a_learning_curve_marks_the_best_check_of_each_model(tmp_path):
    curves = {"HPMN": Curve([1e5, 2e5, 3e5], [0.6, 0.66, 0.65]), "no checks": Curve([], [])}
    figure = figures.learning_curves(curves, tmp_path)
    assert figure.alt.endswith("HPMN: best 0.660 after 200,000 examples.")


def test_the_attention_figure_shows_events_slots_and_weights(tmp_path):
    figure = timeline.attention_timeline(made_attention(outcomes=["bought", "not bought"]), tmp_path)
    words = words_in(figure)
    assert {"milk", "bread", "tea", "every event", "every 2 events", "0.25", "0.75"} <= set(words)
    assert "time (UTC), 1970-01-01 to 1970-01-31" in words
    assert {"oat milk", "bought"} <= set(words)
    assert "oat milk: most on the slot written every 2 events; cocoa: no slot is filled" in figure.alt


def test_a_log_without_clock_times_shows_places_in_the_history(tmp_path):
    attention = made_attention(time_L=np.arange(4), time_unit="ordinal")
    assert "place in the history (events)" in words_in(timeline.attention_timeline(attention, tmp_path))


def test_rare_groups_share_one_row(tmp_path):
    groups = [f"g{place}" for place in range(9) for _ in range(9 - place)]
    attention = made_attention(group_L=groups, time_L=np.arange(len(groups)) * 86_400)
    words = words_in(timeline.attention_timeline(attention, tmp_path))
    assert {"g0", "g5", "other"} <= set(words)
    assert "g6" not in words


def test_an_empty_history_can_be_drawn(tmp_path):
    attention = made_attention(time_L=np.empty(0, np.int64), group_L=[])
    assert "time (UTC)" in words_in(timeline.attention_timeline(attention, tmp_path))


def test_attention_of_the_wrong_shape_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"shape \(2, 2\).*2 targets and 3 slots"):
        timeline.attention_timeline(made_attention(periods=[1, 2, 4]), tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: figures.metric_by_model([], folder),
        lambda folder: figures.metric_by_history([], folder),
        lambda folder: figures.learning_curves({}, folder),
    ],
    ids=["models", "history", "curves"],
)
def test_nothing_to_draw_is_refused(tmp_path, call):
    with pytest.raises(UsageError, match="Expected: at least one"):
        call(tmp_path)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"lifelong\[report\]"):
        figures.metric_by_model(RESULTS, tmp_path)
