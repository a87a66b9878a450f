"""One request to the dashboard, with what a page needs to answer it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from werkzeug.exceptions import BadRequest, Forbidden
from werkzeug.routing import MapAdapter
from werkzeug.wrappers import Request, Response

from beatstore.definition.spec import FIELDS
from beatstore.errors import ScheduleError
from beatstore.records import Audit, Entry
from beatstore.schedules import retold, shown_in, zone
from beatstore.store import Store
from beatstore.text import times
from beatstore.text.secrets import hide
from beatstore.text.values import away
from beatstore.types import SessionLike
from beatstore.version import __version__
from beatstore.web.access import Actor

if TYPE_CHECKING:
    from beatstore.web.dashboard import Dashboard

__all__ = ["ZONE_COOKIE", "Call", "whole"]

#: The menu: pages and their labels.
MENU = (
    ("today", "Today"),
    ("entries", "Entries"),
    ("runs", "Runs"),
    ("upcoming", "Upcoming"),
    ("graph", "Graph"),
    ("audit", "Audit"),
    ("processes", "Beats and workers"),
    ("storage", "Database"),
)

#: The columns that hold what a task is called with.
_ARGUMENTS = frozenset(("args", "kwargs", "options"))

#: The columns in which beat keeps its place; edits change them too, but nobody asks for them.
_PROGRESS = frozenset(
    ("id", "cursor_at", "next_due_at", "run_count", "success_seq", "failure_seq", "done_seq")
)

#: What an added entry need not say.
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    column: (*_EMPTY, one.left_out)
    for one in FIELDS.values()
    if one.is_ever_left_out
    for column in one.keys
}

#: What is said after a form has done its work.
DONE: Mapping[str, str] = {
    "pause": "Paused.",
    "resume": "Resumed.",
    "trigger": "Triggered: beat sends it at its next tick.",
    "cancel": "Cancelled.",
    "remove": "Removed.",
    "change": "Changed.",
    "add": "Added.",
    "tag": "Tagged.",
    "rerun": "Beat sends it again at its next tick.",
    "end": "Ended.",
    "renamed": "Nothing was done: the entry was renamed meanwhile. This is its page now.",
    "too late": "It was too late: its last run has been sent or is about to be.",
}

#: The cookie with the time zone that the reader chose.
ZONE_COOKIE = "beatstore_zone"

#: A number in an address or a form has at most so many digits; Python reads no more than 4,300.
_DIGITS = 100


def whole(given: str) -> int | None:
    """Return a whole number in an address or a form; None if it is none, or absurdly long."""
    return int(given) if given.isdecimal() and len(given) <= _DIGITS else None


@dataclass
class Call:
    """One request.

    Attributes:
        dashboard: whose page is asked for.
        request: the HTTP request.
        actor: who sent it.
        links: makes the links to other pages.
        endpoint: the page's name; "" before the route is known.
        nonce: the random mark of this page's own scripts.
    """

    dashboard: Dashboard
    request: Request
    actor: Actor
    links: MapAdapter
    nonce: str
    endpoint: str = ""
    _session: SessionLike | None = field(default=None, repr=False)

    # -- the database ----------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The store that pages read from."""
        return self.dashboard.store

    def changing(self) -> Store:
        """Return the store for a change: the audit gets the actor and the form's reason."""
        return self.store.by(self.actor.name, reason=self.reason)

    @property
    def reason(self) -> str | None:
        """The reason that the form gives for its change."""
        return self.request.form.get("reason", "").strip() or None

    @contextmanager
    def reading(self) -> Iterator[SessionLike]:
        """Open the transaction of this page's reads: one snapshot, with a limit of time."""
        if self._session is not None:
            yield self._session
            return
        with self.store.reading(timeout=self.dashboard.timeout) as session:
            self._session = session
            try:
                yield session
            finally:
                self._session = None

    def require(self, action: str, entry: Entry | None) -> None:
        """Refuse the request unless the actor may do that to the entry.

        Raises:
            Forbidden: they may not.
        """
        if not self.actor.may(action, entry):
            of = f" {entry.name!r}" if entry is not None else ""
            raise Forbidden(f"{self.actor.name} may not {action}{of}.")

    # -- links and forms -------------------------------------------------------------------

    def url(self, endpoint: str, **values: Any) -> str:
        """Return the path of a page, below the prefix that the dashboard is mounted at."""
        given = {key: value for key, value in values.items() if value not in (None, "", ())}
        return self.links.build(endpoint, given)

    def again(self, **values: Any) -> str:
        """Return the path of this page with other parameters; None removes one."""
        given: dict[str, Any] = {**self.request.args.to_dict(), **values}
        return self.url(self.endpoint, **given)

    def given(self, name: str) -> str | None:
        """Return a parameter of the address; None if it is missing or empty."""
        return self.request.args.get(name, "").strip() or None

    def row_id(self, given: str, of: str) -> int:
        """Return the id of a row.

        Raises:
            BadRequest: it is not a number. `of` says whose id it should be.
        """
        found = whole(given)
        if found is None:
            raise BadRequest(f"{given[:50]!r} is not the id of {of}.")
        return found

    def before_id(self, of: str) -> int | None:
        """Return the id of the last row of the page before; None for the first page.

        Raises:
            BadRequest: it is not a number.
        """
        given = self.given("before")
        return None if given is None else self.row_id(given, of)

    def menu(self) -> Sequence[tuple[str, str]]:
        """Return the pages of the menu, each with its label."""
        return MENU

    @property
    def version(self) -> str:
        """The version of beatstore."""
        return __version__

    def done(self) -> str:
        """Return what the form before this page has done, in words; "" for nothing."""
        action = self.request.args.get("done", "")
        count = whole(self.request.args.get("count", "1"))
        if action not in DONE or count is None:
            return ""
        return DONE[action] if count == 1 else f"{DONE[action]} {count:,} times."

    # -- times -----------------------------------------------------------------------------

    @cached_property
    def now(self) -> datetime:
        """The database's time."""
        with self.reading() as session:
            return self.store.now(session=session)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The reader's time zone: that of the cookie, or the default one of the settings."""
        chosen = self.request.cookies.get(ZONE_COOKIE, "")
        for name in (chosen, self.store.settings.default_timezone):
            try:
                return zone(name)
            except ScheduleError:
                continue
        return zone("UTC")

    def keep_zone(self, name: str) -> None:
        """Read and show times in the zone that a form was shown in, whatever the cookie has now."""
        with suppress(ScheduleError):
            self.zone = zone(name)

    def instant(self, text: str) -> datetime:
        """Return the instant that somebody wrote; without a zone, in the reader's.

        Raises:
            ValueError: it is none.
        """
        return times.read(text).instant(self.zone.key, lambda: self.now)

    def given_instant(self, name: str) -> datetime | None:
        """Return an instant in a parameter of the address; None if it is missing or empty.

        Raises:
            ValueError: it is none; the message says what to write.
        """
        text = self.given(name)
        try:
            return None if text is None else self.instant(text)
        except ValueError as error:
            wanted = f"{text!r} is not a time ({error}); write 03:00 or 2026-01-31 03:00."
            raise ValueError(wanted) from error

    def at(self, instant: object, entry_zone: str | None = None) -> Markup | str:
        """Return an instant in the reader's zone, as a `time` element.

        Args:
            instant: the instant; whatever else a row written by hand holds is shown as text.
            entry_zone: the entry's own zone; the hint shows the time in it.
        """
        shown = self.plain(instant)
        if not isinstance(instant, datetime):
            return shown
        hint = f"{times.full(instant, self.zone)} {self.zone.key}"
        if entry_zone and entry_zone != self.zone.key:
            hint += f"; {times.full(instant, zone(entry_zone))} {entry_zone}"
        text = '<time datetime="{}" title="{}">{}</time>'
        return Markup(text).format(instant.isoformat(), hint, shown)

    def plain(self, instant: object) -> str:
        """Return an instant in the reader's zone, as plain text."""
        if not isinstance(instant, datetime):
            return "" if instant is None else str(instant)
        return times.short(instant, self.zone, self.now)

    def clock(self, instant: datetime) -> str:
        """Return the time of day of an instant; if the clock shows it twice, with the offset."""
        local, offset = shown_in(instant, self.zone)
        return f"{local:%H:%M}{offset}"

    def since(self, age: timedelta) -> str:
        """Return an instant so long ago, as the filters of runs read it."""
        return times.full(self.now - age, self.zone)

    def brief(self, text: object) -> str:
        """Return the first line of a text, cut to 200 characters, without passwords."""
        lines = self.localized(text).strip().splitlines()
        return lines[0][:200] if lines else ""

    def with_commands(self, text: object) -> Markup:
        """Return a sentence with what stands between backticks as code."""
        parts = self.localized(text).split("`")
        return Markup("").join(
            Markup("<code>{}</code>").format(part) if index % 2 else part
            for index, part in enumerate(parts)
        )

    def ago(self, instant: object) -> str:
        """Return how long ago an instant is, or in how long it will be."""
        return away(instant - self.now) if isinstance(instant, datetime) else ""

    def localized(self, text: object) -> str:
        """Return a sentence with its instants in the reader's zone, and without passwords."""
        return hide(retold(str(text or ""), self.plain))

    def differences(self, change: Audit) -> list[tuple[str, Any, Any]]:
        """Return the fields of a change, each with its old and its new value."""
        old, new = change.before or {}, change.after or {}
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            return []  # written by hand
        rows = [
            (field, self.shown(field, old.get(field)), self.shown(field, new.get(field)))
            for field in sorted({*old, *new} - _PROGRESS)
            if old.get(field) != new.get(field)
        ]
        if change.before is None:  # what was added has all columns
            return [row for row in rows if row[2] not in _DEFAULTS.get(row[0], _EMPTY)]
        return rows

    def shown(self, field: str, value: Any) -> Any:
        """Return a changed value as it is shown: instants in the reader's zone, no secrets."""
        if isinstance(value, str) and field.endswith("_at"):
            with suppress(ValueError):
                return self.plain(datetime.fromisoformat(value))
        return self.redacted(field, value)

    def redacted(self, column: str, value: Any) -> Any:
        """Return the value of an entry's column as it is shown, without secrets in arguments."""
        return self.dashboard.redact(value) if column in _ARGUMENTS else value

    # -- answers ---------------------------------------------------------------------------

    def render(self, template: str, code: int = 200, **values: Any) -> Response:
        """Return a page made from a template.

        Args:
            template: the file's name in `templates/`.
            code: the HTTP status.
            values: what the template shows.
        """
        page = self.dashboard.templates.get_template(template)
        text = page.render(call=self, **values)
        return Response(text, status=code, mimetype="text/html")

    def see(self, endpoint: str, **values: Any) -> Response:
        """Return the answer to a form: go and see that page."""
        return Response(status=303, headers={"Location": self.url(endpoint, **values)})

    def form(self) -> Mapping[str, str]:
        """Return the fields of the form that was sent, the first value of each."""
        return self.request.form.to_dict()
