"""Settings of every model that is trained by gradient, next to its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, PositiveInt

from lifelong.models.base import Model
from lifelong.models.item_side import ITEM_RECENT, Side, can_have_item_side
from lifelong.models.settings import setting
from lifelong.nn.tasks import HEADS


def _known_head(name: str) -> str:
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r} (there are: {', '.join(HEADS)})")
    return name


@dataclass(frozen=True)
class SharedSettings:
    """Checked and documented like a model's own settings; an artifact keeps those that differ from the default."""

    head: Annotated[str, AfterValidator(_known_head)] = setting(
        "shared", f"what tasks share, for data with several: {', '.join(HEADS)}"
    )
    context: tuple[str, ...] | None = setting(None, "context fields that the head reads; null takes the usual ones")
    counts: bool = setting(False, "the head also reads exact counts of the target, of the whole history")
    side: Side = setting("user", "which memory is read: the user's, that of the target's item, or both")
    item_recent: PositiveInt = setting(
        ITEM_RECENT,
        "last events of an item that a target sees at most; at least twice the largest period; windows "
        "start at its multiples",
    )

    def unusual(self) -> dict[str, Any]:
        """The settings that are not as usual; with an item-side memory also its size."""
        usual = asdict(SharedSettings())
        kept = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return kept if self.side == "user" else {**kept, "item_recent": self.item_recent}

    def problems(self, entry: type[Model], able: list[str]) -> list[str]:
        """Which of them the model cannot have, in words.

        Args:
            entry: the model.
            able: names of the models that can have an item-side memory.
        """
        found = []
        if self.counts and not entry.common_head:
            found.append(f"model.counts: {entry.title} has a head of its own, which is given no counts")
        if self.side != "user" and not can_have_item_side(entry):
            found.append(
                f"model.side: {entry.title} can have no item-side memory (these can have one: {', '.join(able)})"
            )
        return found


def shared_names(entry: type[Any]) -> set[str]:
    """Which of the shared settings a model has; none, if it is not trained by gradient."""
    if not issubclass(entry, Model):
        return set()
    return set(asdict(SharedSettings())) - (set() if entry.reads_context else {"context"})
