# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""From a csv file of your own to a score.

uv run examples/own_csv_to_score.py
"""

import csv
import random
from pathlib import Path

import lifelong


def write_log(path: Path) -> None:
    """A small shop: every customer has a favourite aisle."""
    rng = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "sku", "aisle", "sold_at"])
        for number in range(3_000):
            customer = rng.randrange(60)
            aisle = customer % 6 if rng.random() < 0.8 else rng.randrange(6)
            writer.writerow(
                [f"c{customer}", f"sku{aisle}-{rng.randrange(8)}", f"aisle{aisle}", 1_700_000_000 + 600 * number]
            )


def main() -> None:
    """Prepare, train, measure, fill a store, score."""
    write_log(Path("log.csv"))
    columns = {"user": "customer", "item": "sku", "time": "sold_at", "fields": ["aisle"]}
    dataset = lifelong.prepare("log.csv", out="data", overwrite=True, **columns)
    print(repr(dataset))
    artifact = lifelong.train(dataset, "tally", epochs=1, min_steps=0, threads=1, progress=False, overwrite=True)
    print(lifelong.evaluate(artifact, dataset))
    lifelong.backfill(artifact, dataset, "rocksdb://store")
    with lifelong.Scorer(artifact, "rocksdb://store") as scorer:
        for score in scorer.score("c7", ["sku1-0", "sku4-0"]):
            print(score.item, round(score.score, 3))


if __name__ == "__main__":
    main()
