"""One embedding table per field, shared by history, target and context."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from lifelong.dataset.scales import Scale
from lifelong.dataset.vocabulary import FIRST_BUCKET
from lifelong.offline.data.cooccurrence import group_of

FEW = 10_000
"""A field with more numbers than this starts with embeddings of spread `STD_MANY`."""
STD_FEW, STD_MANY = 1.0, 0.2
CODES = 512
"""How many columns a code may have."""


class FieldEmbedding(nn.Module):
    """Embeds the fields of an event or a target and concatenates them.

    The padding number (0) embeds to zeros and is not trained. Where numbers are few, initial embeddings are large: what
    a history and a target have in common reaches the loss through products of the two, so that small ones leave a model
    on a plateau for millions of examples (at 1e-4 forever). Rare numbers of a large field keep much of their initial
    embedding, which is noise: such fields start small.

    Args:
        sizes: field -> how many numbers it has.
        dim: width of each field's trained embedding.
        codes: fields with embeddings that end in a fixed code of their number, see `code_table`; sums of codes say
            which values were there.
        scales: fields numbered by the levels of a scale; their embeddings are made of its codes.
        factors: field -> width of a fixed unit vector that its embeddings end in, after their code. They are drawn at
            random until there are others (`set_factors`), and saved; padding and unknown values have none.

    >>> embed = FieldEmbedding({"item": 100, "category": 9}, dim=4)
    >>> embed(torch.tensor([[5, 2], [0, 0]]), ("item", "category")).any(dim=-1).tolist()
    [True, False]
    """

    fields: tuple[str, ...]
    dim: int
    scale_list: nn.ModuleList

    def __init__(
        self,
        sizes: Mapping[str, int],
        dim: int,
        *,
        codes: Collection[str] = (),
        scales: Mapping[str, Scale] | None = None,
        factors: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.fields, self.dim = tuple(sizes), dim
        scales = {field: scale for field, scale in (scales or {}).items() if field in sizes}
        self._in_table = tuple(field for field in sizes if field not in scales)
        # A list and not a dictionary of modules: a field of a log may be called `type` or `a.b`, a module may not.
        self.table_list: nn.ModuleList = nn.ModuleList(
            nn.Embedding(sizes[field], dim, padding_idx=0) for field in self._in_table
        )
        self._on_scale, self.scale_list = tuple(scales), nn.ModuleList()
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=STD_FEW if table.num_embeddings <= FEW else STD_MANY)
            # The draw also filled the row of padding, which no gradient will ever change.
            with torch.no_grad():
                table.weight[0].zero_()
        self.scale_list.extend(ScaleVectors(scale, dim) for scale in scales.values())
        # Made of the sizes alone, so that they need not be saved.
        self._code_names = {field: f"code_{place}" for place, field in enumerate(self.fields) if field in codes}
        for field, name in self._code_names.items():
            self.register_buffer(name, code_table(sizes[field]), persistent=False)
        self.factor_names: dict[str, str] = {field: f"factor_{place}" for place, field in enumerate(factors or {})}
        """Field -> name of the buffer with its factors."""
        for field, name in self.factor_names.items():
            self.register_buffer(name, _random_factors(sizes[field], (factors or {})[field]))
        self._difference_names: dict[str, str] = {}

    @property
    def tables(self) -> dict[str, nn.Embedding]:
        """Field -> its table, for the fields that have one."""
        tables = {}
        for field, table in zip(self._in_table, self.table_list, strict=True):
            assert isinstance(table, nn.Embedding)
            tables[field] = table
        return tables

    @property
    def scales(self) -> dict[str, ScaleVectors]:
        """Field -> its embeddings, for the fields that are on a scale."""
        scales = {}
        for field, vectors in zip(self._on_scale, self.scale_list, strict=True):
            assert isinstance(vectors, ScaleVectors)
            scales[field] = vectors
        return scales

    def forward(
        self, number: Tensor, fields: tuple[str, ...], *, factors: bool = True, user: Tensor | None = None
    ) -> Tensor:
        """Embed `number[..., F]` (int64; its last axis holds `fields`) to `[..., sum of widths(fields)]`.

        Args:
            number: int64.
            fields: one for each place of the last axis.
            factors: whether embeddings end in their factors, where they have some.
            user: int64 numbers of users, along the first axes of `number`. In training, their embeddings are those
                of their group (`set_differences`).
        """
        tables, codes, parts = self.tables | self.scales, self.codes, []
        for place, field in enumerate(fields):
            part = tables[field](number[..., place])
            parts.append(part if user is None else self.of_group(field, number[..., place], user, part))
            if field in codes:
                parts.append(embedding(number[..., place], codes[field]))
            if factors and field in self.factor_names:
                parts.append(embedding(number[..., place], self.factors[field]))
        return torch.cat(parts, dim=-1)

    def set_differences(self, differences: Mapping[str, Tensor]) -> None:
        """Let each group of users be trained with embeddings of its own: a fixed difference to the table's.

        One table is trained for all. Differences are of no use after training, so that they are not saved.

        Args:
            differences: field -> `[G, V, at most dim]` for the G groups of `group_of`.
        """
        self._difference_names = {field: f"difference_{place}" for place, field in enumerate(differences)}
        for field, name in self._difference_names.items():
            # In half precision, as they are many.
            self.register_buffer(name, differences[field].flatten(0, 1).half(), persistent=False)

    def of_group(self, field: str, number: Tensor, user: Tensor, table: Tensor) -> Tensor:
        """What the groups of these users are trained with in place of a table's embeddings; these, outside training.

        Args:
            field: of the numbers.
            number: `[...]`.
            user: numbers of users, along the first axes of `number`.
            table: `[..., D]`, what the table has for them.
        """
        if not self.training or field not in self._difference_names:
            return table
        group = group_of(user).view(*user.shape, *[1] * (number.dim() - user.dim()))
        size = self.tables[field].num_embeddings
        # The differences of all groups lie in one table, group after group, each with a row for every number.
        more = embedding(number + size * group, self.get_buffer(self._difference_names[field]))
        return table + pad(more.to(table), (0, table.shape[-1] - more.shape[-1]))

    @property
    def factors(self) -> dict[str, Tensor]:
        """Field -> the factors of its numbers `[V, width]`, for the fields that have some."""
        return {field: self.get_buffer(name) for field, name in self.factor_names.items()}

    def set_factors(self, factors: Mapping[str, Tensor]) -> None:
        """Put others in the place of all factors: field -> `[V, width]`."""
        for field, own in self.factors.items():
            own.copy_(factors[field])

    @property
    def codes(self) -> dict[str, Tensor]:
        """Field -> the codes of its numbers, for the fields that have some."""
        return {field: self.get_buffer(name) for field, name in self._code_names.items()}

    def widths(self, fields: Collection[str]) -> list[int]:
        """Width of each field's embedding, its code and its factor included."""
        behind = (self.codes, self.factors)
        return [self.dim + sum(part[field].shape[1] for part in behind if field in part) for field in fields]

    def vectors(self, field: str) -> Tensor:
        """What each number of a field embeds to, its code included: `[V, width]`."""
        part = (self.tables | self.scales)[field]
        number = torch.arange(part.num_embeddings, device=part.weight.device)
        vector: Tensor = self(number.unsqueeze(-1), (field,))
        return vector

    def trained_part(self, vector: Tensor, fields: Collection[str]) -> Tensor:
        """The trained part of embedded `fields`: `[..., F, dim]`."""
        parts = torch.split(vector, self.widths(fields), dim=-1)
        return torch.stack([part[..., : self.dim] for part in parts], dim=-2)

    def code_part(self, vector: Tensor, fields: Collection[str]) -> Tensor:
        """The codes of embedded `fields`, one after another; they are fixed, and get no gradient."""
        parts = torch.split(vector.detach(), self.widths(fields), dim=-1)
        return torch.cat([part[..., self.dim :] for part in parts], dim=-1)

    def restart(self, std: float) -> None:
        """Draw all embeddings again, with one spread for all fields, as sums of many products of them need it."""
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=std)
            # The draw also filled the row of padding, which no gradient will ever change.
            with torch.no_grad():
                table.weight[0].zero_()
        for vectors in self.scales.values():
            vectors.restart(std)


class ScaleVectors(nn.Module):
    """The embeddings of a scale's numbers: their fixed codes times one trained matrix, so that near numbers are alike.

    Args:
        scale: gives the codes.
        dim: width of an embedding.
    """

    code_VK: Tensor
    scale: Scale
    num_embeddings: int

    def __init__(self, scale: Scale, dim: int) -> None:
        super().__init__()
        self.scale, self.num_embeddings = scale, scale.size
        # Made of the scale alone, so that it need not be saved.
        self.register_buffer("code_VK", torch.from_numpy(scale.codes()).to(torch.float32), persistent=False)
        self.weight: nn.Parameter = nn.Parameter(torch.empty(self.code_VK.shape[1], dim))
        self.restart(STD_FEW)

    def restart(self, std: float) -> None:
        """Draw the matrix again, so that embeddings are about as long as those of a table of this spread."""
        # An embedding is a sum over its code, so that its spread is that of the matrix times the code's length.
        length = float(self.code_VK[1:].square().sum(dim=1).mean().sqrt())
        nn.init.normal_(self.weight, std=std / length)

    def forward(self, number: Tensor) -> Tensor:
        """Embeddings `[..., dim]` of numbers."""
        return embedding(number, self.code_VK) @ self.weight


def _random_factors(size: int, width: int) -> Tensor:
    """Unit vectors of random directions: `[size, width]`."""
    factor_VD = nn.functional.normalize(torch.randn(size, width), dim=1)
    # Padding has no direction, and two unknown values need not be alike.
    factor_VD[:FIRST_BUCKET] = 0
    return factor_VD


def code_table(size: int) -> Tensor:
    """A code for each number of a field: a one at the number's place, or at its bucket if there are more than `CODES`.

    Numbers are dense, so that their remainders fill buckets evenly. Padding and unknown have no code: two unknown
    values need not be equal. `[size, at most CODES]`.

    >>> code_table(4).tolist()
    [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    number = torch.arange(FIRST_BUCKET, size)
    width = min(max(len(number), 1), CODES)
    code = torch.zeros(size, width)
    code[number, (number - FIRST_BUCKET) % width] = 1.0
    return code
