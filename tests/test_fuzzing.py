"""Altered bytes for records, files of events, artifacts and bodies: for a moment here, for long in `make soak`."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from support.fuzzing import CORPUS, TARGETS, alterations, seeds

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")

INPUTS = {"records": 400, "csv": 60, "jsonl": 60, "artifacts": 40, "bodies": 60}


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_our_own_errors_comes_of_altered_bytes(target):
    run = TARGETS[target]()
    taken = [run(data) for data in seeds(target)]
    assert any(taken) and not all(taken), "the corpus holds what is right and what is not"
    for data in islice(alterations(target, seed=1), INPUTS[target]):
        try:
            run(data)
        except Exception as error:
            raise AssertionError(f"keep this input in {CORPUS / target}: {data!r}") from error


def test_every_target_has_a_corpus_and_it_is_small():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < 64 * 1024


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_a_long_search_with_coverage_finds_nothing(target, tmp_path):
    """`LIFELONG_FUZZ_SECONDS` of each target, ten minutes if it is not set."""
    seconds = os.environ.get("LIFELONG_FUZZ_SECONDS", "600")
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzzing", target, seconds],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{list(tmp_path.iterdir())}\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}"
