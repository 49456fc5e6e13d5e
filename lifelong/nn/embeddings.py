"""One embedding table per field, shared by history, target and context."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

FEW = 10_000
"""Numbers of a field up to which its vectors start at `STD_FEW`."""
STD_FEW, STD_MANY = 1.0, 0.2


class FieldEmbedding(nn.Module):
    """Embeds the fields of an event or a target and concatenates them.

    Args:
        sizes: field -> how many numbers it has.
        dim: width of each field's vector.

    The padding number (0) embeds to zeros and is not trained. Initial vectors are wide where numbers are few:
    what a history and a target have in common reaches the loss through products of the two, so that small vectors leave
    a model on a plateau for millions of examples (at 1e-4 for ever). Rare numbers of a large field keep much of their
    initial vector, which is noise: such fields start small.
    """

    def __init__(self, sizes: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.fields, self.dim = tuple(sizes), dim
        # A list and not a dictionary of modules: a field of a log may be called `type` or `a.b`, a module may not.
        self.table_list = nn.ModuleList(nn.Embedding(size, dim, padding_idx=0) for size in sizes.values())
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=STD_FEW if table.num_embeddings <= FEW else STD_MANY)
            with torch.no_grad():
                table.weight[0].zero_()

    @property
    def tables(self) -> dict[str, nn.Embedding]:
        """Field -> its table."""
        found = {}
        for field, table in zip(self.fields, self.table_list, strict=True):
            assert isinstance(table, nn.Embedding)
            found[field] = table
        return found

    def forward(self, number: Tensor, fields: tuple[str, ...]) -> Tensor:
        """Embed `number[..., F]` (int64), whose last axis holds `fields`, to `[..., F * dim]`."""
        tables = self.tables
        return torch.cat([tables[field](number[..., place]) for place, field in enumerate(fields)], dim=-1)
