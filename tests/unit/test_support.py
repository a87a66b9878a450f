"""What the tests themselves lean on: waiting with a deadline, and skipping out loud."""

from __future__ import annotations

import pytest

from tests.support.absent import absent, given_url, required
from tests.support.servers import free_port
from tests.support.wait import wait_until


def test_waiting_ends_with_the_answer() -> None:
    """The first truthy answer ends the wait and is returned."""
    answers = iter([None, 0, "", "here"])
    assert wait_until(lambda: next(answers), 5, interval=0) == "here"


def test_waiting_asks_once_more_at_the_end() -> None:
    """Even a wait of no time at all asks once."""
    assert wait_until(lambda: True, 0)


def test_waiting_says_what_for() -> None:
    """A wait that is given up says what it waited for, as it is at the end."""
    seen: list[int] = []
    with pytest.raises(AssertionError, match=r"gave up after 0\.05 s: 3 of them"):
        wait_until(lambda: seen.append(1), 0.05, lambda: "3 of them", interval=0.01)
    assert seen


def test_what_is_missing_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server skips the test, with the reason."""
    monkeypatch.setenv("BEATSTORE_TEST_REQUIRE", "postgresql")
    with pytest.raises(pytest.skip.Exception, match="no mariadb: nobody answers"):
        absent("mariadb", "nobody answers")


def test_what_is_required_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server fails the test where it is required, by any of its names."""
    monkeypatch.setenv("BEATSTORE_TEST_REQUIRE", "mysql, AMQP")
    assert required() == {"mariadb", "rabbitmq"}
    with pytest.raises(pytest.fail.Exception, match="mariadb is required"):
        absent("mariadb", "nobody answers")


@pytest.mark.parametrize(
    ("value", "given"), [(None, None), ("", None), ("None", ""), ("redis://r", "redis://r")]
)
def test_a_server_may_be_given_or_refused(
    monkeypatch: pytest.MonkeyPatch, value: str | None, given: str | None
) -> None:
    """A URL is taken as it is, `none` refuses the machine's server, nothing says nothing."""
    if value is None:
        monkeypatch.delenv("BEATSTORE_TEST_REDIS_URL", raising=False)
    else:
        monkeypatch.setenv("BEATSTORE_TEST_REDIS_URL", value)
    assert given_url("REDIS") == given


def test_ports_are_below_those_of_clients() -> None:
    """A free port is one that no system hands to an outgoing connection."""
    assert all(20000 <= free_port() < 32768 for _ in range(20))
