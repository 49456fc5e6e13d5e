"""What `import lifelong` does not do."""

import subprocess
import sys

import pytest

import lifelong

HEAVY = ("torch", "ibis", "duckdb", "pandas", "pyarrow", "onnxruntime", "onnx", "scipy", "matplotlib")


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_importing_the_package_loads_no_heavy_library_and_prints_nothing() -> None:
    assert not _loaded_after("import lifelong") & set(HEAVY)


def test_the_help_of_the_command_line_loads_no_heavy_library() -> None:
    statement = "from lifelong.cli import main\nimport contextlib, io\n"
    statement += "with contextlib.redirect_stdout(io.StringIO()):\n    main(['--help'])"
    assert not _loaded_after(statement) & {*HEAVY, "numpy", "pydantic", "fastapi"}


def test_the_torch_free_line_loads_no_torch() -> None:
    modules = (
        "lifelong.online.memory.updater",
        "lifelong.online.memory.runtime",
        "lifelong.online.serving.app",
        "lifelong.online.scoring.scorer",
    )
    statement = "\n".join(f"import {module}" for module in modules)
    assert not _loaded_after(statement) & {"torch", "ibis", "pandas", "pyarrow", "scipy"}


@pytest.mark.torch
@pytest.mark.parametrize("name", lifelong.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(lifelong, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lifelong.nonsense


def test_the_names_are_listed_before_they_are_loaded() -> None:
    assert set(lifelong.__all__) <= set(dir(lifelong))
