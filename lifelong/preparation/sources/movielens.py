"""MovieLens: `ratings.csv` or `ratings.dat`, and optionally `movies.csv` or `movies.dat`.

The role of a file follows from its first line: csv files have a header (`movieId`, with or without `userId`), `.dat`
files have four or three values between `::`. The field `genres` is the list of genres as one value. `movies.dat` is
Latin-1, as published.

Users rate a movie once, so that nothing repeats and a long memory cannot help: for smoke tests only.

Options:
    threshold: rating from which a row is a positive label; then every rating is a labelled impression (protocol
        `impressions`), and an event too. Default: none, labels are sampled, unless `--tasks` asks for ratings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import ibis

from lifelong.errors import SourceError
from lifelong.preparation.engine import stage
from lifelong.preparation.sources import staging
from lifelong.preparation.sources.rawlog import RawLog
from lifelong.preparation.sources.text import Column, Layout, Places, header_names, rows

OPTIONS = {"threshold": ""}
RATINGS = Layout(
    (
        Column("user", "id", header="userId"),
        Column("item", "id", header="movieId"),
        Column("rating", "number"),
        Column("time", "integer", header="timestamp"),
    ),
    header=True,
    quoted=True,
)
MOVIES = Layout((Column("item", "id", header="movieId"), Column("genres")), header=True, quoted=True)
DAT: dict[str, bool | str] = {"header": False, "delimiter": "::", "quoted": False}
LAYOUTS = {
    ("ratings", "csv"): RATINGS,
    ("movies", "csv"): MOVIES,
    ("ratings", "dat"): replace(RATINGS, **DAT),  # type: ignore[arg-type]
    ("movies", "dat"): replace(MOVIES, names=("movieId", "title", "genres"), encoding="latin-1", **DAT),  # type: ignore[arg-type]
}


def read(connection: Any, paths: Sequence[Path], options: Mapping[str, str]) -> RawLog:
    """Open ratings and movies."""
    threshold = staging.check_number(options, "threshold")
    roles = [(path, *_role(path)) for path in paths]
    log, record = _staged(connection, roles, "ratings")
    if log is None:
        raise SourceError(
            "there is no file of ratings",
            file=str(paths[0]),
            expected="ratings.csv or ratings.dat",
            fix="name the folder, or the file of ratings too",
        )
    events = log.select("user", "item", "time", "sequence")
    raw = RawLog(name="MovieLens", events=events, ratings=log, record=record)
    movies, record = _staged(connection, roles, "movies")
    if movies is not None:
        none = movies["genres"].isin(["", "(no genres listed)"])
        movies = movies.mutate(genres=ibis.ifelse(none, ibis.null("string"), movies["genres"]))
        raw.record |= {"movie_files": record, "items_without_meta": staging.without_meta(events, movies)}
        staging.add_fields(raw, movies, ["genres"])
    return staging.rated(raw, log, threshold) if threshold is not None else raw


def _role(path: Path) -> tuple[str, str]:
    """Role and form of a file."""
    # Latin-1 decodes any bytes; wrong ones are found when the whole file is read.
    names = header_names(path, replace(MOVIES, encoding="latin-1"))
    if "movieId" in names:
        return ("ratings" if "userId" in names else "movies"), "csv"
    values = header_names(path, LAYOUTS["movies", "dat"])
    if len(values) in (3, 4):
        return ("ratings" if len(values) == 4 else "movies"), "dat"
    raise SourceError(
        f"its first line is {', '.join(names) or 'empty'}",
        file=str(path),
        line=1,
        expected="a header with movieId, or values between ::, as in ratings.csv, ratings.dat, movies.csv, movies.dat",
        fix="name the files of MovieLens as they are in its archive",
    )


def _staged(connection: Any, roles: Sequence[tuple[Path, str, str]], role: str) -> tuple[Any, dict[str, Any]]:
    """All rows of one role in one table (None if there is no file), and counts."""
    chosen = [(path, form) for path, found, form in roles if found == role]
    if not chosen:
        return None, {}
    places = Places()

    def batches() -> Any:
        # Neighbouring files of one form together, so that the line numbers continue in the order given.
        for form, group in groupby(chosen, key=lambda pair: pair[1]):
            yield from rows([path for path, _ in group], LAYOUTS[role, form], places)

    table = stage(connection, batches(), LAYOUTS[role, "csv"].schema())
    return table, places.record()
