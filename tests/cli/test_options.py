"""How words of the command line become values."""

import pytest

from lifelong.cli.options import literal, names, pairs
from lifelong.errors import UsageError


def test_pairs_keep_the_rest_after_the_first_equals_sign():
    assert pairs(["a=1", "b=x=y"], option="--set") == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize("word", ["a", "=1"])
def test_a_word_that_is_no_pair_is_named(word):
    with pytest.raises(UsageError, match=f"--option {word}"):
        pairs([word], option="--option")


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(UsageError, match="twice"):
        pairs(["a=1", "a=2"], option="--set")


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("[0.7,0.8]", [0.7, 0.8]), ("500MB", "500MB"), ("true", True)])
def test_a_value_is_json_or_else_itself(text, value):
    assert literal(text) == value


def test_a_list_of_names_loses_spaces_and_empty_parts():
    assert names(" a, b,,c ") == ["a", "b", "c"]
