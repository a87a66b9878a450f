"""A dashboard on a port of this machine, for tests that look at it with a browser."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from typing_extensions import Self
from waitress.server import create_server
from waitress.wasyncore import close_all
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from beatstore import Store
from beatstore.web import Actor, Dashboard
from tests.support.ports import free_port

__all__ = ["Site"]


class Site:
    """A dashboard that waitress serves in a thread of its own.

    Attributes:
        store: whose entries it shows.
        actor: who sends its requests; a test may put somebody else there.
        url: its first page, without the slash at the end.
        origin: the scheme, the host and the port of that.
    """

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Make one that is mounted below a prefix such as "/ops/beat"."""
        self.store = store
        self.actor = Actor("anna", can_write=True)
        port = free_port()
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + prefix
        dashboard = Dashboard(store, authorize=lambda _: self.actor)
        app = DispatcherMiddleware(NotFound(), {prefix: dashboard}) if prefix else dashboard
        self._sockets: dict[int, Any] = {}
        # Its types know neither the trigger nor how it is called.
        self._server: Any = create_server(
            app, self._sockets, host="127.0.0.1", port=port, threads=4
        )
        self._thread = threading.Thread(target=self._server.run, name="site", daemon=True)

    def __enter__(self) -> Self:
        """Serve it."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, with the connections that the browser keeps open."""
        # The loop ends when it has no socket left, and looks at them in its own thread.
        self._server.trigger.pull_trigger(lambda: close_all(self._sockets, ignore_all=True))
        self._thread.join(10)
        self._server.task_dispatcher.shutdown()
        assert not self._thread.is_alive()
