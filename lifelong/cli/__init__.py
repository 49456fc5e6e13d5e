"""The command line; one file a command.

Importing this package loads no library; `main` loads Typer, and each command what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after `lifelong`; by default those of this process.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted.
    """
    try:
        from lifelong.cli.program import run

        return run(arguments)
    except KeyboardInterrupt:
        # While the commands were still being loaded; each handles it by itself once it runs.
        return 130
