#!/usr/bin/env bash
# Libraries: crontab 1.0.5 and python-crontab 3.4.0, as rq-scheduler 0.14.0 (or streaq) and
# django-celery-beat 2.9.0 need them.
#
# A good guess: what `pip check` is content with can be imported. A package that is added to a project
# may ask for other versions than the ones there; otherwise what has worked goes on to work.
#
# What it does: both packages are imported as `crontab`. One is a folder and the other one a file, so
# neither writes over the other, and pip has nothing to report. Python takes the folder, whichever was
# installed first. Once rq-scheduler or streaq is there, django_celery_beat can't be imported, and no
# Django project that names it in INSTALLED_APPS starts: `crontab` has no `CronSlices`. Removing the one
# that is the folder mends one side and breaks the other.
#
# Documented: python-crontab's README says that who sees another error has installed the wrong one of
# the two. That they can't be used together is not there, nor in the READMEs of what needs them.
#
# Why it matters to schedulers: a project that moves from one scheduler to another has both for a time,
# and so has an image for many. The beat does not come up again after the next deployment.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet django-celery-beat==2.9.0 celery==5.7.0 django==5.2.19 \
    python-crontab==3.4.0 tzdata==2026.6

cat >start.py <<'PYTHON'
"""Start a Django project with django_celery_beat, and say how that went."""

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)
try:
    django.setup()
except AttributeError as error:
    print("AttributeError:", error)
else:
    print("started")
PYTHON

before=$(timeout 50 venv/bin/python start.py)
venv/bin/pip install --quiet rq-scheduler==0.14.0 rq==2.12.0 crontab==1.0.5
check=$(venv/bin/pip check)
after=$(timeout 50 venv/bin/python start.py)
other=$(timeout 50 venv/bin/python -c 'import rq_scheduler.utils; print("imported")')
# Installed again, it comes last, and is still not what is imported.
venv/bin/pip install --quiet --force-reinstall --no-deps python-crontab==3.4.0
again=$(timeout 50 venv/bin/python start.py)
venv/bin/pip uninstall --quiet --yes crontab
without=$(timeout 50 venv/bin/python start.py)

echo "the project alone:                  $before"
echo "with rq-scheduler, pip check:       $check"
echo "with rq-scheduler, the project:     $after"
echo "with rq-scheduler, rq_scheduler:    $other"
echo "python-crontab installed last:      $again"
echo "after removing crontab:             $without"

error="AttributeError: module 'crontab' has no attribute 'CronSlices'"
[ "$before" = started ]
[ "$check" = "No broken requirements found." ]
[ "$after" = "$error" ]
[ "$other" = imported ]
[ "$again" = "$error" ]
[ "$without" = started ]
