"""Lists the public names whose types are not written down: `python -m support.public_types`.

Pyright counts a name whose type each tool would have to infer by itself, such as `self.size = width + 1`. What is
unknown in other packages does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOT_HERE = ("lifelong.feast.",)
"""Modules whose base classes are not installed: Feast is in an environment of its own."""


def incomplete(report: Mapping[str, Any]) -> dict[str, str]:
    """Public name -> what its type lacks.

    Args:
        report: what `pyright --verifytypes PACKAGE --outputjson` wrote.
    """
    return {
        symbol["name"]: "; ".join(found["message"].splitlines()[0] for found in symbol["diagnostics"]) or "uses another"
        for symbol in report["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"] and not symbol["name"].startswith(NOT_HERE)
    }


def report_of(package: str) -> dict[str, Any]:
    """What Pyright says of a package's types."""
    # It asks the `python` of the search path where packages are.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "pyright", "--verifytypes", package, "--ignoreexternal", "--outputjson"]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"pyright gave no report: {done.stdout}{done.stderr}") from None
    return report


def main() -> int:
    """Print the names; 1 if there are any."""
    report = report_of("lifelong")
    lacking = incomplete(report)
    for name, why in lacking.items():
        print(f"{name}: {why}")
    known = report["typeCompleteness"]["exportedSymbolCounts"]["withKnownType"]
    print(f"{len(lacking)} of {known + len(lacking):,} public names lack a type")
    return 1 if lacking else 0


if __name__ == "__main__":
    raise SystemExit(main())
