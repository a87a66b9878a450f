"""Solar events against celery's, and at the ends of the earth."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from math import degrees

import pytest

from beatstore.errors import ScheduleError
from beatstore.schedules import Solar, parse, solar
from tests.support.cost import Cost

pytest.importorskip("ephem")

UTC = timezone.utc
EVENTS = [
    "dawn_astronomical",
    "dawn_nautical",
    "dawn_civil",
    "sunrise",
    "solar_noon",
    "sunset",
    "dusk_civil",
    "dusk_nautical",
    "dusk_astronomical",
]
PLACES = [
    (52.52, 13.405),
    (-33.87, 151.2),
    (0.0, -179.9),
    (37, 180),
    (69.65, 18.96),
    (-77.8, 166.7),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("event", EVENTS)
def test_events_are_celerys(event: str, place: tuple[float, float]) -> None:
    """The same event is found at the same time as celery finds it, to two seconds."""
    import celery
    from celery.schedules import solar

    if celery.VERSION < (5, 7):
        pytest.skip("celery's own solar fails in some cases before 5.7")
    ours, asked = Solar(event, *place), datetime(2026, 1, 3, 5, tzinfo=UTC)
    for _ in range(12):
        theirs = solar(event, *place, nowfun=lambda: asked)  # noqa: B023 - called in this turn
        expected = asked + theirs.remaining_estimate(asked)
        found = ours.next_after(asked)
        assert found is not None
        assert abs(found - expected) <= timedelta(seconds=2)
        asked += timedelta(days=31, hours=7)


@pytest.mark.parametrize("place", PLACES)
def test_each_event_has_one_instant(place: tuple[float, float]) -> None:
    """Whoever asks, and from wherever, an event is one and the same whole second."""
    schedule = Solar("sunset", *place)
    start = datetime(2026, 4, 1, tzinfo=UTC)
    walked = schedule.between(start, start + timedelta(days=30), 100)
    back = [schedule.latest_before(at + timedelta(microseconds=1)) for at in walked]
    assert back == walked
    assert all(at.microsecond == 0 for at in walked)
    for at in walked:
        for hours in (1, 7, 23):
            asked = at - timedelta(hours=hours)
            assert schedule.next_after(asked) in walked or asked < walked[0]
    gaps = [later - earlier for earlier, later in pairwise(walked)]
    assert all(gap > timedelta(hours=20) for gap in gaps)


def test_polar_nights_are_skipped() -> None:
    """Where the sun stays down for weeks there is no occurrence, and the next is found."""
    schedule = Solar("sunrise", 78.22, 15.65)
    with Cost() as cost:
        found = schedule.next_after(datetime(2026, 11, 1, tzinfo=UTC))
        latest = schedule.latest_before(datetime(2026, 12, 21, tzinfo=UTC))
    assert cost.seconds < 0.5
    assert found is not None
    assert found.month == 2
    assert latest is not None
    assert latest < datetime(2026, 11, 1, tzinfo=UTC)


HORIZONS = {"dawn_astronomical": -18.0, "dawn_nautical": -12.0, "dawn_civil": -6.0}
REFRACTION = -34 / 60


def is_up(event: str, lat: float, at: datetime) -> bool:
    """Say whether the sun is above the horizon of an event, at longitude 10."""
    import ephem

    horizon = HORIZONS.get(event.replace("dusk", "dawn"), REFRACTION)
    observer = ephem.Observer()
    observer.lat, observer.lon, observer.pressure, observer.date = str(lat), "10", 0, at
    sun = ephem.Sun(observer)
    edge = float(sun.radius) if horizon == REFRACTION else 0.0
    return bool(degrees(sun.alt + edge) > horizon)


@pytest.mark.parametrize("lat", [90, 89.99, 89.9, -89.9])
@pytest.mark.parametrize("event", [event for event in EVENTS if event != "solar_noon"])
def test_near_the_poles_the_sun_crosses_the_horizon(event: str, lat: float) -> None:
    """Where the sun takes days to rise or set, its events are found, and found when they are."""
    schedule = Solar(event, lat, 10.0)
    found = schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC))
    assert found is not None
    assert found.year == 2026
    rises = event.startswith("dawn") or event == "sunrise"
    for minutes in (1, 10):
        assert is_up(event, lat, found - timedelta(minutes=minutes)) != rises
        assert is_up(event, lat, found + timedelta(minutes=minutes)) == rises


def test_a_pole_has_one_sunrise_a_year() -> None:
    """At the poles the sun rises once and sets once, half a year apart."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for lat in (90, -90):
        rises, sets = (
            Solar(event, lat, 0).between(start, start + timedelta(days=365), 400)
            for event in ("sunrise", "sunset")
        )
        assert len(rises) == len(sets) == 1
        assert abs(rises[0] - sets[0]) > timedelta(days=170)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("place", PLACES[:4])
def test_the_ends_of_the_calendar(event: str, place: tuple[float, float]) -> None:
    """Beyond the calendar there is nothing, and no event of today in its place."""
    schedule = Solar(event, *place)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    found = schedule.latest_before(last)
    assert found is not None
    assert last - found < timedelta(days=3)
    assert schedule.next_after(last) is None
    assert schedule.latest_before(first) is None
    found = schedule.next_after(first)
    assert found is not None
    assert found - first < timedelta(days=3)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("event", ("moonrise", 52, 13)),
        ("event", (None, 52, 13)),
        ("event", (["sunrise"], 52, 13)),
        ("lat", ("sunrise", 90.1, 13)),
        ("lat", ("sunrise", "52", 13)),
        ("lat", ("sunrise", float("nan"), 13)),
        ("lat", ("sunrise", True, 13)),
        ("lon", ("sunrise", 52, -180.1)),
        ("lon", ("sunrise", 52, None)),
    ],
)
def test_refusals(field: str, arguments: tuple[object, ...]) -> None:
    """What is out of range is refused by name."""
    with Cost() as cost, pytest.raises(ScheduleError) as caught:
        Solar(*arguments)
    assert cost.seconds < 0.5
    assert caught.value.field == field


def test_the_spec_is_readable() -> None:
    """Event, latitude and longitude, as numbers."""
    assert Solar("sunrise", 52.52, 13).spec == "sunrise 52.52 13.0"
    assert parse("solar", "  sunrise  52.52 13 ") == Solar("sunrise", 52.52, 13)


def test_without_ephem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ephem a solar schedule is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "ephem", None)
    with pytest.raises(ScheduleError, match=r"pip install .beatstore\[solar\]."):
        Solar("sunrise", 1, 2)
    with pytest.raises(ScheduleError) as caught:
        parse("solar", "sunrise 1 2")
    assert caught.value.field == "kind"


LATITUDES = [48.5, 55.0, 66.0, 66.6, 67.5, 72.0, 79.9, 80.1, 85.0, 89.9, 90.0]


@pytest.mark.by_turns("side")
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("side", [1, -1])
def test_a_sun_that_stays_away_is_not_looked_for_day_by_day(event: str, side: int) -> None:
    """Where an event fails for months, few turns of the sun are computed for an answer."""
    asked = [
        datetime(year, month, 5, tzinfo=UTC) for year in (1950, 2026, 9000) for month in (1, 5)
    ]
    for lat in LATITUDES:
        rule = Solar(event, side * lat, 13.4)
        for at in asked:
            for question in (rule.next_after, rule.latest_before):
                solar._event_at.cache_clear()
                question(at)
                assert solar._event_at.cache_info().misses <= 45, (lat, at)


@pytest.mark.parametrize("lat", LATITUDES)
@pytest.mark.parametrize("event", ["dawn_astronomical", "sunrise", "dusk_civil"])
def test_turns_that_are_left_out_have_no_event(
    event: str, lat: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are those of a search through every turn."""
    rule = Solar(event, lat, -120.5)
    asked = [datetime(2026, month, 17, 6, tzinfo=UTC) for month in (2, 5, 8, 11)]
    quick = [(rule.next_after(at), rule.latest_before(at)) for at in asked]
    monkeypatch.setattr(solar, "_idle", lambda *_: 0)
    assert [(rule.next_after(at), rule.latest_before(at)) for at in asked] == quick
