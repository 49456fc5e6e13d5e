"""`lifelong demo`: a real log all the way, from raw rows to scored requests and a report.

prepare -> train tally and hpmn, fit baselines -> evaluate -> backfill to the test cut -> replay the test period through
the store, scoring before writing -> compare with the offline scores -> explain one user -> report
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.opening import open_pair, open_scorer
from lifelong.cli.options import MaxTime, Settings
from lifelong.cli.terminal import Reply, Terminal
from lifelong.errors import DatasetError

if TYPE_CHECKING:
    from lifelong.cli.served_replay import Online
    from lifelong.config import RunConfig
    from lifelong.dataset.folder import Dataset
    from lifelong.offline.evaluation.compare import Comparison
    from lifelong.online.scoring.explanation import Explanation

SERVED = "tally"
"""The model that is served: its memories are stored, replayed and explained."""
MODELS = (SERVED, "gbdt", "hpmn", "counts", "popularity")
_COMMON = ("train.max_targets=128", 'train.schedule="cosine"', "train.validation_examples=40000", "train.patience=100")
TRAINED: dict[str, tuple[str, ...]] = {
    "tally": (
        *_COMMON,
        "train.initial_vectors=crossfitted",
        "train.batch_events=16384",
        "train.batch_targets=2048",
        "train.max_history=8192",
        "train.max_examples=2400000",
        "train.learning_rate=0.003",
        "train.validate_every=600000",
    ),
    "hpmn": (
        *_COMMON,
        "train.batch_events=4096",
        "train.batch_targets=2048",
        "train.max_history=512",
        "train.overlap=0",
        "train.max_examples=3000000",
        "train.validate_every=400000",
        "model.dropout=0.0",
        "model.width=48",
        "model.hops=1",
    ),
}
"""Settings of the models that are trained by gradient.

Whole histories for tally, which gains from counting all events; for hpmn small batches, which leave the initial plateau
soonest, and a single read as in the paper, which is fast. Few validations, on part of the users. A run ends by its
examples, with which the learning rate falls: slow or busy cores take longer and get the same.
"""
FITTED = {"gbdt": ("model.max_examples=200000",)}
"""LightGBM on exact counts of the whole history: more examples bring .003 of AUC, and take minutes more."""
_BOUGHT, _OTHERS = 3, 2
"""Candidates of the example at most: items that the user takes next, and items that she does not take."""


@dataclass(frozen=True, slots=True)
class _Upcoming:
    """The last moment of a user that is asked about; her stored memory ends before it.

    Args:
        user: her index.
        time: of the moment.
        bought: ids of items that she takes then, all of them known to the models.
        others: ids of items that she does not take.
    """

    user: int
    time: int
    bought: list[str]
    others: list[str]


def demo(
    terminal: Terminal,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all that it writes.")] = Path("demo-output"),
    max_time: MaxTime = None,
    changes: Settings = [],  # noqa: B006
) -> Reply:
    """Run every step on a real purchase log: prepare, train, evaluate, serve from memory, explain, report."""
    return run_steps(terminal, out, minutes=None if max_time is None else max_time / 60, changes=changes)


def run_steps(
    terminal: Terminal,
    out: Path,
    *,
    minutes: float | None,
    changes: list[str],
    source: str = "completejourney",
    options: Mapping[str, str] | None = None,
) -> Reply:
    """All steps on a log that needs no files."""
    started = time.monotonic()
    steps = _Steps(terminal)
    dataset = _prepared(steps, out, source, options or {})
    # Before minutes of training, since not every log has such a user.
    upcoming = _upcoming(dataset)
    comparison = _compared(steps, dataset, out, _configs(dataset, minutes, changes))
    online = _online(steps, dataset, upcoming, out)
    explained = _explained(steps, online, dataset, upcoming, out)
    commands = _commands(online, explained, upcoming, out)
    page = _report(steps, dataset, comparison, online, explained, commands, out)
    document = {
        "auc": {row.model: row.metrics["auc"].model_dump() for row in comparison.rows},
        "log_loss": {row.model: row.metrics["log_loss"].model_dump() for row in comparison.rows},
        "replay": _replay_document(online),
        "report": str(page),
        "seconds": round(time.monotonic() - started, 1),
    }
    text = _summary(comparison, online, explained, upcoming, page, commands)
    return Reply(document, text, exit_code=0 if online.equal else 1)


class _Steps:
    """Numbered headings on the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self._number, self._started = terminal, 0, time.monotonic()

    def say(self, text: str) -> None:
        """A line of this step."""
        self.terminal.say(f"  {text}")

    def next(self, title: str) -> None:
        """Start a step."""
        self._number += 1
        self.terminal.say(f"\n[{self._number}/6] {title}   ({time.monotonic() - self._started:.0f} s so far)")


def _prepared(steps: _Steps, out: Path, source: str, options: Mapping[str, str]) -> Dataset:
    from lifelong.offline.preparation.prepare import PrepareSettings, prepare

    steps.next(f"Prepare: {source}, split by time, negatives by popularity")
    if (out / "data").exists():
        steps.say(f"an earlier {out / 'data'} is replaced")
    settings = PrepareSettings(overwrite=True, options=dict(options))
    dataset = prepare(source, [], out / "data", settings=settings, progress=steps.say)
    counts = dataset.manifest.counts
    steps.say(
        f"{counts['events']:,} events of {counts['users']:,} users, {counts['items']:,} items; "
        f"{counts['train_examples']:,} training targets, {counts['test_examples']:,} test examples"
    )
    return dataset


def _configs(dataset: Dataset, minutes: float | None, changes: list[str]) -> dict[str, RunConfig]:
    from lifelong.config import load_config

    limit = [] if minutes is None else [f"train.max_minutes={minutes}"]
    trained = {name: [*of, *limit, *changes] for name, of in TRAINED.items()}
    if dataset.manifest.negatives.drawn_in_training:
        trained[SERVED].insert(0, "train.negatives=3")
    return {model: load_config(None, {**trained, **FITTED}.get(model, ())) for model in MODELS}


def _compared(steps: _Steps, dataset: Dataset, out: Path, configs: dict[str, RunConfig]) -> Comparison:
    from lifelong.cli.serving_cost import serving_of
    from lifelong.offline.training.study import RunsFailedError, Study, run_study

    steps.next("Train tally and hpmn, fit LightGBM and two baselines; measure all on the same test examples")
    shutil.rmtree(out / "runs", ignore_errors=True)
    outcome = run_study(dataset, out, Study(configs), measure=serving_of, progress=steps.say)
    for name, reason in outcome.failures.items():
        raise RunsFailedError(f"{name}: {reason}")
    for row in outcome.comparison.rows:
        steps.say(f"{row.title:<12} {_interval(row.metrics['auc'], 'AUC')}")
    return outcome.comparison


def _upcoming(dataset: Dataset) -> _Upcoming:
    """The last moment of a user with a long history, at which she takes items that the models know."""
    import numpy as np

    examples, first_known = dataset.examples("test"), dataset.vocabularies["item"].first_known
    user_N, time_N, row_N = (
        np.asarray(array, np.int64) for array in (examples.user_N, examples.time_N, examples.row_N)
    )
    last_U = np.full(len(dataset.histories.offset_U) - 1, np.iinfo(np.int64).min)
    np.maximum.at(last_U, user_N, time_N)
    known_N = (np.asarray(dataset.catalogue.number_VF)[row_N, 0] >= first_known) & (time_N == last_U[user_N])
    bought_N = known_N & (np.asarray(examples.label_NT[:, 0]) > 0)
    count_U = np.minimum(np.bincount(user_N[bought_N], minlength=len(last_U)), _BOUGHT)
    enough = np.flatnonzero((count_U == count_U.max()) & (count_U > 0))
    if not len(enough):
        raise DatasetError(
            "no user's last basket of the test period has an item that training knows",
            fix="use a longer log: the demo shows such a basket",
        )
    length_U = np.diff(np.asarray(dataset.histories.offset_U))[enough]
    user = int(enough[np.argsort(length_U, kind="stable")[len(enough) * 9 // 10]])

    def ids(chosen_N: Any, most: int) -> list[str]:
        rows = dict.fromkeys(row_N[chosen_N & (user_N == user)].tolist())
        return [dataset.catalogue.id_of(row) or "" for row in rows][:most]

    return _Upcoming(user, int(last_U[user]), ids(bought_N, _BOUGHT), ids(known_N & ~bought_N, _OTHERS))


def _online(steps: _Steps, dataset: Dataset, upcoming: _Upcoming, out: Path) -> Online:
    import numpy as np

    from lifelong.cli.served_replay import Online, replay
    from lifelong.offline.training.runs import Run
    from lifelong.online.memory.filling import backfill
    from lifelong.online.store.opening import open_store

    run = Run(out / "runs" / f"{SERVED}-seed0", SERVED)
    # The store of an earlier demo belongs to another artifact, and would be refused.
    shutil.rmtree(out / "store", ignore_errors=True)
    url = _store_url(out)
    steps.next("Backfill: one memory per user, all events before the test period")
    with open_pair(run.artifact.path, url, read_only=False) as (artifact, store):
        with steps.terminal.progress("  users") as advance:
            backfill(artifact, dataset, store, until=dataset.manifest.cut_times[-1], progress=advance, event_log=True)
        sizes = [len(value) for _, value in store.scan()]
    steps.next("Replay the test period: every basket is scored first and then written, half-way the store is reopened")
    with steps.terminal.progress("  rounds") as advance:
        until = {upcoming.user: upcoming.time}
        done = replay(artifact, dataset, lambda: open_store(url), until=until, progress=advance)
    online = Online(artifact, done, len(sizes), round(float(np.mean(sizes))), run.logits[:, 0])
    steps.say(online.verdict)
    return online


def _store_url(out: Path) -> str:
    return f"rocksdb://{(out / 'store').resolve()}"


def _explained(steps: _Steps, online: Online, dataset: Dataset, upcoming: _Upcoming, out: Path) -> Explanation:
    """Explain a user before her last moment; the candidates are items that she takes then, and some that she does not.

    Her memory does not hold that moment.
    """
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.explain import explain

    steps.next("Explain: what one user's memory says of the items of the next basket")
    items = [*upcoming.bought, *upcoming.others]
    request = ScoreRequest(dataset.users.id_at(upcoming.user), items, upcoming.time)
    with open_scorer(online.artifact.path, _store_url(out), base_rate=None) as scorer:
        return explain(scorer, request, dataset=dataset)


def _report(
    steps: _Steps,
    dataset: Dataset,
    comparison: Comparison,
    online: Online,
    explained: Explanation,
    commands: list[str],
    out: Path,
) -> Path:
    from lifelong.cli.explain import COUNTED, counted_rows
    from lifelong.cli.served_replay import counted_section, online_section
    from lifelong.offline.reports.comparison import write_comparison
    from lifelong.offline.reports.tables import Table

    steps.next("Report")
    counted = [candidate for candidate in explained.candidates if candidate.counted is not None]
    sections = [online_section(online)]
    if counted:
        best = max(counted, key=lambda candidate: candidate.score)
        assert best.counted is not None
        table = Table(list(COUNTED), counted_rows(best.counted))
        sections.append(counted_section(online.artifact, dataset, best.item, table))
    return write_comparison(
        out / "report",
        comparison,
        lifelong=SERVED,
        dataset=dataset,
        runs=out / "runs",
        title="lifelong demo",
        sections=sections,
        commands=commands,
    )


def _commands(online: Online, explained: Explanation, upcoming: _Upcoming, out: Path) -> list[str]:
    artifact, store, user = online.artifact.path, f"rocksdb://{out / 'store'}", explained.user
    items = ",".join([*upcoming.bought, *upcoming.others])
    # Of the log's time: today, years would have passed since her last event.
    at = f"--time {upcoming.time}"
    body = json.dumps({"user": user, "items": items.split(","), "time": upcoming.time})
    return [
        f"lifelong serve {artifact} --store {store} --port 8000",
        f"curl -s http://127.0.0.1:8000/v1/score -H 'content-type: application/json' -d '{body}'",
        f"lifelong score {artifact} --store {store} --user {user} --items {items} {at}",
        f"lifelong score {artifact} --store {store} --user {user} --items {upcoming.bought[0]} {at}"
        f" --explain --data {out / 'data'}",
        f"lifelong compare {out / 'data'} --models tally,gbdt,counts,popularity --seeds 3 --out {out / 'compared'}",
    ]


def _summary(
    comparison: Comparison,
    online: Online,
    explained: Explanation,
    upcoming: _Upcoming,
    page: Path,
    commands: list[str],
) -> list[Any]:
    lines: list[Any] = ["", "Test set, 95 % intervals over users:"]
    for row in comparison.rows:
        auc, loss = _interval(row.metrics["auc"], "AUC"), _interval(row.metrics["log_loss"], "log loss")
        lines.append(f"  {row.title:<12} {auc}   {loss}")
    basket = f"Before the last basket of user {explained.user}, who has {explained.count} events:"
    lines += ["", online.verdict, "", basket]
    for candidate in sorted(explained.candidates, key=lambda candidate: -candidate.score):
        took = "is in it" if candidate.item in upcoming.bought else "is not in it"
        lines.append(f"  item {candidate.item:<12} score {candidate.score:6.2f}   {took}")
    *served, compared = (f"  {command}" for command in commands)
    lines += ["", f"Report: {page}", "", "To serve, and to ask for a score:", *served, ""]
    return [*lines, "One training of each was compared. To compare three of each, by default settings:", compared]


def _replay_document(online: Online) -> dict[str, Any]:
    counted = {name: value for name, value in asdict(online.replay).items() if name != "logit_N"}
    return {**counted, "examples": len(online.offline_N), "largest_difference": online.largest_difference}


def _interval(value: Any, name: str) -> str:
    if value.value is None:
        return f"{name} not defined: {value.reason}"
    return f"{name} {value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
