"""Shell completion of names; completes nothing when the database cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import click

from beatstore.cli.context import open_store
from beatstore.store import Store

__all__ = ["complete_edge", "complete_entry"]

#: At most how many names are offered.
_LIMIT = 50


def complete_entry(context: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of entries with this prefix."""
    return _ask_store(context, lambda store: store.names(name=f"{incomplete}*", limit=_LIMIT))


def complete_edge(context: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of upstreams with this prefix."""
    return [] if ":" in incomplete else complete_entry(context, param, incomplete)


def _ask_store(context: click.Context, question: Callable[[Store], list[str]]) -> list[str]:
    with suppress(Exception):
        _load_app(context.find_root())
        # A context made for completion is never closed.
        with closing(open_store(context)) as store:
            return question(store)
    return []


def _load_app(root: click.Context) -> None:
    """Load the app of `celery -A`; celery does not, during completion."""
    name: Any = root.params.get("app")
    if root.obj is None and isinstance(name, str):
        from celery.app.utils import find_app  # noqa: PLC0415  (not for `beatstore --url`)
        from celery.bin.base import CLIContext  # noqa: PLC0415

        root.obj = CLIContext(find_app(name), no_color=True, workdir=None)
