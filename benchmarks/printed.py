"""How figures are written: in the last line of a benchmark, which `facts.py` reads, and on pages."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NUMBER = r"[\d,.]*\d"


def last_line(figures: Mapping[Any, Any]) -> str:
    """JSON: the figures, and the command, the commit and the number of cores that made them."""
    told = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(told, capture_output=True, text=True).stdout.strip()
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return json.dumps({"command": command, "commit": commit, "cores": os.cpu_count(), **figures})


def written(number: float, like: str) -> str:
    """A number with the decimals of another figure, and as that one is written."""
    text = f"{number:,.{len(like.partition('.')[2])}f}"
    return re.sub(r"^(-?)0", r"\1", text) if like.startswith(".") else text


def places(phrase: str, value: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Where a text gives a fact: start and end of the figure, and what it has to be there."""
    words = r"\s+".join(map(re.escape, phrase.split())).replace(r"\{n\}", NUMBER).replace(r"\{\}", f"({NUMBER})")
    unit = 1_000 if "{} kB" in phrase else 1_024 if "{} KiB" in phrase else 1
    for found in re.finditer(words, text):
        yield *found.span(1), written(float(value.replace(",", "")) / unit, found[1])
