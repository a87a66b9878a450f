"""The verbs of those who run it."""

from __future__ import annotations

import click

from beatstore.cli.context import open_store
from beatstore.store.migrate import revision_of
from beatstore.store.transaction import explained

__all__ = ["migrate"]


@click.command()
@click.pass_context
def migrate(context: click.Context) -> None:
    """Create the tables, or bring them to the revision this version needs."""
    store = open_store(context, make=True)
    with explained(store.database):
        before = revision_of(store.database)
        store.migrate()
        after = revision_of(store.database)
    done = f"at revision {after} already" if before == after else f"now at revision {after}"
    click.echo(f"beatstore: {store.url} is {done}")
