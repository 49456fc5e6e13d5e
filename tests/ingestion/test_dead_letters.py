"""Dead letters name users too, and let go of them."""

import json

import pytest

from lifelong.errors import UsageError
from lifelong.online.ingestion import dead_letters
from lifelong.online.ingestion.dead_letters import DeadLetter, FileLetters, forget_letters

SECRET = "secret-person@4711.example"
HERS = [
    {"user": SECRET, "time": "soon"},
    {"id": {"of": [SECRET]}},
    json.dumps({"user": SECRET}).encode(),
    f"{SECRET},i1,soon".encode(),
    f'"{SECRET}";i1'.encode(),
    b"\xff\xfe " + SECRET.encode() + b" \xff",
]
OTHERS = [{"user": SECRET + "x"}, {"user": "x" + SECRET}, b"other,i1", {"note": f"see {SECRET}-2"}, None, b"[" * 3000]


def written(path, values, **parts):
    letters = FileLetters(path)
    for offset, value in enumerate(values):
        letters.put(DeadLetter("log.csv", 0, offset, parts.get("reason", "bad"), parts.get("key"), value))
    return letters


@pytest.mark.parametrize("value", HERS)
def test_a_letter_that_names_the_user_goes(tmp_path, value):
    letters = written(tmp_path / "bad.jsonl", [value, *OTHERS])
    assert letters.forget({SECRET, "nobody"}) == 1
    text = (tmp_path / "bad.jsonl").read_text()
    kept = [json.loads(line)["offset"] for line in text.splitlines() if line.strip()]
    assert kept == [1, 2, 3, 4, 5, 6]
    assert letters.forget({SECRET}) == 0
    letters.close()


def test_her_key_and_the_reason_count(tmp_path):
    for name, parts in {"key": {"key": SECRET.encode()}, "reason": {"reason": f"user '{SECRET}' has no item"}}.items():
        letters = written(tmp_path / name, [b"x"], **parts)
        assert letters.forget([SECRET]) == 1
        letters.close()


def test_an_id_with_blanks_in_it_is_found_in_text(tmp_path):
    letters = written(tmp_path / "bad", [b"ada b,i1", b"ada,i1", {"user": "ada b"}])
    assert letters.forget(["ada b"]) == 2
    letters.close()


def test_the_process_that_appends_goes_on(tmp_path):
    path = tmp_path / "bad.jsonl"
    letters = written(path, [{"user": SECRET}, {"user": "other"}])
    letters.flush()
    assert forget_letters(path, [SECRET]) == 1, "as another process does"
    letters.put(DeadLetter("log.csv", 0, 9, "bad", None, {"user": "later"}))
    letters.close()
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    assert [row["value"]["user"] for row in rows] == ["other", "later"]
    assert SECRET.encode() not in path.read_bytes()


def test_a_line_that_is_still_being_written_is_left_alone(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"value": {"user": SECRET}}))
    before = path.read_bytes()
    assert forget_letters(path, [SECRET]) == 0 and path.read_bytes() == before


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        forget_letters(tmp_path / "none", [SECRET])


def test_a_letter_after_a_torn_one_has_a_line_of_its_own(tmp_path):
    path = tmp_path / "bad.jsonl"
    for _ in range(2):
        written(path, [{"user": "ada"}]).close()
    code = path.read_bytes()
    path.write_bytes(code[:-20])
    written(path, [{"user": "bob"}]).close()
    first, torn, last = path.read_bytes().splitlines(keepends=True)
    assert first + torn == code[:-20] + b"\n" and json.loads(last)["value"] == {"user": "bob"}


def test_the_folder_of_a_new_file_of_letters_is_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(dead_letters, "sync", synced.append)
    FileLetters(tmp_path / "bad.jsonl").close()
    assert synced == [tmp_path]
