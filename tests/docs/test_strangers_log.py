"""A log with columns of its own, from the csv file to an explained score, by the commands that a page prints."""

import json
import os
import random
import re
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.processes import until

pytestmark = pytest.mark.torch
PAGE = Path(__file__).parents[2] / "docs" / "sources.md"
GROUPS = {"Brot": "Backwaren", "Brezel": "Backwaren", "Käse": "Kühlregal", "Milch": "Kühlregal", "Öl": "Vorrat"}
HEAD = "Kundin,Artikel,Warengruppe,Preis,Zeitpunkt\n"
MOST_COMMANDS = 10


def blocks(language: str) -> list[str]:
    """The blocks of the page's transcript."""
    part = PAGE.read_text().partition("## From a csv file to a score")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)


def row(customer: str, item: str, moment: datetime) -> str:
    return f"{customer},{item},{GROUPS[item]},{1 + len(item):.2f},{moment.isoformat()}\n"


def log() -> str:
    """Purchases of twelve customers, each of whom mostly takes one product; Jürgen takes bread."""
    draw, rows = random.Random(0), []
    for number, customer in enumerate(["Jürgen", "Bärbel", *(f"Kundin {place}" for place in range(10))]):
        for step in range(24):
            usual = list(GROUPS)[number % len(GROUPS)]
            item = usual if draw.random() < 0.8 else draw.choice(list(GROUPS))
            rows.append((datetime(2026, 1, 3, 8, number) + timedelta(days=3 * step), customer, item))
    return HEAD + "".join(row(customer, item, moment) for moment, customer, item in sorted(rows))


def call(words: list[str]) -> str:
    """What a command prints; it has to succeed."""
    program = [sys.executable, "-m", "lifelong"] if words[0] == "lifelong" else [words[0], "--silent", "--fail"]
    done = subprocess.run([*program, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_ten_commands_lead_from_a_log_of_another_shop_to_an_explained_score(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (sample,), (mapping,) = blocks("csv"), blocks("toml")
    assert sample.startswith(HEAD)
    Path("einkaeufe.csv").write_text(log())
    Path("spalten.toml").write_text(mapping)
    Path("neu.csv").write_text(HEAD + row("Jürgen", "Milch", datetime(2026, 4, 1, 9)))
    commands = [shlex.split(line) for line in "\n".join(blocks("sh")).replace("\\\n", "").splitlines()]
    assert len(commands) <= MOST_COMMANDS
    *before, serve, curl = commands
    printed = {"explain" if "--explain" in words else words[1]: call(words) for words in before}
    assert " ".join(printed) == "prepare train evaluate backfill ingest score explain verify"
    assert "applied 1, duplicates 0" in printed["ingest"]
    bread, oil = (float(re.search(rf"{item} +│ +(\S+)", printed["score"])[1]) for item in ("Brot", "Öl"))
    assert bread > oil
    assert "Warengruppe" in printed["explain"]
    assert "The store holds what the log gives" in printed["verify"]
    assert asked(serve, curl)["count"] == 25


def asked(serve: list[str], curl: list[str]) -> dict[str, object]:
    """What the service answers, on a port that is free here."""
    port = free_port()
    service = subprocess.Popen(
        [sys.executable, "-m", "lifelong", *serve[1:], "--port", str(port)], env=os.environ, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: service.poll() is not None or answers(port), "the service does not answer")
        answer: dict[str, object] = json.loads(call([word.replace(":8000", f":{port}") for word in curl]))
        return answer
    finally:
        service.terminate()
        service.wait()


def answers(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0
