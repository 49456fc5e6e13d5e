"""Blocks that two or more models use, and two memories that work without the rest of the package.

`HpmnMemory` and `TallyMemory` are plain modules: tensors in, tensors out. docs/modules.md shows both in a ranker.
"""

from lifelong.nn.hpmn import HpmnMemory, Slots
from lifelong.nn.tally import CountMemory, TallyEvents, TallyMemory, TallyTargets

__all__ = ["CountMemory", "HpmnMemory", "Slots", "TallyEvents", "TallyMemory", "TallyTargets"]
