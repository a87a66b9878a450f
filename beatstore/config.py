"""The `beatstore_*` settings, read once and checked.

Settings live in the Celery configuration; this module sees only a mapping. A key that
beatstore does not know, or a value it can't use, raises a `ConfigError` at start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from math import inf
from typing import Any, get_args

from beatstore.errors import ConfigError
from beatstore.schedules import zone
from beatstore.types import Misfire
from beatstore.words import nearest

__all__ = [
    "LINK_NAMES",
    "MISFIRES",
    "NOT_SKIPPING_ALL",
    "PREFIX",
    "Settings",
    "link_templates",
    "skips_all",
]

PREFIX = "beatstore_"

#: The misfire policies, as the column `misfire` holds them.
MISFIRES: tuple[Misfire, ...] = get_args(Misfire)

#: How messages may be sent; see `beatstore.beat.ladder`.
STEPS = ("auto", "hooks")

#: What `grace` must be: beat always sees an occurrence some time after it is due.
NOT_SKIPPING_ALL = "more than 0 seconds with misfire='skip', or every occurrence is skipped"

#: What a template of `beatstore_web_links` may name.
LINK_NAMES = ("task_id", "run_id", "entry", "worker", "start", "end")

_SQLITE_FILE = "beatstore.db"

#: A hundred years: a longer time from now may have no date, or be longer than a thread can wait.
_CENTURY_S = 36_500 * 86_400.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, named without the prefix `beatstore_`.

    Attributes:
        url: SQLAlchemy URL of the database; the default is `beatstore.db` in the
            working directory, as an absolute path.
        engine_options: keyword arguments for `sqlalchemy.create_engine`.
        schema: database schema of the tables; None uses the connection's default.
        batch_size: the most entries that beat claims in one transaction.
        claim_ttl: seconds until another beat may send what this beat has claimed.
        auto_migrate: create or upgrade the tables at start; None means "on SQLite only".
        default_timezone: IANA zone of entries that name none.
        default_misfire: misfire policy of entries that name none.
        default_grace: seconds that an occurrence may be late before it is a misfire.
        catch_up_limit: the most missed runs that `misfire="all"` sends.
        retention: seconds to keep finished one-shots and runs.
        eta_threshold: beatstore stores a task whose eta is further away than this many
            seconds; None sends every eta to the broker.
        allowed_tasks: patterns of the task names that messages may run; None allows all.
        listen: let PostgreSQL wake a sleeping beat when a due row is committed.
        notify: let transactions tell the beats that listen. False: no transaction of beatstore's,
            and none that fires its triggers, executes NOTIFY; beat polls.
        heartbeat: seconds between the heartbeats of a worker. After three missed ones, its
            runs are stale.
        report_wait: seconds that a task waits for the database, at its start (with the start-once
            guard) and at its end.
        overlap_timeout: default `run_timeout`, in seconds, of entries with `overlap`, so that
            a run without reports does not block them for ever.
        send: how beat sends messages: "auto", as fast as is safe with what is hooked into
            Celery; "hooks", always by `apply_entry` and `apply_async`.
        web_links: links of a run's page to other systems: templates by their titles.
    """

    url: str = ""
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None
    batch_size: int = 500
    claim_ttl: float = 30.0
    auto_migrate: bool | None = None
    default_timezone: str = "UTC"
    default_misfire: Misfire = "coalesce"
    default_grace: float = 60.0
    catch_up_limit: int = 100
    retention: float = 30 * 86400.0
    eta_threshold: float | None = None
    allowed_tasks: tuple[str, ...] | None = None
    listen: bool = True
    notify: bool = True
    heartbeat: float = 10.0
    report_wait: float = 0.04
    overlap_timeout: float = 86400.0
    send: str = "auto"
    web_links: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, conf: Mapping[str, Any], *, timezone: str = "UTC") -> Settings:
        """Read the `beatstore_*` keys of `conf`.

        Args:
            conf: a Celery configuration, or any mapping; other keys are ignored.
            timezone: the app's zone, used where `beatstore_default_timezone` is not set.

        Raises:
            ConfigError: a key is unknown or a value can't be used.
        """
        given = {key: conf[key] for key in conf if str(key).startswith(PREFIX)}
        known = {PREFIX + item.name: item.name for item in fields(cls)}
        values: dict[str, Any] = {"default_timezone": timezone}
        for key, value in given.items():
            if key not in known:
                raise ConfigError(key, value, "a setting that beatstore knows", nearest(key, known))
            if value is not None:
                values[known[key]] = _CHECKS[known[key]](key, value)
        values["url"] = _absolute(values.get("url") or f"sqlite:///{_SQLITE_FILE}")
        zone(values["default_timezone"])
        settings = cls(**values)
        if skips_all(settings.default_misfire, settings.default_grace):
            raise ConfigError("beatstore_default_grace", 0, NOT_SKIPPING_ALL, "60")
        return settings


def skips_all(misfire: str, grace_s: object) -> bool:
    """Say whether a misfire policy with this grace skips every occurrence."""
    return misfire == "skip" and grace_s == 0


def _absolute(url: str) -> str:
    """Make the path of an SQLite URL absolute.

    Refuse a relative path in `/`, the working directory of daemons: other processes would
    use another file.
    """
    scheme, separator, path = url.partition(":///")
    if not scheme.startswith("sqlite") or not separator or path.startswith((":memory:", "file:")):
        return url
    name, question, query = path.partition("?")
    if not name or os.path.isabs(name):
        return url
    if os.getcwd() == os.sep:
        raise ConfigError(
            "beatstore_url",
            url,
            "an absolute path, since the working directory is /",
            "sqlite:////var/lib/app/beatstore.db",
        )
    return f"{scheme}:///{os.path.abspath(name)}{question}{query}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ConfigError(key, value, "text", "a non-empty string")


def _url(key: str, value: Any) -> str:
    # str() of a SQLAlchemy URL hides the password.
    render = getattr(value, "render_as_string", None)
    text = render(hide_password=False) if render else value
    if isinstance(text, str) and ":" in text:
        return text
    raise ConfigError(key, value, "a database URL", "postgresql+psycopg://user@host/database")


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(key, value, "keyword arguments of create_engine", "{'pool_size': 5}")


def _flag(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(key, value, "True or False", "True")


def _whole(least: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise ConfigError(key, value, f"a whole number of at least {least}", str(max(least, 100)))

    return check


def _seconds(least: float, example: str, most: float = inf) -> Callable[[str, Any], float]:
    span = f"{least:g} or more" if most == inf else f"from {least:g} to {most:.0f}"

    def check(key: str, value: Any) -> float:
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if is_number and least <= seconds <= most:
            return float(seconds)
        raise ConfigError(key, value, f"seconds, {span}, or a timedelta", example)

    return check


def _misfire(key: str, value: Any) -> Misfire:
    for one in MISFIRES:
        if value == one:
            return one
    raise ConfigError(key, value, f"one of {', '.join(MISFIRES)}", "'coalesce'")


def _send(key: str, value: Any) -> str:
    if value in STEPS:
        return str(value)
    raise ConfigError(key, value, f"one of {', '.join(STEPS)}", "'auto'")


def _patterns(key: str, value: Any) -> tuple[str, ...]:
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(item, str) for item in value)
    ):
        return tuple(value)
    raise ConfigError(key, value, "a list of task names or patterns", "['reports.*']")


def link_templates(key: str, value: Any) -> Mapping[str, str]:
    """Return templates of addresses by the titles of their links.

    Raises:
        ConfigError: they are something else, or name what is not in `LINK_NAMES`.
    """
    if isinstance(value, Mapping) and all(map(_is_link, value.items())):
        return dict(value)
    wanted = f"addresses by titles, with {', '.join(f'{{{name}}}' for name in LINK_NAMES)}"
    raise ConfigError(key, value, wanted, "{'Flower': 'https://flower/task/{task_id}'}")


def _is_link(item: tuple[object, object]) -> bool:
    title, template = item
    if not isinstance(title, str) or not isinstance(template, str):
        return False
    try:
        template.format_map(dict.fromkeys(LINK_NAMES, ""))
    except (KeyError, IndexError, ValueError, AttributeError):
        return False
    return True


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "url": _url,
    "engine_options": _mapping,
    "schema": _text,
    "batch_size": _whole(1),
    "claim_ttl": _seconds(1, "30", _CENTURY_S),
    "auto_migrate": _flag,
    "default_timezone": _text,
    "default_misfire": _misfire,
    "default_grace": _seconds(0, "60"),
    "catch_up_limit": _whole(1),
    "retention": _seconds(0, "30 * 86400", _CENTURY_S),
    "eta_threshold": _seconds(0, "3600"),
    "allowed_tasks": _patterns,
    "listen": _flag,
    "notify": _flag,
    "heartbeat": _seconds(0.1, "10", _CENTURY_S),
    "report_wait": _seconds(0, "0.04", _CENTURY_S),
    "overlap_timeout": _seconds(1, "86400"),
    "send": _send,
    "web_links": link_templates,
}
