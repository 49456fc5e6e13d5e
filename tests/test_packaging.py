"""The wheel: where it installs, what its description links, and that Windows is refused at once."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import policy
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, mac_platforms, parse_tag, sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
BUILD = """
import os, sys
import hatchling.build, hatchling.builders.wheel
sys.platform = {platform!r}
os.chdir({root!r})
print(hatchling.build.{target}({out!r}))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build reads, without the rest of the package's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "lifelong").mkdir()
    for name in ("__init__.py", "version.py", "py.typed"):
        shutil.copy(ROOT / "lifelong" / name, folder / "lifelong")
    return folder


def build(
    checkout: Path, out: Path, *, target: str = "build_wheel", platform: str = sys.platform
) -> subprocess.CompletedProcess[str]:
    program = BUILD.format(platform=platform, root=str(checkout), target=target, out=str(out))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def tags_of(path: str) -> frozenset[Tag]:
    return parse_wheel_filename(path)[3]


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = build(checkout, folder)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def printed(folder: Path, *words: str) -> str:
    """What a command prints in an empty folder that is its home, too."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["HOME"] = str(folder)
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uvx") is None, reason="uv is not installed: pip install uv")
def test_one_line_of_uvx_runs_the_first_command_from_a_wheel(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "dist")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "dist").glob("*.whl")
    assert "cola: score" in printed(tmp_path, "uvx", "--from", f"{path}[serve]", "lifelong", "try", "--exit")


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed: pip install uv")
def test_uv_runs_an_example_without_an_installation(tmp_path: Path) -> None:
    assert "sku1-0 " in printed(tmp_path, "uv", "run", str(ROOT / "examples" / "own_csv_to_score.py"))


def releases_of(lock: str) -> dict[str, set[str]]:
    """Package -> its releases in the lock file: one, or one for each range of Pythons."""
    releases: dict[str, set[str]] = {}
    for line in lock.splitlines():
        (exact,) = (requirement := Requirement(line)).specifier
        assert exact.operator == "==", line
        releases.setdefault(canonicalize_name(requirement.name), set()).add(exact.version)
    return releases


def test_the_lock_file_has_a_release_of_every_requirement() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    releases = releases_of((ROOT / "requirements.lock").read_text())
    waiting, seen = {"all"}, set[str]()
    while waiting:
        seen.add(extra := waiting.pop())
        for requirement in map(Requirement, extras[extra]):
            if requirement.name == "lifelong":
                waiting |= requirement.extras - seen
            else:
                locked = releases[canonicalize_name(requirement.name)]
                assert all(requirement.specifier.contains(release) for release in locked), requirement
    assert {"serve", "train", "kafka"} <= seen


def test_the_container_of_developers_installs_what_the_tests_need() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    version = container["image"].rpartition(":")[2]
    assert ".[dev]" in container["postCreateCommand"]
    assert f"Programming Language :: Python :: {version}" in (ROOT / "pyproject.toml").read_text()


def test_the_wheel_is_one_of_linux_and_macos_and_not_of_windows(wheel: Path) -> None:
    tags = tags_of(wheel.name)
    assert tags & set(sys_tags())
    for version in ((3, 11), (3, 12), (3, 13)):
        python = f"cp3{version[1]}"
        for machine in ("win_amd64", "win_arm64", "win32"):
            assert not tags & set(compatible_tags(version, python, [machine]))
        for machine in ("arm64", "x86_64"):
            assert tags & set(compatible_tags(version, python, mac_platforms((14, 0), machine)))
        for machine in ("manylinux_2_17_aarch64", "manylinux_2_17_x86_64", "musllinux_1_1_x86_64"):
            assert tags & set(compatible_tags(version, python, [machine]))
    with zipfile.ZipFile(wheel) as files:
        text = files.read("lifelong-0.2.0.dist-info/WHEEL").decode()
    assert {tag for line in text.splitlines() if line.startswith("Tag: ") for tag in parse_tag(line[5:])} == tags
    assert "Root-Is-Purelib: true" in text


def test_the_description_is_the_readme_without_links_to_files_that_an_installation_lacks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        message = BytesParser(policy=policy.compat32).parsebytes(files.read("lifelong-0.2.0.dist-info/METADATA"))
    assert message["Description-Content-Type"] == "text/markdown"
    text = message.get_payload(decode=True).decode()
    addresses = re.findall(r"\]\(([^)]*)\)", text) + re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(address.startswith("https://") for address in addresses), addresses
    assert "Every promise names the test that shows it." in text
    # Code is as it was.
    readme = (ROOT / "README.md").read_text()
    blocks = re.compile(r"^```.*?^```$", re.M | re.S)
    assert blocks.findall(text) == blocks.findall(readme) != []


def test_absolute_links_of_a_readme_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    import hatch_build

    readme = 'See [the `paper`](https://a.b/c), [a\nfile](docs/d.md#e).\n\n<img src="f.png" alt="g">\n\nEnd [1].'
    assert hatch_build.description(readme) == "See [the `paper`](https://a.b/c), a\nfile.\n\nEnd [1]."


def test_an_editable_install_is_possible_wherever_it_is_built(checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, tmp_path, target="build_editable")
    assert done.returncode == 0, done.stderr
    assert tags_of(next(tmp_path.glob("*.whl")).name) & set(sys_tags())


@pytest.mark.parametrize("target", ["build_wheel", "build_editable"])
def test_a_build_on_windows_is_refused_in_words_alone(target: str, checkout: Path, tmp_path: Path) -> None:
    done = build(checkout, tmp_path, target=target, platform="win32")
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr == (
        "lifelong does not run on Windows: files there lack the locks and renames that it relies on. "
        "To do: install it in WSL.\n"
    )


def test_a_wheel_of_another_posix_machine_is_also_one_of_that_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    import hatch_build

    assert hatch_build.platforms() == [*hatch_build.PLATFORMS]
    monkeypatch.setattr(hatch_build, "platform_tags", lambda: iter(["manylinux_2_39_riscv64", "linux_riscv64"]))
    monkeypatch.setattr(hatch_build.sysconfig, "get_platform", lambda: "linux-riscv64")
    assert hatch_build.platforms() == [*hatch_build.PLATFORMS, "linux_riscv64"]
