"""One embedding table per field, shared by history, target and context."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from lifelong.data.scales import Octaves, Scale
from lifelong.data.vocabulary import FIRST_BUCKET
from lifelong.nn.cells import key_table

FEW = 10_000
"""Numbers of a field up to which its vectors start at `STD_FEW`."""
STD_FEW, STD_MANY = 1.0, 0.2
CODES = 512
"""Columns of a code at most."""


class FieldEmbedding(nn.Module):
    """Embeds the fields of an event or a target and concatenates them.

    Args:
        sizes: field -> how many numbers it has.
        dim: width of each field's trained vector.
        codes: fields whose vectors end in a fixed code of their number, see `code_table`: sums of it say which values
            were there.
        keys: fields whose vectors end in the number's key, see `nn.cells.key_table`, instead.
        scales: fields whose numbers are levels of a scale, and whose trained vectors are made of its codes.

    The padding number (0) embeds to zeros and is not trained. Initial vectors are wide where numbers are few:
    what a history and a target have in common reaches the loss through products of the two, so that small vectors leave
    a model on a plateau for millions of examples (at 1e-4 for ever). Rare numbers of a large field keep much of their
    initial vector, which is noise: such fields start small.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        dim: int,
        *,
        codes: Collection[str] = (),
        keys: Collection[str] = (),
        scales: Mapping[str, Scale] | None = None,
    ) -> None:
        super().__init__()
        self.fields, self.dim = tuple(sizes), dim
        scales = {field: scale for field, scale in (scales or {}).items() if field in sizes}
        self._in_table = tuple(field for field in sizes if field not in scales)
        # A list and not a dictionary of modules: a field of a log may be called `type` or `a.b`, a module may not.
        self.table_list = nn.ModuleList(nn.Embedding(sizes[field], dim, padding_idx=0) for field in self._in_table)
        self._on_scale, self.scale_list = tuple(scales), nn.ModuleList()
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=STD_FEW if table.num_embeddings <= FEW else STD_MANY)
            with torch.no_grad():
                table.weight[0].zero_()
        self.scale_list.extend(ScaleVectors(scale, dim) for scale in scales.values())
        self.keyed = bool(keys)
        """Whether any vector ends in a key, a whole number."""
        # Made of the sizes alone: no part of the saved weights.
        self._code_names = {
            field: f"code_{place}" for place, field in enumerate(self.fields) if field in {*codes, *keys}
        }
        for field, name in self._code_names.items():
            made = key_table(sizes[field]) if field in keys else code_table(sizes[field])
            self.register_buffer(name, made, persistent=False)

    @property
    def tables(self) -> dict[str, nn.Embedding]:
        """Field -> its table, of the fields that have one."""
        found = {}
        for field, table in zip(self._in_table, self.table_list, strict=True):
            assert isinstance(table, nn.Embedding)
            found[field] = table
        return found

    @property
    def scales(self) -> dict[str, ScaleVectors]:
        """Field -> its vectors, of the fields that are on a scale."""
        found = {}
        for field, vectors in zip(self._on_scale, self.scale_list, strict=True):
            assert isinstance(vectors, ScaleVectors)
            found[field] = vectors
        return found

    def forward(self, number: Tensor, fields: tuple[str, ...]) -> Tensor:
        """Embed `number[..., F]` (int64), whose last axis holds `fields`, to `[..., sum of widths(fields)]`."""
        tables, codes, parts = self.tables | self.scales, self.codes, []
        for place, field in enumerate(fields):
            parts.append(tables[field](number[..., place]))
            if field in codes:
                parts.append(embedding(number[..., place], codes[field]))
        return torch.cat(parts, dim=-1)

    @property
    def codes(self) -> dict[str, Tensor]:
        """Field -> the codes of its numbers, of the fields that have some."""
        return {field: self.get_buffer(name) for field, name in self._code_names.items()}

    def widths(self, fields: Collection[str]) -> list[int]:
        """Width of each field's vector, its code included."""
        codes = self.codes
        return [self.dim + (codes[field].shape[1] if field in codes else 0) for field in fields]

    def vectors(self, field: str) -> Tensor:
        """What each number of a field embeds to, its code included: `[V, width]`."""
        part = (self.tables | self.scales)[field]
        number = torch.arange(part.num_embeddings, device=part.weight.device)
        vector: Tensor = self(number.unsqueeze(-1), (field,))
        return vector

    def trained_part(self, vector: Tensor, fields: Collection[str]) -> Tensor:
        """What is trained of embedded `fields`: `[..., F, dim]`."""
        parts = torch.split(vector, self.widths(fields), dim=-1)
        return torch.stack([part[..., : self.dim] for part in parts], dim=-2)

    def code_part(self, vector: Tensor, fields: Collection[str]) -> Tensor:
        """The codes of embedded `fields`, one after another; no gradient reaches them, they are fixed."""
        parts = torch.split(vector.detach(), self.widths(fields), dim=-1)
        return torch.cat([part[..., self.dim :] for part in parts], dim=-1)

    def restart(self, std: float) -> None:
        """Draw all vectors anew, with one spread for all fields, as sums of many products of them need it."""
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=std)
            with torch.no_grad():
                table.weight[0].zero_()
        for vectors in self.scales.values():
            vectors.restart(std)


class ScaleVectors(nn.Module):
    """The vectors of a scale's numbers: their fixed codes times one trained matrix, so that near numbers are alike.

    Args:
        scale: whose codes they are.
        dim: width of a vector.
    """

    code_VK: Tensor

    def __init__(self, scale: Scale, dim: int) -> None:
        super().__init__()
        self.scale, self.num_embeddings = scale, scale.size
        # Made of the scale alone: no part of the saved weights.
        self.register_buffer("code_VK", torch.from_numpy(scale.codes()).to(torch.float32), persistent=False)
        self.weight = nn.Parameter(torch.empty(self.code_VK.shape[1], dim))
        self.restart(STD_FEW)

    def restart(self, std: float) -> None:
        """Draw the matrix anew: vectors are about as long as those of a table that is drawn so."""
        length = float(self.code_VK[1:].square().sum(dim=1).mean().sqrt())
        nn.init.normal_(self.weight, std=std / length)

    def forward(self, number: Tensor) -> Tensor:
        """Vectors `[..., dim]` of numbers."""
        return embedding(number, self.code_VK) @ self.weight

    def of_values(self, value: Tensor, known: Tensor) -> Tensor:
        """Vectors `[..., dim]` of values on an `Octaves` scale, without steps; of the unknown where not `known`."""
        assert isinstance(self.scale, Octaves)
        place = torch.log2(1 + value.clamp(min=0).to(self.weight.dtype) / self.scale.unit).unsqueeze(-1)
        code = (place - torch.arange(self.scale.octaves, device=value.device)).clamp(0, 1)
        known = known.unsqueeze(-1)
        return torch.cat([code * known, (~known).to(code.dtype)], dim=-1) @ self.weight


def code_table(size: int) -> Tensor:
    """A code for each number of a field: a one at the number's place, up to `CODES` places, else at its hash bucket.

    Numbers are dense, so that the remainder fills buckets evenly. Padding and unknown have no code: two unknown values
    need not be the same one. `[size, at most CODES]`.
    """
    number = torch.arange(FIRST_BUCKET, size)
    width = min(max(len(number), 1), CODES)
    code = torch.zeros(size, width)
    code[number, (number - FIRST_BUCKET) % width] = 1.0
    return code
