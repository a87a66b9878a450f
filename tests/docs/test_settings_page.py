"""docs/settings.md has every setting, with the default that it has."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from celery import Celery

from beatstore.config import PREFIX, Settings
from tests.support.pages import ROOT, blocks

PAGE = "docs/settings.md"

#: What the page says of a default that is no value.
SAID = {
    "url": "`beatstore.db` here",
    "schema": "none",
    "auto_migrate": "on SQLite only",
    "default_timezone": "the app's",
    "allowed_tasks": "all",
    "eta_threshold": "none",
}


def listed() -> dict[str, tuple[str, str]]:
    """Return the default and the unit that the tables give each setting."""
    row = rf"^\| `{PREFIX}(\w+)` \| (.*?) \| (.*?) \| .*\|$"
    found = re.findall(row, (ROOT / PAGE).read_text(), re.MULTILINE)
    assert len(found) == len({name for name, _, _ in found})
    return {name: (default, unit) for name, default, unit in found}


def test_every_setting_has_its_default() -> None:
    """The tables have each setting and no other, with its default and a unit."""
    settings = Settings()
    found = listed()
    assert set(found) == {item.name for item in fields(Settings)}
    for name, (default, unit) in found.items():
        value = getattr(settings, name)
        shown = f"{value:g}" if isinstance(value, float) else repr(value).replace("'", '"')
        shown = str(round(value)) if isinstance(value, float) and value == int(value) else shown
        assert default == SAID.get(name, f"`{shown}`"), name
        assert unit, name


def test_every_setting_says_when_to_change_it() -> None:
    """Each setting has an item below its table that says when to set it."""
    told = re.findall(rf"^- \*\*`{PREFIX}(\w+)`\*\*: \w", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert sorted(told) == sorted(listed())


def test_the_example_can_be_used() -> None:
    """The settings of the example are known, and have values that can be used."""
    app: Any = Celery("proj", set_as_current=False)
    [block] = [one for one in blocks(PAGE) if one.language == "python"]
    exec(compile(block.text, PAGE, "exec"), {"app": app})
    settings = Settings.read(app.conf)
    assert settings.default_timezone == "Europe/Berlin"
    assert settings.retention == 90 * 86400
