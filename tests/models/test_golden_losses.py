from pathlib import Path

import pytest
from support.golden import STEPS, first_losses, golden_cases, read_losses

from lifelong.testing.datasets import tiny_dataset

FILE = Path(__file__).parents[1] / "assets" / "golden_losses.txt"


@pytest.mark.parametrize("line", golden_cases())
def test_first_losses_are_those_on_record(line: str, tmp_path: Path) -> None:
    name, config = golden_cases()[line]
    losses = first_losses(tiny_dataset(tmp_path / "data"), name, config)
    assert losses == pytest.approx(read_losses(FILE)[line], rel=1e-3)


def test_record_has_every_trainable_model_and_no_other() -> None:
    record = read_losses(FILE)
    assert list(record) == list(golden_cases())
    assert {len(losses) for losses in record.values()} == {STEPS}
