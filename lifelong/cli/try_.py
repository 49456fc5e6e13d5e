"""`lifelong try`: a small shop, from shipped files to a service with a page, without training and without a network."""

from __future__ import annotations

import csv
import gzip
import io
import time as clock
from contextlib import closing
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from lifelong.cli.terminal import Reply, Terminal

if TYPE_CHECKING:
    from lifelong.artifact.folder import Artifact

_WEEK = 7 * 86_400
STORIES = {
    "Ada": ("shops every Saturday", ("rye bread", "gouda", "cola")),
    "Ben": ("ate meat and sweets until his taste changed five months ago", ("tofu", "salami", "herbal tea")),
    "Carla": ("came back after nine months away", ("cat food", "espresso", "nappies")),
}
"""User -> their story, and candidates that it decides about."""
BASE_RATE = 0.045
"""Share of the 101 products that a customer takes at a visit, which is 4.5 of them: probabilities need it."""


def try_(
    terminal: Terminal,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the store; the next call uses it again.")] = Path(
        "lifelong-try"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Port of the service.")] = 8000,
    only_once: Annotated[bool, typer.Option("--exit", help="Exit after the first answer; start no service.")] = False,
) -> Reply:
    """Fill a store with the log of a small made-up shop, score, explain, and serve a page; needs no data of yours."""
    from lifelong.artifact.folder import Artifact

    with as_file(files("lifelong.cli").joinpath("shop")) as shop:
        artifact = Artifact.open(shop / "artifact")
        store = f"rocksdb://{out / 'store'}"
        events = _fill(terminal, artifact, shop / "events.csv.gz", out, store)
        lines, document = _first(artifact, store)
        reply = Reply({"events": events, "store": store, "artifact": str(artifact.path), **document}, lines)
        if only_once:
            return reply
        for line in lines:
            terminal.say(line) if isinstance(line, str) else terminal.console.print(line)
        _serve(terminal, shop / "artifact", store, port)
    return Reply(None)


def _fill(terminal: Terminal, artifact: Artifact, log: Path, out: Path, store: str) -> int:
    """Fill the store once; how many events of the shop it has."""
    from lifelong.online.ingestion.files import ingest
    from lifelong.online.store.opening import open_store

    out.mkdir(parents=True, exist_ok=True)
    path = out / "events.csv"
    if not path.exists():
        terminal.say("Unpacking the log of the shop, moved so that it ends this week ...")
        _unpack(log, path)
    terminal.say("Filling the store: each event updates its customer's memory ...")
    began = clock.perf_counter()
    with closing(open_store(store)) as memories:
        # Under a fixed name, so that the events are known again when the folder has been moved.
        applied = ingest(artifact, memories, path, source="shop", on_bad="skip")
    seconds = clock.perf_counter() - began
    if applied.applied:
        terminal.say(f"{applied.applied:,} events in {seconds:.1f} s; the first seconds compile the loops")
    return applied.applied + applied.duplicates


def _unpack(log: Path, path: Path) -> None:
    """The log with all times moved by whole weeks, so that its last event is in the past week."""
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(log.read_bytes()).decode())))
    weeks = (int(clock.time()) - int(rows[-1]["time"])) // _WEEK
    # Written aside: a next call takes the file for whole if it is there, also after a Ctrl-C in here.
    draft = path.with_suffix(".part")
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "time": int(row["time"]) + weeks * _WEEK} for row in rows)
    draft.replace(path)


def _first(artifact: Artifact, store: str) -> tuple[list[Any], dict[str, Any]]:
    """The first customer's candidates, scored and explained."""
    from pydantic import TypeAdapter

    from lifelong.cli.explain import candidate_lines
    from lifelong.online.scoring.answer import ScoreRequest
    from lifelong.online.scoring.explain import explain
    from lifelong.online.scoring.explanation import Explanation
    from lifelong.online.scoring.scorer import Scorer
    from lifelong.online.store.opening import open_store

    user, (story, items) = next(iter(STORIES.items()))
    with closing(open_store(store, read_only=True)) as memories:
        explanation = explain(Scorer(artifact, memories, base_rate=BASE_RATE), ScoreRequest(user, list(items)))
    ranked = sorted(explanation.candidates, key=lambda candidate: -candidate.score)
    lines: list[Any] = [f"\n{user} {story}. What the memory of {explanation.count:,} events says of three products:"]
    for candidate in ranked:
        lines += candidate_lines(explanation, candidate, attention=False)
    return lines, {"explanation": TypeAdapter(Explanation).dump_python(explanation, mode="json")}


def _serve(terminal: Terminal, artifact: Path, store: str, port: int) -> None:
    """Serve until Ctrl-C, after links to the page of each customer."""
    from lifelong.cli.serve import serve

    address = f"http://127.0.0.1:{port}"
    links = [f"{address}/#{urlencode({'user': user})}" for user in STORIES]
    terminal.say("\nThe page shows it for each of them:")
    for (user, (story, _)), link in zip(STORIES.items(), links, strict=True):
        terminal.say(f"  {user} {story}\n    {link}")
    serve(terminal, artifact, store=store, port=port, changes=[f"base_rate={BASE_RATE}"])
