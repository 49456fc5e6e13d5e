"""Settings of every model that is trained by gradient, next to its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from lifelong.offline.models.base import Model
from lifelong.offline.models.settings import setting
from lifelong.offline.nn.tasks import HEADS


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

    def unusual(self) -> dict[str, Any]:
        """The settings that are not as usual."""
        usual = asdict(SharedSettings())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def problems(self, entry: type[Model]) -> list[str]:
        """Which of them the model cannot have, in words."""
        if self.counts and not entry.common_head:
            return [f"model.counts: {entry.title} has a head of its own, which is given no counts"]
        return []


def shared_names(entry: type[Any]) -> set[str]:
    """Which of the shared settings a model has; none, if it is not trained by gradient."""
    if not issubclass(entry, Model):
        return set()
    return set(asdict(SharedSettings())) - (set() if entry.reads_context else {"context"})
