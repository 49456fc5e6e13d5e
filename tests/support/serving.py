"""A running `lifelong serve` for tests, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.artifact.folder import Artifact
from support.processes import children, command_of

_PATIENCE = 400


@dataclass(frozen=True, slots=True)
class Service:
    """A service.

    Args:
        process: its own, not that of its writer or a worker.
        address: as in http://127.0.0.1:8000.
    """

    process: subprocess.Popen[str]
    address: str

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, artifact: Artifact, url: str, options: Sequence[str] = (), *, errors: Path | None = None
    ) -> Iterator[Service]:
        """A service over a store; it is killed at the end if it still runs. What it says on stderr goes to a file."""
        command = [sys.executable, "-m", "lifelong", "serve", str(artifact.path), "--store", url, "--port", "0"]
        with (errors or Path(os.devnull)).open("wb") as said:
            process = subprocess.Popen(
                [*command, "--json", *options],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert process.stdout is not None
        with process.stdout:
            try:
                yield cls(process, json.loads(process.stdout.readline())["address"])
            finally:
                process.kill()
                process.wait()

    def text(self, path: str, body: Mapping[str, Any] | None = None) -> str | None:
        """The answer to a request; None while the service says that its store is away."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers={"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                found: str = answer.read().decode()
                return found
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    raise AssertionError(f"{error.code} for {path}: {error.read().decode()}") from error
        return None

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The same as JSON."""
        text = self.text(path, body)
        return None if text is None else json.loads(text)

    def number(self, name: str) -> float:
        """The sum of a metric over its labels."""
        samples = re.findall(rf"^{name}(?:\{{.*\}})? (.*)$", self.text("/metrics") or "", re.MULTILINE)
        return sum(map(float, samples))

    @property
    def ready(self) -> bool:
        """Whether it says so."""
        return self.text("/readyz") is not None

    @property
    def writer(self) -> int | None:
        """The process that writes; None while there is none."""
        return next((one for one in children(self.process.pid) if "run_writer" in command_of(one)), None)

    def stop(self) -> None:
        """Let it finish."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(_PATIENCE) == 0
