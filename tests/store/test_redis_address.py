"""URLs of shared stores."""

import pytest

from lifelong.errors import StoreUnavailableError, UsageError
from lifelong.online.store.redis_address import Address, parse, without_password
from lifelong.online.store.redis_client import translated


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", Address((("h", 6379),))),
        ("redis://h:1/3?prefix=p&timeout=0.5", Address((("h", 1),), database=3, prefix="p", timeout=0.5)),
        ("rediss://h/?ca=/a/b.pem", Address((("h", 6379),), tls=True, ca="/a/b.pem")),
        ("redis://a:1,b:2/?cluster=true", Address((("a", 1), ("b", 2)), cluster=True)),
        ("redis://[::1]:7/0", Address((("::1", 7),))),
        ("redis://u:p%40ss@h", Address((("h", 6379),), user="u", password="p@ss")),
        ("redis://:p@h", Address((("h", 6379),), password="p")),
        ("redis://h?replicas=2", Address((("h", 6379),), timeout=5.0, replicas=2)),
        (
            "redis://h?replicas=1&replica_timeout=0.5&fsync=true",
            Address((("h", 6379),), timeout=5.0, replicas=1, replica_timeout=0.5, fsync=True),
        ),
        ("redis+sentinel://a,b:7/main", Address((("a", 26379), ("b", 7)), service="main")),
        (
            "rediss+sentinel://u:p@[::1]/my%20shop/3?replicas=1",
            Address(
                (("::1", 26379),),
                tls=True,
                database=3,
                user="u",
                password="p",
                service="my shop",
                replicas=1,
                timeout=5.0,
            ),
        ),
    ],
)
def test_a_url_names_a_place(url, address):
    assert parse(url, {}) == address


def test_user_and_password_can_come_from_the_environment_and_the_url_wins():
    environment = {"LIFELONG_REDIS_USER": "e", "LIFELONG_REDIS_PASSWORD": "f"}
    assert (parse("redis://h", environment).user, parse("redis://h", environment).password) == ("e", "f")
    assert parse("redis://u:p@h", environment).password == "p"


def test_sentinels_have_a_login_of_their_own():
    environment = {"LIFELONG_SENTINEL_USER": "s", "LIFELONG_SENTINEL_PASSWORD": "t"}
    address = parse("redis+sentinel://u:p@h/main", environment)
    assert (address.user, address.password, address.sentinel_user, address.sentinel_password) == ("u", "p", "s", "t")
    assert parse("redis://h", environment) == parse("redis://h", {})
    assert repr(address).count("password") == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "no server"),
        ("redis://u:secret@h:port", "'h:port'"),
        ("redis://u:secret@a,b", "no cluster"),
        ("redis://u:secret@h/one", "'one'"),
        ("redis://u:secret@h/1?cluster=true", "a cluster has one"),
        ("redis://u:secret@h?colour=red", "colour.*prefix"),
        ("redis://u:secret@h?cluster=1", "true or false"),
        ("redis://u:secret@h?prefix=a{b", "prefix"),
        ("redis://u:secret@h?timeout=0", "timeout"),
        ("redis://u:secret@h?replicas=-1", "replicas=-1.*how many replicas"),
        ("redis://u:secret@h?replicas=all", "replicas=all.*how many replicas"),
        ("redis://u:secret@h?fsync=yes", "fsync=yes.*true or false"),
        ("redis://u:secret@h?replicas=1&replica_timeout=fast", "replica_timeout of 'fast'.*seconds"),
        ("redis://u:secret@h?replica_timeout=1", "no replicas to wait for.*replicas=1"),
        ("redis://u:secret@h?replicas=1&replica_timeout=5", "5 seconds and a timeout of 5.*shorter replica_timeout"),
        ("redis://u:secret@h?fsync=true&timeout=2", "3 seconds and a timeout of 2.*shorter replica_timeout"),
        ("redis+sentinel://u:secret@h", r"without the name of a service.*redis\+sentinel://host:port/service/database"),
        ("redis+sentinel://u:secret@h/main/one", "'one'.*a number"),
        ("redis+sentinel://u:secret@h/main?cluster=true", "Sentinels and a cluster.*one of them"),
    ],
)
def test_a_url_that_names_no_place_says_why_without_the_password(url, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse(url, {})
    assert "secret" not in str(caught.value)


def test_what_is_shown_of_a_place_holds_no_password():
    url = "rediss://u:secret@a:1,b:2/?cluster=true"
    address = parse(url, {})
    assert address.name == "rediss://a:1,b:2/?cluster=true"
    assert "secret" not in repr(address) + without_password(url)
    assert without_password("rocksdb:///a@b") == "rocksdb:///a@b"
    url = "rediss+sentinel://u:secret@a:1,b:2/main/3"
    assert without_password(url) == parse(url, {}).name == "rediss+sentinel://a:1,b:2/main/3"


@pytest.mark.parametrize(("kind", "text"), [("ClusterError", "TTL exhausted."), ("TryAgainError", "several keys")])
def test_a_slot_whose_keys_are_moved_for_long_is_an_absence_of_the_server(kind, text):
    redis = pytest.importorskip("redis")
    with pytest.raises(StoreUnavailableError, match=r"^here is moving keys"), translated("here"):
        raise getattr(redis.exceptions, kind)(text)
