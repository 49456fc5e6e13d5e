"""What a newcomer types wrong: the error says what was found, and a fix that works; nothing is made."""

import pytest

DAYS = range(1, 29)
LOG = "at,who,what\n" + "".join(f"2026-01-{day:02}T10:00:00Z,u{day % 3},i{day % 5}\n" for day in DAYS)
MS = "at,who,what\n" + "".join(f"{1_767_261_600_000 + 86_400_000 * day},u{day % 3},i{day % 5}\n" for day in DAYS)
COLUMNS = ("--column", "user=who", "--column", "item=what", "--column", "time=at")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "ms.csv").write_text(MS)
    (tmp_path / "german.csv").write_text(LOG.replace(",", ";"))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "bad.toml").write_text("{not toml")
    (tmp_path / "typo.toml").write_text('user = "who"\nitem = "what"\ntime = "at"\nfeilds = ["x"]\n')
    (tmp_path / "table.toml").write_text('[columns]\nuser = "who"\nitem = "what"\ntime = "at"\n')
    return tmp_path


def prepare(*words):
    return ("prepare", "table", *words, "--out", "data")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("words", "found", "fix"),
    [
        (("prepare", "tabel", "log.csv", "--out", "data"), "(did you mean 'table'?)", "the source `table`"),
        (prepare("nowhere.csv", *COLUMNS), "there is no such file", "check the path"),
        (prepare(".", *COLUMNS), "this is a folder", "name its files: ./*"),
        (prepare("log.csv"), "no such column (it has at, who, what)", "--column user=COLUMN"),
        (prepare("log.csv", *COLUMNS), "is not a time", "--column time_unit=iso"),
        (prepare("ms.csv", *COLUMNS), "is not a time", "--column time_unit=ms"),
        (prepare("german.csv", *COLUMNS), "no such column (it has at;who;what)", '--column "delimiter=;"'),
        (prepare("log.csv", "--column", "foo"), "--column foo", "write --column key=value"),
        (prepare("log.csv", "--mapping", "bad.toml"), "not TOML", "JSON"),
        (prepare("log.csv", "--mapping", "typo.toml"), "feilds: there is no such setting", "fields, numbers"),
        (prepare("log.csv", "--mapping", "table.toml"), "columns: must be a list", 'without [columns], as in user = "'),
        (prepare("log.csv", *COLUMNS, "--set", "cuts=2"), "cuts: must be a list", "settings of prepare: protocol"),
        (prepare("log.csv", *COLUMNS, "--set", "ratio=-1"), "ratio: must be at least 1 (found -1)", "settings"),
        (("train", "nowhere", "--model", "tally", "--out", "a"), "there is no such folder", "lifelong prepare SOURCE"),
        (("evaluate", "nowhere", "data"), "does not exist", "`lifelong train --out`"),
        (
            ("score", "a", "--store", "st", "--user", "u", "--items", "i", "--time", "noon"),
            "'noon' is no time",
            "--help",
        ),
        (("export", "--user", "u", "--store", "rocksdb:/st"), "is not the URL of a store", "write rocksdb:///st"),
        (("backup", "nowhere", "--restore", "--store", "rocksdb://st"), "nowhere is not a backup", ""),
        (("nonsense",), "No such command 'nonsense'", "lifelong --help"),
        (("train", "--foo"), "No such option: --foo", "lifelong train --help"),
    ],
)
def test_an_error_says_what_was_found_and_what_to_do(run, here, words, found, fix):
    before = sorted(here.iterdir())
    outcome = run(*words, "--json")
    assert outcome.code in (1, 2)
    assert found in outcome.error["found"]
    assert fix in outcome.error["fix"]
    assert "Traceback" not in outcome.stderr and "Input should" not in outcome.stdout
    assert sorted(here.iterdir()) == before


@pytest.mark.torch
@pytest.mark.parametrize(("file", "unit"), [("log.csv", "iso"), ("ms.csv", "ms")])
def test_the_fix_for_times_is_right(run, here, file, unit):
    outcome = run(*prepare(file, *COLUMNS, "--column", f"time_unit={unit}"), "--json")
    assert outcome.code == 0, outcome.stdout
    assert outcome.document["record"]["time_first"] // 86_400 == {"iso": 20_454, "ms": 20_455}[unit]
