"""The dashboard: what runs when, what happened and why, in the browser.

    from beatstore import Store
    from beatstore.web import Actor, Dashboard

    dashboard = Dashboard(Store(url), authorize=lambda request: Actor("anna", can_write=True))

A `Dashboard` is a WSGI application. `beatstore.web.flask.blueprint` and
`beatstore.web.django.view` mount it inside those frameworks; `beatstore web` serves it by itself.

    flask, django   mount it in those frameworks
    serve       serve it by itself: passwords, tokens, proxies
    access      who may read and write
    dashboard   routes, security headers, errors
    call        one request: its links, times and reads
    safety      requests of other sites, and the headers of each response
    pages/      one module per page
    templates/  the HTML; static/: the style sheet and htmx

Every page works without JavaScript.
"""

from __future__ import annotations

from beatstore.web.access import Actor
from beatstore.web.dashboard import Dashboard

__all__ = ["Actor", "Dashboard"]
