"""`lifelong demo`: a real log all the way, from raw rows to scored requests and a report.

prepare -> train tally and hpmn, fit floors -> evaluate -> backfill to the test cut -> replay the test period through
the store, scoring before writing -> compare with the offline scores -> explain one user -> report
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifelong.cli.options import Settings, Threads
from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lifelong.artifact.folder import Artifact
    from lifelong.config import RunConfig
    from lifelong.data.dataset import Dataset
    from lifelong.evaluation.compare import Comparison
    from lifelong.reports.page import Section
    from lifelong.serving.explain import Explanation
    from lifelong.serving.replay import Replay

SERVED = "tally"
"""The model whose memories are stored, replayed and explained."""
MODELS = (SERVED, "hpmn", "counts", "popularity")
TOLERANCE = 1e-4
"""Largest difference allowed between an online and an offline logit."""
_COMMON = (
    "train.initial_vectors=cooccurrence",
    "train.max_targets=128",
    'train.schedule="cosine"',
    "train.validation_examples=40000",
    "train.patience=100",
)
TRAINED = {
    "tally": (
        *_COMMON,
        "train.batch_events=16384",
        "train.batch_targets=2048",
        "train.max_history=8192",
        "train.max_examples=2400000",
        "train.learning_rate=0.003",
        "train.validate_every=600000",
        "model.faded=0.25",
    ),
    "hpmn": (
        *_COMMON,
        "train.batch_events=4096",
        "train.batch_targets=2048",
        "train.max_history=512",
        "train.max_examples=3000000",
        "train.validate_every=400000",
        "model.dropout=0.0",
        "model.width=48",
        "model.hops=1",
    ),
}
"""Settings of the models that are trained.

Whole histories for tally, whose counts gain from all of them; for hpmn small steps, which leave the plateau soonest,
and the paper's single read, which makes them fast. Few validations, on part of the users. The learning rate falls with
the examples; on slow or busy cores the clock ends a run before them.
"""
_CANDIDATES = 5


def demo(
    terminal: Terminal,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of everything that the demo makes.")] = Path("demo-output"),
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.01, help="Of training each of two models, at most.")
    ] = 2.5,
    source: Annotated[str, typer.Option("--source", help="Source of the log.")] = "completejourney",
    options: Annotated[list[str], typer.Option("--option", help="Of the source: key=value.")] = [],  # noqa: B006
    changes: Settings = [],  # noqa: B006
    threads: Threads = None,
) -> Reply:
    """Take a real purchase log all the way: prepare, train, evaluate, serve from memory, explain, report."""
    started = time.monotonic()
    steps = _Steps(terminal)
    dataset = _prepared(steps, out, source, options)
    comparison = _compared(steps, dataset, out, _configs(dataset, minutes, changes, threads))
    online = _online(steps, dataset, out)
    explained = _explained(steps, online, dataset, out)
    page = _report(steps, _Demo(dataset, comparison, online, explained), out)
    document = {
        "auc": {row.model: row.metrics["auc"].model_dump() for row in comparison.rows},
        "log_loss": {row.model: row.metrics["log_loss"].model_dump() for row in comparison.rows},
        "replay": _replay_document(online),
        "report": str(page),
        "seconds": round(time.monotonic() - started, 1),
    }
    equal = online.largest_difference <= TOLERANCE
    return Reply(document, _summary(comparison, online, explained, page, out), exit_code=0 if equal else 1)


@dataclass(frozen=True, slots=True)
class _Online:
    """What the online path did, and the offline logits it is held against."""

    artifact: Artifact
    url: str
    replay: Replay
    users: int
    bytes_per_user: int
    offline_N: npt.NDArray[np.float64]

    @property
    def largest_difference(self) -> float:
        """Over all test examples; an example that was not scored counts as infinitely far off."""
        import numpy as np

        return float(np.nan_to_num(np.abs(self.replay.logit_N - self.offline_N), nan=np.inf).max(initial=0.0))


@dataclass(frozen=True, slots=True)
class _Demo:
    """Everything the report tells of."""

    dataset: Dataset
    comparison: Comparison
    online: _Online
    explained: Explanation


class _Steps:
    """Numbered headings on the terminal."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self._number, self._started = terminal, 0, time.monotonic()

    def next(self, title: str) -> None:
        """Start a step."""
        self._number += 1
        self.terminal.say(f"\n[{self._number}/6] {title}   ({time.monotonic() - self._started:.0f} s so far)")


def _prepared(steps: _Steps, out: Path, source: str, options: list[str]) -> Dataset:
    from lifelong.data.prepare import PrepareSettings, prepare

    steps.next(f"Prepare: {source}, split by time, negatives by popularity")
    if (out / "data").exists():
        steps.terminal.say(f"  an earlier {out / 'data'} is replaced")
    settings = PrepareSettings(overwrite=True, options=dict(option.split("=", 1) for option in options))
    dataset = prepare(
        source, [], out / "data", settings=settings, progress=lambda text: steps.terminal.say(f"  {text}")
    )
    counts = dataset.manifest.counts
    steps.terminal.say(
        f"  {counts['events']:,} events of {counts['users']:,} users, {counts['items']:,} items; "
        f"{counts['train_examples']:,} training targets, {counts['test_examples']:,} test examples"
    )
    return dataset


def _configs(dataset: Dataset, minutes: float, changes: list[str], threads: int | None) -> dict[str, RunConfig]:
    from lifelong.config import load_config

    common = [] if threads is None else [f"train.threads={threads}"]
    limit = f"train.max_minutes={minutes}"
    trained = {name: [*of, limit, *common, *changes] for name, of in TRAINED.items()}
    if dataset.manifest.negatives.drawn_in_training:
        trained[SERVED].insert(0, "train.negatives=3")
    return {model: load_config(None, trained.get(model, common)) for model in MODELS}


def _compared(steps: _Steps, dataset: Dataset, out: Path, configs: dict[str, RunConfig]) -> Comparison:
    from lifelong.evaluation.runs import Plan, run_all
    from lifelong.training.trainer import train

    steps.next("Train tally and hpmn, fit the floors; measure all on the same test examples")
    shutil.rmtree(out / "runs", ignore_errors=True)
    plan = Plan(models=MODELS, settings={name: of.model_dump(mode="json") for name, of in configs.items()})

    def run(model: str, seed: int, folder: Path) -> Artifact:
        return train(dataset, model, folder, config=configs[model])

    comparison = run_all(dataset, out, plan, train=run, progress=lambda text: steps.terminal.say(f"  {text}"))
    for row in comparison.rows:
        steps.terminal.say(f"  {row.title:<12} {_interval(row.metrics['auc'], 'AUC')}")
    return comparison


def _online(steps: _Steps, dataset: Dataset, out: Path) -> _Online:
    import numpy as np

    from lifelong.artifact.folder import Artifact
    from lifelong.memory.store import open_store
    from lifelong.serving.replay import replay
    from lifelong.training.backfill import backfill

    artifact = Artifact.open(out / "runs" / f"{SERVED}-seed0" / "artifact")
    shutil.rmtree(out / "store", ignore_errors=True)
    url = f"rocksdb://{(out / 'store').resolve()}"
    steps.next("Backfill: one memory per user, all events before the test period")
    store = open_store(url)
    try:
        with steps.terminal.progress("  users") as advance:
            backfill(artifact, dataset, store, until=dataset.manifest.cut_times[-1], progress=advance)
        sizes = [len(value) for _, value in store.users()]
    finally:
        store.close()
    steps.next("Replay the test period: every basket is scored first and written then, half-way the store is reopened")
    with steps.terminal.progress("  rounds") as advance:
        done = replay(artifact, dataset, lambda: open_store(url), progress=advance)
    offline = np.load(out / "runs" / f"{SERVED}-seed0" / "logits-test.npy").astype(np.float64)[:, 0]
    online = _Online(artifact, url, done, len(sizes), round(float(np.mean(sizes))), offline)
    steps.terminal.say(f"  {_equality(online)}")
    return online


def _explained(steps: _Steps, online: _Online, dataset: Dataset, out: Path) -> Explanation:
    """Explain a user with a long history: her last positive targets of the test period as candidates."""
    import numpy as np

    from lifelong.memory.store import open_store
    from lifelong.serving.scorer import Scorer

    steps.next("Explain: what one user's memory says of some candidates")
    examples = dataset.examples("test")
    positive = np.flatnonzero(np.asarray(examples.label_NT[:, 0]) > 0)
    longest = positive[np.argsort(np.asarray(examples.position_N)[positive], kind="stable")]
    user = int(examples.user_N[longest[len(longest) * 9 // 10]])
    rows = [int(examples.row_N[at]) for at in positive if examples.user_N[at] == user]
    items = [dataset.catalogue.id_of(row) or "" for row in list(dict.fromkeys(reversed(rows)))[:_CANDIDATES]]
    store = open_store(online.url, read_only=True)
    try:
        moment = int(dataset.histories.time_N[dataset.histories.of(user)][-1]) + 86400
        scorer = Scorer(online.artifact, store)
        return scorer.explain(dataset.users.id_at(user), items, time=moment, dataset=dataset)
    finally:
        store.close()


def _report(steps: _Steps, made: _Demo, out: Path) -> Path:
    from lifelong.artifact.folder import Artifact
    from lifelong.reports.figures import Curve
    from lifelong.reports.page import write_report

    steps.next("Report")
    curves = {}
    for model in TRAINED:
        artifact = Artifact.open(out / "runs" / f"{model}-seed0" / "artifact")
        curve = artifact.metrics["learning_curve"]
        curves[artifact.config.title] = Curve([point["examples"] for point in curve], [point["auc"] for point in curve])
    return write_report(
        out / "report",
        made.comparison.results,
        title="lifelong demo",
        lead=[
            "A year of a real purchase log, taken all the way: prepared, trained on, served from one memory per user."
        ],
        comparison=made.comparison,
        curves=curves,
        sections=[_online_section(made.online), *_counted_sections(made), *_attention_sections(made, out)],
        commands=_commands(made.online, made.explained, out),
    )


def _online_section(online: _Online) -> Section:
    from lifelong.reports.page import Section
    from lifelong.reports.tables import Table

    replay = online.replay
    rows: list[list[Any]] = [
        ["users with a memory before the test period", f"{online.users:,}"],
        ["bytes a user", f"{online.bytes_per_user:,}"],
        ["events written one moment after another", f"{replay.events:,}"],
        ["examples scored from memory", f"{len(replay.logit_N):,}"],
        ["store closed and reopened on the way", f"{replay.reopened} time"],
        ["events written a second", f"{replay.events / max(replay.write_seconds, 1e-9):,.0f}"],
        ["examples scored a second", f"{len(replay.logit_N) / max(replay.score_seconds, 1e-9):,.0f}"],
    ]
    return Section("The same scores online", [_equality(online)], [Table(["what", "how much"], rows)])


def _counted_sections(made: _Demo) -> list[Section]:
    """What is behind the score of the candidate that the memory thinks likeliest."""
    from lifelong.cli.explain import COUNTED, counted_rows
    from lifelong.reports.page import Section
    from lifelong.reports.tables import Table

    counted = [candidate for candidate in made.explained.candidates if candidate.counted is not None]
    if not counted:
        return []
    best = max(counted, key=lambda candidate: candidate.score)
    assert best.counted is not None
    words = (
        "Tally counts, in a memory of fixed size, how often and how long ago a user met each value. This is what it "
        f"holds of {_item_name(made.dataset, best.item)} for one user, and what each part adds to the score."
    )
    return [Section("What the memory counted", [words], [Table(list(COUNTED), counted_rows(best.counted))])]


def _attention_sections(made: _Demo, out: Path) -> list[Section]:
    import numpy as np

    from lifelong.reports.page import Section
    from lifelong.reports.timeline import UserAttention, attention_timeline

    explained, dataset = made.explained, made.dataset
    if not explained.candidates or not explained.candidates[0].slots:
        return []
    user = int(dataset.users.find([explained.user])[0])
    history = dataset.histories.of(user)
    attention = UserAttention(
        user=explained.user,
        time_L=np.asarray(dataset.histories.time_N[history]),
        group_L=_groups(dataset, np.asarray(dataset.histories.row_N[history])),
        periods=made.online.artifact.config.settings.get("periods", ()),
        targets=[_item_name(dataset, candidate.item) for candidate in explained.candidates],
        attention_CS=np.array([[slot.attention for slot in part.slots] for part in explained.candidates]),
        outcomes=[f"score {part.score:.2f}" for part in explained.candidates],
        time_unit=dataset.schema.time_unit,
    )
    figure = attention_timeline(attention, out / "report" / "figures")
    words = (
        "As in HPMN, there is one slot per time scale: the first is written at every event, the last every so many. "
        "The first read of the memory says how much each slot counts for a candidate."
    )
    return [Section("One user's attention over time scales", [words, explained.events_note], figures=[figure])]


def _grouping(dataset: Dataset) -> str:
    """The field whose values group events in a figure: the coarsest but one, or the item itself."""
    fields = dataset.schema.item_fields
    return "department" if "department" in fields else fields[min(1, len(fields) - 1)]


def _groups(dataset: Dataset, row_L: npt.NDArray[np.int32]) -> list[str]:
    field = _grouping(dataset)
    number_L = dataset.catalogue.number_VF[row_L, dataset.schema.item_fields.index(field)]
    return [dataset.vocabularies[field].value_of(int(number)) or "unknown" for number in number_L]


def _item_name(dataset: Dataset, item: str) -> str:
    """An item as a person reads it: its most telling field, and its id."""
    field = "product_type" if "product_type" in dataset.schema.item_fields else dataset.schema.item_fields[-1]
    number = int(dataset.catalogue.numbers([item])[0, dataset.schema.item_fields.index(field)])
    value = dataset.vocabularies[field].value_of(number)
    return f"{value} ({item})" if value and field != "item" else item


def _commands(online: _Online, explained: Explanation, out: Path) -> list[str]:
    artifact, store = online.artifact.path, f"rocksdb://{out / 'store'}"
    items = [candidate.item for candidate in explained.candidates]
    body = json.dumps({"user": explained.user, "items": items[:3]})
    return [
        f"lifelong serve {artifact} --store {store} --port 8000",
        f"curl -s http://127.0.0.1:8000/v1/score -H 'content-type: application/json' -d '{body}'",
        f"lifelong score {artifact} --store {store} --user {explained.user} --items {','.join(items[:3])}",
        f"lifelong explain {artifact} --store {store} --user {explained.user} --items {items[0]} --data {out / 'data'}",
    ]


def _summary(comparison: Comparison, online: _Online, explained: Explanation, page: Path, out: Path) -> list[Any]:
    lines: list[Any] = ["", "Test set, 95 % intervals over users:"]
    lines += [
        f"  {row.title:<12} {_interval(row.metrics['auc'], 'AUC')}   {_interval(row.metrics['log_loss'], 'log loss')}"
        for row in comparison.rows
    ]
    lines += ["", _equality(online), "", f"Report: {page}", "", "To serve, and to ask for a score:"]
    return [*lines, *(f"  {command}" for command in _commands(online, explained, out))]


def _replay_document(online: _Online) -> dict[str, Any]:
    counted = {name: value for name, value in asdict(online.replay).items() if name != "logit_N"}
    return {**counted, "examples": len(online.offline_N), "largest_difference": online.largest_difference}


def _equality(online: _Online) -> str:
    verdict = "equal" if online.largest_difference <= TOLERANCE else "NOT EQUAL"
    return (
        f"Online and offline scores are {verdict}: {len(online.offline_N):,} test examples, largest difference of a "
        f"logit {online.largest_difference:.1e} (allowed: {TOLERANCE:.0e}). Online: exported graphs on memories from "
        "the store, updated basket by basket. Offline: torch, from each user's first event."
    )


def _interval(value: Any, name: str) -> str:
    if value.value is None:
        return f"{name} not defined: {value.reason}"
    return f"{name} {value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
