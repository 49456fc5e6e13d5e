"""Every registered model, in every mode, against the whole contract."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lifelong.offline.models import MODELS
from lifelong.testing import model_contract
from lifelong.testing.model_contract import NOT_APPLICABLE, Check, ModelCase, checks_for
from lifelong.zoo.gru4rec import Gru4Rec

CASES = [
    *(ModelCase(name) for name in MODELS),
    ModelCase("hpmn", {"hops": 1, "periods": (1, 3, 6), "covariance": 0.0}),
    ModelCase("hpmn", {"authors_mode": True, "sequence": 40}),
    ModelCase("fpmc", {"user_factors": True}),
    ModelCase("din", {"normalise": True}),
    ModelCase("mimn", {"pooled": True}),
    *(ModelCase("sim", {"search": search}) for search in ("soft", "cluster")),
    # With a short term in addition to the search: read from the history, and from a memory.
    ModelCase("eta", {"short": 10}),
    ModelCase("sdim", {"short": 10, "groups": 8}),
    # One of each way in which a model comes to its head.
    *(ModelCase(name, {"counts": True}) for name in ("hpmn", "din", "sdim", "gated_delta")),
]
PAIRS = [pytest.param(case, check, id=f"{case}-{check.__name__}") for case in CASES for check in checks_for(case)]


@pytest.mark.parametrize(("case", "check"), PAIRS)
def test_model_keeps_the_contract(case: ModelCase, check: Check) -> None:
    check(case)


def test_every_exception_from_the_contract_names_a_case_a_check_and_a_reason() -> None:
    names = {str(case) for case in CASES}
    for (case, check), reason in NOT_APPLICABLE.items():
        assert case in names
        assert check.startswith("check_")
        assert reason


class Peeks(Gru4Rec):
    """It sees the labels, and has to learn that."""

    def __init__(self, inputs, config):
        super().__init__(inputs, config)
        self.trust = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        output = super().forward(batch)
        return replace(output, logit_BCT=output.logit_BCT + self.trust * batch.label_BCT)


def test_a_model_that_sees_labels_breaks_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "peeks", Peeks)
    with pytest.raises(AssertionError, match="AUC"):
        model_contract.check_learns_nothing_from_noise(ModelCase("peeks"))
