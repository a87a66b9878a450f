"""The command line: `celery -A proj beatstore …`."""

from __future__ import annotations

import sys

import click

from beatstore.errors import BeatstoreError
from beatstore.store import Store
from beatstore.store.migrate import revision_of
from beatstore.store.transaction import explained

__all__ = ["beatstore"]


@click.group()
def beatstore() -> None:
    """Look after the entries that beat sends."""


@beatstore.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create the tables, or bring them to the revision this version needs."""
    try:
        store = Store.from_app(context.obj.app)
        with explained(store.database):
            before = revision_of(store.database)
            store.migrate()
            after = revision_of(store.database)
    except BeatstoreError as error:
        click.echo(f"beatstore: {error}", err=True)
        sys.exit(1)
    done = f"at revision {after} already" if before == after else f"now at revision {after}"
    click.echo(f"beatstore: {store.url} is {done}")
