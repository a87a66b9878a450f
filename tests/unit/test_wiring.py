"""What the broker's URL and options say, before anything is connected."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery import Celery

from beatstore import wiring
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import ConfigError
from beatstore.wiring import check_broker_url, warn_of_options


def app_with(**settings: Any) -> Celery:
    """Return an app with such settings."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(beatstore_url="sqlite://", **settings)
    return app


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("reddis://localhost/0", "got 'reddis://localhost/0'; write redis://…"),
        ("ampq://guest:guest@localhost//", "got 'ampq://**@localhost//'; write amqp://…"),
        ("redis://localhost:6379/0;reddis://other/0", "got 'reddis://other/0'"),
        (
            ["memory://", "http://localhost"],
            "expected a broker transport that kombu supports: amqp, amqps, ",
        ),
        ("redis://localhost:port/0", "can be parsed (Port could not be cast"),
        (
            "redis://localhost/abc",
            "whose Redis database is a number, got 'redis://localhost/abc'; write "
            "redis://localhost/0",
        ),
        ("rediss://:guest@localhost:1/1/2", "got 'rediss://**@localhost:1/1/2'"),
        ("redis://localhost/-1", "write redis://localhost/0"),
        ("redis://a/0;sentinel://b/main", "write sentinel://b/0"),
        ("redis://:pa/ss@localhost/0", "the password quoted by urllib.parse.quote"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_url_that_leads_nowhere_ends_beat(url: Any, words: str, lazy: bool) -> None:
    """A URL that nothing is reached by is an error at start, which shows no password."""
    with pytest.raises(SystemExit) as caught:
        DBScheduler(app=app_with(broker_url=url), schedule_filename="", max_interval=1, lazy=lazy)
    said = str(caught.value)
    assert said.startswith("beatstore: broker_url: expected a broker")
    assert words in said
    assert not any(secret in said for secret in ("guest", "pa/ss", "'pa'"))


@pytest.mark.parametrize(
    ("missing", "url", "package"),
    [
        (ImportError("Missing redis library (pip install redis)"), "redis://:x@h/0", "redis"),
        (ModuleNotFoundError("No module named 'botocore'"), "sqs://", "sqs"),
        (NameError("name 'KafkaException' is not defined"), "confluentkafka://h", "confluentkafka"),
        (ImportError("no redis"), "rediss://h/0", "redis"),
    ],
)
def test_a_missing_client_library_is_named(
    missing: Exception, url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not installed is no outage: the error says what to install."""

    class Without:
        def __init__(self, *_: object, **__: object) -> None:
            raise missing

    monkeypatch.setattr(wiring, "Connection", Without)
    with pytest.raises(ConfigError) as caught:
        check_broker_url(app_with(broker_url=url))
    assert str(missing) in str(caught.value)
    assert caught.value.write == f'pip install "kombu[{package}]"'


@pytest.mark.parametrize(
    "url",
    [
        *(
            "memory://",
            "redis://:p@h:1/0",
            "redis://h/",
            "redis://h//15",
            "amqp://",
            "amqp://h/abc",
        ),
        *("redis+socket:///run/redis.sock", "localhost", "pyamqp://a;redis://b", None),
    ],
)
def test_what_may_be_reached_is_left_to_the_tick(url: str | None) -> None:
    """A broker that only does not answer, whatever its URL, does not end beat."""
    check_broker_url(app_with(broker_url=url))


def test_misspelt_transport_options(caplog: pytest.LogCaptureFixture) -> None:
    """An option that is nearly one of the transport's is warned of; others are let be."""
    options = {"visibilty_timeout": 5, "socket_timeout": 3, "my_own": 1, "max_retries": 2}
    with caplog.at_level(logging.WARNING):
        warn_of_options(app_with(broker_url="redis://h", broker_transport_options=options))
        warn_of_options(app_with(broker_url="amqp://h", broker_transport_options=options))
        warn_of_options(app_with(broker_url="redis://h"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "broker_transport_options: 'visibilty_timeout' is not an option of redis and has no "
        "effect; did you mean 'visibility_timeout'?"
    )
