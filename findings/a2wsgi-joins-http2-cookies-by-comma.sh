#!/usr/bin/env bash
# Libraries: a2wsgi 1.10.10 with Werkzeug 3.1.9, Django 5.2.19, Starlette 1.10.0; server: Granian
# 2.8.9, by HTTP/2.
#
# A good guess: an application sees the same cookies by HTTP/2 as by HTTP/1.1. The server, or what
# stands between it and the application, takes care of the difference.
#
# What it does: a client of HTTP/2 may send each cookie in a Cookie field of its own, and Chrome and
# Firefox do. Granian hands these fields to an ASGI application as they came. a2wsgi and Django's ASGI
# handler join them by a comma, like any repeated header. The first cookie then has the others in its
# value, and the others are missing. Nothing reports an error. Starlette, in the same process, reads
# them all.
#
# Documented: RFC 9113 (8.2.3) wants "; " between the cookies before a "generic HTTP server
# application" gets them. Granian's maintainer leaves that to the application (its issues 539 and
# 717), and Django has a ticket (36399). a2wsgi's documentation does not mention cookies. Servers on
# the Python library h2, such as Hypercorn, pass on one field, so it does not happen there.
#
# Why it matters to schedulers: their dashboards, and Django's admin with them, are mounted in an ASGI
# application in this way. They work by HTTP/1.1, and with a single cookie. With a second one, which
# may be that of another application on the same host, nobody is logged in any more.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet a2wsgi==1.10.10 django==5.2.19 granian==2.8.9 h2==4.4.1 \
    starlette==1.10.0 werkzeug==3.1.9

cat >app.py <<'PYTHON'
import json

from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import re_path
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from werkzeug.wrappers import Request, Response

urlpatterns = [re_path("", lambda request: JsonResponse(request.COOKIES))]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], SECRET_KEY="unused")


@Request.application
def by_werkzeug(request):
    return Response(json.dumps(request.cookies.to_dict()))


async def by_starlette(request):
    return JSONResponse(request.cookies)


app = Starlette(
    routes=[
        Route("/starlette/", by_starlette),
        Mount("/a2wsgi", WSGIMiddleware(by_werkzeug)),
        Mount("/django", get_asgi_application()),
    ]
)
PYTHON

venv/bin/python - <<'PYTHON'
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded


def out_of_time(number, frame):
    raise SystemExit("out of time")


signal.signal(signal.SIGALRM, out_of_time)
signal.alarm(50)


@contextlib.contextmanager
def granian():
    """Serve app.py by HTTP/2 on a free port; yield the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--http", "2", "--no-ws"]
    with open("server.log", "w") as log:
        command += ["--port", str(port), "app:app"]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def cookies_seen(port, path, fields):
    """Send a request with these fields named Cookie; return the cookies that the path saw."""
    client = H2Connection()
    client.initiate_connection()
    headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "localhost")]
    client.send_headers(1, headers + [("cookie", field) for field in fields], end_stream=True)
    body = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            connection.sendall(client.data_to_send())
            received = connection.recv(65536)
            assert received, "the server closed the connection"
            for event in client.receive_data(received):
                if isinstance(event, DataReceived):
                    body += event.data
                elif isinstance(event, StreamEnded):
                    return json.loads(body)


with granian() as port:
    seen = {
        name: (
            cookies_seen(port, f"/{name}/", ["session=abc; theme=dark"]),
            cookies_seen(port, f"/{name}/", ["session=abc", "theme=dark"]),
        )
        for name in ("starlette", "a2wsgi", "django")
    }

for name, (one, two) in seen.items():
    print(f"{name}, both cookies in one field: {one}")
    print(f"{name}, each cookie in its own field: {two}")
sent, glued = {"session": "abc", "theme": "dark"}, {"session": "abc,theme=dark"}
assert seen == {"starlette": (sent, sent), "a2wsgi": (sent, glued), "django": (sent, glued)}, seen
PYTHON
