"""What pages say of times and numbers is what is so, and what they link to is what they count."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any

import pytest
from sqlalchemy import text as sql
from werkzeug.test import Client

from beatstore import Cron, Every, ManualClock, Store
from beatstore.models import RunModel
from tests.support.busy import fill
from tests.support.command import Command
from tests.support.marks import on_sqlite
from tests.support.written import HOUR, MINUTE, run, write

pytestmark = pytest.mark.quick_on("sqlite")

#: Half an hour before the clocks of Berlin go back from 03:00 to 02:00.
BEFORE = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)


def test_an_hour_that_is_there_twice_is_told_by_its_offset(browser: Client, store: Store) -> None:
    """When the clocks go back, rows and columns have hours, and not the offset in their place."""
    store.database.clock = ManualClock(BEFORE)
    store.add("minutely", "t.x", Cron("* * * * *"), timezone="UTC")
    browser.post("/zone", data={"zone": "Europe/Berlin"})
    page = browser.get("/upcoming").text
    rows = re.findall(r'<th scope="row">([^<]+)</th>', page)
    assert rows[:3] == ["02:00+02:00", "02:00+01:00", "03:00"]
    assert "02:30+02:00 to 02:59+02:00: 1 due each" in page
    axis = re.findall(r'<text class="faint" x="\d+" y="94">([^<]+)</text>', browser.get("/").text)
    assert [one[:5] for one in axis] == [
        *("14:30", "17:30", "20:30", "23:30", "02:30", "04:30", "07:30", "10:30"),
    ]


def test_changed_instants_are_in_the_zone_of_the_reader(browser: Client, store: Store) -> None:
    """The audit and the page of an entry show them like all other times."""
    at = datetime(2031, 5, 1, 12, tzinfo=timezone.utc)
    store.add("nightly", "t.x", Every(60))
    store.change("nightly", start_at=at)
    browser.post("/zone", data={"zone": "Asia/Tokyo"})
    for path in ("/audit", "/entry?name=nightly"):
        page = browser.get(path).text
        assert '<span class="faint">start_at</span>  <ins>2031-05-01 21:00</ins>' in page
        assert "2031-05-01T12:00:00" not in page.partition('id="changes"')[2]


def test_the_runs_of_the_last_hour_are_those(browser: Client, store: Store) -> None:
    """The link beside a number leads to as many runs."""
    entry, now = store.add("a", "t.x", Every(60)), store.now()
    dues = [now - 2 * MINUTE, now - 50 * MINUTE, now - 2 * HOUR, now - 3 * HOUR]
    write(store, RunModel, *(run(entry, due, state="failed", error="no disk") for due in dues))
    browser.post("/zone", data={"zone": "America/New_York"})
    page = unescape(browser.get("/").text)
    (link,) = re.findall(r'<a href="([^"]+)">2 failed</a>', page)
    listed = browser.get(link).text
    assert len(re.findall(r'<a href="/run[?]id=', listed)) == 2


@pytest.mark.parametrize("name", ["a", "b*"])
def test_a_filter_that_nothing_passes(browser: Client, store: Store, name: str) -> None:
    """The time line says that nothing matches; it is no table without a row."""
    entry = store.add("a", "t.x", Every(60), paused=True)
    write(store, RunModel, run(entry, store.now() - timedelta(hours=1)))
    page = browser.get(f"/upcoming?name={name}").text
    assert "Nothing that matches is due." in page
    assert "nowline" not in page


def test_a_tag_that_nobody_has(browser: Client, store: Store) -> None:
    """The graph says so, and not that no entry depends on another."""
    store.add("a", "t.x", Every(60))
    store.add("b", "t.x", after=["a"])
    page = unescape(browser.get("/graph?tag=nobodys").text)
    assert "No entry has the tag nobodys." in page
    assert "depends on another" not in page


def test_failures_that_are_left_out_are_mentioned(browser: Client, store: Store) -> None:
    """The first page and an entry's own list the most frequent errors, and say if more exist."""
    entry, now = store.add("a", "t.x", Every(60)), store.now()
    words = [f"no {letter * 3}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    runs = [
        run(entry, now - number * MINUTE, state="failed", error=word)
        for number, word in enumerate(words, 1)
    ]
    write(store, RunModel, *runs[:2])
    assert "further failures" not in browser.get("/").text
    assert "further errors" not in browser.get("/entry?name=a").text
    write(store, RunModel, *runs[2:])
    assert "further failures" in browser.get("/").text
    assert "further errors" in browser.get("/entry?name=a").text


@pytest.mark.parametrize(
    ("state", "missed", "said"),
    [
        ("succeeded", 0, ""),
        ("succeeded", 1, "1 earlier due time,"),
        ("succeeded", 1001, "1,000+ earlier due times,"),
        ("missed", 1, ""),
        ("missed", 7, "7 due times,"),
        ("skipped", 1001, "1,000+ due times,"),
    ],
)
def test_a_run_says_what_it_covers(
    browser: Client, store: Store, state: str, missed: int, said: str
) -> None:
    """A run covers earlier due times; a record counts its own one, too. The count ends at 1,000."""
    entry, now = store.add("a", "t.x", Every(60)), store.now()
    covered: dict[str, Any] = {"missed_count": missed, "first_missed_at": now - HOUR}
    write(store, RunModel, run(entry, now, state=state, **(covered if missed else {})))
    page = browser.get(f"/run?id={store.runs('a')[0].id}").text
    assert re.findall(r"<dt>covers</dt><dd>([^<]*) from <time", page) == ([said] if said else [])
    printed = Command(store.database.url.render_as_string(hide_password=False))(
        "run", str(store.runs("a")[0].id)
    ).out
    assert said.rstrip(",") in printed
    assert ("due time" in printed) == bool(said)


def test_the_graph_tells_no_due_time_of_what_is_paused(browser: Client, store: Store) -> None:
    """Only an active entry has one there, as in the graph of the command line."""
    store.add("up", "t.x", Every(3600))
    store.add("down", "t.x", Every(3600), after=["up"])
    store.pause("down")
    page = browser.get("/graph").text
    texts = re.findall(r'<text class="faint"[^>]*>([^<]*)</text>', page)
    assert sorted(text.partition(",")[0] for text in texts) == ["active", "paused"]
    assert "paused" in texts


@on_sqlite
def test_a_tick_that_took_for_ever(browser: Client, store: Store) -> None:
    """A number without an end, which plain SQL can write, breaks no page."""
    fill(store)
    with store.database.session() as session:
        session.execute(sql("UPDATE beatstore_beat SET tick_s = 9e999"))
        session.commit()
    for path in ("/", "/processes"):
        assert browser.get(path).status_code == 200


def test_a_paused_entry_is_not_due(migrated_url: str, browser: Client, store: Store) -> None:
    """The lists say when an active entry is due next; what a paused one was due at is long over."""
    due = f"{store.add('yearly', 't.x', '0 2 1 1 *', timezone='UTC').next_due_at:%Y-%m-%d}"
    assert due in browser.get("/entries").text
    assert due in Command(migrated_url)("list").out
    store.pause("yearly")
    assert due not in browser.get("/entries").text
    assert due not in Command(migrated_url)("list").out
