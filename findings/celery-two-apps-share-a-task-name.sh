#!/usr/bin/env bash
# Library: celery 5.7.0.
#
# A good guess: two apps in one process, each with its own function under the same task name, each
# run their own. `@b.task(name="proj.report")` belongs to b; what a declares is a's business.
#
# What it does: `shared=True` is the default of `task`, and it offers the function to every app of
# the process that is finalized afterwards. The first of two of a name is kept, and which one is
# first is the order of a set. So app b runs the function of app a (or a that of b), and even calling
# the decorated function of b itself runs the other one. celery 5.7 warns of it, once for each name
# and app, when the app is finalized; 5.6.2 says nothing. A third app, which declares no
# task at all, has it too.
#
# Documented: `shared` is, in one sentence; not that the other app's function may replace one's own.
#
# Why it matters to schedulers: a beat that serves two projects, a test suite that makes an app per
# test, or a worker with an old and a new app side by side sends and runs tasks by name. With
# `shared=False` each app has its own.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet celery==5.7.0

timeout 50 venv/bin/python - <<'PYTHON'
import warnings

from celery import Celery


def two_apps(**options):
    a, b, third = (Celery(name, set_as_current=False) for name in ("a", "b", "third"))

    @a.task(name="proj.report", **options)
    def of_a():
        return "a"

    @b.task(name="proj.report", **options)
    def of_b():
        return "b"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ran = [app.tasks["proj.report"]() for app in (a, b)]
        called = [of_a(), of_b()]
    said = sorted({type(one.message).__name__ for one in caught})
    return ran, called, "proj.report" in third.tasks, said


own = two_apps(shared=False)  # first, since what is shared stays in the process
shared = two_apps()
for title, (ran, called, third, said) in {"shared=False": own, "by default": shared}.items():
    print(f"{title}: apps a and b run {ran}; calling their functions gives {called};")
    print(f"    an app without tasks has it: {third}; warnings: {said}")

ran, called, third, said = shared
assert ran in (["a", "a"], ["b", "b"]), ran
assert called == ran, called
assert third
assert said == ["DuplicateTaskNameWarning"], said
assert own == (["a", "b"], ["a", "b"], False, []), own
PYTHON
