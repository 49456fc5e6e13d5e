"""Made-up logs in the three formats of the HPMN paper, with something to learn: each user likes some categories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DAY = 86_400
_START = 1_511_600_000


def amazon_files(folder: Path, *, users: int = 60, items: int = 120, events: int = 12, seed: int = 0) -> list[Path]:
    """Reviews and meta; times are days, several reviews share one. Metadata lines are Python literals."""
    rng = np.random.default_rng(seed)
    reviews = [
        json.dumps({"reviewerID": f"U{user}", "asin": f"B{item}", "overall": 5.0, "unixReviewTime": day * DAY})
        for user in range(users)
        for item, day in zip(
            _items(rng, items, int(rng.integers(5, 2 * events))), _times(rng, user, 2 * events), strict=False
        )
    ]
    meta = [f"{{'asin': 'B{item}', 'categories': [['All', 'C{item % 12}']], 'brand': 'M'}}" for item in range(items)]
    return [_write(folder / "reviews_Made_5.json", reviews), _write(folder / "meta_Made.json", meta)]


def taobao_file(folder: Path, *, users: int = 60, items: int = 200, events: int = 40, seed: int = 0) -> list[Path]:
    """UserBehavior within its published days."""
    rng = np.random.default_rng(seed)
    rows = [
        f"{user},{item},{item % 12},{rng.choice(['pv', 'pv', 'pv', 'cart', 'fav', 'buy'])},{time}"
        for user in range(users)
        for item, time in zip(
            _items(rng, items, int(rng.integers(events // 2, 2 * events))),
            np.sort(_START + rng.integers(0, 7 * DAY, 2 * events)).tolist(),
            strict=False,
        )
    ]
    return [_write(folder / "UserBehavior.csv", rows)]


def xlong_files(folder: Path, *, users: int = 60, items: int = 200, events: int = 60, seed: int = 0) -> list[Path]:
    """Train and test files; a line has as many events, a positive and a negative item, and neighbours."""
    rng, lines = np.random.default_rng(seed), []
    for user in range(users):
        history = _items(rng, items, events + 1)
        negative = int(rng.integers(items))
        while negative == history[-1]:
            negative = int(rng.integers(items))
        near = ",".join("1" for _ in range(4))
        past = ",".join(map(str, history[:-1]))
        lines.append(f"{user}\t{user}\t{past}\t{history[-1]}\t{negative}\t{near}\t{near}")
    test = users // 4
    return [
        _write(folder / "train_corpus_total_dual.txt", lines[test:]),
        _write(folder / "test_corpus_total_dual.txt", lines[:test]),
    ]


def _items(rng: np.random.Generator, items: int, count: int) -> list[int]:
    """Mostly items of two of twelve categories, which are `item % 12`."""
    liked = rng.choice(12, 2, replace=False)
    own = 12 * rng.integers(0, items // 12, count) + rng.choice(liked, count)
    chosen = np.where(rng.random(count) < 0.9, own, rng.integers(0, items, count))
    return [int(item) for item in chosen]


def _times(rng: np.random.Generator, user: int, count: int) -> list[int]:
    return sorted(int(day) for day in 16_000 + user % 40 + rng.integers(0, 8, count))


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
