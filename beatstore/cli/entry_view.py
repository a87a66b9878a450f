"""How the command line shows one entry: its schedule in a few words, or all its fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from beatstore.cli.output import View
from beatstore.definition.spec import COLUMNS, FIELDS
from beatstore.errors import ScheduleError
from beatstore.records import Entry, Run
from beatstore.rules.gate import run_timeout
from beatstore.rules.graph import Edge
from beatstore.schedules.describe import describe
from beatstore.schedules.every import period_in_words
from beatstore.schedules.instants import is_span
from beatstore.schedules.once import read_instant
from beatstore.store import Store
from beatstore.text.values import as_json, span, text

__all__ = [
    "brief_rule",
    "edge_in_words",
    "facts_of",
    "lines_of",
    "next_due",
    "rule_of",
    "short_rule",
]

#: How many runs and due times are shown.
_SHOWN = 5

#: How many downstreams are named.
_NAMED = 20

_COLUMNS = (
    *("name", *COLUMNS, "state", "error", "next_due_at"),
    *("pending_due_at", "pending_since", "pending_reason"),
    *("success_seq", "failure_seq", "done_seq", "run_count", "last_run_at"),
    *("version", "created_at", "updated_at"),
)

#: The kinds whose schedule is shown as its spec.
_BARE = ("cron", "rrule", "solar")

#: The columns that `lines_of` shows on lines written by hand; `_others` shows the rest.
_IN_WORDS = frozenset(
    (
        *("task", "args", "kwargs", "options", "kind", "spec", "timezone", "start_at", "end_at"),
        *("max_runs", "jitter_s", "misfire", "grace_s", "overlap", "run_timeout_s"),
        *("max_retries", "retry_delay_s", "retry_backoff", "retry_jitter_s"),
        *("description", "source"),
    )
)

_RUN = (
    *("id", "due_at", "attempt", "state", "reason", "first_missed_at", "missed_count"),
    *("task_id", "sent_at", "started_at", "finished_at", "worker", "error"),
)


def brief_rule(rule: Mapping[str, Any], view: View) -> str:
    """Return a schedule for a table; on a terminal, without what other columns show."""
    rule_text = short_rule(rule, view)
    if not view.on_terminal:
        return rule_text
    kind, spec, zone_name = text(rule["kind"]), text(rule["spec"]), rule["timezone"]
    if kind in ("cron", "rrule"):
        return spec if zone_name in (None, view.zone_name) else f"{spec} {zone_name}"
    brief = {"once": "once", "after": "after upstreams", "every": rule_text.partition(" from ")[0]}
    return brief.get(kind, rule_text)


def short_rule(rule: Mapping[str, Any], view: View) -> str:
    """Return a schedule in a few words, from the columns `kind`, `spec` and `timezone`."""
    kind, spec, zone_name = text(rule["kind"]), text(rule["spec"]), rule["timezone"]
    if kind == "after":
        return "after its upstreams"
    if kind == "every":
        seconds, _, anchor = spec.partition(" from ")
        every = f"every {period_in_words(seconds)}"
        return f"{every} from {_anchor(anchor, view)}" if anchor else every
    if kind in ("cron", "rrule") and zone_name:
        return f"{kind} {spec} {zone_name}"
    if kind == "once":
        with suppress(ScheduleError):
            return f"once {view.at(read_instant('spec', spec))}"
    return f"{kind} {spec}"


def rule_of(entry: Entry) -> dict[str, Any]:
    """Return the columns that `short_rule` reads."""
    return {"kind": entry.kind, "spec": entry.spec, "timezone": entry.timezone}


def _anchor(anchor: str, view: View) -> str:
    with suppress(ScheduleError):
        return view.at(read_instant("spec", anchor))
    return anchor


def facts_of(store: Store, name: str) -> dict[str, Any]:
    """Return everything about an entry, by column name."""
    entry = store.get(name)
    edges = store.edges(name)
    return {
        **{column: getattr(entry, column) for column in _COLUMNS},
        "tags": list(entry.tags),
        "edited": list(entry.edited),
        "after": [_upstream(edge) for edge in edges if edge.downstream == name],
        "before": [edge.downstream for edge in edges if edge.upstream == name],
        "words": _words(entry),
        "next": next_due(store, name),
        "runs": [_run(run) for run in store.runs(name, limit=_SHOWN)],
    }


def _words(entry: Entry) -> str:
    """Return the schedule of an entry in words; "" if it has none, or an invalid one."""
    with suppress(ScheduleError):
        return "" if entry.schedule is None else describe(entry.schedule)
    return ""


def next_due(store: Store, name: str) -> list[Any]:
    """Return the next due times of an entry; none if its schedule is invalid."""
    try:
        return list(store.preview(name, _SHOWN))
    except ScheduleError:
        return []


def lines_of(facts: Mapping[str, Any], view: View) -> Iterator[tuple[str, str]]:
    """Yield titles and texts for people; a text may have several lines."""
    yield "name", facts["name"]
    yield "task", facts["task"]
    yield "arguments", _call(facts)
    yield "options", as_json(facts["options"]) if facts["options"] else ""
    yield "schedule", short_rule(facts, view)
    yield "in words", facts["words"] if facts["kind"] in _BARE else ""
    bounded = facts["start_at"] or facts["end_at"]
    yield view.title("within") if bounded else "within", _within(facts, view)
    yield "misfire", _misfire(facts, view)
    yield "overlap", facts["overlap"]
    yield "run timeout", _run_timeout(facts, view)
    yield "retries", _retries(facts)
    yield from _others(facts)
    yield "after", "\n".join(_edge_in_words(edge) for edge in facts["after"])
    yield "before", _downstreams(facts["before"])
    yield "state", _state(facts)
    yield view.title("waits"), _waits(facts, view)
    yield "runs", _counters(facts)
    yield view.title("last run"), view.when(facts["last_run_at"])
    yield view.title("next due"), "\n".join(view.when(at) for at in facts["next"])
    yield view.title("last runs"), "\n".join(_run_in_words(run, view) for run in facts["runs"])
    yield "tags", text(facts["tags"])
    yield "description", facts["description"] or ""
    yield "source", facts["source"]
    yield "differs from code in", text(facts["edited"])
    yield view.title("created"), view.at(facts["created_at"])
    yield view.title("edited"), _edited(facts, view)


def _upstream(edge: Edge) -> dict[str, Any]:
    """Return an edge as `beatstore.After` has it."""
    given = {**asdict(edge), "name": edge.upstream}
    return {key: value for key, value in given.items() if key not in ("upstream", "downstream")}


def _run(run: Run) -> dict[str, Any]:
    return {column: getattr(run, column) for column in _RUN}


def _call(facts: Mapping[str, Any]) -> str:
    parts = [as_json(facts[part]) for part in ("args", "kwargs") if facts[part]]
    return " ".join(parts)


def _within(facts: Mapping[str, Any], view: View) -> str:
    start_at, end_at, runs = facts["start_at"], facts["end_at"], facts["max_runs"]
    parts = [
        f"from {view.at(start_at)}" if start_at else "",
        f"to {view.at(end_at)}" if end_at else "",
        f"at most {_number(runs)} runs" if runs is not None else "",
        f"delayed by up to {_span(facts['jitter_s'])} (jitter)" if facts["jitter_s"] else "",
    ]
    return ", ".join(word for word in parts if word)


def _misfire(facts: Mapping[str, Any], view: View) -> str:
    settings = view.store.settings
    grace = settings.default_grace if facts["grace_s"] is None else facts["grace_s"]
    return f"{facts['misfire'] or settings.default_misfire}, grace {_span(grace)}"


def _run_timeout(facts: Mapping[str, Any], view: View) -> str:
    own = facts["run_timeout_s"]
    seconds = run_timeout(own, facts["overlap"], view.store.settings)
    if seconds is None:
        return ""
    shown = _span(seconds)
    return shown if own is not None else f"{shown} (from beatstore_overlap_timeout)"


def _retries(facts: Mapping[str, Any]) -> str:
    if not facts["max_retries"]:
        return ""
    shown = f"{text(facts['max_retries'])}, delay {_span(facts['retry_delay_s'])}"
    if facts["retry_backoff"] != 1:
        shown += f", backoff {text(facts['retry_backoff'])}"
    jitter = facts["retry_jitter_s"]
    return f"{shown}, jitter up to {_span(jitter)}" if jitter else shown


def _span(seconds: object) -> str:
    """Return a span; what plain SQL wrote and is none, as it stands."""
    return span(seconds) if is_span(seconds) else text(seconds)


def _number(count: object) -> str:
    """Return a number; what plain SQL wrote and is none, as it stands."""
    return f"{count:,}" if isinstance(count, int) else text(count)


def _others(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields that no other line shows, where they differ from the default."""
    for field in FIELDS.values():
        for column in field.columns:
            if column not in _IN_WORDS and facts[column] != field.left_out:
                yield field.name.replace("_", " "), text(facts[column])


def _edge_in_words(edge: Mapping[str, Any]) -> str:
    given = {key: value for key, value in edge.items() if key != "name"}
    return edge_in_words(Edge(edge["name"], "", **given))


def edge_in_words(edge: Edge) -> str:
    """Return an upstream with its condition."""
    return f"{edge.upstream} ({edge.label})" if edge.label else edge.upstream


def _downstreams(names: list[str]) -> str:
    more = len(names) - _NAMED
    shown = ", ".join(names[:_NAMED])
    return f"{shown}, and {more:,} more" if more > 0 else shown


def _state(facts: Mapping[str, Any]) -> str:
    return f"{facts['state']}: {facts['error']}" if facts["error"] else facts["state"]


def _waits(facts: Mapping[str, Any], view: View) -> str:
    if facts["pending_since"] is None:
        return ""
    since = f"since {view.when(facts['pending_since'])}"
    return (
        f"{since}: {view.localized(facts['pending_reason'])}" if facts["pending_reason"] else since
    )


def _counters(facts: Mapping[str, Any]) -> str:
    runs, done = _number(facts["run_count"]), facts["done_seq"]
    if done:
        succeeded, failed = _number(facts["success_seq"]), _number(facts["failure_seq"])
        runs += f"; {succeeded} succeeded, {failed} failed"
    return runs


def _run_in_words(run: Mapping[str, Any], view: View) -> str:
    why = run["error"] or view.localized(run["reason"])
    attempt = f", attempt {run['attempt']}" if run["attempt"] != 1 else ""
    shown = f"{view.at(run['due_at'])}  {run['state']}{attempt}"
    return f"{shown}: {why.strip().splitlines()[0]}" if why.strip() else shown


def _edited(facts: Mapping[str, Any], view: View) -> str:
    version = facts["version"]
    if not isinstance(version, int):
        return f"version {text(version)}"
    times = version - 1
    if times < 1:
        return ""
    return f"{view.at(facts['updated_at'])}, {times:,} edit{'s' if times > 1 else ''}"
