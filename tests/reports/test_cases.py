import numpy as np
import pytest

pytest.importorskip("matplotlib")

from support.artifacts import tiny_artifact

from lifelong.data.examples import Examples
from lifelong.evaluation.attention import ReadAttention, read_attention
from lifelong.reports.cases import cases_section, find_cases
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


def test_the_page_states_the_rule_and_says_what_was_not_found(section):
    shown, read = section
    rule, *found = shown.paragraphs
    assert "Found by a rule" in rule
    assert "the same item or the same category" in rule
    kinds = {case.kind: case for case in find_cases(read)}
    assert len(shown.figures) == sum(case.place is not None for case in kinds.values()) > 0
    for text, case in zip(found, kinds.values(), strict=True):
        assert ("no target qualifies" in text) == (case.place is None and case.qualifying == 0)


def test_a_case_is_drawn_with_related_events_in_rows_of_their_own(section):
    shown, _ = section
    drawn = shown.figures[0].svg.read_text()
    assert "same item" in drawn
    assert "same category" in drawn
    assert "other events" in drawn
    assert "events ago" in drawn


def test_nothing_read_gives_no_case():
    assert places() == {"old": None, "recent": None, "both": None}
