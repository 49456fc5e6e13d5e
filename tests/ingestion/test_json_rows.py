"""JSON of files and messages is read quickly, and as the standard library reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.online.ingestion.rows import Problem, json_row

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _VALUES), st.booleans())
def test_an_object_is_read_as_the_standard_library_reads_it(row: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(row, ensure_ascii=ascii_only)
    for given_text in (text, text.encode("utf-8", "surrogatepass")):
        # Not every float equals itself.
        assert repr(json_row(given_text)) == repr(json.loads(given_text))


@pytest.mark.parametrize(
    "text",
    [
        b'{"user": "a", "user": "b"}',
        b'{"time": -0}',
        b'{"time": 1e999}',
        b'{"time": NaN}',
        b'{"time": 123456789012345678901234567890}',
        b'{"time": 9007199254740993.0}',
        b'{"user": "\\ud800"}',
        b'{"user": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"user": "a"}',
        '{"user": "a"}'.encode("utf-16"),
        b'{"a": ' * 300 + b"1" + b"}" * 300,
    ],
)
def test_what_the_quick_reader_does_not_know_is_read_as_well(text: bytes) -> None:
    assert repr(json_row(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"time": 01}', "not JSON: Expecting ',' delimiter: line 1 column 11 (char 10)"),
        (b'{"user": "\xff"}', "not JSON: 'utf-8' codec can't decode byte 0xff in position 10: invalid start byte"),
        (b'{"user": "a\tb"}', "not JSON: Invalid control character at: line 1 column 12 (char 11)"),
        (b"", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'["a"]', "not a JSON object"),
    ],
)
def test_a_text_that_is_no_object_is_named(text: bytes, found: str) -> None:
    problem = json_row(text)
    assert isinstance(problem, Problem)
    assert problem.found == found
