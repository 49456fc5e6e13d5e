# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""The memory learns from every event: score first, fold in then, and measure as time goes on (prequential evaluation).

uv run examples/online_learning.py
"""

import numpy as np

import lifelong
from lifelong.offline.evaluation.metrics import auc

USERS, ITEMS = 40, 48


def stream(events: int, seed: int) -> list[lifelong.UserEvent]:
    """Users who keep to one kind of item; new users come all the time."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(events):
        user = int(rng.integers(max(1, number * USERS // events), USERS * 2))
        kind = user % 6 if rng.random() < 0.85 else int(rng.integers(6))
        item, time = f"i{kind * 8 + int(rng.integers(8))}", 1_700_000_000 + 600 * number
        found.append(lifelong.UserEvent(f"u{user}", item, time, fields={"kind": f"k{kind}"}))
    return found


def main() -> None:
    """Train on the first part of a stream, then score and fold in the rest event by event."""
    import pandas as pd

    events = stream(5_000, seed=0)
    rows = [{"user": one.user, "item": one.item, "time": one.time, **(one.fields or {})} for one in events[:4_000]]
    dataset = lifelong.prepare(
        pd.DataFrame(rows), out="stream", user="user", item="item", time="time", fields=["kind"], overwrite=True
    )
    artifact = lifelong.train(
        dataset, "tally", epochs=1, min_steps=0, patience=1, threads=1, progress=False, overwrite=True
    )
    store = lifelong.open_store("memory://")
    scorer, updater = lifelong.Scorer(artifact, store), lifelong.Updater(artifact, store)
    rng, labels, logits = np.random.default_rng(1), [], []
    for number, event in enumerate(events[4_000:], start=1):
        other = f"i{int(rng.integers(ITEMS))}"
        scores = scorer.score(event.user, [event.item, other], time=event.time)
        labels += [1, 0]
        logits += [score.score for score in scores]
        updater.apply([event], source="stream", offsets=[number])
        if number % 250 == 0:
            print(f"events {number - 249:>4} to {number:>4}: AUC {auc(labels[-500:], logits[-500:]):.3f}")
    store.close()


if __name__ == "__main__":
    main()
