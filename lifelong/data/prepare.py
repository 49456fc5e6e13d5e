"""Raw log -> prepared dataset, from disk to disk.

    files --source--> RawLog --number, sort, stream--> histories --protocol--> targets --negatives--> examples
                                                           `--training period--> vocabularies, catalogue

The dataset is built in a hidden folder beside its place and renamed at the end: an error leaves nothing, a kill nothing
that looks finished. The same rows and settings give the same arrays (`data_hash`), whatever the number of threads.
"""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.data.assemble import Job, assemble
from lifelong.data.dataset import Dataset, array_hash, write_manifest
from lifelong.data.earlier import Earlier
from lifelong.data.engine import clear_errors, open_engine
from lifelong.data.folders import building, in_use, put_in_place, remove_remains
from lifelong.data.prepare_settings import PrepareSettings
from lifelong.data.ratings import label_ratings
from lifelong.data.sources import SOURCES
from lifelong.errors import SourceError, UsageError

__all__ = ["PrepareSettings", "expand", "prepare", "prepare_frame"]


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
        UsageError: the source, engine or protocol is not one, `out` is taken, or the earlier dataset or artifact is
            none or has other fields.
        SourceError: a file is not what it should be.
        DataError: the log cannot be prepared, or the disk is full; nothing is left behind.
    """
    settings, tell = settings or PrepareSettings(), progress or (lambda _: None)
    if source not in SOURCES:
        raise UsageError(f"there is no source {source!r}", expected=", ".join(sorted(SOURCES)))
    engines = getattr(SOURCES[source], "engines", (settings.engine,))
    if settings.engine not in engines:
        raise UsageError(
            f"the source {source!r} is read by the engine {' or '.join(engines)} alone",
            expected=f"--engine {engines[0]}",
            fix="leave out --engine",
        )
    files = expand(paths)
    out = Path(out)
    _check_out(out, settings.overwrite)
    earlier = None if settings.start is None else Earlier.open(settings.start)
    started = time.monotonic()
    for remains in remove_remains(out):
        tell(f"removed {remains}, which a killed run had left; beginning anew")
    with clear_errors(out.parent), building(out) as folder:
        work = folder / "work"
        work.mkdir()
        options = dict(settings.options)
        if settings.mapping is not None:
            options["mapping"] = str(settings.mapping)
        with open_engine(
            settings.engine,
            work,
            memory_limit=settings.memory_limit,
            threads=settings.threads,
            master=settings.master,
        ) as connection:
            tell(f"reading {source}" + (f": {len(files)} file(s)" if files else ""))
            log = SOURCES[source](connection, files, options)
            manifest = assemble(Job(connection, log, folder, label_ratings(log, settings), tell, earlier))
        shutil.rmtree(work)
        tell("hashing the dataset")
        record = {**manifest.record, "files": [path.name for path in files], "options": settings.options}
        if settings.mapping is not None:
            record["mapping"] = settings.mapping.read_text(encoding="utf-8")
        record["seconds"] = round(time.monotonic() - started, 1)
        manifest = manifest.model_copy(update={"source": source, "record": record, "data_hash": array_hash(folder)})
        write_manifest(folder, manifest)
        put_in_place(folder, out)
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
    if (busy := in_use(out)) is not None:
        raise UsageError(
            f"another process is writing {out} now (in {busy.name})",
            expected="one process for a folder",
            fix="wait until it has ended, or choose another --out",
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "dataset.json").exists():
        raise UsageError(f"{out} exists and is not a dataset", expected="a new folder", fix="choose another --out")
    if not overwrite:
        raise UsageError(
            f"{out} already holds a dataset", expected="a new folder", fix="choose another --out, or --overwrite"
        )


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
