import pytest

from lifelong.offline.evaluation.facts import facts_of, in_words
from lifelong.offline.models import build
from lifelong.testing.datasets import tiny_dataset


def test_a_new_dynamic_model_writes_at_its_periods(tmp_path) -> None:
    dataset = tiny_dataset(tmp_path / "data")
    model, examples = build("hpmn_dynamic", dataset.inputs, {"periods": [1, 2, 4]}), dataset.examples("validation")
    facts = facts_of(model, dataset, examples)
    position = examples.position_N.clip(min=1)
    wanted = [float((examples.position_N // period / position).mean()) for period in (1, 2, 4)]
    assert facts == {"write_rate": pytest.approx(wanted, abs=1e-5)}


def test_models_that_report_nothing_have_no_facts(tmp_path) -> None:
    dataset = tiny_dataset(tmp_path / "data")
    examples = dataset.examples("validation")
    assert [facts_of(build(name, dataset.inputs, {}), dataset, examples) for name in ("hpmn", "din", "counts")] == [
        {}
    ] * 3


def test_facts_in_words() -> None:
    assert in_words({"write_rate": [1.0, 0.4567]}) == ["share of the events that write each slot: 1, 0.457"]
