"""What a service adds to a report: equal scores online, what a memory counted, and one user's attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.artifact.folder import Artifact
from lifelong.cli.served_replay import Replay
from lifelong.dataset.folder import Dataset
from lifelong.dtypes import FloatArray, Int32Array
from lifelong.offline.reports.attention import UserAttention, attention_timeline, item_label
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Cell, Table
from lifelong.online.scoring.explanation import Explanation

TOLERANCE = 1e-4
"""Largest difference allowed between an online and an offline logit."""


@dataclass(frozen=True, slots=True)
class Online:
    """A replay of the test period through a store, and the offline logits that it is compared with.

    Args:
        artifact: the model that was served.
        replay: what was scored and written.
        users: users with a memory before the period.
        bytes_per_user: mean size of these memories.
        offline_N: logits of the test examples by the batch path.
    """

    artifact: Artifact
    replay: Replay
    users: int
    bytes_per_user: int
    offline_N: FloatArray

    @property
    def largest_difference(self) -> float:
        """Largest difference of a logit over all test examples; infinite if an example was not scored."""
        return float(np.nan_to_num(np.abs(self.replay.logit_N - self.offline_N), nan=np.inf).max(initial=0.0))

    @property
    def equal(self) -> bool:
        """Whether the two paths gave the same scores."""
        return self.largest_difference <= TOLERANCE

    @property
    def verdict(self) -> str:
        """Whether they did, in words."""
        return (
            f"Online and offline scores are {'equal' if self.equal else 'NOT EQUAL'}: {len(self.offline_N):,} test "
            f"examples, largest difference of a logit {self.largest_difference:.1e} (allowed: {TOLERANCE:.0e}). "
            "Online: exported graphs on memories from the store, updated basket by basket. Offline: torch, from each "
            "user's first event."
        )


def online_section(online: Online) -> Section:
    """The verdict, and the size and speed of the replay."""
    replay = online.replay
    rows: list[list[Cell]] = [
        ["users with a memory before the test period", f"{online.users:,}"],
        ["bytes a user", f"{online.bytes_per_user:,}"],
        ["events written one moment after another", f"{replay.events:,}"],
        ["examples scored from memory", f"{len(replay.logit_N):,}"],
        ["store closed and reopened on the way", f"{replay.reopened} time"],
        # 1e-9: a replay of a tiny log may take no measurable time.
        ["events written a second", f"{replay.events / max(replay.write_seconds, 1e-9):,.0f}"],
        ["examples scored a second", f"{len(replay.logit_N) / max(replay.score_seconds, 1e-9):,.0f}"],
    ]
    return Section("The same scores online", [online.verdict], [Table(["what", "how much"], rows)])


def counted_section(artifact: Artifact, dataset: Dataset, item: str, counted: Table) -> Section:
    """What is behind the score of one candidate of a model that counts.

    Args:
        artifact: the model.
        dataset: names the item.
        item: id of the candidate.
        counted: one row per counted value, with its effect on the score.
    """
    words = (
        f"{artifact.config.title} counts, in a memory of fixed size, how often and how long ago a user met each value. "
        f"This is what it holds of {_name(dataset, item)} for one user, and what each part adds to the score."
    )
    return Section("What the memory counted", [words], [counted])


def attention_sections(artifact: Artifact, dataset: Dataset, explained: Explanation, folder: Path) -> list[Section]:
    """One user's history and the attention of the candidates over the slots; nothing for a memory without slots."""
    if not explained.candidates or not explained.candidates[0].slots:
        return []
    history = dataset.histories.of(int(dataset.users.find([explained.user])[0]))
    attention = UserAttention(
        user=explained.user,
        time_L=np.asarray(dataset.histories.time_N[history]),
        group_L=_groups(dataset, np.asarray(dataset.histories.row_N[history])),
        periods=artifact.config.settings.get("periods", ()),
        targets=[_name(dataset, candidate.item) for candidate in explained.candidates],
        attention_CS=np.array([[slot.attention for slot in scored.slots] for scored in explained.candidates]),
        outcomes=[f"score {scored.score:.2f}" for scored in explained.candidates],
        time_unit=dataset.schema.time_unit,
    )
    words = (
        "As in HPMN, there is one slot per time scale: the first is written at every event, the last every so many. "
        "The first read of the memory says how much each slot counts for a candidate."
    )
    drawn = [attention_timeline(attention, folder / "attention.svg")]
    return [Section("One user's attention over time scales", [words, explained.events_note], figures=drawn)]


def _groups(dataset: Dataset, row_L: Int32Array) -> list[str]:
    """The group of each event: its department, else its second item field, or the item itself."""
    fields = dataset.schema.item_fields
    field = "department" if "department" in fields else fields[min(1, len(fields) - 1)]
    number_L = dataset.catalogue.number_VF[row_L, fields.index(field)]
    return [dataset.vocabularies[field].value_of(int(number)) or "unknown" for number in number_L]


def _name(dataset: Dataset, item: str) -> str:
    """An item by its most telling field, and its id."""
    fields = dataset.schema.item_fields
    return item_label(dataset, item, "product_type" if "product_type" in fields else fields[-1])
