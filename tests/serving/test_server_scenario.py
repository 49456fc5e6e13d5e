"""The benchmark of the server scenario, with a tiny load."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rocksdict")

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_highest_rate_that_passes_is_found_and_none_where_none_does(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    make = importlib.import_module("server_scenario").Search

    def tried(limit, **options):
        search = make(first=10.0, steps=3, **options)
        while (rate := search.next_rate()) is not None:
            search.note(rate, passed=rate <= limit)
        return search.best, search.tried

    assert tried(70) == (70.0, [10.0, 20.0, 40.0, 80.0, 60.0, 70.0, 75.0])
    assert tried(70, most=30.0) == (30.0, [10.0, 20.0, 30.0])
    assert tried(0) == (0.0, [10.0, 5.0, 2.5, 1.25])


def test_a_tiny_run_says_how_many_requests_a_service_answers_in_time(artifact):
    command = [sys.executable, str(FOLDER / "server_scenario.py"), "--artifact", str(artifact.path)]
    # So few that even a machine that stands still for seconds refuses none of them.
    command += ["--candidates", "5", "--bound", "60000", "--seconds", "2", "--rate", "2", "--most", "2"]
    command += ["--steps", "1", "--users", "5", "--events", "2", "--items", "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout.splitlines()[-1])["5 candidates"][artifact.path.name]
    assert found["rate"] == 2 and found["at it"]["failed"] == 0 and found["at it"]["requests"] > 0
    assert list(found["p99_ms of each"]) == ["2.0"]
    more = ["--rates", "3", "2", "--repeats", "3", "--workers", "1", "2"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=180, check=True)
    document = json.loads(done.stdout.splitlines()[-1])["5 candidates"]
    assert list(document) == [artifact.path.name, f"{artifact.path.name}, 2 workers"]
    for found in document.values():
        assert list(found) == ["3", "2"]
        for at in found.values():
            assert at["failed"] == 0 and at["p99_ms"] == sorted(at["p99_ms of each"])[1]
