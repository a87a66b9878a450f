#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: `app.task(function, name="...")` takes any function, so with a name of its own a
# lambda will do; and if it does not, the call says so.
#
# What it does: the call returns. The task is made when somebody first asks for it, and then celery
# compiles a header from the function's `__name__`, which is `<lambda>`: a SyntaxError that names
# neither the task nor the place where it was registered. Any function whose `__name__` is no
# identifier meets the same. `app.tasks` raises it too, so all tasks of the app are out of reach,
# the good ones registered after it as well. `typing=False` does not help.
#
# Documented: not that we found.
#
# Why it matters to schedulers: whoever lists the tasks of an app, as a scheduler does that checks
# names, meets the error far from its cause.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
from celery import Celery


def made(function, **options):
    """Return what asking for the task gives: its name, or the error."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.task(function, name="shop.step", shared=False, **options)

    @app.task(name="shop.good", shared=False)
    def good():
        return None

    try:
        return sorted(name for name in app.tasks if name.startswith("shop."))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def step(*args):
    return None


plain = made(step)
nameless = made(lambda *args: None)
untyped = made(lambda *args: None, typing=False)
step.__name__ = "step-1"
renamed = made(step)
for what, found in (
    ("a function", plain),
    ("a lambda", nameless),
    ("a lambda, typing=False", untyped),
    ("a function whose __name__ is step-1", renamed),
):
    print(f"{what}: {found}")

assert plain == ["shop.good", "shop.step"], plain
for found in (nameless, untyped, renamed):
    assert found.startswith("SyntaxError: ") and "shop.step" not in found, found
PYTHON
