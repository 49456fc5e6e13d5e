"""Scores of a dataset's examples as a table, without a store."""

from __future__ import annotations

from typing import Any

import numpy as np

from lifelong.artifact.folder import Artifact, check_fits
from lifelong.dataset.examples import Split
from lifelong.dataset.folder import Dataset
from lifelong.errors import require
from lifelong.offline.evaluation import evaluate
from lifelong.offline.export.saving import load_model


def predict(
    artifact: Artifact,
    dataset: Dataset,
    *,
    split: Split = "test",
    delay: int = 0,
    base_rate: float | None = None,
    threads: int | None = None,
) -> Any:
    """`lifelong.predict`, for an opened artifact and dataset."""
    arrow = require("pyarrow", extra="train", purpose="tables")
    check_fits(artifact, dataset)
    model, examples = load_model(artifact), dataset.examples(split)
    evaluate.check_requirements(model, dataset)
    logit_NT = evaluate.predict(model, dataset, examples, delay=delay, threads=threads)
    columns: dict[str, Any] = {
        "user": arrow.array([dataset.users.id_at(int(user)) for user in examples.user_N], arrow.string()),
        "item": arrow.array([dataset.catalogue.id_of(int(row)) for row in examples.row_N], arrow.string()),
        "time": np.asarray(examples.time_N, np.int64),
        "events": np.asarray(evaluate.delayed(dataset, examples, delay).position_N, np.int64),
    }
    for at, task in enumerate(dataset.schema.tasks):
        end = f"_{task}" if at else ""
        columns[f"label{end}"] = np.asarray(examples.label_NT[:, at], np.float64)
        columns[f"score{end}"] = logit_NT[:, at]
        probability_N, _ = artifact.probability(logit_NT[:, at], None if at else base_rate, task=task)
        columns[f"probability{end}"] = (
            arrow.nulls(len(examples), arrow.float64()) if probability_N is None else probability_N
        )
    return arrow.table(columns)
