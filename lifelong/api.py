"""The public functions: paths or opened objects alike, settings by their names, house errors for wrong arguments.

    prepare -> Dataset -> train -> Artifact -> evaluate, predict, compare, tune
                                   Artifact + store -> backfill, ingest, Scorer, explain, verify

Each loads what it needs when it is called: `ingest`, `explain` and `verify` need no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lifelong.dataset.times import seconds_of
from lifelong.errors import UsageError, require
from lifelong.online.opening import Counter, as_dataset, counter, open_artifact, opened_store

if TYPE_CHECKING:
    from datetime import datetime

    from lifelong.artifact.folder import Artifact
    from lifelong.config import RunConfig
    from lifelong.dataset.examples import Split
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.evaluation.compare import Comparison
    from lifelong.offline.evaluation.results import Result
    from lifelong.offline.models.listing import ModelList
    from lifelong.offline.training.callbacks import AnyCallbacks
    from lifelong.offline.training.tuned import Tuned
    from lifelong.online.ingestion.dead_letters import DeadLetters
    from lifelong.online.memory.filling import BackfillReport, Folded
    from lifelong.online.memory.updater import Applied
    from lifelong.online.memory.verify import VerifyReport
    from lifelong.online.opening import AnyArtifact, AnyDataset, AnyStore
    from lifelong.online.scoring.answer import Fields, ScoreRequest
    from lifelong.online.scoring.explanation import Explanation
    from lifelong.online.scoring.scorer import Scorer

    AnyConfig = RunConfig | Mapping[str, Any] | Path | str | None

Progress = bool | Callable[[str], None]
"""True for a bar and lines on stderr, False for none, or a function that takes a line."""


def train(
    dataset: AnyDataset,
    model: str | None = None,
    out: Path | str | None = None,
    *,
    config: AnyConfig = None,
    start: AnyArtifact | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = True,
    callbacks: AnyCallbacks = (),
    **settings: Any,
) -> Artifact:
    """Train (or fit) a model and write its artifact.

    Args:
        dataset: a prepared dataset, or its folder.
        model: a name of `models()`; None takes the model of `start`.
        out: folder of the artifact. By default next to the dataset: `train("data", "tally")` writes `data-tally`.
        config: settings, which named ones win over: a dict, a TOML file or a `RunConfig`.
        start: an artifact to start from: its weights are carried over by id, and the model has its settings.
        resume: continue from the checkpoint that an interrupted run left next to `out`.
        overwrite: replace an artifact that is already in `out`, at the end.
        progress: see `Progress`.
        callbacks: one or more `Callback`s of your own, called while training goes on.
        settings: by their names, those of `[train]` (docs/settings.md) and of the model (`models()`): `epochs=1`,
            `width=32`, `seed=7`, `device="cuda:1"` or a torch device. `epochs`, `examples` and `minutes` are short for
            `max_epochs`, `max_examples` and `max_minutes`.

    Raises:
        ConfigError: there is no such model or setting, or a value is wrong; names all of them.
        ArtifactError: `start` is absent or damaged.
        DatasetError: `dataset` is absent or damaged.
        MismatchError: the dataset cannot train this model, and why.
        UsageError: an argument is something else than it should be, `out` holds an artifact or something else, or there
            is nothing to resume.
        DivergedError: the loss is no longer a finite number.
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved.
    """
    from lifelong.offline.training import trainer
    from lifelong.offline.training.callbacks import as_callbacks
    from lifelong.offline.training.named import run_config

    opened = as_dataset(dataset)
    begin = None if start is None else open_artifact(start)
    return trainer.train(
        opened,
        model,
        _out(out, opened.folder, model or (begin.config.model if begin else "artifact")),
        config=run_config(model if begin is None else None, config, settings),
        start=begin,
        resume=resume,
        overwrite=overwrite,
        progress=_progress(progress),
        callbacks=as_callbacks(callbacks),
    )


def evaluate(
    artifact: AnyArtifact,
    dataset: AnyDataset,
    *,
    split: Split = "test",
    delays: Sequence[int | str] | int | str = (0,),
    bootstrap: int = 1000,
    seed: int = 0,
    threads: int | None = None,
    in_sample: bool = False,
    stored: bool = False,
    claim: str | None = None,
) -> Result:
    """Score a split and measure the scores, with intervals over users.

    Args:
        artifact: a finished model, or its folder.
        dataset: with the same fields and vocabularies as in training, or its folder.
        split: "train", "validation" or "test"; "vault" once for an artifact and all that are continued from it.
        delays: seconds, or words such as "1h": events younger than that are hidden. The main numbers are those of the
            first delay.
        bootstrap: number of resamples of the users.
        seed: of the resampling.
        threads: of torch.
        in_sample: measure a test period that the model was trained on, too, and mark the result.
        stored: what was measured on the vault; nothing is computed.
        claim: a sentence that says what this reading of the vault is to decide; it is kept with the result.

    Raises:
        MismatchError: the dataset does not fit the model, its test period was seen in training, or the vault is open.
        DatasetError: the dataset has no vault.
        UsageError: an argument is something else than it should be, a delay on data without clock times, or the vault
            without a claim.
    """
    from lifelong.dataset.times import parse_duration
    from lifelong.offline.evaluation import evaluate as evaluation

    if stored:
        return _stored(open_artifact(artifact), as_dataset(dataset), split)
    given = list(delays) if isinstance(delays, Sequence) and not isinstance(delays, str) else [delays]
    return evaluation.evaluate(
        open_artifact(artifact),
        as_dataset(dataset),
        split=_split(split, "vault"),
        delays=[parse_duration(delay) if isinstance(delay, str) else _whole("delay", delay) for delay in given],
        bootstrap=_whole("bootstrap", bootstrap, least=1),
        seed=_whole("seed", seed),
        threads=_threads(threads),
        in_sample=in_sample,
        claim=claim,
    )


def predict(
    artifact: AnyArtifact,
    dataset: AnyDataset,
    *,
    split: Split = "test",
    delay: int = 0,
    base_rate: float | None = None,
    threads: int | None = None,
) -> Any:
    """Score the examples of a split without a store, each from the events before it.

    Args:
        artifact: any, served or not, or its folder.
        dataset: with the fields and vocabularies of training, or its folder.
        split: "train", "validation" or "test".
        delay: seconds; younger events are hidden.
        base_rate: share of positives in production, for probabilities where negatives were sampled; of the first task.
        threads: of torch; None leaves them as they are.

    Returns:
        A `pyarrow.Table` in the order of the examples: user, item, time (UTC seconds, or ordinals of a log without
        times), events (how many were known), label, score, and probability, null where no base rate is
        known; of a model with several tasks `label_<task>`, `score_<task>` and `probability_<task>` of the others too.

    Raises:
        MismatchError: the dataset does not fit the model.
        UsageError: an argument is something else than it should be, or a delay on data without clock times.
        MissingExtraError: pyarrow is not installed.
    """
    import numpy as np

    from lifelong.artifact.folder import check_fits
    from lifelong.offline.evaluation import evaluate as evaluation
    from lifelong.offline.export.saving import load_model

    arrow = require("pyarrow", extra="train", purpose="tables")
    opened, data = open_artifact(artifact), as_dataset(dataset)
    check_fits(opened, data)
    model, examples, delay = load_model(opened), data.examples(_split(split)), _whole("delay", delay)
    evaluation.check_requirements(model, data)
    logit_NT = evaluation.predict(model, data, examples, delay=delay, threads=_threads(threads))
    columns: dict[str, Any] = {
        "user": arrow.array([data.users.id_at(int(user)) for user in examples.user_N], arrow.string()),
        "item": arrow.array([data.catalogue.id_of(int(row)) for row in examples.row_N], arrow.string()),
        "time": np.asarray(examples.time_N, np.int64),
        "events": np.asarray(evaluation.delayed(data, examples, delay).position_N, np.int64),
    }
    for at, task in enumerate(data.schema.tasks):
        end = f"_{task}" if at else ""
        columns[f"label{end}"] = np.asarray(examples.label_NT[:, at], np.float64)
        columns[f"score{end}"] = logit_NT[:, at]
        probability_N, _ = opened.probability(logit_NT[:, at], None if at else base_rate, task=task)
        columns[f"probability{end}"] = (
            arrow.nulls(len(examples), arrow.float64()) if probability_N is None else probability_N
        )
    return arrow.table(columns)


def compare(
    dataset: AnyDataset,
    models: str | Sequence[str] | Mapping[str, AnyConfig] = "all",
    out: Path | str | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    reference: str | None = None,
    config: AnyConfig = None,
    max_minutes: float | None = None,
    jobs: int = 1,
    threads: int | None = None,
    progress: Progress = True,
    callbacks: AnyCallbacks = (),
    **settings: Any,
) -> Comparison:
    """Train and score several models on the same examples; continues where an earlier call stopped.

    Args:
        dataset: a prepared dataset, or its folder.
        models: "all", names, or name -> settings of its own (a dict, a TOML file or a `RunConfig`).
        out: folder of the runs and the report (`index.html`); by default next to the dataset, `data-comparison`.
        seeds: how many runs of each model, or which seeds; fewer than three carry no claim.
        reference: the model that the others are compared with; the first by default.
        config: settings of all models; their own ones and named ones win.
        max_minutes: limit of one training.
        jobs: trainings at the same time, in processes. A program that starts several must be a module with
            `if __name__ == "__main__"`.
        threads: of all of them together.
        progress: see `Progress`.
        callbacks: one or more `Callback`s of your own, called while training goes on.
        settings: of all models, by their names; see `train`.

    Raises:
        ConfigError: there is no such model or setting, or a value is wrong; names all of them.
        MissingExtraError: matplotlib, which draws the report, is not installed.
        MismatchError: `out` holds runs on other data or with other settings.
        RunsFailedError: no run succeeded.
        UsageError: an argument is something else than it should be.
    """
    from lifelong.cli.serving_cost import serving_of
    from lifelong.offline.reports.comparison import check_drawing, write_comparison
    from lifelong.offline.reports.verdict import subject
    from lifelong.offline.training.callbacks import as_callbacks
    from lifelong.offline.training.named import run_config
    from lifelong.offline.training.study import Study, run_study

    opened = as_dataset(dataset)
    if max_minutes is not None:
        run_config(None, None, {"max_minutes": max_minutes})
    configs, notes = _configs(opened, models, config, {**settings, "threads": threads} if threads else settings)
    if isinstance(seeds, Sequence) and not isinstance(seeds, str) and seeds:
        chosen: Sequence[int] = [_whole("seed", one) for one in seeds]
    else:
        chosen = range(_whole("seeds", seeds, least=1))
    study = Study(
        configs=configs,
        seeds=chosen,
        reference=reference,
        max_minutes=max_minutes,
        workers=_whole("jobs", jobs, least=1),
        threads=threads,
        notes=notes,
        callbacks=as_callbacks(callbacks),
    )
    folder = _out(out, opened.folder, "comparison")
    check_drawing()
    outcome = run_study(opened, folder, study, measure=serving_of, progress=_say(progress))
    write_comparison(folder, outcome.comparison, lifelong=subject(configs), dataset=opened, runs=folder / "runs")
    return outcome.comparison


def tune(
    dataset: AnyDataset,
    model: str,
    out: Path | str | None = None,
    *,
    trials: int = 20,
    examples: int = 1_000_000,
    seed: int = 0,
    config: AnyConfig = None,
    progress: Progress = True,
    callbacks: AnyCallbacks = (),
    **settings: Any,
) -> Tuned:
    """Search for a model's best settings on validation; continues where an earlier call stopped.

    Args:
        dataset: a prepared dataset, or its folder.
        model: a name of `models()`.
        out: TOML file, which `config` of `train` and `compare` reads; by default next to the dataset,
            `data-<model>.toml`.
        trials: in all, those of earlier calls included.
        examples: largest number of labelled examples of one trial.
        seed: of the search.
        config: settings that are not searched; see `train`.
        progress: see `Progress`.
        callbacks: one or more `Callback`s of your own, called while training goes on.
        settings: that are not searched, by their names.

    Raises:
        ConfigError: there is no such model or setting, or a value is wrong; names all of them.
        MismatchError: the dataset cannot train this model, or `out` is of another search.
        MissingExtraError: Optuna is not installed.
        UsageError: an argument is something else than it should be, or there is nothing to search.
    """
    from lifelong.offline.training import tuning
    from lifelong.offline.training.callbacks import as_callbacks
    from lifelong.offline.training.named import run_config

    if not isinstance(model, str):
        raise UsageError(f"a model of type {type(model).__name__}", expected="its name", fix='tune("data", "tally")')
    opened, chosen = as_dataset(dataset), run_config(model, config, settings)
    search = tuning.Search(
        model=model,
        trials=_whole("trials", trials, least=1),
        examples=_whole("examples", examples, least=2),
        seed=_whole("seed", seed),
        fixed=chosen.named,
        callbacks=as_callbacks(callbacks),
    )
    return tuning.tune(
        opened, search, _out(out, opened.folder, f"{model}.toml"), config=chosen, progress=_say(progress)
    )


def backfill(
    artifact: AnyArtifact,
    data: Any,
    store: AnyStore,
    *,
    until: int | datetime | str | None = None,
    progress: Counter | bool | None = None,
    event_log: bool = False,
    codec: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    engine: str = "local",
    **named: str,
) -> BackfillReport:
    """Write the memory of every user of a dataset or of a log, from her first event on.

    Args:
        artifact: of a model that is served, or its folder.
        data: a dataset with the fields and vocabularies of training, or its folder; or a log, ordered by user and time:
            files or a table of another library, as `lifelong.fold` takes them.
        store: opened, or its URL; new, or of this artifact.
        until: only events with an earlier time, UTC seconds, a datetime or ISO 8601; None for all.
        progress: called with (users done, users in all); of a log both are the users done.
        event_log: also write the events into the store's log, for explanations.
        codec: of a new store, see `lifelong.online.memory.codec`; None for the store's own.
        mapping: of a log, see `lifelong.fold`.
        engine: "local", or "spark" for a log of Parquet or a DataFrame of Spark, in any order, into the URL of a store;
            see `lifelong.online.ingestion.spark`.
        named: columns of a log with other names, by ours: `user="customer"`.

    Raises:
        ArtifactError: the model cannot be served, and why.
        MismatchError: the dataset does not fit the model.
        SourceError: a row of the log is not an event; names file, line and column. Users before it are written.
        StoreError: another artifact wrote the store, or it has another codec, or it cannot be opened; or the codec
            cannot keep a number.
        UsageError: an argument is something else than it should be, or `until` is a time that no event can have, or a
            log is not ordered by user.
    """
    from lifelong.dataset.folder import Dataset
    from lifelong.online.ingestion.folding import fill_log
    from lifelong.online.memory import filling

    model = open_artifact(artifact)
    common: dict[str, Any] = {"progress": counter(progress), "event_log": event_log, "codec": codec}
    if engine == "spark" and isinstance(store, str):
        from lifelong.online.ingestion import spark

        options = {"until": _until(until), "event_log": event_log, "codec": codec}
        return spark.backfill(model, data, store, mapping=mapping, columns=named, **options)
    if engine != "local":
        raise UsageError(f"engine = {engine!r}", expected='"local", or "spark" with the URL of a store', fix="give one")
    prepared = isinstance(data, Dataset) or (isinstance(data, str | Path) and Path(data).is_dir())
    with opened_store(store) as opened:
        if not prepared:
            return fill_log(model, data, opened, until=_until(until), mapping=mapping, columns=named, **common)
        return filling.backfill(model, as_dataset(data), opened, until=_until(until), **common)


def fold(
    artifact: AnyArtifact,
    log: Any,
    *,
    codec: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    batch: int | None = None,
    **named: str,
) -> Iterator[Folded]:
    """Memories of users after all their events, without a store: for Spark, Ray or any other engine that schedules.

    The bytes are those that `ingest`, `backfill` and a service write for the same events, however large the batches.
    (`gated_delta` and `mimn` differ in the last bits: ONNX Runtime adds their products in another order.)

    Args:
        artifact: of a model that is served, or its folder.
        log: a path, a glob or a list of them (csv, jsonl, parquet), or a table or stream of another library
            (see `lifelong.tables`); ordered by user (as bytes) and, of each user, by time.
        codec: of the records, see `lifelong.online.memory.codec`; None for the artifact's own.
        mapping: mapping file, or its settings, in place of that with which the artifact's dataset was prepared.
        batch: events that are folded in at a time; what is in RAM grows with it.
        named: columns with other names, by ours: `user="customer"`.

    Yields:
        Users and their records, some at a time, each user once.

    Raises:
        ArtifactError: the model cannot be served, and why.
        SourceError: a row is not an event; names file, line and column.
        UsageError: a user comes after one whose id is greater, or there is no such codec.

    >>> import pyarrow
    >>> shop = Path(__file__).parent / "cli" / "shop" / "artifact"
    >>> events = {"user": ["ann", "ann", "bob"], "item": ["tea", "salt", "tea"], "time": [1_600_000_000] * 3}
    >>> [(folded.users, folded.events) for folded in fold(shop, pyarrow.table(events))]
    [(['ann'], [2]), (['bob'], [1])]
    """
    from lifelong.online.ingestion.folding import EVENTS, fold_log

    events = EVENTS if batch is None else _whole("batch", batch, least=1)
    return fold_log(open_artifact(artifact), log, codec=codec, mapping=mapping, batch=events, columns=named)


def ingest(
    artifact: AnyArtifact,
    store: AnyStore,
    log: Any,
    *,
    progress: Counter | bool | None = None,
    source: str | None = None,
    mapping: Path | str | Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: str = "stop",
    dead_letters: DeadLetters | None = None,
    workers: int | None = 1,
    **named: Any,
) -> Applied:
    """Fold the events of files or of a table into the memories of a store.

    Args:
        artifact: of a memory model, or its folder.
        store: open for writing, or its URL.
        log: a path, a glob, a list of them, or a table of another library; see
            `lifelong.online.ingestion.files.ingest`. Files are read one after another, in the order of the list, those
            of a glob by name.
        progress: called with (done, total): bytes of all files; of a single one bytes, or rows of parquet or a table.
        source: name of the source, of a single file or table.
        mapping: mapping file, or its settings, in place of that with which the artifact's dataset was prepared.
        columns: our name -> the table's name, and settings of a mapping; they win over it.
        on_bad: what to do at a line that is not an event: "stop", or "skip", which leaves it out.
        dead_letters: where lines that were left out are kept.
        workers: processes that divide the shards of a store among them; None for one per shard.
        named: columns with other names, by ours: `user="customer"`; and `late`, `event_log`, `codec`, `patience`,
            `max_ahead`, `last_line` and `backfilled` of `lifelong.online.ingestion.files.ingest`.

    Raises:
        SourceError: a line is not what it should be; names file, line and column.
        StoreError: the store cannot be opened, or does not answer.
        UsageError: an argument is something else than it should be.
    """
    from lifelong.online.ingestion import files

    with opened_store(store) as opened:
        return files.ingest(
            open_artifact(artifact),
            opened,
            log,
            progress=counter(progress),
            source=source,
            mapping=mapping,
            columns=columns,
            on_bad=on_bad,
            dead_letters=dead_letters,
            workers=workers,
            **named,
        )


def explain(
    scorer: Scorer,
    request: ScoreRequest | str,
    items: Sequence[str] | None = None,
    *,
    time: int | None = None,
    profile: Fields | None = None,
    dataset: AnyDataset | None = None,
) -> Explanation:
    """Say which time scales and which past events are behind the scores of one user's candidates.

    Args:
        scorer: artifact and store.
        request: the user's id, or a whole request.
        items: the candidates of that user.
        time: moment of the request, UTC seconds; now if None.
        profile: user field -> value, for a model that was trained with profiles.
        dataset: where past events are looked up that the store's event log does not hold, or its folder.

    Raises:
        RequestError: a field is not one of the model.
        UsageError: an argument is something else than it should be.
    """
    from lifelong.online.scoring import explain as explaining
    from lifelong.online.scoring.answer import ScoreRequest, checked_requests
    from lifelong.online.scoring.scorer import Scorer

    if not isinstance(scorer, Scorer):
        raise UsageError(
            f"a scorer of type {type(scorer).__name__}",
            expected="a Scorer",
            fix='scorer = lifelong.Scorer("artifact", "rocksdb://store")',
        )
    if not isinstance(request, ScoreRequest):
        request = ScoreRequest(request, cast("Sequence[str]", items), time, profile=profile)
        checked_requests([request])
    data = None if dataset is None else as_dataset(dataset)
    return explaining.explain(scorer, request, dataset=data)


def verify(
    artifact: AnyArtifact,
    dataset: AnyDataset | None,
    store: AnyStore,
    *,
    until: int | datetime | str | None = None,
    users: int | Sequence[str] | None = None,
    seed: int = 0,
    progress: Counter | bool | None = None,
) -> VerifyReport:
    """Compare the memories and scores of a store with a replay, event by event.

    Args:
        artifact: its memories are compared; or its folder.
        dataset: the events that the store must hold, or its folder; None for the store's own log.
        store: opened, or its URL; it is read only.
        until: only events of the dataset with an earlier time are in the store, see `backfill`; None for all.
        users: how many users, drawn at random, or which; None for all.
        seed: of the draw, and of the targets that are scored.
        progress: called with (users done, users in all).

    Raises:
        ArtifactError: the model cannot be served, and why.
        MismatchError: the dataset has other fields or vocabularies than the model.
        StoreError: the store holds no memories of this artifact, they are not complete, or it cannot be opened.
        UsageError: an argument is something else than it should be: `until` without a dataset, or a user whom the
            dataset or the store does not hold.
    """
    from lifelong.online.memory import verify as verification

    with opened_store(store, read_only=True) as opened:
        return verification.verify(
            open_artifact(artifact),
            None if dataset is None else as_dataset(dataset),
            opened,
            until=_until(until),
            users=_users(users),
            seed=_whole("seed", seed),
            progress=counter(progress),
        )


def models() -> ModelList:
    """The models that can be trained, with their settings and defaults.

    Raises:
        MissingExtraError: torch is not installed.
    """
    require("torch", extra="train", purpose="the list of models")
    from lifelong.offline.models.listing import model_list

    return model_list()


def _configs(
    dataset: Any, models: str | Sequence[str] | Mapping[str, AnyConfig], config: AnyConfig, named: Mapping[str, Any]
) -> tuple[dict[str, RunConfig], list[str]]:
    """The settings of each model that is compared, and a sentence on each that is left out."""
    from lifelong.cli.model_settings import without_unmet
    from lifelong.offline.models import all_names
    from lifelong.offline.training.named import names_of, run_config

    if isinstance(models, str):
        names: Sequence[str] = all_names() if models == "all" else [models]
    elif isinstance(models, Sequence | Mapping) and all(isinstance(name, str) for name in models):
        names = list(models)
    else:
        raise UsageError(
            f"models of type {type(models).__name__}",
            expected='"all", names, or name -> settings',
            fix='compare("data", ["tally", "counts"])',
        )
    own = models if isinstance(models, Mapping) else {}
    configs = {}
    for name in names:
        mine = own.get(name)
        if mine is None or isinstance(mine, Mapping):
            configs[name] = run_config(name, run_config(name, config, named), names_of(mine or {}))
        else:
            configs[name] = run_config(name, mine, named)
    return without_unmet(dataset, configs) if models == "all" else (configs, [])


def _out(out: Path | str | None, folder: Path, name: str) -> Path:
    if out is None:
        whole = folder.resolve()
        return whole.with_name(f"{whole.name}-{name}")
    if not isinstance(out, str | Path):
        raise UsageError(f"out of type {type(out).__name__}", expected="a path", fix=f'out="{name}"')
    return Path(out)


def _progress(progress: Progress) -> Progress:
    if not isinstance(progress, bool) and not callable(progress):
        raise UsageError(
            f"progress = {progress!r}", expected="True, False, or a function that takes a line", fix="progress=print"
        )
    return progress


def _say(progress: Progress) -> Callable[[str], None] | None:
    """A function that takes lines: the caller's, or one that prints them on stderr."""
    import sys

    checked = _progress(progress)
    if isinstance(checked, bool):
        return (lambda line: print(line, file=sys.stderr)) if checked else None
    return checked


def _split(split: str, *more: str) -> Any:
    known = ["train", "validation", "test", *more]
    if split not in known:
        quoted = [f'"{name}"' for name in known]
        raise UsageError(
            f"split = {split!r}", expected=f"{', '.join(quoted[:-1])} or {quoted[-1]}", fix="use one of these names"
        )
    return split


def _stored(artifact: Artifact, dataset: Dataset, split: str) -> Result:
    from lifelong.offline.evaluation.vault import stored_result

    if split != "vault":
        raise UsageError(f"stored = True with split = {split!r}", expected='split = "vault"', fix="leave out stored")
    return stored_result(dataset, artifact)


def _until(until: int | datetime | str | None) -> int | None:
    return None if until is None else seconds_of(until, "until")


def _threads(threads: int | None) -> int | None:
    return None if threads is None else _whole("threads", threads, least=1)


def _users(users: int | Sequence[str] | None) -> int | Sequence[str] | None:
    if users is None or (isinstance(users, int) and not isinstance(users, bool) and users >= 0):
        return users
    if isinstance(users, str) or not isinstance(users, Sequence) or not all(isinstance(user, str) for user in users):
        raise UsageError(
            f"users = {users!r}",
            expected="how many users, or a list of their ids",
            fix='users=100, or users=["u1", "u2"]',
        )
    return users


def _whole(name: str, value: Any, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(
            f"{name} = {value!r}", expected=f"a whole number from {least} on", fix=f"give one, such as {max(least, 1)}"
        )
    return value
