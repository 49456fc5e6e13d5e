import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from support.artifacts import tiny_artifact

from lifelong.dataset.examples import Examples
from lifelong.offline.evaluation.attention import ReadAttention, read_attention
from lifelong.offline.reports.attention import UserAttention, attention_timeline, cases_section, find_cases
from lifelong.testing.datasets import tiny_dataset

LOW = -5.0


def made_read(rows):
    """Rows of (attention over slots with periods 1, 2, 8; ages of related events; further facts).

    Each row is a target of a user of her own with 20 events, a response and a high score; one target with a low score
    is added per row, so that the median lies between.
    """
    facts = [
        {"user": place, "label": 1, "logit": 5.0, "position": 20, **more} for place, (_, _, more) in enumerate(rows)
    ]
    facts += [{"user": 100 + place, "label": 0, "logit": LOW, "position": 20} for place in range(len(rows) + 1)]
    ages = [given for _, given, _ in rows] + [()] * (len(rows) + 1)
    column = {key: np.array([fact[key] for fact in facts]) for key in facts[0]}
    examples = Examples(
        column["user"].astype(np.int32),
        np.zeros(len(facts), np.int32),
        np.zeros(len(facts), np.int64),
        column["position"].astype(np.int32),
        column["label"][:, None].astype(np.float32),
    )
    attention = [given for given, _, _ in rows] + [(1.0, 0.0, 0.0)] * (len(rows) + 1)
    ends = np.array([(len(of), min(of, default=0), max(of, default=0)) for of in ages])
    return ReadAttention(examples, column["logit"], np.array(attention), (1, 2, 8), *ends.T)


OLD = ((0.1, 0.2, 0.7), (9, 15), {})
RECENT = ((0.7, 0.2, 0.1), (1, 8), {})
BOTH = ((0.4, 0.1, 0.5), (2, 15), {})


def places(*rows):
    return {case.kind: case.place for case in find_cases(made_read(rows))}


def test_each_kind_is_found():
    assert places(OLD, RECENT, BOTH) == {"old": 0, "recent": 1, "both": 2}


@pytest.mark.parametrize(
    "row",
    [
        ((0.1, 0.2, 0.7), (8, 15), {}),
        ((0.1, 0.2, 0.7), (), {}),
        ((0.1, 0.7, 0.2), (9, 15), {}),
        (*OLD[:2], {"label": 0}),
        (*OLD[:2], {"logit": LOW}),
        ((1.0, 0.0, 0.0), (9, 15), {"position": 1}),
    ],
    ids=["a recent one too", "none related", "another slot", "no response", "low score", "one slot filled"],
)
def test_what_does_not_fit_is_no_case_of_old_events(row):
    assert places(row)["old"] is None


def test_the_slowest_slot_is_the_slowest_that_is_filled():
    assert places(((0.2, 0.8, 0.0), (3, 5), {"position": 6})) == {"old": 0, "recent": None, "both": None}


def test_both_needs_more_than_an_even_share_on_either_slot():
    assert places(((0.4, 0.1, 0.5), (2, 15), {}))["both"] == 0
    assert places(((0.3, 0.2, 0.5), (2, 15), {}))["both"] is None


def test_the_clearest_is_chosen_and_no_user_twice():
    clearer = ((0.0, 0.1, 0.9), (9, 15), {})
    assert places(OLD, clearer)["old"] == 1
    again = (*BOTH[:2], {"user": 0})
    assert places(OLD, again)["both"] is None


def test_half_fitting_targets_are_counted():
    old, *_ = find_cases(made_read([OLD, ((0.1, 0.2, 0.7), (1,), {}), ((0.7, 0.2, 0.1), (9,), {})]))
    assert (old.examined, old.by_slots, old.by_events, old.qualifying) == (3, 2, 2, 1)


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    dataset = tiny_dataset(folder / "data")
    read = read_attention(tiny_artifact(folder / "artifact", dataset), dataset, dataset.examples("test"))
    return cases_section(read, dataset, folder / "figures", title="HPMN"), read


def test_the_page_states_the_rule_and_counts_what_was_found(section):
    shown, read = section
    assert "Found by a rule" in shown.paragraphs[0]
    assert "the item of the target or its category" in shown.paragraphs[0]
    cases = find_cases(read)
    assert len(shown.figures) == sum(case.place is not None for case in cases) > 0
    assert [row[1:] for row in shown.tables[0].rows] == [[of.by_slots, of.by_events, of.qualifying] for of in cases]


def test_a_case_is_drawn_with_related_events_in_rows_of_their_own(section):
    shown, _ = section
    drawn = shown.figures[0].path.read_text()
    assert "same item" in drawn
    assert "same category" in drawn
    assert "other events" in drawn
    assert "events ago" in drawn


def test_nothing_read_gives_no_case():
    assert places() == {"old": None, "recent": None, "both": None}


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


def drawn(tmp_path, **changes):
    """All texts of the figure."""
    figure = attention_timeline(made_attention(**changes), tmp_path / "attention.svg")
    root = ElementTree.fromstring(figure.path.read_text())
    return {" ".join("".join(node.itertext()).split()) for node in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_attention_figure_shows_events_slots_and_weights(tmp_path):
    words = drawn(tmp_path, outcomes=["bought", "not bought"])
    assert {"milk", "bread", "tea", "every event", "every 2 events", "0.25", "0.75"} <= words
    assert {"oat milk", "bought", "time (UTC)", "Jan"} <= words


def test_a_log_without_clock_times_shows_places_in_the_history(tmp_path):
    assert "place in the history (events)" in drawn(tmp_path, time_L=np.arange(4), time_unit="ordinal")


def test_an_empty_history_can_be_drawn(tmp_path):
    assert "time (UTC)" in drawn(tmp_path, time_L=np.empty(0, np.int64), group_L=[])
