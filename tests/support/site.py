"""A dashboard on a port of this machine, for tests that look at it with a browser."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from typing_extensions import Self
from waitress.server import create_server
from waitress.wasyncore import close_all
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from beatstore import Store
from beatstore.web import Actor, Dashboard
from tests.support.ports import free_port

__all__ = ["Site"]


class Site:
    """A dashboard that waitress serves in a thread of its own.

    Attributes:
        store: whose entries it shows.
        actor: who sends its requests; a test may put somebody else there.
        signed_out: whether requests are nobody's, and are redirected to `sign_in`.
        sign_in: an address that anybody may read.
        url: its first page, without the slash at the end.
        origin: the scheme, the host and the port of that.
    """

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Make one that is mounted below a prefix such as "/ops/beat"."""
        self.store = store
        self.actor = Actor("anna", can_write=True)
        self.signed_out = False
        port = free_port()
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + prefix
        self.sign_in = f"{self.url}/static/htmx-LICENSE.txt"
        dashboard = Dashboard(store, authorize=self._authorize)
        app = DispatcherMiddleware(NotFound(), {prefix: dashboard}) if prefix else dashboard
        self._sockets: dict[int, Any] = {}
        # Its types know neither the trigger nor how it is called.
        self._server: Any = create_server(
            app, self._sockets, host="127.0.0.1", port=port, threads=4
        )
        self._thread = threading.Thread(target=self._server.run, name="site", daemon=True)

    def _authorize(self, _: object) -> Actor:
        if self.signed_out:
            answer = Response(status=302, headers={"Location": self.sign_in})
            raise HTTPException(response=answer)
        return self.actor

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
