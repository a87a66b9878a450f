"""One run: its time line, its arguments, its error, and where else it can be looked up."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from beatstore.errors import InvalidEntryError
from beatstore.records import Run
from beatstore.rules.states import RECORDS, UNFINISHED, WITH_WORKER
from beatstore.text.values import covered
from beatstore.web.bars import bars
from beatstore.web.call import Call
from beatstore.web.filters import duration

__all__ = ["run"]

#: The steps of a run's time line, with the column of each.
_STEPS = (
    ("due", "due_at"),
    ("sent", "sent_at"),
    ("started", "started_at"),
    ("ended", "finished_at"),
)


def run(call: Call) -> Response:
    """Return the page of one run, by `id`, or by `task` for the id of its task."""
    asked = call.given("task") or call.row_id(call.given("id") or "", "a run")
    with call.reading() as session:
        try:
            found = call.store.run(asked, session=session)
        except InvalidEntryError as error:  # no such run is on record
            raise NotFound(str(error)) from error
        entry = found.entry
        return call.render(
            "run.html",
            run=found.run,
            attempts=found.attempts,
            bar=bars([found.run])[0],
            entry=entry,
            steps=_steps(found.run),
            covers=covered(found.run.missed_count, is_record=found.run.state in RECORDS),
            args=call.redacted("args", entry.args) if entry else None,
            kwargs=call.redacted("kwargs", entry.kwargs) if entry else None,
            options=call.redacted("options", entry.options) if entry else None,
            parts=call.dashboard.redact(found.run.parts),
            links=_links(call, found.run),
            can_rerun=found.run.state not in UNFINISHED and call.actor.may("rerun", entry),
            can_end=found.run.state in WITH_WORKER and call.actor.may("end", entry),
        )


def _steps(run: Run) -> list[tuple[str, datetime, str]]:
    """Return the steps that are known, each with the time since the one before it."""
    shown: list[tuple[str, datetime, str]] = []
    for name, column in _STEPS:
        at = getattr(run, column)
        if isinstance(at, datetime):
            since = (at - shown[-1][1]).total_seconds() if shown else 0.0
            sign = "-" if since < 0 else "+"
            shown.append((name, at, f"{sign}{duration(abs(since))}" if shown else ""))
    return shown


def _links(call: Call, run: Run) -> list[tuple[str, str]]:
    """Return the links to other systems, each with its title."""
    known = (run.due_at, run.sent_at, run.started_at, run.finished_at)
    instants = [at for at in known if isinstance(at, datetime)]
    ends = [run.finished_at] if isinstance(run.finished_at, datetime) else [call.now]
    given = {
        "task_id": run.task_id,
        "run_id": run.id,
        "entry": run.entry_name,
        "worker": run.worker or "",
        "start": int(min(instants, default=call.now).timestamp() * 1000),
        "end": int(ends[0].timestamp() * 1000),
    }
    quoted = {name: quote(str(value), safe="") for name, value in given.items()}
    return [(title, url.format_map(quoted)) for title, url in call.dashboard.links.items()]
