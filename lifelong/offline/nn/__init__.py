"""Blocks that two or more models use, and a memory that works without the rest of the package.

`HpmnMemory` is a plain module: tensors in, tensors out. docs/modules.md shows it in a ranker.
"""

from lifelong.offline.nn.hpmn import HpmnMemory, Slots

__all__ = ["HpmnMemory", "Slots"]
