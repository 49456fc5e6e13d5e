"""Made-up logs in the three formats of the HPMN paper, with something to learn: each user likes some categories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

DAY = 86_400


def amazon_files(folder: Path, users: int) -> list[Path]:
    """Reviews and meta; times are days, several reviews share one. Metadata lines are Python literals."""
    rng, reviews = np.random.default_rng(0), []
    for user in range(users):
        items = _items(rng, 120, int(rng.integers(5, 24)))
        days = sorted(int(day) for day in 16_000 + user % 40 + rng.integers(0, 8, 24))
        rows = [{"reviewerID": f"U{user}", "asin": f"B{item}", "overall": 5.0} for item in items]
        reviews += [json.dumps(row | {"unixReviewTime": day * DAY}) for row, day in zip(rows, days, strict=False)]
    meta = [f"{{'asin': 'B{item}', 'categories': [['All', 'C{item % 12}']], 'brand': 'M'}}" for item in range(120)]
    return [_write(folder / "reviews_Made_5.json", reviews), _write(folder / "meta_Made.json", meta)]


def taobao_file(folder: Path, users: int) -> list[Path]:
    """UserBehavior within its published days."""
    rng, rows = np.random.default_rng(0), []
    for user in range(users):
        items = _items(rng, 200, int(rng.integers(20, 80)))
        times = np.sort(1_511_600_000 + rng.integers(0, 7 * DAY, 80)).tolist()
        for item, time in zip(items, times, strict=False):
            rows.append(f"{user},{item},{item % 12},{rng.choice(['pv', 'pv', 'pv', 'cart', 'fav', 'buy'])},{time}")
    return [_write(folder / "UserBehavior.csv", rows)]


def xlong_files(folder: Path, users: int) -> list[Path]:
    """Train and test files; a line has as many events, a positive and a negative item, and neighbours."""
    rng, lines = np.random.default_rng(0), []
    for user in range(users):
        *past, positive = _items(rng, 200, 61)
        negative = int(rng.choice([item for item in range(200) if item != positive]))
        lines.append(f"{user}\t{user}\t{','.join(map(str, past))}\t{positive}\t{negative}\t1,1,1,1\t1,1,1,1")
    test, name = users // 4, "{}_corpus_total_dual.txt"
    return [_write(folder / name.format("train"), lines[test:]), _write(folder / name.format("test"), lines[:test])]


def _items(rng: np.random.Generator, items: int, count: int) -> list[int]:
    """Mostly items of two of twelve categories, which are `item % 12`."""
    liked = rng.choice(12, 2, replace=False)
    own = 12 * rng.integers(0, items // 12, count) + rng.choice(liked, count)
    chosen = np.where(rng.random(count) < 0.9, own, rng.integers(0, items, count))
    return [int(item) for item in chosen]


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
