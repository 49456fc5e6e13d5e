"""Raw log -> prepared dataset, from disk to disk.

    files --source--> RawLog --number, sort, stream--> histories --protocol--> targets --negatives--> examples
                                                           `--training period--> vocabularies, catalogue

The dataset is built in a hidden folder beside its place and renamed at the end: an error or a kill leaves nothing that
looks finished. The same rows and settings give the same arrays (`data_hash`), whatever the number of threads.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lifelong.data.dataset import Dataset, array_hash, write_manifest
from lifelong.data.engine import clear_errors, open_engine
from lifelong.data.sources import SOURCES
from lifelong.errors import SourceError, UsageError

Protocol = Literal["temporal", "paper", "impressions", "given"]
Rule = Literal["popularity", "uniform", "same_category"]


class PrepareSettings(BaseModel):
    """How a raw log becomes a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol | None = Field(None, description="what is a target, and how it is split; default: the source's")
    negatives: Rule | None = Field(
        None,
        description="how negatives are sampled; default: the source's, else popularity (temporal), uniform (paper)",
    )
    ratio: int = Field(1, ge=1, le=1000, description="negatives per positive")
    seed: int = Field(0, ge=0, description="of all that is drawn")
    engine: Literal["duckdb", "spark"] = Field("duckdb", description="table engine")
    cuts: tuple[float, float] = Field((0.8, 0.9), description="shares of the times before validation and before test")
    min_count: int = Field(2, ge=1, description="items with fewer training events use their hash bucket")
    field_min_count: int = Field(1, ge=1, description="the same for the values of other item fields")
    buckets: int | dict[str, int] | None = Field(
        None, description="hash buckets: of the items, or {field: buckets}; default: by the number of known values"
    )
    category_field: str | None = Field(
        None, description="item field of same_category negatives; default: the first that is named like a category"
    )
    memory_limit: str = Field(
        "1500MB",
        pattern=r"^\d+(\.\d+)?\s*[KMGT]i?B$",
        description="what the table engine may hold in memory before it spills to disk",
    )
    threads: int | None = Field(None, ge=1, description="threads of the table engine; default: one per core")
    options: dict[str, str] = Field(default_factory=dict, description="options of the source")
    mapping: Path | None = Field(None, description="mapping file of the source `table`")
    overwrite: bool = Field(False, description="replace a dataset that is already there")

    @field_validator("cuts")
    @classmethod
    def _ascending(cls, cuts: tuple[float, float]) -> tuple[float, float]:
        if not 0 < cuts[0] < cuts[1] < 1:
            raise ValueError("the cuts must rise and lie between 0 and 1")
        return cuts

    def buckets_of(self) -> dict[str, int]:
        """Hash buckets per field that has them set."""
        if self.buckets is None:
            return {}
        return {"item": self.buckets} if isinstance(self.buckets, int) else dict(self.buckets)


def prepare(
    source: str,
    paths: Sequence[str | Path],
    out: Path | str,
    *,
    settings: PrepareSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Prepare a raw log.

    Args:
        source: a name in `SOURCES`.
        paths: files or globs; what roles they have is the source's business.
        out: folder of the dataset; must not exist yet, or be empty, unless `settings.overwrite`.
        settings: how; all have defaults.
        progress: called with plain words at every stage.

    Raises:
        UsageError: the source, engine or protocol is not one, or `out` is taken.
        SourceError: a file is not what it should be.
        DataError: the log cannot be prepared, or the disk is full; nothing is left behind.
    """
    from lifelong.data.assemble import Job, assemble

    settings, tell = settings or PrepareSettings(), progress or (lambda _: None)
    if source not in SOURCES:
        raise UsageError(f"there is no source {source!r}", expected=", ".join(sorted(SOURCES)))
    files = expand(paths)
    out = Path(out)
    _check_out(out, settings.overwrite)
    started = time.monotonic()
    with clear_errors(out.parent), _beside(out) as folder:
        work = folder / "work"
        work.mkdir()
        options = dict(settings.options)
        if settings.mapping is not None:
            options["mapping"] = str(settings.mapping)
        with open_engine(
            settings.engine, work, memory_limit=settings.memory_limit, threads=settings.threads
        ) as connection:
            tell(f"reading {source}" + (f": {len(files)} file(s)" if files else ""))
            log = SOURCES[source](connection, files, options)
            manifest = assemble(Job(connection, log, folder, settings, tell))
        shutil.rmtree(work)
        tell("hashing the dataset")
        record = {**manifest.record, "files": [path.name for path in files], "options": settings.options}
        if settings.mapping is not None:
            record["mapping"] = settings.mapping.read_text(encoding="utf-8")
        record["seconds"] = round(time.monotonic() - started, 1)
        manifest = manifest.model_copy(update={"source": source, "record": record, "data_hash": array_hash(folder)})
        write_manifest(folder, manifest)
        _move(folder, out)
    tell(f"done: {out}")
    return Dataset(out)


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """Files behind paths and globs, in the user's order, each glob's files sorted.

    Raises:
        SourceError: a glob matches nothing.
    """
    files: list[Path] = []
    for path in paths:
        whole = Path(path).expanduser()
        if whole.exists() or not glob.has_magic(str(whole)):
            files.append(whole)
            continue
        root = Path(whole.anchor)
        found = sorted(root.glob(str(whole.relative_to(root))))
        if not found:
            raise SourceError("no file matches", file=str(path), expected="at least one file", fix="check the pattern")
        files.extend(found)
    return files


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "dataset.json").exists():
        raise UsageError(f"{out} exists and is not a dataset", expected="a new folder", fix="choose another --out")
    if not overwrite:
        raise UsageError(
            f"{out} already holds a dataset", expected="a new folder", fix="choose another --out, or --overwrite"
        )


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A hidden folder on the same disk as `out`, deleted on any error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.{os.getpid()}-{time.monotonic_ns():x}.preparing"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    """Rename the finished folder to its place; what was there goes, or comes back if that fails."""
    old = folder.with_suffix(".old")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def prepare_frame(
    frame: Any,
    mapping: Mapping[str, Any] | str | Path,
    out: Path | str,
    *,
    settings: PrepareSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Prepare a log that is in memory, through the source `table`.

    Args:
        frame: a pandas DataFrame or a pyarrow Table, one row per event.
        mapping: which column is what, such as `{"user": "customer", "item": "sku", "time": "when"}`; the settings of a
            mapping file, or such a file.
        out: as in `prepare`.
        settings: as in `prepare`.
        progress: as in `prepare`.

    Raises:
        UsageError: `frame` is neither, or see `prepare`.
        DataError: see `prepare`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(frame, pa.Table):
        if not hasattr(frame, "to_numpy") or not hasattr(frame, "columns"):
            raise UsageError(f"a log of type {type(frame).__name__}", expected="a pandas DataFrame or a pyarrow Table")
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    with tempfile.TemporaryDirectory(prefix="lifelong-") as folder:
        path = Path(folder) / "frame.parquet"
        pq.write_table(frame, path)
        if isinstance(mapping, Mapping):
            written = Path(folder) / "mapping.json"
            written.write_text(json.dumps(dict(mapping)))
            mapping = written
        settings = (settings or PrepareSettings()).model_copy(update={"mapping": Path(mapping)})
        return prepare("table", [path], out, settings=settings, progress=progress)
