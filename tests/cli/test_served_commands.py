"""`ingest`, `score`, `verify`, `serve`: the commands that need no torch."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from support.processes import until

from lifelong.cli.remote import Remote
from lifelong.errors import UsageError
from lifelong.online.store.opening import open_store
from lifelong.online.store.part import part_of

TIME = "1700100000"


def score(run, artifact, url, *more):
    return run("score", artifact, "--store", url, "--user", "u1", "--items", "i1,i2,new", "--time", TIME, *more)


# ingest


def test_a_second_ingest_of_the_same_file_changes_nothing(run, artifact, filled, events):
    before = score(run, artifact, filled, "--json").document
    outcome = run("ingest", artifact, "--store", filled, events)
    assert "applied 0, duplicates 4" in outcome.stdout
    assert score(run, artifact, filled, "--json").document == before


def test_ingest_fills_the_shards_of_a_store_by_workers_and_other_commands_take_it(run, artifact, url, filled, events):
    sharded = f"{url}-sharded"
    for workers in ([], ["--workers", "2"], ["--workers", "1"]):
        document = run("ingest", artifact, "--store", f"{sharded}?shards=2", events, *workers, "--json").document
        assert (document["applied"], document["duplicates"]) == ((0, 4) if workers else (4, 0))
    assert score(run, artifact, sharded, "--json").document == score(run, artifact, filled, "--json").document
    assert run("verify", artifact, "--store", sharded).code == 0
    assert "shards: 2" in run("doctor", "--store", sharded).stdout
    assert run("export", "--user", "u1", "--store", sharded, "--json").document["known"]
    assert run("forget", "u1", "--store", sharded).code == 0
    assert not run("export", "--user", "u1", "--store", sharded, "--json").document["known"]


def test_the_error_of_a_worker_is_the_command_s(run, artifact, url, events):
    events.write_text(events.read_text() + "u9,i1,soon,view\n")
    outcome = run("ingest", artifact, "--store", f"{url}?shards=2", events, "--workers", "2", "--json")
    assert outcome.code == 1
    assert outcome.error["type"] == "SourceError" and "line 6, column time" in f"{outcome.document}"


def test_ingest_takes_columns_by_other_names(run, artifact, url, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("visitor,item,time\nu1,i1,1700000000\n")
    outcome = run("ingest", artifact, "--store", url, path, "--column", "user=visitor", "--json")
    assert outcome.document["applied"] == 1


def test_a_store_keeps_the_codec_it_was_made_with(run, artifact, url, events):
    assert run("ingest", artifact, "--store", url, events, "--codec", "int8").code == 0
    assert score(run, artifact, url, "--json").document["known_user"]
    outcome = run("ingest", artifact, "--store", url, events, "--codec", "fp16", "--json")
    assert outcome.code == 1
    assert "codec int8" in outcome.error["found"] and outcome.error["expected"] == "codec fp16"


# score


def test_score_orders_the_candidates_for_people(run, artifact, filled):
    outcome = score(run, artifact, filled)
    assert outcome.code == 0
    assert "a memory of 3 events" in outcome.stdout
    assert "No probability:" in outcome.stdout
    assert "state a base rate to get probabilities: --base-rate 0.02" in " ".join(outcome.stdout.split())


def test_score_names_candidates_that_training_did_not_know(run, artifact, filled):
    words = ["--store", filled, "--user", "u1", "--items"]
    shown = " ".join(run("score", artifact, *words, "i1,new,i2,other").stdout.split())
    assert "Not met in training, scored as unknown items: new, other" in shown
    assert "unknown items" not in run("score", artifact, *words, "i1,i2").stdout


def test_what_is_where_an_artifact_was_expected_is_said(run, filled, events, dataset):
    for place, said in ((events, "is a file"), (dataset.folder, "is a dataset"), (events.parent, "no manifest.json")):
        outcome = run("score", place, "--store", filled, "--user", "u1", "--items", "i1", "--json")
        assert outcome.code == 1 and said in outcome.error["found"]


def test_what_is_where_a_dataset_was_expected_is_said_and_nothing_is_to_be_written_into_it(run, artifact, filled):
    words = ["--store", filled, "--user", "u1", "--items", "i1", "--data", artifact, "--json"]
    error = run("score", artifact, "--explain", *words).error
    assert "it is an artifact" in error["found"] and "--out" not in error["fix"]


def test_score_keeps_the_order_of_the_request_for_machines(run, artifact, filled):
    document = score(run, artifact, filled, "--json").document
    assert [one["item"] for one in document["scores"]] == ["i1", "i2", "new"]
    assert (document["known_user"], document["count"]) == (True, 3)
    assert all(one["probability"] is None and one["reason"] for one in document["scores"])


def test_a_stated_base_rate_gives_probabilities(run, artifact, filled):
    document = score(run, artifact, filled, "--base-rate", "0.02", "--json").document
    assert all(0 < one["probability"] < 0.2 for one in document["scores"])


def test_an_unknown_user_is_told(run, artifact, filled):
    outcome = run("score", artifact, "--store", filled, "--user", "nobody", "--items", "i1")
    assert "nobody is not known" in outcome.stdout


def test_score_reads_while_another_process_owns_the_store(run, artifact, filled):
    owner = open_store(filled)
    try:
        assert score(run, artifact, filled).code == 0
    finally:
        owner.close()


def test_a_store_that_is_not_there_is_named(run, artifact, tmp_path):
    outcome = score(run, artifact, f"rocksdb://{tmp_path}/none", "--json")
    assert outcome.code == 1
    assert "no store" in outcome.error["found"]
    assert "ingest" in outcome.error["fix"]


# score --requests


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_of_requests_gives_a_file_of_scores(run, artifact, filled, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="parquet is of the train extra")
    rows = [("u1", "i1", int(TIME)), ("u1", "i2", int(TIME)), ("nobody", "i1", int(TIME)), ("u1", "new", int(TIME))]
    source, out = tmp_path / f"requests.{ending}", tmp_path / f"scores.{ending}"
    write_rows(source, ending, rows)
    outcome = run("score", artifact, "--store", filled, "--requests", source, "--out", out, "--json")
    assert outcome.document == {"rows": 4, "out": str(out)}
    got = read_rows(out, ending)
    assert [(row["user"], row["item"]) for row in got] == [(user, item) for user, item, _ in rows]
    assert [str(row["known_user"]).lower() for row in got] == ["true", "true", "false", "true"]
    single = {one["item"]: one["score"] for one in score(run, artifact, filled, "--json").document["scores"]}
    for row in (got[0], got[1], got[3]):
        assert float(row["score"]) == pytest.approx(single[row["item"]], abs=1e-6)


def write_rows(path, ending, rows):
    if ending == "csv":
        path.write_text("user,item,time\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows))
    else:
        import pyarrow
        import pyarrow.parquet

        users, items, times = zip(*rows, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"user": users, "item": items, "time": times}), path)


def read_rows(path, ending):
    if ending == "csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def test_item_fields_in_the_file_are_used(run, artifact, filled, tmp_path):
    source, out = tmp_path / "requests.csv", tmp_path / "scores.csv"
    source.write_text(f"user,item,time,category\nu1,new,{TIME},\nu1,new,{TIME},c1\nu1,new,{TIME},c2\n")
    assert run("score", artifact, "--store", filled, "--requests", source, "--out", out).code == 0
    assert len({row["score"] for row in read_rows(out, "csv")}) == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user,item,colour\nu1,i1,red\n", "line 2: unknown column 'colour'"),
        ("user,item\nu1,i1\n,i1\n", "line 3, column user: no user"),
        ("user,item,time\nu1,i1,noon\n", "line 2, column time: time is 'noon'"),
        ("user,item\nu1,i1,1\n", "line 2: not as many columns"),
        ("item\ni1\n", "no user"),
    ],
)
def test_a_bad_row_is_named_and_leaves_no_output(run, artifact, filled, tmp_path, text, found):
    source, out = tmp_path / "requests.csv", tmp_path / "scores.csv"
    source.write_text(text)
    outcome = run("score", artifact, "--store", filled, "--requests", source, "--out", out, "--json")
    assert outcome.code == 1
    assert found in outcome.error["found"]
    assert [path.name for path in tmp_path.iterdir() if "scores" in path.name] == []


def test_a_missing_request_file_is_named(run, artifact, filled, tmp_path):
    outcome = run("score", artifact, "--store", filled, "--requests", tmp_path / "no.csv", "--out", tmp_path / "o.csv")
    assert outcome.code == 1
    assert "no.csv" in outcome.stderr


def test_the_moment_of_a_file_is_that_of_its_rows_without_one(run, artifact, filled, tmp_path):
    later = int(TIME) + 7 * 3_600 + 4 * 86_400

    def scores(name, lines, *words):
        (tmp_path / f"{name}.csv").write_text("".join(lines))
        out = tmp_path / f"{name}-scores.csv"
        paths = ("--requests", tmp_path / f"{name}.csv", "--out", out)
        assert run("score", artifact, "--store", filled, *paths, *words).code == 0
        return [row["score"] for row in read_rows(out, "csv")]

    now, then = (scores(f"at-{at}", ["user,item,time\n", f"u1,i1,{at}\n"])[0] for at in (TIME, later))
    assert now != then
    lines = ["user,item,time\n", f"u1,i1,{TIME}\n", "u1,i1,\n"]
    assert scores("some", lines, "--time", str(later)) == [now, then]


@pytest.fixture
def asked(run, artifact, tmp_path):
    """Scores a file of requests of some users, from the events of all: whole, or by parts with other options."""
    pytest.importorskip("pyarrow", reason="parquet is of the train extra")
    log, requests, url = tmp_path / "log.csv", tmp_path / "requests.csv", f"rocksdb://{tmp_path}/whole"
    log.write_text("user,item,time\n" + "".join(f"u{u:02},i{u + n},{100 + n}\n" for u in range(30) for n in range(5)))
    requests.write_text("user,item\n" + "".join(f"u{n % 32:02},i{n % 7}\n" for n in range(96)))
    moment = ("--requests", requests, "--time", "200")
    assert run("backfill", artifact, log, "--store", url).code == 0
    assert run("score", artifact, "--store", url, *moment, "--out", tmp_path / "all.parquet").code == 0
    return lambda *words: run("score", artifact, "--data", log, *moment, *words)


def test_a_moment_for_all_rows_of_a_file_in_milliseconds_is_named(asked, tmp_path):
    words = ("--part", "1/3", "--time", "200000000000000", "--out", tmp_path / "scores", "--json")
    assert "--time 200000000000000" in asked(*words).error["found"]
    assert not list((tmp_path / "scores").glob("*"))


def test_parts_of_the_users_are_scored_from_events_and_are_together_the_whole(asked, tmp_path):
    out = tmp_path / "scores"
    # Of a process that was killed.
    (out / ".part-2-of-3.parquet.0123456789ab.unfinished").mkdir(parents=True)
    paths = [out / f"part-{number}-of-3.parquet" for number in range(3)]
    counts = [asked("--part", f"{number}/3", "--out", out, "--json").document["rows"] for number in range(3)]
    assert sum(counts) == 96 and min(counts) > 0
    assert sorted(out.iterdir()) == paths
    whole, parts = (
        [row for path in some for row in read_rows(path, "parquet")] for some in ([tmp_path / "all.parquet"], paths)
    )
    assert sorted(parts, key=str) == sorted(whole, key=str)
    assert [row["known_user"] for row in whole[:32]] == 30 * [True] + 2 * [False]
    for number, path in enumerate(paths):
        assert {part_of(row["user"], 3) for row in read_rows(path, "parquet")} == {number}


def test_a_part_that_is_scored_twice_is_left_as_it_is_and_is_the_same_when_it_is_lost(asked, tmp_path):
    words, path = ("--part", "1/3", "--out", tmp_path / "scores"), tmp_path / "scores" / "part-1-of-3.parquet"
    asked(*words)
    made = path.read_bytes(), path.stat().st_ino
    assert "is there already" in asked(*words).stdout
    assert (path.read_bytes(), path.stat().st_ino) == made
    path.unlink()
    asked(*words)
    assert path.read_bytes() == made[0]


def test_parts_of_another_number_are_not_mixed(asked, tmp_path):
    out = tmp_path / "scores"
    assert asked("--part", "1/3", "--out", out).code == 0
    refused = asked("--part", "1/4", "--out", out, "--json")
    assert "part 1/4" in refused.error["found"] and "part-1-of-3.parquet" in refused.error["found"]
    assert [path.name for path in out.iterdir()] == ["part-1-of-3.parquet"]
    assert asked("--part", "2/3", "--out", out).code == 0


def test_a_process_that_is_killed_while_it_scores_a_part_does_no_harm(asked, artifact, tmp_path):
    words, out = ("--part", "1/3", "--out", tmp_path / "scores"), tmp_path / "scores"
    # It has the memories, and waits for requests that do not come.
    os.mkfifo(tmp_path / "never.csv")
    waiting = [*map(str, words), "--time", "200", "--data", str(tmp_path / "log.csv")]
    waiting += ["--requests", str(tmp_path / "never.csv")]
    process = subprocess.Popen([sys.executable, "-m", "lifelong", "score", str(artifact), *waiting])
    try:
        until(lambda: any(out.glob(".part-1-of-3.parquet.*/*")) or process.poll() is not None)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -9 and not list(out.glob("part-*"))
    assert asked(*words).code == 0
    assert [path.name for path in out.iterdir()] == ["part-1-of-3.parquet"]
    rows = read_rows(out / "part-1-of-3.parquet", "parquet")
    assert rows == [row for row in read_rows(tmp_path / "all.parquet", "parquet") if part_of(row["user"], 3) == 1]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--part 1/3 --time 200 --store memory://", "--part with --store"),
        # Its next run would be at another moment.
        ("--part 1/3", "--part without --time"),
        ("--part 3/3 --time 200", "part = '3/3'"),
        ("--part 1/3 --time 200 --explain", "--explain with --requests"),
        ("--data no.csv --store memory://", "--data without --explain"),
        ("", "no --store"),
    ],
)
def test_what_the_scores_of_a_part_need_is_said(run, artifact, tmp_path, words, found):
    data = () if "--part" not in words else ("--data", tmp_path)
    outcome = run(
        "score", artifact, "--requests", tmp_path, "--out", tmp_path / "scores", *data, *words.split(), "--json"
    )
    assert outcome.code != 0 and found in outcome.error["found"]
    assert not (tmp_path / "scores").exists()


# explain


def test_explain_shows_slots_and_events(run, artifact, filled):
    outcome = run("score", artifact, "--explain", "--store", filled, "--user", "u1", "--items", "i1", "--time", TIME)
    assert outcome.code == 0
    assert "every 2 events" in outcome.stdout and "every 4 events, empty" in outcome.stdout
    assert "i1 (same item, category, 1 day ago)" in outcome.stdout


def test_explain_for_machines_is_what_the_service_answers(run, artifact, filled):
    words = ("--user", "u1", "--items", "i1,i2", "--time", TIME, "--json")
    document = run("score", artifact, "--explain", "--store", filled, *words).document
    assert [candidate["item"] for candidate in document["candidates"]] == ["i1", "i2"]
    assert [slot["window"] for slot in document["slots"]] == [[3, 3], [1, 2], None]
    assert document["events_from"] == "store"


@pytest.mark.torch
def test_explain_names_the_events_that_a_history_model_attends_to(run, dataset, url, events, tmp_path):
    pytest.importorskip("torch")
    from support.artifacts import tiny_artifact

    folder = tiny_artifact(tmp_path / "sim", dataset, model="sim").path
    assert run("ingest", folder, "--store", url, events).code == 0
    outcome = run("score", folder, "--explain", "--store", url, "--user", "u1", "--items", "i1,i5", "--time", TIME)
    assert "The weights are over the user's last 3 events, and sum to 1" in outcome.stdout
    attended, nothing = outcome.stdout.split("i5: score")
    assert "1 day ago" in attended and "i11" in attended and "i2 " not in attended
    assert "No event has a weight." in nothing


def test_explain_takes_events_of_a_dataset(run, artifact, filled, dataset):
    words = ("--user", "u1", "--items", "i1", "--data", dataset.folder, "--json")
    assert run("score", artifact, "--explain", "--store", filled, *words).document["events_from"] == "data and store"


# verify


def test_verify_says_yes_when_the_store_holds_what_the_log_gives(run, artifact, url, dataset, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,item,time,event_type\n" + "".join(rows_of(dataset)))
    assert run("ingest", artifact, "--store", url, log).code == 0
    outcome = run("verify", artifact, dataset.folder, "--store", url, "--json")
    assert outcome.code == 0
    assert outcome.document["equal"] is True
    assert outcome.document["users"] == dataset.histories.num_users


def rows_of(dataset):
    histories, types = dataset.histories, dataset.event_types
    for user in range(histories.num_users):
        for at in range(histories.of(user).start, histories.of(user).stop):
            item = dataset.catalogue.id_of(int(histories.row_N[at]))
            kind = types.value_of(int(histories.event_type_N[at]))
            yield f"{dataset.users.id_at(user)},{item},{int(histories.time_N[at])},{kind}\n"


def test_verify_says_no_with_exit_code_one(run, artifact, filled, dataset):
    outcome = run("verify", artifact, dataset.folder, "--store", filled, "--max-users", "5")
    assert outcome.code == 1
    assert "differs from the log" in outcome.stdout


def test_verify_says_in_words_what_it_counted(run, artifact, filled):
    lines = run("verify", artifact, "--store", filled).stdout.splitlines()
    assert lines[1] == "2 users compared, 4 events folded again; memories equal bit for bit: 2"
    assert lines[2] == "Largest difference: 0 in a number of a memory, 0 in a score (a logit)"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("report", "data", "said"),
    [
        (
            {"users": 9, "missing": 2, "last_time": 1},
            "my data",
            [
                "2 users in DATA, but without a memory in the store",
                "1 user with another time of the last event",
                "Next, to write these memories again: lifelong backfill a 'my data' --store memory:// --until 7",
            ],
        ),
        (
            {"users": 9, "count": 2, "extra": 2},
            "data",
            [
                "2 users with another number of events than in DATA (more in the store: 2)",
                "Next, to check what DATA lacks: lifelong verify a --store memory://",
            ],
        ),
        (
            {"users": 9, "unverifiable": 1},
            None,
            [
                "1 user not checked, because the store's own log lacks some of their events",
                "Next, with a dataset that has these events: lifelong verify a DATA --store memory://",
            ],
        ),
        (
            {"users": 9, "corrupt": 1, "memory": 2, "score": 2},
            None,
            [
                "1 user with a record that cannot be decoded",
                "2 users with a memory that differs by more than rounding explains",
                "2 users with a score that differs by more than rounding explains",
                "Next: restore a backup with `lifelong backup --restore`, or build a new store with "
                "`lifelong backfill`",
            ],
        ),
    ],
)
def test_verify_says_what_to_do_about_each_fault(report, data, said):
    from lifelong.cli.verify import _advice, _counts
    from lifelong.online.memory.verify import VerifyReport

    found = VerifyReport(**report)
    until = 7 if found.missing else None
    assert [*_counts(found, own=data is None)[2:], *_advice(found, "a", data, "memory://", until)] == said


def test_verify_says_that_the_store_has_later_events_than_the_dataset():
    from lifelong.cli.verify import _verdict
    from lifelong.online.memory.verify import VerifyReport

    assert "against its own log" in _verdict(VerifyReport(users=2, count=1, extra=1), own=False)
    assert "differs from the log" in _verdict(VerifyReport(users=2, count=2, extra=1), own=False)
    assert "differs from the log" in _verdict(VerifyReport(users=2, count=1, extra=1, memory=1), own=False)


# backfill of a log, in parts too


def test_a_log_fills_a_store_at_once_or_as_jobs_that_each_take_a_part(run, artifact, tmp_path):
    log, whole, parts = tmp_path / "log.csv", f"rocksdb://{tmp_path}/whole", f"rocksdb://{tmp_path}/parts"
    log.write_text("customer,item,time\n" + "".join(f"u{user},i{n},{100 + n}\n" for user in range(6) for n in range(3)))
    document = run("backfill", artifact, log, "--store", whole, "--column", "user=customer", "--json").document
    assert (document["users"], document["events"], document["until"]) == (6, 18, 103)
    for number in range(2):
        part = ("--part", f"{number}/2", "--column", "user=customer")
        assert f"--join --store '{parts}?shards=2'" in run("backfill", artifact, log, "--store", parts, *part).stdout
    assert "is there already" in run("backfill", artifact, log, "--store", parts, *part).stdout
    joined = run("backfill", artifact, "--store", f"{parts}?shards=2", "--join", "--json").document
    assert joined == {"users": 6, "until": 103}
    for user in ("u0", "u5"):
        one, other = (
            run("score", artifact, "--store", store, "--user", user, "--items", "i1,i2", "--json").document["scores"]
            for store in (whole, parts)
        )
        assert one == other


# backfill next to a served artifact, switch


@pytest.fixture
def newer(artifact, tmp_path):
    from support.variants import other_artifact

    from lifelong.artifact.folder import Artifact

    return other_artifact(Artifact.open(artifact), tmp_path / "newer").path


def test_a_new_artifact_takes_over_and_the_way_back_is_open(run, artifact, newer, filled):
    before = score(run, artifact, filled, "--json").document["scores"]
    document = run("backfill", newer, "--store", filled, "--json").document
    assert (document["users"], document["events"]) == (2, 4)
    assert score(run, artifact, filled, "--json").document["scores"] == before
    outcome = run("switch", newer, "--store", filled, "--json").document
    assert [one["served"] for one in outcome["artifacts"]] == [False, True]
    assert score(run, newer, filled, "--json").document["count"] == 3
    assert run("switch", "--back", "--store", filled, "--json").document["previous"] == outcome["served"]
    assert run("switch", "--drop", newer, "--store", filled).code == 0
    assert score(run, artifact, filled, "--json").document["scores"] == before
    assert score(run, newer, filled, "--json").error["type"] == "StoreForeignError"


def test_the_list_of_artifacts_is_for_people_too(run, artifact, newer, filled):
    assert run("backfill", newer, "--store", filled).code == 0
    outcome = run("switch", "--store", filled)
    assert outcome.stdout.count("ready") == 2 and outcome.stdout.count("served") == 1
    assert str(newer) in outcome.stdout


def test_a_service_that_does_not_answer_is_named(run):
    outcome = run("switch", "--store", "http://127.0.0.1:9", "--json")
    assert outcome.code == 1 and "does not answer" in outcome.error["found"]


# forget, export


def test_forget_leaves_the_store_of_a_node_to_its_service_as_a_standby_would_keep_the_user(run, tmp_path):
    url = f"rocksdb://{tmp_path / 'node'}"
    open_store(f"{url}?shards=2&own=0").close()
    refused = run("forget", "u1", "--store", url)
    assert refused.code != 0 and "--store http://" in refused.stderr


def test_forget_takes_users_out_of_the_store_and_its_files(run, artifact, filled, tmp_path):
    document = run("forget", "u1", "nobody", "--store", filled, "--json").document
    assert document == {"users": 2, "erased": 1, "impressions": 0, "dead_letters": 0, "purged": True}
    assert not score(run, artifact, filled, "--json").document["known_user"]
    assert run("forget", "--inactive", "365d", "--store", filled, "--json").document["erased"] == 1


def test_export_gives_a_user_or_everyones_events(run, artifact, filled, tmp_path):
    assert len(run("export", "--user", "u1", "--store", filled, "--json").document["events"]) == 3
    out, again = tmp_path / "events.csv", f"rocksdb://{tmp_path}/again"
    assert run("export", "--events", out, "--store", filled, "--json").document == {"events": 4, "out": str(out)}
    assert run("ingest", artifact, "--store", again, out).code == 0
    wanted = score(run, artifact, filled, "--json").document
    assert score(run, artifact, again, "--json").document == wanted
    below = run("export", "--events", out / "more.csv", "--store", filled, "--json")
    assert (below.code, below.error["found"]) == (2, f"{out} is a file")
    away = ("export", "--store", "http://127.0.0.1:1", "--user", "u1", "--json")
    assert run(*away).error["found"] == "http://127.0.0.1:1 does not answer: Connection refused"
    assert (
        run(*away, "--key-file", "none").error["found"] == "cannot read the API keys: none: No such file or directory"
    )


# serve


@pytest.mark.parametrize(("full", "log"), [(True, "text"), (False, "text"), (True, "json")])
def test_the_printed_request_is_of_a_user_and_items_that_exist(run, artifact, filled, monkeypatch, capsys, full, log):
    def asked(app, *, host, port, ready):
        ready("http://localhost:8000")
        printed = capsys.readouterr()
        said.append(printed.out + printed.err)
        if log == "text":
            words = shlex.split(next(line for line in said[0].splitlines() if "curl" in line))
            body = json.loads(words[words.index("-d") + 1])
            with TestClient(app, base_url="http://localhost") as client:
                answers.append((body["user"], client.post(words[-1], json=body).json()))

    monkeypatch.setattr("lifelong.online.serving.run.run", asked)
    said, answers = [], []
    outcome = run("serve", artifact, "--store", filled if full else "memory://", "--port", "0", "--log", log)
    assert outcome.code == 0, outcome.stderr
    # A log that machines keep is no place for a user's id.
    assert ("curl" in said[0]) == (log == "text")
    for user, answer in answers:
        assert (user in {"u1", "u2"}) == answer["known_user"] == full
        assert answer["scores"] and all(score["known_item"] for score in answer["scores"])
        assert ("No user has a memory yet" in said[0]) == (not full)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (
            ("ingest", "ARTIFACT", "EVENTS", "--store", "STORE"),
            "stop that process; or, if it is a service, send it the events: POST /v1/events",
        ),
        (
            ("switch", "--back", "--store", "STORE"),
            "stop that process; or, if it is a service, ask it: lifelong switch ... --store http://HOST:PORT",
        ),
        (
            ("forget", "u1", "--store", "STORE"),
            "stop that process; or, if it is a service, ask it: lifelong forget ... --store http://HOST:PORT",
        ),
        (("serve", "ARTIFACT", "--store", "STORE", "--port", "0"), "stop that process"),
    ],
)
def test_the_way_to_an_owned_store_is_one_that_the_command_has(run, artifact, filled, events, words, fix):
    given = {"ARTIFACT": artifact, "STORE": filled, "EVENTS": events}
    owner = open_store(filled)
    try:
        outcome = run(*(given.get(word, word) for word in words), "--json")
    finally:
        owner.close()
    assert (outcome.code, outcome.error["type"], outcome.error["fix"]) == (1, "StoreLockedError", fix)
    takes_service = "--key-file" in run(words[0], "--help").stdout
    assert takes_service == ("--store http://" in fix)


def test_these_commands_run_without_torch(artifact, events, tmp_path):
    """In a process of its own that cannot import what the serve extra does not bring."""
    lines = [
        "import sys",
        "for name in ('torch', 'ibis', 'pyarrow', 'pandas', 'scipy'): sys.modules[name] = None",
        "from lifelong.cli import main",
        f"pair = [{str(artifact)!r}, '--store', 'rocksdb://{tmp_path}/store']",
        f"assert main(['ingest', *pair, {str(events)!r}]) == 0",
        "assert main(['score', *pair, '--user', 'u1', '--items', 'i1']) == 0",
        "assert main(['score', '--explain', *pair, '--user', 'u1', '--items', 'i1']) == 0",
        "assert main(['train', 'x', '--model', 'hpmn', '--out', 'y', '--json']) == 1",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lifelong[train]" in done.stdout


def test_bad_lines_are_left_out_where_that_is_wanted(run, artifact, url, events):
    events.write_text(events.read_text() + "u9,i1,soon,view\n")
    letters = events.parent / "bad.jsonl"
    outcome = run("ingest", artifact, "--store", url, events, "--on-bad", "skip", "--dead-letter", letters, "--json")
    assert (outcome.document["applied"], outcome.document["bad"]) == (4, 1)
    assert json.loads(letters.read_text())["offset"] == 6


def test_a_file_that_holds_hashes_of_keys_has_no_key_to_send(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"sha256:{'a' * 64} admin\n")
    with pytest.raises(UsageError, match="hashes of keys alone"):
        Remote.of("http://127.0.0.1:8000", keys)
    keys.write_text(f"sha256:{'a' * 64} admin\nplain admin\n")
    assert Remote.of("http://127.0.0.1:8000", keys).key == "plain"


def test_ingest_takes_several_files_and_what_a_shell_makes_of_a_pattern(run, artifact, url, events):
    head, *lines = events.read_text().splitlines(keepends=True)
    paths = [events.parent / f"part-{place}.csv" for place in range(4)]
    for path, line in zip(paths, lines, strict=True):
        path.write_text(head + line)
    first, second, *others = paths
    outcome = run("ingest", artifact, "--store", url, first, second, "--json")
    assert outcome.document["applied"] == 2
    outcome = run("ingest", artifact, "--store", url, first, second, *others, "--json")
    assert (outcome.document["applied"], outcome.document["duplicates"]) == (2, 2)
    outcome = run("ingest", artifact, "--store", url, events.parent / "part-*.csv", "--json")
    assert outcome.document["duplicates"] == 4


SCORE, U1, I1, HALF, FIX = (
    "score ARTIFACT --store STORE",
    "--user u1",
    "--items i1",
    "score ARTIFACT --store memory://",
    ("fix", "."),
)
MILLISECONDS = "--time 1700000000000"


@pytest.mark.parametrize(
    ("line", "part", "said"),
    [
        ("ingest ARTIFACT --store NEW?shards=2 EVENTS --workers 3", "found", "3 workers on a store of 2 shards"),
        ("ingest ARTIFACT --store NEW EVENTS --workers 2", "found", "2 workers on a store of 1 shard"),
        ("ingest ARTIFACT --store NEW?shards=x EVENTS --workers 1", "found", "shards=x"),
        ("ingest ARTIFACT --store NEW EVENTS --max-idle 1s", "expected", "kafka://"),
        ("ingest ARTIFACT --store NEW kafka://h:1", "found", "no topic"),
        ("ingest ARTIFACT --store NEW kafka://h:1/t --workers 2", "found", "--workers"),
        ("ingest ARTIFACT --store NEW EVENTS kafka://h:1/t", "expected", "one topic alone"),
        ("ingest ARTIFACT --store NEW EVENTS FOLDER/no.csv --source shop", "found", "one name for 2 files"),
        *((f"{SCORE} --user '' {I1} --time {TIME}{more}", "found", "^user is ''$") for more in ("", " --explain")),
        *((f"{SCORE} {U1} {I1} {MILLISECONDS}{more}", "found", f"^{MILLISECONDS}$") for more in ("", " --explain")),
        *((f"{HALF} {words}", *FIX) for words in ("", U1, I1, "--requests x.csv", f"{U1} {I1} --out y.csv")),
        *((f"{HALF} {words}", *FIX) for words in (f"{U1} --items ,", "--requests x.csv --out y.csv --explain")),
        (f"{HALF} {U1} {I1} --data data", *FIX),
        (f"{SCORE} --requests x.xls --out FOLDER/o.csv", "expected", "csv, parquet"),
        ("switch", *FIX),
        ("switch --store memory:// --back --drop x", *FIX),
        ("switch --store nonsense", *FIX),
        ("forget --store STORE", *FIX),
        ("forget u1 --inactive 3d --store STORE", *FIX),
        ("forget --inactive 0s --store STORE", *FIX),
        ("export --events FOLDER/x.xls --store STORE", *FIX),
        ("export --store STORE", *FIX),
        ("export --user '' --store STORE", "found", "^--user is empty$"),
        ("serve ARTIFACT --store NEW --workers 2 --topic kafka://127.0.0.1:1/t", "found", "followed by one process"),
        ("serve ARTIFACT --store NEW --workers 2 --topic kafka://127.0.0.1:1/t", "fix", "redis://"),
        ("serve ARTIFACT --store memory:// --workers 2", "found", "seen by its own process alone"),
        ("serve ARTIFACT --store memory:// --api-key-file FOLDER/none", *FIX),
        ("serve ARTIFACT --store NEW --topic EVENTS", "expected", "kafka://"),
    ],
)
def test_a_line_that_nobody_can_mean_is_bad_usage(run, request, artifact, url, events, tmp_path, line, part, said):
    filled = request.getfixturevalue("filled") if "STORE" in line else ""
    given = {"ARTIFACT": artifact, "STORE": filled, "NEW": f"{url}-new", "EVENTS": events, "FOLDER": tmp_path}
    for word, value in given.items():
        line = line.replace(word, str(value))
    outcome = run(*shlex.split(line), "--json")
    assert outcome.code == 2 and re.search(said, outcome.error[part])
