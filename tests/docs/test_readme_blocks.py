"""The Python blocks of the docs run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
COMING_FROM = [f"docs/from-{name}.md" for name in ("recbole", "fuxictr", "metarank", "feast")]


def _blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/modules.md", *COMING_FROM])
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    blocks = _blocks(page)
    assert blocks, f"{page} has no Python block"
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_python_way_takes_at_most_fifteen_lines() -> None:
    for page in ("README.md", "docs/python.md", "docs/modules.md"):
        for block in _blocks(page):
            assert len([line for line in block.splitlines() if line.strip()]) <= 15
