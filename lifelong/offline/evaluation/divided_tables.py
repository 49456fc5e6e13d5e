"""Large embedding tables of which each process of a run has some rows, with their moments.

    batch --numbers--> all processes --owners send their rows--> rows of the batch --forward, backward--> gradient
    gradient, summed over the processes --own rows--> SparseAdam

Between two batches a process has its own rows alone: with P processes, one part in P of a table and of its two moments.
A table of the model holds the rows of the batch at hand, in the order of their numbers, and looks a number up among
them. The gradient of such a row is that of the whole table's row, so that the weights are those of whole tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from lifelong.errors import MismatchError
from lifelong.offline.data.batch import Batch
from lifelong.offline.evaluation.processes import Processes
from lifelong.offline.models.base import Model


class _Divided:
    """One table: the rows from `low` to `high` are the process's own."""

    def __init__(self, table: nn.Embedding, processes: Processes) -> None:
        self.table, self._processes, size = table, processes, table.num_embeddings
        self.bounds = [size * rank // processes.count for rank in range(processes.count + 1)]
        self.low, self.high = list(pairwise(self.bounds))[processes.rank]
        self.own: nn.Parameter = nn.Parameter(table.weight.detach()[self.low : self.high].clone())
        self._number_N = torch.zeros(0, dtype=torch.int64)
        self._hold(self._number_N, self.own.detach()[:0])
        # In place of the module's own, so that the model's code and its names of weights stay as they are.
        table.forward = self._look_up  # type: ignore[method-assign, assignment]

    def load(self, number_N: Tensor, *, same: bool) -> bool:
        """Hold the rows of these numbers, and of the others' if theirs are not the same; whether there are any."""
        asked_N = number_N if same else self._processes.rows(number_N, number_N)[0]
        union_N = torch.unique(asked_N).to(self.own.device)
        mine_N = union_N[(union_N >= self.low) & (union_N < self.high)]
        # Bounds rise with the processes: rows that come one process after another are in the order of the numbers.
        _, row_ND = self._processes.rows(mine_N, self.own.detach()[mine_N - self.low])
        self._hold(union_N, row_ND)
        return bool(len(union_N))

    def hand_over(self) -> None:
        """Give the gradient of the rows of a batch to the own ones among them."""
        gradient, self.table.weight.grad, self.own.grad = self.table.weight.grad, None, None
        if gradient is not None:
            gradient = gradient.coalesce()
            number_N = self._number_N[gradient.indices()[0]]
            mine_N = (number_N >= self.low) & (number_N < self.high)
            index_1N = (number_N[mine_N] - self.low).unsqueeze(0)
            self.own.grad = torch.sparse_coo_tensor(index_1N, gradient.values()[mine_N], self.own.shape)

    def join(self) -> None:
        """Be an ordinary table again, of zeros: whole weights come next."""
        del self.table.forward
        self._hold(self._number_N[:0], self.own.detach().new_zeros(self.bounds[-1], self.own.shape[1]))

    def _hold(self, number_N: Tensor, row_ND: Tensor) -> None:
        self._number_N, self.table.weight.grad = number_N, None
        # The same parameter for whoever has it in a list, with other rows.
        self.table.weight.data = row_ND

    def _look_up(self, number: Tensor) -> Tensor:
        place = torch.searchsorted(self._number_N, number.contiguous())
        if not torch.equal(self._number_N[place.clamp(max=len(self._number_N) - 1)], number):
            raise MismatchError(
                "a model looks up numbers that its batch does not have: its tables cannot be divided",
                fix="train.embeddings=dense, or train without torchrun",
            )
        # Padding is always among the numbers, at the first place.
        return embedding(place, self.table.weight, padding_idx=self.table.padding_idx, sparse=True)


class DividedTables:
    """The sparse tables of a model, divided between processes; of one process, none.

    Args:
        model: with whole tables, equal in all processes.
        processes: that train it.
    """

    def __init__(self, model: Model, processes: Processes) -> None:
        self._model, self._processes = model, processes
        # By the place in `tables()`.
        self._parts = {
            place: _Divided(table, processes)
            for place, table in enumerate(model.tables() if processes.several else [])
            if table.sparse
        }

    @property
    def own(self) -> dict[int, nn.Parameter]:
        """The id of a weight of the model -> the rows of it that are this process's own."""
        return {id(part.table.weight): part.own for part in self._parts.values()}

    def load(self, batch: Batch | None, *, same: bool = True) -> bool:
        """Hold the rows of a batch, before it is run; of those of all processes if they are not the same.

        Args:
            batch: None if this process has no more.
            same: whether all processes have this one.

        Returns:
            Whether any process has a batch.

        Raises:
            LostProcessError: another process does not answer.
        """
        if not self._parts:
            return batch is not None
        # Rows outlive the context of the caller, and gradients are taken of them.
        with torch.inference_mode(False), torch.no_grad():
            numbers = [] if batch is None else self._model.table_numbers(batch)
            none_N = torch.zeros(0, dtype=torch.int64)
            parts = self._parts.items()
            found = [part.load(numbers[place] if numbers else none_N, same=same) for place, part in parts]
        return any(found)

    def in_step(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches with their rows at hand; it ends when those of all processes have ended.

        Raises:
            LostProcessError: another process does not answer.
        """
        own = iter(batches)
        # Who has ended still sends rows to the others.
        while self.load(batch := next(own, None), same=False):
            if batch is not None:
                yield batch

    def hand_over(self) -> None:
        """Give the gradients of a batch to the own rows."""
        for part in self._parts.values():
            part.hand_over()

    def gather(self, parameter: Tensor, value: Tensor) -> Tensor:
        """What is of the own rows of a parameter -> of all its rows in the first process; in the others as it is."""
        part = self._of(parameter)
        return value if part is None or not value.dim() else self._processes.gather(value, part.bounds)

    def cut(self, parameter: Tensor, value: Tensor) -> Tensor:
        """What is of all rows of a parameter -> of the own rows."""
        part = self._of(parameter)
        return value if part is None or not value.dim() else value[part.low : part.high]

    def weights(self) -> dict[str, Tensor]:
        """The model's weights; tables are whole in the first process alone."""
        own, parameters = self.own, dict(self._model.named_parameters())
        return {
            name: self.gather(one, own[id(one)].detach()) if id(one := parameters.get(name, value)) in own else value
            for name, value in self._model.state_dict().items()
        }

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Set the model's weights to those that `weights` returned in the first process."""
        own, given = self.own, dict(weights)
        for name, parameter in self._model.named_parameters():
            if id(parameter) in own:
                own[id(parameter)].data.copy_(self.cut(parameter, given[name]))
                given[name] = parameter.detach()
        self._model.load_state_dict(given)

    def join(self) -> None:
        """End the division; whole tables, which come next, are zeros."""
        for part in self._parts.values():
            part.join()

    def _of(self, parameter: Tensor) -> _Divided | None:
        parts = self._parts.values()
        return next((part for part in parts if parameter is part.own or parameter is part.table.weight), None)
