"""The Celery app of the nightly pipeline: its tasks, and the line that reports their ends."""

import os
import time
from pathlib import Path

from celery import Celery

import beatstore

FOLDER = Path(os.environ.get("NIGHTLY", "."))

app = Celery("nightly_app", broker="filesystem://")
app.conf.update(
    broker_transport="beatstore.testing.files:Transport",
    broker_transport_options={
        "data_folder_in": str(FOLDER / "broker"),
        "data_folder_out": str(FOLDER / "broker"),
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.1,
    },
    worker_send_task_events=False,
    beat_max_loop_interval=0.2,
    beatstore_url=f"sqlite:///{FOLDER / 'beatstore.db'}",
)
beatstore.setup(app)


@app.task(bind=True)
def extract(self):
    work(self, "extract", seconds=1)


@app.task(bind=True)
def clean(self):
    work(self, "clean", seconds=2)


@app.task(bind=True)
def enrich(self):
    if self.request.get("beatstore_attempt") == 1 or os.environ.get("NIGHTLY_BROKEN"):
        raise ConnectionError("the address service does not answer")
    work(self, "enrich", seconds=1)


@app.task(bind=True)
def load(self):
    work(self, "load", seconds=1)


@app.task(bind=True)
def alarm(self):
    work(self, "alarm", seconds=0)


def work(task, name, seconds):
    """Stand in for real work, and leave a line for it."""
    time.sleep(seconds)
    with (FOLDER / "ran.txt").open("a") as lines:
        lines.write(f"{name} {task.request.get('beatstore_run_id')}\n")
