"""What every stage of preparation needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.data.dataset import NegativeRule
from lifelong.preparation.earlier_dataset import EarlierDataset
from lifelong.preparation.settings import PrepareSettings
from lifelong.preparation.sources import RawLog


@dataclass(frozen=True, slots=True)
class Job:
    """A log that is being prepared.

    Args:
        connection: Ibis backend that holds the log.
        log: the opened raw log.
        folder: of the dataset; its `work` folder is deleted at the end.
        settings: how to prepare.
        progress: called with plain words at every stage.
        earlier: an earlier dataset or artifact, to keep its numbers; or None.
        cut_times: where to cut, of a protocol that cuts by time; () = where the shares of the settings say.
    """

    connection: Any
    log: RawLog
    folder: Path
    settings: PrepareSettings
    progress: Callable[[str], None]
    earlier: EarlierDataset | None = None
    cut_times: tuple[int, ...] = ()

    @property
    def work(self) -> Path:
        """Folder of files that are deleted at the end."""
        return self.folder / "work"

    @property
    def type_code(self) -> Path | None:
        """File with the codes of the event types, None if the log has no types."""
        return self.work / "type_code.npy" if self.log.event_types else None

    def tasks(self, rule: NegativeRule) -> tuple[str, ...]:
        """Names of the labels: logged ones, or those of targets with drawn negatives."""
        return self.log.tasks if rule.rule == "none" else self.settings.tasks or ("response",)
