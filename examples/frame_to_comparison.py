# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,report]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""From a DataFrame to a comparison of models, with a report.

uv run examples/frame_to_comparison.py
"""

import numpy as np
import pandas as pd

import lifelong


def make_log(events: int = 3_000) -> pd.DataFrame:
    """Readers who come back to the authors they like."""
    rng = np.random.default_rng(0)
    reader = rng.integers(0, 60, events)
    author = np.where(rng.random(events) < 0.8, reader % 6, rng.integers(0, 6, events))
    return pd.DataFrame(
        {
            "reader": [f"r{one}" for one in reader],
            "book": [f"b{one}-{rng.integers(8)}" for one in author],
            "author": [f"a{one}" for one in author],
            "at": pd.date_range("2026-01-01", periods=events, freq="10min", tz="UTC"),
        }
    )


def main() -> None:
    """Prepare, compare, print the table; the figures are in the report."""
    columns = {"user": "reader", "item": "book", "time": "at", "fields": ["author"]}
    dataset = lifelong.prepare(make_log(), out="books", overwrite=True, **columns)
    models = {"popularity": {}, "counts": {}, "dnn": {"epochs": 1, "threads": 1}}
    comparison = lifelong.compare(dataset, models, "report", reference="counts", progress=False)
    frame = comparison.to_frame()
    print(frame[frame["metric"] == "auc"][["title", "value", "low", "high", "difference"]])
    print("report/index.html")


if __name__ == "__main__":
    main()
