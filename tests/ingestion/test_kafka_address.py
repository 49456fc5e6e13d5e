"""URLs of topics."""

import pytest

from lifelong.errors import UsageError
from lifelong.online.ingestion.kafka_client import is_kafka, parse


def test_a_topic_s_url_is_no_file():
    assert is_kafka("kafka://h/t") and not is_kafka("events.csv")


def test_brokers_topic_and_options_are_read():
    address = parse("kafka://one,two:19092/shop.events?group=mine&start=end&session=6", {})
    assert (address.hosts, address.topic, address.group) == (("one:9092", "two:19092"), "shop.events", "mine")
    assert (address.start, address.session) == ("end", 6)
    assert address.settings()["bootstrap.servers"] == "one:9092,two:19092"
    assert address.settings()["security.protocol"] == "plaintext"
    assert parse("kafka://h/t?start=1700000000", {}).start == "1700000000"


def test_a_login_goes_over_tls_and_is_in_no_name():
    address = parse("kafka://me:p%40ss@h/t", {})
    assert (address.user, address.password, address.security) == ("me", "p@ss", "sasl_ssl")
    assert "p@ss" not in repr(address) and "me" not in address.name
    environment = {"LIFELONG_KAFKA_USER": "me", "LIFELONG_KAFKA_PASSWORD": "secret"}
    assert parse("kafka://h/t?security=sasl_plaintext", environment).settings()["sasl.password"] == "secret"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://h", "no topic"),
        ("kafka:///t", "no broker"),
        ("kafka://h:x/t", "a broker 'h:x'"),
        ("kafka://h/a/b", "a topic 'a/b'"),
        ("kafka://h/t?gruop=x", "an option 'gruop'.*group"),
        ("kafka://h/t?group=", "an empty group="),
        ("kafka://h/t?start=now", "start=now.*beginning, end or UTC seconds"),
        ("kafka://h/t?session=1", "a session of '1'.*more than 3"),
        ("kafka://h/t?session=soon", "a session of 'soon'"),
    ],
)
def test_a_url_that_names_no_topic_is_said(url, said):
    with pytest.raises(UsageError, match=said):
        parse(url, {})
