"""Adding and editing: checked before it is saved, and nobody overwrites anybody."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text as sql
from werkzeug.test import Client

from beatstore import After, Cron, Entry, Every, Once, RRule, Store
from beatstore.web import Actor, Dashboard
from tests.support.edit_form import opened, said, sent
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.quick_on("sqlite")


def test_a_form_that_is_sent_as_it_was_changes_nothing(browser: Client, store: Store) -> None:
    """Whatever an entry holds, its texts are read back as the same values."""
    store.add("up", "t.x", Every(60))
    store.add(
        "nightly",
        "t.x",
        Every(5400.25, anchor=datetime(2026, 1, 1, tzinfo=timezone.utc)),
        args=[1, "two", None, 12345678901234567890],
        kwargs={"when": datetime(2026, 5, 1, tzinfo=timezone.utc), "password": "s3cr3t"},
        options={"queue": "etl", "expires": 60},
        start_at=datetime(2030, 1, 1, 1, 2, 3, tzinfo=timezone.utc),
        max_runs=7,
        jitter=timedelta(minutes=2),
        grace=0.5,
        misfire="skip",
        overlap="wait",
        run_timeout=3600,
        max_retries=2,
        retry_backoff=1.5,
        tags=["a", "b"],
        after=[After("up", on="done", first_free=True, timeout=90)],
        description="Line one\nline two",
    )
    before = store.get("nightly")
    page = sent(browser, opened(browser, "nightly"))
    assert "Nothing changes" in said(page)
    assert store.get("nightly") == before
    assert store.get("nightly").after == before.after


RULES = "DTSTART:20260101T090000\nRRULE:FREQ=DAILY;BYHOUR=9\nEXDATE:20260203T090000"


def test_rules_of_several_lines_can_be_edited(browser: Client, store: Store) -> None:
    """An RRULE with its start and exceptions is shown line by line, and is read as it was."""
    store.add("nightly", "t.x", RRule(RULES, "Europe/Berlin"))
    spec = store.get("nightly").spec
    page = sent(browser, opened(browser, "nightly"), grace="7m")
    assert page.status_code == 303, said(page)
    assert (store.get("nightly").spec, store.get("nightly").grace_s) == (spec, 420)
    form = opened(browser, "nightly")
    sent(browser, form, spec=form["spec"].replace("BYHOUR=9", "BYHOUR=10"))
    assert store.get("nightly").spec == spec.replace("BYHOUR=9", "BYHOUR=10")


def test_rules_of_several_lines_can_be_added(browser: Client, store: Store) -> None:
    """What is pasted into the form of a new entry keeps its lines, too."""
    lines = RULES.replace("\n", "\r\n")
    form = {"entry_name": "nightly", "task": "t.x", "kind": "rrule", "spec": lines}
    assert sent(browser, form).status_code == 303
    assert "\n" in store.get("nightly").spec
    assert '<textarea id="i-spec"' in browser.get("/entries/add").text


@pytest.mark.parametrize("field", ["grace", "retry_delay"])
def test_none_at_all_is_not_the_default(browser: Client, store: Store, field: str) -> None:
    """A grace of 0 and a retry at once are shown as 0s; an empty text brings the default back."""
    store.add("nightly", "t.x", Every(60))
    column = f"{field}_s"
    default = getattr(store.get("nightly"), column)
    given: dict[str, Any] = {field: 0}
    store.change("nightly", **given)
    assert opened(browser, "nightly")[field] == "0s"
    page = browser.get("/entry?name=nightly").text
    assert f"<dt>{column.replace('_', ' ')}</dt><dd>0</dd>" in page
    sent(browser, opened(browser, "nightly"), **{field: ""})
    assert getattr(store.get("nightly"), column) == default


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("spec", "30 4 * * *", "30 4 * * *"),
        ("jitter", "2m30s", 150.0),
        ("max_runs", "9", 9),
        ("tags", "x\ny", ("x", "y")),
        ("kwargs", '{"big": 9007199254740993}', {"big": 9007199254740993}),
        ("end_at", "2100-01-01 00:00", datetime(2100, 1, 1, tzinfo=timezone.utc)),
        ("task", "t.other", "t.other"),
        ("description", "Now longer", "Now longer"),
    ],
)
def test_a_field_is_edited(
    browser: Client, store: Store, field: str, text: str, value: object
) -> None:
    """It is stored as it is written, and the audit has who, why and the difference."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    response = sent(browser, opened(browser, "nightly"), **{field: text}, reason="as agreed")
    assert response.status_code == 303, said(response)
    assert getattr(store.get("nightly"), {"jitter": "jitter_s"}.get(field, field)) == value
    change = store.audit("nightly")[0]
    assert (change.actor, change.action, change.reason) == ("anna", "change", "as agreed")


@pytest.mark.parametrize(
    ("column", "wrong", "right"),
    [
        ("end_at", "soon", "2100-01-01 00:00"),
        ("start_at", "soon", ""),
        ("grace_s", "much", "5m"),
        ("retry_backoff", "much", "2"),
        ("jitter_s", float("inf"), ""),
    ],
)
@on_sqlite
def test_what_plain_sql_wrote_is_put_right(
    browser: Client, store: Store, column: str, wrong: object, right: str
) -> None:
    """The form of an entry shows also what is no number and no instant, to be replaced."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    with store.database.session() as session:
        session.execute(sql(f"UPDATE beatstore_entry SET {column} = :wrong"), {"wrong": wrong})
    form, field = opened(browser, "nightly"), column.removesuffix("_s")
    assert form[field] == str(wrong)
    assert sent(browser, form, **{field: right}).status_code == 303
    assert opened(browser, "nightly")[field] != str(wrong)


def test_an_edge_is_added_and_taken_off(browser: Client, store: Store) -> None:
    """Upstreams stand one on each line, with their conditions after a colon."""
    store.add("up", "t.x", Every(60))
    store.add("nightly", "t.x", Every(60))
    sent(browser, opened(browser, "nightly"), after="up:on=done,timeout=5m")
    (edge,) = store.get("nightly").after
    assert (edge.name, edge.on, edge.timeout) == ("up", "done", 300)
    sent(browser, opened(browser, "nightly"), after="")
    assert store.get("nightly").after == ()


def test_nothing_is_saved_before_it_was_seen(browser: Client, store: Store) -> None:
    """The first answer has the due times of now and of then side by side, and the button."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    response = sent(browser, opened(browser, "nightly"), save=False, spec="0 4 * * *")
    page = said(response)
    assert response.status_code == 200
    for words in ("every day at 04:00", "Due now", "Due then", " 03:00<", " 04:00<", 'name="save"'):
        assert words in page
    assert store.get("nightly").spec == "0 3 * * *"
    assert 'name="save"' not in said(browser.get("/entry/edit?name=nightly"))


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("spec", "0 25 * * *", "25"),
        ("kwargs", "{a: 1}", "not JSON"),
        ("kwargs", "[1]", '{"key": 1}'),
        ("jitter", "soon", "90s, 5m, 1h30m"),
        ("max_runs", "many", "max runs"),
        ("after", "nobody", "nobody"),
        ("timezone", "Mars/Base", "Mars/Base"),
        ("kind", "solar", "sunset,52.5,13.4"),
        ("end_at", "at noon", "end at"),
        ("task", "", "task"),
    ],
)
def test_what_cannot_be_saved_is_said_and_kept(
    browser: Client, store: Store, field: str, text: str, words: str
) -> None:
    """The page says what is wrong and what to write, and keeps everything that was typed."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    response = (
        sent(browser, opened(browser, "nightly"), **{field: text}, description="typed before")
        if field != "description"
        else None
    )
    assert response is not None
    assert response.status_code == 400
    assert words in said(response)
    assert "typed before" in said(response)
    assert store.get("nightly").version == 1


def test_two_tabs_do_not_overwrite_each_other(browser: Client, store: Store) -> None:
    """The second is told that somebody has changed the entry since it was opened."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    first, second = opened(browser, "nightly"), opened(browser, "nightly")
    assert sent(browser, first, spec="0 4 * * *").status_code == 303
    response = sent(browser, second, spec="0 5 * * *", description="mine")
    assert response.status_code == 400
    assert "changed this entry meanwhile" in said(response)
    assert store.get("nightly").spec == "0 4 * * *"


def test_secrets_are_hidden_and_kept(browser: Client, store: Store) -> None:
    """The form does not show a secret, and editing what stands beside it keeps it."""
    store.add("nightly", "t.x", Every(60), kwargs={"token": "s3cr3t", "day": 1, "l": [{"pwd": 1}]})
    form = opened(browser, "nightly")
    assert "s3cr3t" not in form["kwargs"]
    sent(browser, form, kwargs=form["kwargs"].replace('"day": 1', '"day": 2'))
    kept = {"token": "s3cr3t", "day": 2, "l": [{"pwd": 1}]}
    assert store.get("nightly").kwargs == kept
    sent(browser, opened(browser, "nightly"), kwargs='{"token": "new"}')
    assert store.get("nightly").kwargs == {"token": "new"}


def test_an_entry_is_added(browser: Client, store: Store) -> None:
    """First it is shown when it is due, then it is stored."""
    form = {
        "entry_name": "nightly",
        "task": "t.x",
        "kind": "cron",
        "spec": "0 3 * * *",
        "tags": "a",
    }
    assert "every day at 03:00" in said(sent(browser, form, save=False))
    assert not store.entries()
    response = sent(browser, form)
    assert response.status_code == 303, said(response)
    entry = store.get("nightly")
    assert (entry.task, entry.spec, entry.tags) == ("t.x", "0 3 * * *", ("a",))
    assert "already exists" in said(sent(browser, form))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("every", "5m"), ("once", "2100-01-01 03:00"), ("rrule", "FREQ=DAILY;BYHOUR=3")],
)
def test_each_kind_of_schedule_is_added(
    browser: Client, store: Store, kind: str, spec: str
) -> None:
    """The kind says how the text beside it is read."""
    form = {"entry_name": "nightly", "task": "t.x", "kind": kind, "spec": spec}
    response = sent(browser, form)
    assert response.status_code == 303, said(response)
    assert store.get("nightly").kind == kind


def test_a_time_is_read_in_the_zone_of_the_reader(browser: Client, store: Store) -> None:
    """What is typed as 03:00 is sent at 03:00 there, not at once and not in another zone."""
    browser.post("/zone", data={"zone": "Asia/Tokyo"})
    form = {"entry_name": "once", "task": "t.x", "kind": "once", "spec": "2100-01-01 03:00"}
    sent(browser, form)
    schedule = store.get("once").schedule
    assert schedule == Once(datetime(2099, 12, 31, 18, tzinfo=timezone.utc))


def test_a_reader_has_no_form(store: Store) -> None:
    """Who may not write gets no form, and what they send is refused."""
    store.add("nightly", "t.x", Every(60))
    browser = Client(Dashboard(store))
    assert browser.get("/entry/edit?name=nightly").status_code == 403
    assert browser.get("/entries/add").status_code == 403
    data = {"name": "nightly", "version": "1", "spec": "5m", "save": "1"}
    assert browser.post("/entry/edit", data=data).status_code == 403
    assert store.get("nightly").version == 1


def test_an_entry_is_renamed(browser: Client, store: Store) -> None:
    """The form has the name, too; what comes of it says so, and its page follows."""
    store.add("nightly", "t.x", Cron("0 3 * * *"))
    form = opened(browser, "nightly")
    checked = sent(browser, form, save=False, new_name="nightly load")
    assert "Changed: name." in said(checked)
    response = sent(browser, form, new_name="nightly load", task="t.y")
    assert response.location == "/entry?name=nightly+load&done=change"
    assert store.get("nightly load").task == "t.y"
    assert store.audit("nightly")[0].after["name"] == "nightly load"
    store.add("other", "t.x", Every(60))
    refused = sent(browser, opened(browser, "other"), new_name="nightly load")
    assert refused.status_code == 400
    assert "nightly load" in said(refused)


def test_a_new_name_needs_the_right_as_well(store: Store) -> None:
    """Whoever may change only some entries can't give one the name of others."""
    rights = Actor("eva", True, lambda _, entry: entry is None or entry.name.startswith("etl"))
    browser = Client(Dashboard(store, authorize=lambda _: rights))
    store.add("etl.load", "t.x", Every(60))
    form = opened(browser, "etl.load")
    assert sent(browser, form, new_name="billing").status_code == 403
    assert sent(browser, form, new_name="etl.new").status_code == 303


@pytest.mark.parametrize("tags", ["billing", "etl\nbilling", ""])
def test_nobody_tags_an_entry_out_of_their_rights(store: Store, tags: str) -> None:
    """The same where tags say what somebody may change, in the form and in the list."""

    def allows(action: str, entry: Entry | None) -> bool:
        return entry is not None and entry.tags == ("etl",)

    browser = Client(Dashboard(store, authorize=lambda _: Actor("eva", True, allows)))
    store.add("load", "t.x", Every(60), tags=["etl"])
    form = opened(browser, "load")
    assert "This can't be saved yet" in said(sent(browser, form, save=False, tags=tags))
    assert sent(browser, form, tags=tags).status_code == 403
    chosen = {"entry": "load", "action": "tag", "tags": tags or "night", "sure": "1"}
    assert browser.post("/entries/bulk", data=chosen).status_code == 409
    assert store.get("load").tags == ("etl",)
    assert sent(browser, form, description="theirs").status_code == 303


def test_another_tab_may_choose_another_zone(browser: Client, store: Store) -> None:
    """The times of a form stay in the zone that it was opened in, and the form names it."""
    at = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    store.add("nightly", "t.x", Every(60), start_at=at)
    form = opened(browser, "nightly")
    browser.post("/zone", data={"zone": "Asia/Tokyo"})
    sent(browser, form, end_at="2031-01-01 12:00")
    assert store.get("nightly").start_at == at
    assert store.get("nightly").end_at == datetime(2031, 1, 1, 12, tzinfo=timezone.utc)
    page = said(browser.get("/entry/edit?name=nightly"))
    assert "Nothing is due before this time. In Asia/Tokyo" in page
    assert "of given and shown times" not in page


URL = "https://me:s3cr3t@files.example/a"


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ('[{"token": "***"}, "https://me:***@files.example/a", 3]', [{"token": "abc"}, URL, 3]),
        ('["https://me:***@files.example/a"]', [URL]),
        ('[0, {"token": "***"}, "https://me:***@files.example/a"]', [0, {"token": "abc"}, URL]),
        ('[{"token": "new"}, "https://me:***@files.example/a"]', [{"token": "new"}, URL]),
        ('[{"key": "***"}, "https://me:***@files.example/a"]', None),
        ('[{"token": "***", "more": "***"}, "x"]', None),
        ('[{"token": "***"}, "https://me:***@other.example/a"]', None),
    ],
)
def test_no_mark_is_stored_in_place_of_a_secret(
    browser: Client, store: Store, typed: str, stored: object
) -> None:
    """A secret stays where it can be found; where it can't, the form asks for the secret itself."""
    store.add("nightly", "t.x", Every(60), args=[{"token": "abc"}, URL])
    page = sent(browser, opened(browser, "nightly"), args=typed)
    if stored is None:
        assert page.status_code == 400
        assert "write the secret itself" in said(page)
        assert store.get("nightly").args == [{"token": "abc"}, URL]
    else:
        assert page.status_code == 303, said(page)
        assert store.get("nightly").args == stored


OF_A, OF_B = {"user": "a", "token": "of a"}, {"user": "b", "token": "of b"}


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ('[{"user": "b", "token": "***"}, {"user": "a", "token": "***"}]', [OF_B, OF_A]),
        ('[{"user": "b", "token": "***"}, 3]', [OF_B, 3]),
        (
            '[{"user": "a2", "token": "***"}, {"user": "b", "token": "***"}]',
            [OF_A | {"user": "a2"}, OF_B],
        ),
        ('[{"user": "c", "token": "***"}, {"user": "a", "token": "***"}]', None),
    ],
)
def test_a_secret_goes_with_what_it_belongs_to(
    browser: Client, store: Store, typed: str, stored: list[Any] | None
) -> None:
    """Where as many items are left as there were, another one may stand in an item's place."""
    store.add("nightly", "t.x", Every(60), args=[OF_A, OF_B])
    sent(browser, opened(browser, "nightly"), args=typed)
    assert store.get("nightly").args == (stored or [OF_A, OF_B])


@pytest.mark.parametrize("typed", ["[true]", "[1.0]", "[true, 2]"])
def test_a_value_of_another_type_is_a_change(browser: Client, store: Store, typed: str) -> None:
    """To Python, 1 and true are equal; to a task they are not."""
    store.add("nightly", "t.x", Every(60), args=[1])
    sent(browser, opened(browser, "nightly"), args=typed)
    assert json.dumps(store.get("nightly").args) == typed
