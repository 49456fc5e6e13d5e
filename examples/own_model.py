# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve,report]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""A model of your own, registered, trained, compared and served. `lifelong new model NAME` creates a whole package.

uv run examples/own_model.py
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

import lifelong
from lifelong.plugin import InputSpec, MemoryModel, clear_padding, register, setting, states_at


@dataclass(frozen=True)
class SumConfig:
    """Settings of `running_sum`."""

    embedding: PositiveInt = setting(8, "width of each field's embedding")
    width: PositiveInt = setting(16, "width of the sum")


class SumMemory(NamedTuple):
    """Zeros before the first event."""

    count_B: Tensor
    sum_BD: Tensor


class RunningSum(MemoryModel[SumMemory]):
    """The sum of a projection of all events."""

    Config = SumConfig
    title = "Running sum"
    source = "this example"
    state = "one vector"

    def __init__(self, inputs: InputSpec, config: SumConfig) -> None:
        super().__init__(inputs, embedding=config.embedding, interest=config.width, dropout=0.0)
        self.config: SumConfig = config
        self.project = nn.Linear(self.event_width, config.width)
        self.remember(SumMemory, (config.width,))

    def write_vector(self, memory: SumMemory, event_BE: Tensor) -> SumMemory:
        """Add one event of each user."""
        return SumMemory(memory.count_B + 1, memory.sum_BD + torch.tanh(self.project(event_BE)))

    def encode_vector(self, event_BLE: Tensor, length_B: Tensor, position_BC: Tensor) -> SumMemory:
        """The same for whole histories at once."""
        added_BLD = torch.tanh(self.project(clear_padding(event_BLE, length_B)))
        return SumMemory(position_BC, states_at(added_BLD.cumsum(1), position_BC))

    def read_vector(self, memory: SumMemory, target_BCE: Tensor) -> tuple[Tensor, None]:
        """The mean, whatever the target."""
        mean_BCD = memory.sum_BD / memory.count_B.clamp(min=1).unsqueeze(-1)
        return mean_BCD.expand(*target_BCE.shape[:-1], -1), None


register("models", "running_sum", RunningSum)


def main() -> None:
    """Train it like any other model, and score from its memory.

    The AUC stays about .5: a mean does not keep the order of events, and nothing else says anything in this world.
    """
    dataset = lifelong.prepare("synthetic", out="data", world="lag", users=60, overwrite=True)
    artifact = lifelong.train(dataset, "running_sum", epochs=1, width=8, progress=False, overwrite=True)
    print(lifelong.evaluate(artifact, dataset))
    store = lifelong.open_store("memory://")
    lifelong.backfill(artifact, dataset, store)
    print(lifelong.Scorer(artifact, store).score(dataset.users.id_at(0), ["i1", "i2"]))


if __name__ == "__main__":
    main()
