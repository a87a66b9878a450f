"""The beats and the workers on record."""

from __future__ import annotations

from werkzeug.wrappers import Response

from beatstore.web.call import Call

__all__ = ["processes"]


def processes(call: Call) -> Response:
    """Return the page of beats and workers."""
    with call.reading() as session:
        beats = call.store.beats(session=session)
        workers = call.store.workers(session=session)
        return call.render("processes.html", beats=beats, workers=workers)
