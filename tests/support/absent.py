"""What happens where a server, or anything else a test needs, is not there.

A test that can't run says so and is skipped. Where `BEATSTORE_TEST_REQUIRE` names the
thing (a comma list, such as `postgresql,mariadb,redis,rabbitmq,browser`), the same test fails:
continuous integration must not pass by skipping.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["Unavailable", "absent", "given_url", "required"]

_SAME = {"mysql": "mariadb", "postgres": "postgresql", "amqp": "rabbitmq", "valkey": "redis"}


class Unavailable(Exception):  # noqa: N818  (a finding, not an error)
    """A server is neither there nor can it be started; the text says why."""


def required() -> frozenset[str]:
    """Return the names in `BEATSTORE_TEST_REQUIRE`."""
    names = os.environ.get("BEATSTORE_TEST_REQUIRE", "").lower().replace(",", " ").split()
    return frozenset(_SAME.get(name, name) for name in names)


def absent(name: str, reason: object) -> NoReturn:
    """Skip the test, or fail it where `name` is required."""
    if name in required():
        pytest.fail(f"{name} is required (BEATSTORE_TEST_REQUIRE): {reason}", pytrace=False)
    pytest.skip(f"no {name}: {reason}")


def given_url(kind: str) -> str | None:
    """Return the URL in `BEATSTORE_TEST_<kind>_URL`.

    Returns:
        The URL; "" for the value `none`, which means "use no server of this machine";
        None where the variable is not set.
    """
    value = os.environ.get(f"BEATSTORE_TEST_{kind}_URL") or None
    return "" if value is not None and value.lower() == "none" else value
