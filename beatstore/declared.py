"""An entry as code declares it: what `Store.sync` makes the database agree with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Declared"]


@dataclass(frozen=True, kw_only=True)
class _Policies:
    """What may be said of an entry beside its name, task and schedule."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    timezone: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    jitter: float | timedelta | None = None
    misfire: str | None = None
    grace: float | timedelta | None = None
    after: Iterable[Any] = ()
    overlap: str = "allow"
    run_timeout: float | timedelta | None = None
    max_retries: int = 0
    retry_delay: float | timedelta = 300
    retry_backoff: float = 1
    retry_jitter: float | timedelta = 0
    tags: Iterable[str] = ()
    description: str | None = None
    paused: bool = False


@dataclass(frozen=True)
class Declared(_Policies):
    """An entry that code declares, in a list `SCHEDULES` or for `Store.sync`.

    The arguments are those of `Store.add`, and mean the same. Nothing is checked here: what
    can't be stored is refused by `sync`, for this entry alone.

        SCHEDULES = [
            Declared("nightly", "etl.extract", "0 2 * * *", timezone="Europe/Berlin"),
            Declared("load", "etl.load", after=["nightly"], max_retries=3),
        ]
    """

    name: str
    task: Any
    schedule: Any = None

    def given(self) -> dict[str, Any]:
        """Return the arguments after the name, by the names that `Store.add` has for them."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        del found["name"]
        return found
