"""The dashboard's pages show what is stored, as text, and say what is wrong."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from html import unescape

import pytest
from sqlalchemy import text as sql
from werkzeug.test import Client

from beatstore import After, Cron, Every, ManualClock, Store
from beatstore.models import BeatModel, RunModel
from beatstore.web import Dashboard
from tests.support.written import MINUTE, run, write

pytestmark = pytest.mark.quick_on("sqlite")

MARKUP = "<script>alert(1)</script>"


def shown(browser: Client, path: str, **query: str) -> str:
    """Return the text of a page that must be there."""
    response = browser.get(path, query_string=query)
    assert response.status_code == 200, unescape(response.text)
    return unescape(response.text)


@pytest.mark.parametrize("path", ["/", "/entries", "/runs"])
def test_an_empty_database_says_what_to_type(browser: Client, path: str) -> None:
    """A page without anything to show is a page all the same."""
    assert "beatstore" in shown(browser, path)


def test_the_list_shows_the_schedule_in_words(browser: Client, store: Store) -> None:
    """A row has the name, the task, the words and the zone."""
    store.add("nightly", "etl.extract", Cron("0 3 * * *"), timezone="Europe/Berlin", tags=["etl"])
    page = shown(browser, "/entries")
    for said in ("nightly", "etl.extract", "every day at 03:00", "Europe/Berlin", "etl"):
        assert said in page


def test_filters_are_in_the_address(browser: Client, store: Store) -> None:
    """A form of GET: a part of a name, a tag and a state each leave out the others."""
    store.add("etl.load", "t.x", Every(60), tags=["a"])
    store.add("mail", "t.x", Every(60), paused=True)
    assert "mail" not in shown(browser, "/entries", name="load")
    assert "etl.load" not in shown(browser, "/entries", state="paused")
    assert "mail" not in shown(browser, "/entries", tag="a")
    assert "No entry matches" in shown(browser, "/entries", tag="b")


def test_pages_follow_each_other_without_a_gap(browser: Client, store: Store) -> None:
    """The link to the next page begins after the last name."""
    for number in range(60):
        store.add(f"entry-{number:02}", "t.x", Every(60))
    page = shown(browser, "/entries")
    assert "entry-49" in page
    assert "entry-50" not in page
    assert "after=entry-49" in page
    assert "entry-59" in shown(browser, "/entries", after="entry-49")


def test_an_entry_is_explained(browser: Client, store: Store) -> None:
    """The explanation, the next due times, both kinds of edges and the changes are there."""
    store.add("extract", "t.x", Every(60))
    store.add("load", "t.x", Every(60), after=[After("extract", on="done")])
    store.by("bob").pause("load")
    page = shown(browser, "/entry", name="load")
    for said in ("paused", "bob", "extract", "done"):
        assert said in page
    assert "load" in shown(browser, "/entry", name="extract")


def test_any_instant_can_be_asked_about(browser: Client, store: Store) -> None:
    """What is no time is answered with what to write."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    assert "future" in shown(browser, "/entry", name="nightly", at="9998-01-01 03:00")
    assert "write 03:00" in shown(browser, "/entry", name="nightly", at="at noon")


@pytest.mark.parametrize("path", ["/entries", "/entry", "/entry?at=03:00"])
def test_markup_is_shown_and_not_executed(browser: Client, store: Store, path: str) -> None:
    """A name, a task, a tag, a description and an argument of markup are text."""
    store.add(MARKUP, MARKUP, Every(60), tags=[MARKUP], description=MARKUP, kwargs={MARKUP: MARKUP})
    response = browser.get(path, query_string={"name": MARKUP} if "?" not in path else None)
    assert MARKUP not in response.text


@pytest.mark.parametrize("name", ["a/b", "a?b=c&d#e", "..", "%2e%2e/x", "Übung ☂", "two words"])
def test_any_name_has_a_page(browser: Client, store: Store, name: str) -> None:
    """Names go into links as parameters, so that none of their characters means anything."""
    store.add(name, "t.x", Every(60))
    assert "t.x" in shown(browser, "/entry", name=name)


def test_secrets_are_hidden(browser: Client, store: Store) -> None:
    """An argument named like a secret, and the password of a URL, are shown as a mark."""
    given = {"api_token": "s3cr3t", "nested": [{"password": "s3cr3t"}], "n": 12345}
    store.add("nightly", "t.x", Every(60), kwargs=given, args=["redis://user:s3cr3t@host/0"])
    store.trigger("nightly")
    (run,) = store.runs("nightly")
    pages = [shown(browser, "/entry", name="nightly"), shown(browser, "/run", id=str(run.id))]
    for page in pages:
        assert "s3cr3t" not in page
        assert "12345" in page


def test_a_hook_decides_what_is_shown_of_arguments(store: Store) -> None:
    """`redact` replaces the default."""
    store.add("nightly", "t.x", Every(60), kwargs={"patient": "Erika"})
    dashboard = Dashboard(store, redact=lambda value: {"kept": "back"} if value else value)
    page = shown(Client(dashboard), "/entry", name="nightly")
    assert "Erika" not in page
    assert "back" in page


def test_a_large_argument_is_cut(browser: Client, store: Store) -> None:
    """Megabytes of arguments are shown by their beginning and their length."""
    store.add("nightly", "t.x", Every(60), kwargs={"blob": "x" * 3_000_000})
    page = shown(browser, "/entry", name="nightly")
    assert len(page) < 120_000
    assert "characters)" in page


def test_a_run_has_its_time_line(browser: Client, store: Store) -> None:
    """Its page names the entry, the task's id and the links to other systems."""
    store.add("nightly", "t.x", Every(60))
    store.trigger("nightly")
    (run,) = store.runs("nightly")
    page = shown(browser, "/run", id=str(run.id))
    assert run.task_id in page
    assert "nightly" in page
    assert run.task_id in shown(browser, "/run", task=run.task_id)


def test_links_to_other_systems(store: Store) -> None:
    """The values in an address are quoted."""
    store.add("a&b", "t.x", Every(60))
    store.trigger("a&b")
    (run,) = store.runs("a&b")
    links = {"Flower": "https://flower.example.org/task/{task_id}?of={entry}"}
    page = shown(Client(Dashboard(store, links=links)), "/run", id=str(run.id))
    assert f"https://flower.example.org/task/{run.task_id}?of=a%26b" in page


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/entry?name=nigthly", 404, "did you mean 'nightly'"),
        ("/run?id=999999", 404, "on record"),
        ("/run?id=x", 400, "is not the id of a run"),
        ("/runs?since=noon", 400, "write 03:00"),
        ("/entries?state=pausd", 400, "paused"),
        ("/nowhere", 404, "Not found"),
        ("/static/../dashboard.py", 404, "Not found"),
    ],
)
def test_what_is_wrong_is_said(
    browser: Client, store: Store, path: str, status: int, said: str
) -> None:
    """A page says what was given and what to write, with the right status."""
    store.add("nightly", "t.x", Every(60))
    response = browser.get(path)
    assert response.status_code == status
    assert said in unescape(response.text)


def test_times_are_in_the_zone_of_the_reader(browser: Client, store: Store) -> None:
    """A cookie keeps the zone that the reader chose; the hint has the entry's own."""
    at = datetime(2100, 1, 1, 12, tzinfo=timezone.utc)
    store.add("nightly", "t.x", Cron("0 12 1 1 *"), start_at=at, timezone="Asia/Tokyo")
    assert browser.post("/zone", data={"zone": "America/New_York"}).status_code == 303
    page = shown(browser, "/entry", name="nightly")
    assert "2101-01-01 03:00:00 UTC" not in page
    assert "America/New_York" in page
    assert "Asia/Tokyo" in page
    assert browser.post("/zone", data={"zone": "Mars/Base"}).status_code == 400


def test_the_first_page_is_small(browser: Client, store: Store) -> None:
    """With its style sheet, its scripts and its icon it stays below 120 kB, uncompressed."""
    for number in range(20):
        store.add(f"entry-{number}", "t.x", Every(60))
    page = browser.get("/").text
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(files) == 5
    assert len(page) + sum(len(browser.get(file).data) for file in files) < 120_000


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "path", ["/runs", "/entries", "/entry?name=nightly", "/run?id=1", "/upcoming"]
)
def test_a_broken_run_is_shown(browser: Client, store: Store, path: str) -> None:
    """A cell that holds no instant, written by hand, is shown as it stands, and breaks no page."""
    store.add("nightly", "t.x", Every(60))
    store.trigger("nightly")
    cells = "state = 'failed', started_at = 'at noon', finished_at = 'never', error = 'broken'"
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE beatstore_run SET {cells}")
    response = browser.get(path)
    assert response.status_code == 200
    assert "nightly" in response.text


def test_the_runs_of_nobody_keep_the_form(browser: Client, store: Store) -> None:
    """A misspelt name is told with the one that is meant, and the form has what was typed."""
    store.add("nightly", "t.x", Every(60))
    response = browser.get("/runs?name=nightyl&state=failed")
    assert response.status_code == 404
    page = unescape(response.text)
    assert 'value="nightyl"' in page
    assert "did you mean 'nightly'" in page
    assert "No run matches" not in page


@pytest.mark.parametrize(
    ("query", "status"), [("id=99999999", 404), ("task=nobody", 404), ("id=x", 400)]
)
def test_a_run_that_is_not_there(browser: Client, query: str, status: int) -> None:
    """No such run is on record: perhaps it was deleted. What is no id is a bad request."""
    assert browser.get(f"/run?{query}").status_code == status


def test_a_full_day_is_a_small_page(browser: Client, store: Store) -> None:
    """Minutes in a row that are equally full are one cell, which says how many are due in each."""
    store.add("minutely", "t.x", Cron("* * * * *"))
    page = browser.get("/upcoming").text
    assert page.count('<rect class="l') == 24
    assert "1 due each" in page
    assert len(page) < 60_000


def test_minutes_that_are_over_are_not_counted(browser: Client, store: Store) -> None:
    """The rows are whole hours, and of the first one only what is still to come counts."""
    clock = store.database.clock = ManualClock(datetime(2026, 1, 15, 12, 39, tzinfo=timezone.utc))
    store.add("minutely", "t.x", Cron("* * * * *"))
    clock.advance(60)
    page = browser.get("/upcoming").text
    due = re.findall(r'<th scope="row">([\d:]+)</th>.*?<td class="number">(\d+)</td>', page)
    assert due[:2] == [("12:00", "20"), ("13:00", "60")]
    assert len(due) == 24


def test_a_beat_shows_how_it_sends(browser: Client, store: Store) -> None:
    """The step of its latest batch, and why it is not a faster one."""
    now = store.now()
    beat = {"id": "b", "host": "here", "pid": 7, "version": "1", "tzdata": "x"}
    step = "hooks: by apply_async, since <somebody> looks on"
    write(store, BeatModel, {**beat, "started_at": now, "heartbeat_at": now, "step": step})
    page = shown(browser, "/processes")
    assert 'hooks<span class="under">by apply_async, since <somebody> looks on</span>' in page


def test_a_full_hour_says_what_is_counted(
    browser: Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page counts the newest runs, and says since when."""
    entry, now = store.add("a", "t.x", Every(3600)), store.now()
    write(store, RunModel, *(run(entry, now - n * MINUTE) for n in (1, 2, 3)))
    assert "counted are the newest" not in shown(browser, "/")
    monkeypatch.setattr("beatstore.store.status._COUNTED", 1)
    page = shown(browser, "/")
    assert '<p class="figure">2+</p>' in page
    assert "of the newest, due since" in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/run?id={}", 400),
        ("/runs?before={}", 400),
        ("/audit?before={}", 400),
        ("/upcoming?limit={}", 400),
        ("/?done=pause&count={}", 200),
        ("/nowhere?done=pause&count={}", 404),
    ],
)
def test_a_number_of_five_thousand_digits(browser: Client, path: str, status: int) -> None:
    """It is no number that anybody means: the page says so, and nothing fails."""
    assert browser.get(path.format("9" * 5000)).status_code == status


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/run/act", {"id": "9" * 5000, "action": "rerun"}),
        ("/entry/edit", {"name": "a", "version": "9" * 5000, "grace": "5m", "save": "1"}),
    ],
)
def test_a_form_with_such_a_number(
    browser: Client, store: Store, path: str, form: dict[str, str]
) -> None:
    """The same in a form."""
    store.add("a", "t.x", Every(60))
    assert browser.post(path, data=form).status_code == 400


def test_the_longest_list_leads_to_no_longer_one(browser: Client, store: Store) -> None:
    """Upcoming shows more by a link, but at 1,000 there is no more, and no link to itself."""
    store.add("a", "t.x", Every(60))
    assert "limit=1000" in shown(browser, "/upcoming", limit="900")
    page = shown(browser, "/upcoming", limit="1000")
    assert "limit=" not in page
    assert "beatstore next" in page


def test_an_old_name_leads_to_the_entry(browser: Client, store: Store) -> None:
    """Runs, failures and changes keep the name of then; their links lead to the entry of now."""
    entry = store.add("first", "t.x", Every(60))
    write(store, RunModel, run(entry, store.now() - MINUTE, state="failed", error="no disk"))
    store.change("first", new_name="second")
    store.change("second", new_name="third")
    for path in ("/", "/runs", "/upcoming", "/audit"):
        assert "/entry?name=first" in browser.get(path).text, path
    response = browser.get("/entry?name=first")
    assert (response.status_code, response.headers["Location"]) == (303, "/entry?name=third")
    store.add("first", "t.x", Every(60))
    assert browser.get("/entry?name=first").status_code == 200


def test_what_is_left_of_a_removed_entry(browser: Client, store: Store) -> None:
    """Its page says who removed it and why, and leads to its runs and its changes."""
    entry = store.add("gone", "t.x", Every(60))
    write(store, RunModel, run(entry, store.now() - MINUTE, state="failed", error="no disk"))
    store.change("gone", new_name="gone for good")
    store.by("maria", "no <longer> needed").remove("gone for good")
    for name in ("gone", "gone for good"):
        response = browser.get("/entry", query_string={"name": name})
        assert response.status_code == 404
        page = unescape(response.text)
        assert "'gone for good' was removed" in page
        assert "by maria: 'no <longer> needed'" in page
        links = re.findall(r'<a href="([^"]+)">(?:runs|changes)</a>', page)
        assert len(links) == 2
    assert "no disk" in browser.get("/runs?name=gone").text
    assert "Look for" not in browser.get("/entry?name=nobody").text
    store.add("a", "t.x", Every(60))
    store.change("a", new_name="b")
    store.change("b", new_name="a")
    with store.database.session() as session:
        session.execute(sql("DELETE FROM beatstore_entry WHERE name = 'a'"))
        session.commit()
    assert browser.get("/entry?name=a").status_code == 404
