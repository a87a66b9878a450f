"""The page on moving over says all that the verb takes, reads and reports."""

from __future__ import annotations

import re
from pathlib import Path

from beatstore.cli import importing
from beatstore.moving.schedulers import SCHEDULERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "moving.md").read_text()

#: The columns of tasks and schedules in all versions of both packages.
COLUMNS = (
    *("name", "task", "args", "kwargs", "queue", "exchange", "routing_key", "headers"),
    *("priority", "expires", "expire_seconds", "one_off", "start_time", "enabled"),
    *("last_run_at", "total_run_count", "date_changed", "description", "interval_id"),
    *("crontab_id", "solar_id", "clocked_id", "discriminator", "schedule_id", "every"),
    *("period", "minute", "hour", "day_of_week", "day_of_month", "month_of_year"),
    *("timezone", "event", "latitude", "longitude", "clocked_time"),
)


def test_every_option_is_in_the_table() -> None:
    """The page's table of options has each option of the verb, and no other."""
    listed = re.findall(r"^\| `(--[\w-]+)` \|", PAGE, re.MULTILINE)
    assert set(listed) == {one.opts[0] for one in importing.import_.params}


def test_every_package_can_be_chosen() -> None:
    """The verb and the page name each scheduler that can be read."""
    (chosen,) = (one for one in importing.import_.params if one.name == "package")
    assert list(getattr(chosen.type, "choices", ())) == list(SCHEDULERS)
    for package in SCHEDULERS:
        assert f"`{package}`" in PAGE


def test_what_becomes_of_every_column_is_said() -> None:
    """Each column of their tables is in the tables of what is carried, or named as not."""
    tables = PAGE[PAGE.index("## What is carried") :]
    for column in COLUMNS:
        assert re.search(rf"`{column}`", tables), column
