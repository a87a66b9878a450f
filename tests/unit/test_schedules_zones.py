"""Zone names, and the version of the data behind them."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import tzdata_version, zone, zones
from beatstore.schedules import tzversion as module


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_names(name: str) -> None:
    """An IANA name gives its zone, and the same object each time."""
    assert zone(name).key == name
    assert zone(name) is zone(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berlni", '"Europe/Berlin"'),
        ("europe/berlin", '"Europe/Berlin"'),
        ("Berlin", '"Europe/Berlin"'),
        ("tokyo", '"Asia/Tokyo"'),
        ("America/New York", '"America/New_York"'),
        ("utc", '"UTC"'),
        ("CEST", '"Europe/Berlin" or "UTC"'),
        ("GMT+2", '"Europe/Berlin" or "UTC"'),
        ("localtime", '"'),
        ("Factory", '"'),
        ("posix/UTC", '"'),
        ("right/Europe/Berlin", '"Europe/Berlin"'),
        ("../../etc/passwd", '"'),
        ("UTC\0", '"UTC"'),
        ("", '"UTC"'),
        (".", '"UTC"'),
        ("x" * 10_000_000, '"UTC"'),
        (None, '"UTC"'),
        (5, '"UTC"'),
    ],
)
def test_other_names_are_refused(name: object, hint: str) -> None:
    """Whatever isn't a zone's own name is refused, with the nearest that is."""
    with pytest.raises(ScheduleError) as caught:
        zone(name)
    assert caught.value.field == "timezone"
    assert hint in str(caught.value.write)


def test_data_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone that is listed but can't be loaded is refused, not raised as an OSError."""

    def broken(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(zones, "ZoneInfo", broken)
    with pytest.raises(ScheduleError, match="tzdata"):
        zone("Antarctica/Vostok")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Let each test, and what comes after, see the version afresh."""
    tzdata_version.cache_clear()
    yield
    tzdata_version.cache_clear()


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("tzdata.zi", "# version 2025b\n# This zic input file\n", "2025b"),
        ("tzdata.zi", "Z Nowhere 0 - N\n", "unknown"),
        ("+VERSION", "2026a\n", "2026a"),
        ("+VERSION", "\n", "unknown"),
        ("leapseconds", "", "unknown"),
    ],
)
def test_the_systems_version(
    file: str, text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's data is in force where there is any, whether it says its version or not."""
    (tmp_path / "UTC").write_bytes(b"TZif")
    (tmp_path / file).write_text(text)
    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path / "nowhere"), str(tmp_path)))
    assert tzdata_version() == expected


def test_the_packages_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without system data the tzdata package is in force; without that, nothing is known."""
    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    monkeypatch.setattr(module, "import_module", lambda name: SimpleNamespace(IANA_VERSION="2026f"))
    assert tzdata_version() == "2026f"
    tzdata_version.cache_clear()
    monkeypatch.setattr(module, "import_module", lambda name: SimpleNamespace())
    assert tzdata_version() == "unknown"
