"""What `lifelong paper` says next to a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.comparisons import made_study

from lifelong.config import RunConfig
from lifelong.offline.reports import paper
from lifelong.offline.reports.paper import LOGS, paper_sections, verdict


@dataclass
class _Manifest:
    counts: dict[str, int]
    protocol: str = "paper"
    record: dict[str, Any] = field(default_factory=lambda: {"settings": {"ties": "seen"}})


@dataclass
class _Histories:
    offset_U: Any = field(default_factory=lambda: np.array([0, 3, 400]))


@dataclass
class _Dataset:
    manifest: _Manifest
    histories: _Histories = field(default_factory=_Histories)


def _dataset(share: float, **more: Any) -> Any:
    return _Dataset(_Manifest({of: int(share * count) for of, count in LOGS["taobao"].published.items()}, **more))


def _cells(section: Any) -> list[list[Any]]:
    return [list(row) for row in section.tables[0].rows]


def _sections(dataset: Any, **configs: Any) -> dict[str, Any]:
    made = {name: RunConfig(model=model) for name, model in configs.items()}
    return {part.title: part for part in paper_sections("taobao", made_study(models=4), dataset, made)}


@pytest.mark.parametrize(("share", "whole"), [(1.0, True), (0.96, True), (0.5, False), (1.2, False)])
def test_only_the_published_files_are_held_against_the_paper(share: float, whole: bool) -> None:
    dataset = _dataset(share)
    assert ("these figures can be compared" in verdict("taobao", dataset)) == whole
    hpmn, *others = _cells(_sections(dataset)["Against the paper"])
    assert hpmn[4].text == "0.9240, not verified" and hpmn[4].value == 0.9240
    assert (hpmn[5] is not None) == whole
    assert [row[4] for row in others] == ["not at hand"] * len(others), "a figure of the paper was made up"
    assert all(row[5] is None for row in others)


def test_how_much_of_the_published_files_there_is() -> None:
    section = _sections(_dataset(0.5))["How far these are the paper's data"]
    assert [row[0] for row in _cells(section)] == ["users", "items", "events"]
    assert {row[3].text for row in _cells(section)} == {"50.000%"}
    assert "50.0% of the 2 histories here are longer" in section.paragraphs[0]


def test_what_differs_follows_the_dataset_and_the_settings() -> None:
    title = "What is as in the paper, and what differs"
    rows = {row[0]: row[2] for row in _cells(_sections(_dataset(1.0), hpmn={}, dien={"recent": 300}, lstm={})[title])}
    assert rows["events that a model reads"] == "hpmn, lstm: all of them; dien: the last 300"
    assert rows[paper._TIES] == "the same"
    hidden = _dataset(1.0, record={"settings": {}})
    rows = {row[0]: row[2] for row in _cells(_sections(hidden, hpmn={})[title])}
    assert rows[paper._TIES] == "those of earlier times alone"


def test_what_is_too_small_to_conclude_from_is_said() -> None:
    small = _dataset(0.5, record={"settings": {"ties": "seen"}, "too_small": {"test": "15 examples"}})
    assert "test, 15 examples" in _sections(small)["How far these are the paper's data"].paragraphs[1]
