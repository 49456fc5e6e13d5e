"""Parts of other packages: a real one, installed into a folder, and modules that `--import` names."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifelong import plugins
from lifelong.cli.compare import command_line
from lifelong.cli.new import new
from lifelong.cli.terminal import Terminal
from lifelong.errors import DataError, PluginError, SourceError, UsageError
from lifelong.online.store.opening import open_store
from lifelong.plugins import Registry, register

ROOT = Path(__file__).parents[1]
PARTS = '''
"""A store, a source and a metric."""

import numpy as np
from lifelong.plugins import register
from lifelong.online.store.ram import InMemoryStore


def brier(sample):
    return (1 / (1 + np.exp(-sample.logit)) - sample.label) ** 2


def opened(url, *, read_only=False):
    return InMemoryStore(read_only=read_only)


def noise(connection, paths, options):
    from lifelong.offline.preparation.sources import SOURCES

    return SOURCES["synthetic"](connection, paths, {"world": "lag", "users": "60"})


register("metrics", "brier", brier)
register("stores", "nowhere", opened)
register("sources", "own_noise", noise)
'''


def run(*words: str, cwd: Path, extra: Path | None = None, code: int = 0) -> str:
    """What a command prints on stdout, in a process of its own."""
    path = os.pathsep.join(map(str, [ROOT, *([extra] if extra else [])]))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What other packages have registered: nothing yet."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in plugins._REGISTERED}
    monkeypatch.setattr(plugins, "_REGISTERED", found)
    return found


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: object) -> Path:
    """The entry points of an installed package, which are yet to be written; its modules lie in the same place."""
    folder = tmp_path / "lifelong_shop-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lifelong-shop\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder / "entry_points.txt"


@pytest.fixture(scope="module")
def fading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `lifelong new model fading` lays down."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("new")
    printed = run("lifelong", "new", "model", "fading", cwd=folder)
    assert "python -m pytest test_fading.py" in printed
    return folder / "fading"


@pytest.mark.torch
def test_the_laid_down_test_passes_as_printed(fading: Path) -> None:
    found = run("pytest", "test_fading.py", "-q", "-p", "no:cacheprovider", cwd=fading)
    assert " passed" in found and "failed" not in found


CHILD = """
import multiprocessing
from lifelong.plugins import import_modules
from lifelong.online.store.opening import STORES

def known(name):
    return name in STORES

if __name__ == "__main__":
    import_modules(["parts"])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(known, ("nowhere",)), pool.apply(known, ("elsewhere",)))
"""


@pytest.mark.torch
def test_an_imported_model_is_listed(fading: Path) -> None:
    listed = json.loads(run("lifelong", "--import", "fading", "models", "--json", cwd=fading))
    assert (listed["models"]["fading"]["title"], listed["models"]["fading"]["served"]) == ("Fading", True)


@pytest.mark.torch
@pytest.mark.soak
def test_an_imported_model_source_store_and_metric_are_trained_compared_and_served(fading: Path) -> None:
    pytest.importorskip("ibis")
    (fading / "parts.py").write_text(PARTS)
    ours = ("lifelong", "--import", "fading", "--import", "parts")
    run(*ours, "prepare", "own_noise", "--out", "data", cwd=fading)
    quick = ("--set", "train.max_examples=300", "--set", "train.threads=1")
    words = ("compare", "data", "--models", "fading,popularity", "--out", "report")
    compared = json.loads(run(*ours, *words, "--seeds", "1", "--jobs", "2", *quick, "--json", cwd=fading))
    rows = {row["model"]: row["metrics"] for row in compared["rows"]}
    assert rows["fading"]["brier"]["low"] < rows["fading"]["brier"]["value"] < rows["fading"]["brier"]["high"]
    artifact = "report/runs/fading-seed0/artifact"
    # A service needs the graphs alone, and neither the model nor torch; the store is a part of its own.
    scored = run("lifelong", "--import", "parts", "score", artifact, "--store", "nowhere://x",
                 "--user", "u", "--items", "i1", "--json", cwd=fading)  # fmt: skip
    assert json.loads(scored)["scores"][0]["item"] == "i1"
    words = ("train", "data", "--model", "fading", "--out", "x")
    assert "no model 'fading'" in run("lifelong", *words, cwd=fading, code=2)


def test_an_installed_package_needs_no_import(tmp_path: Path, entries: Path, registered: Any) -> None:
    (tmp_path / "own_shop.py").write_text("class Shop: ...\n")
    entries.write_text("[lifelong.stores]\nshop = own_shop:Shop\n")
    assert Registry("stores", {})["shop"].__name__ == "Shop" and list(Registry("stores", {"a": 1})) == ["a", "shop"]
    registered["stores"] = {}
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    entries.write_text("[lifelong.stores]\nshop = own_broken:Shop\n")
    with pytest.raises(UsageError, match=r"own_broken:Shop.*: ZeroDivisionError: .*uninstall lifelong-shop"):
        Registry("stores", {})["shop"]
    entries.write_text("[lifelong.stores]\nshop = own_shop:Nothing\n")
    with pytest.raises(UsageError, match=r"own_shop:Nothing.*cannot be loaded"):
        Registry("stores", {})["shop"]
    with pytest.raises(UsageError, match="own_shop:Nothing and this package register stores named 'shop'"):
        list(Registry("stores", {"shop": 1}))


@pytest.mark.parametrize("code", ["", "0", "3"])
def test_a_module_that_ends_the_process_while_it_is_imported_is_named(tmp_path: Path, code: str) -> None:
    (tmp_path / "script.py").write_text(f"import sys\nsys.exit({code})\n")
    words = ("--import", "script", "score", "none", "--store", "nowhere://x", "--user", "u", "--items", "i")
    command = [sys.executable, "-m", "lifelong", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "'script' calls sys.exit(" in done.stderr


def test_an_installed_package_that_ends_the_process_is_named(tmp_path: Path, entries: Path) -> None:
    entries.write_text("[lifelong.stores]\nexits = own_exits:Shop\n")
    (tmp_path / "own_exits.py").write_text("raise SystemExit\n")
    with pytest.raises(PluginError, match=r"own_exits:Shop.*stores 'exits'.* calls sys\.exit\(None\)"):
        Registry("stores", {})["exits"]


def test_child_processes_know_what_was_imported(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "child.py").write_text(CHILD)
    assert run("child", cwd=tmp_path).split() == ["True", "False"]


def test_a_module_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    assert "'nonsense' cannot be imported" in run("lifelong", "--import", "nonsense", "models", cwd=tmp_path, code=2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def x(:", r"SyntaxError: invalid syntax \(broken.py, line 1\)"),
    ],
)
def test_a_module_that_fails_is_named(text: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_imported", set())
    monkeypatch.setenv(plugins.VARIABLE, "")
    with pytest.raises(UsageError, match=f"the module 'broken' fails while it is imported: {found}"):
        plugins.import_modules(["broken"])


def test_a_command_that_can_be_typed_again_imports_what_this_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "mine,parts")
    assert command_line("tune", {"data": "d", "trials": 3}) == (
        "lifelong --import mine --import parts tune d --trials 3"
    )


def test_names_are_checked(registered: object) -> None:
    registry = Registry("stores", {"mine": repr}, reserved=["all"])
    register("stores", "other", print)
    register("stores", "other", print)
    assert dict(registry) == {"mine": repr, "other": print} and len(registry) == 2
    for kind, name, found in [("shops", "a", "kind"), ("stores", "a b", "named"), ("stores", "other", "two stores")]:
        with pytest.raises(UsageError, match=found):
            register(kind, name, repr)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"stores named 'five' of type int. Expected: a function or a class"):
        register("stores", "five", 5)


@pytest.mark.parametrize("name", ["mine", "all"])
def test_a_name_of_this_package_is_refused_at_the_first_use(name: str, registered: object) -> None:
    registry = Registry("stores", {"mine": repr}, reserved=["all"])
    register("stores", name, print)
    for use in (list, lambda stores: stores["mine"], lambda stores: "nothing" in stores):
        with pytest.raises(UsageError, match="which this package has"):
            use(registry)


def test_a_store_that_is_none_is_refused(registered: object) -> None:
    register("stores", "empty", lambda url, read_only=False: {})
    register("stores", "short", lambda url: {})
    with pytest.raises(UsageError, match=r"what empty:// opens, of type dict, lacks shared, bind, .*Expected: a store"):
        open_store("empty://x")
    with pytest.raises(UsageError, match=r"what opens short:// cannot be called with a URL and read_only"):
        open_store("short://x")
    register("stores", "rocksdb", lambda url, read_only=False: {})
    with pytest.raises(UsageError, match="stores named 'rocksdb', which this package has"):
        open_store("rocksdb://x")


@pytest.mark.torch
def test_a_model_that_is_none_is_refused(registered: dict[str, dict[str, Any]]) -> None:
    pytest.importorskip("torch")
    from lifelong.offline.models import MODELS
    from lifelong.offline.models.base import MemoryModel

    register("models", "other", type("Other", (), {}))
    register("models", "bare", type("Bare", (MemoryModel,), {"title": "Bare"}))
    with pytest.raises(UsageError, match=r"the model 'other' is a class Other. Expected: a subclass of MemoryModel"):
        MODELS["other"]
    with pytest.raises(UsageError, match=r"'bare', Bare, lacks Config, source, state"):
        MODELS["bare"]
    for name in ("sim_soft", "all"):
        registered["models"] = {}
        register("models", name, type("Other", (), {}))
        with pytest.raises(UsageError, match=f"models named '{name}', which this package has"):
            MODELS["hpmn"]


@pytest.mark.full
def test_a_source_that_gives_no_log_is_refused(registered: object, tmp_path: Path) -> None:
    ibis, pyarrow = pytest.importorskip("ibis"), pytest.importorskip("pyarrow")
    from lifelong.offline.preparation.prepare import prepare
    from lifelong.offline.preparation.sources import RawLog

    table = pyarrow.table({"user": ["a"], "item": ["b"]})
    register("sources", "pairs", lambda connection, paths, options: [])
    register("sources", "timeless", lambda *given: RawLog("x", ibis.memtable(table)))
    with pytest.raises(UsageError, match=r"the source 'pairs' gave an object of type list. Expected: a RawLog"):
        prepare("pairs", [], tmp_path / "data")
    with pytest.raises(UsageError, match=r"'events' of the source 'timeless' has user, item. .* also sequence, time"):
        prepare("timeless", [], tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("größe", "small letters"),
        ("last_", "no underscore last"),
        ("___", "a letter first"),
        ("json", "as a module that is installed already"),
        ("lifelong", "as a module that is installed already"),
    ],
)
def test_new_refuses_a_name_that_could_not_be_installed_or_used(
    name: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"a model named '{name}'") as raised:
        new(Terminal(as_json=False), "model", Path(name))
    assert found in str(raised.value) and not list(tmp_path.iterdir())


FAILING = """
import numpy as np
from lifelong.plugins import register
from lifelong.online.store.ram import InMemoryStore


class Broken(InMemoryStore):
    def read_many(self, users, *, space=0):
        return {}[users[0]]


def opened(url, *, read_only=False):
    return Broken(read_only=read_only)


def noise(connection, paths, options):
    return 1 + "a"


def lazy(connection, paths, options):
    import dataclasses
    from lifelong.offline.preparation.sources import SOURCES

    log = SOURCES["synthetic"](connection, paths, {"world": "lag", "users": "60"})
    cut = log.events.mutate(user=log.events.item.cast("int64").cast("string"))
    return dataclasses.replace(log, events=cut)


def nothing(connection):
    return None


register("stores", "broken", opened)
register("sources", "own_noise", noise)
register("sources", "lazy", lazy)
register("sources", "short", nothing)
"""


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: object) -> Path:
    """A module whose parts all fail, imported in this process and to be imported in others."""
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_imported", set())
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    plugins.import_modules(["failing"])
    return tmp_path


def line_of(text: str, source: str = FAILING) -> int:
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


@pytest.mark.full
def test_a_source_that_raises_is_named_with_its_error_and_line(failing: Path) -> None:
    pytest.importorskip("ibis")
    from lifelong.offline.preparation.prepare import prepare

    with pytest.raises(PluginError) as raised:
        prepare("own_noise", [], failing / "data")
    assert raised.value.found == (
        "the source 'own_noise' of the module 'failing' failed while its files were read: TypeError: unsupported "
        f"operand type(s) for +: 'int' and 'str' (failing.py, line {line_of('1 + ')})"
    )
    assert raised.value.fix.startswith("repair failing") and isinstance(raised.value.__cause__, TypeError)
    with pytest.raises(PluginError, match=r"'short'.*TypeError: nothing\(\) takes 1.*RawLog, see lifelong.offline"):
        prepare("short", [], failing / "data")
    with pytest.raises(PluginError, match=r"the source 'lazy' .* while its tables were read: .*Could not convert"):
        prepare("lazy", [], failing / "data")
    assert not (failing / "data").exists()


@pytest.mark.full
def test_a_full_disk_and_a_file_that_is_not_there_are_no_fault_of_a_source(failing: Path) -> None:
    pytest.importorskip("ibis")
    from lifelong.offline.preparation.prepare import prepare

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    register("sources", "full", full)
    with pytest.raises(DataError, match="is full"):
        prepare("full", [], failing / "data")
    with pytest.raises(SourceError):
        prepare("movielens", [failing / "nothing"], failing / "data")


def test_a_store_that_raises_later_is_named_by_the_command(failing: Path) -> None:
    tiny = ROOT / "tests" / "assets" / "tiny_artifact"
    words = ("score", str(tiny), "--store", "broken://x", "--user", "u", "--items", "i1")
    printed = run("lifelong", "--import", "failing", *words, cwd=failing, code=1)
    assert "the module 'failing', which registers the" in printed and "the store 'broken'" in printed
    assert f"(failing.py, line {line_of('{}[users[0]]')})" in printed and "Internal" not in printed


MODELS_THAT_FAIL = """
from lifelong.zoo.mingru import MinGru
from lifelong.zoo.popularity import Popularity
from lifelong.plugins import register


class Unmade(MinGru):
    def __init__(self, inputs, config):
        raise RuntimeError("no room for it")


class Untrained(MinGru):
    def encode_vector(self, *given):
        return 1 / 0


class Nothing(MinGru):
    def read_vector(self, *given):
        return None


class Unfitted(Popularity):
    def fit(self, dataset, *, seed=0):
        return dataset.nothing


for name, part in [("unmade", Unmade), ("untrained", Untrained), ("nothing", Nothing), ("unfitted", Unfitted)]:
    register("models", name, part)
"""


@pytest.mark.torch
def test_a_model_that_raises_is_named_wherever_it_does(failing: Path) -> None:
    pytest.importorskip("torch")
    from lifelong.offline.training.trainer import train
    from lifelong.testing.datasets import tiny_dataset

    (failing / "failing_models.py").write_text(MODELS_THAT_FAIL)
    plugins.import_modules(["failing_models"])
    dataset = tiny_dataset(failing / "tiny", num_users=20)
    for name, doing, found, text in [
        ("unmade", "it was made", "RuntimeError: no room for it", "raise RuntimeError"),
        ("unmade_counts", "it was made", "RuntimeError: no room for it", "raise RuntimeError"),
        ("untrained", "a batch was trained on", "ZeroDivisionError: division by zero", "1 / 0"),
        ("unfitted", "it was fitted", "AttributeError: 'Dataset' object has no attribute 'nothing'", "dataset.nothing"),
    ]:
        with pytest.raises(PluginError) as raised:
            train(dataset, name, failing / "artifact", progress=False)
        assert f"the model {name.partition('_')[0]!r} of the module 'failing_models' failed while {doing}: {found}" in (
            raised.value.found
        )
        assert f"(failing_models.py, line {line_of(text, MODELS_THAT_FAIL)})" in raised.value.found
        assert raised.value.expected == ""
    with pytest.raises(
        PluginError, match=r"'nothing' .* a batch was trained on: TypeError: .* Expected: what .*model_contract find"
    ):
        train(dataset, "nothing", failing / "artifact", progress=False)
    assert not (failing / "artifact").exists()
