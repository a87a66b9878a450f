"""The store that a verb works on: that of the Celery app, or of `--url`.

On failure: a usage error if no database is named, `ConfigError` if a setting is invalid, and
`SchemaError` if an SQLite file does not exist (to open it would create an empty one).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from beatstore.appconf import given_settings, read_settings
from beatstore.cli.group import Verbs
from beatstore.config import Settings
from beatstore.errors import SchemaError
from beatstore.store import Store
from beatstore.store.audit import os_user

__all__ = ["app_of", "open_store"]

_KEY = "beatstore.cli.store"


def app_of(context: click.Context) -> Any:
    """Return the Celery app of `celery -A`; None for `beatstore --url`."""
    # Completion sets the root's app after the contexts below it were made.
    return getattr(context.obj or context.find_root().obj, "app", None)


def open_store(context: click.Context, *, make: bool = False) -> Store:
    """Return the store that a verb works on: one per call, closed after it.

    If the verb has `--reason`, its changes are noted with the reason.

    Args:
        context: of the verb.
        make: whether to create an SQLite file that does not exist.
    """
    store: Store | None = context.meta.get(_KEY)
    if store is None:
        settings = _settings(context)
        store = Store(settings.url, settings=settings)
        store.database.program = "beatstore-cli"
        context.meta[_KEY] = store
        context.call_on_close(store.close)
    _look_for_file(store, make=make)
    reason = context.params.get("audit_reason")
    return store if reason is None else store.by(os_user(), reason)


def _settings(context: click.Context) -> Settings:
    group = context
    while group.parent is not None and not isinstance(group.command, Verbs):
        group = group.parent
    app = app_of(context)
    url = group.params.get("url")
    schema = group.params.get("schema")
    if app is None:
        url = url or os.environ.get("BEATSTORE_URL")
        schema = schema or os.environ.get("BEATSTORE_SCHEMA") or None
    if app is None and not url:
        message = (
            "No database given. Write `beatstore --url postgresql+psycopg://user@host/database …`, "
            "set BEATSTORE_URL, or write `celery -A proj beatstore …`."
        )
        raise click.UsageError(message, group)
    named = Settings.read({"beatstore_url": url, "beatstore_schema": schema}) if url else None
    if app is None:
        assert named is not None
        return named
    settings = read_settings(app)
    if named is None and _is_nobodys(context, app):
        message = (
            "No app given. Write `celery -A proj beatstore …`, or set BEATSTORE_URL and write "
            "`beatstore …`."
        )
        raise click.UsageError(message, group)
    if named is not None:
        # The engine options and the schema of the settings are for the app's own database.
        return replace(settings, url=named.url, schema=schema, engine_options={})
    return replace(settings, schema=schema) if schema else settings


def _is_nobodys(context: click.Context, app: Any) -> bool:
    """Return whether `celery` was called without `-A`, and no configuration names a database.

    Its default app would have a file in this directory, which would be made empty.
    """
    given = context.find_root().params
    return "app" in given and given["app"] is None and not given_settings(app).get("beatstore_url")


def _look_for_file(store: Store, *, make: bool) -> None:
    """Refuse an SQLite file that is not there, or that can't be made."""
    path = store.database.kind.file_of(store.database.url)
    if path is None or os.path.exists(path):
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise SchemaError(f"{store.url}: the folder {folder} does not exist")
    if not make:
        raise SchemaError(
            f"{store.url}: the file does not exist; `celery -A proj beatstore migrate` creates it "
            "with the tables"
        )
