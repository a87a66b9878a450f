"""The Celery app of the demo: a broker made of files, a database made of one."""

import json
import os
import time
from pathlib import Path

from celery import Celery

FOLDER = Path(os.environ["BEATSTORE_DEMO"])

app = Celery("demo_app", broker="filesystem://")
app.conf.update(
    broker_transport="beatstore.testing.files:Transport",
    broker_transport_options={
        "data_folder_in": str(FOLDER / "broker"),
        "data_folder_out": str(FOLDER / "broker"),
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.1,
    },
    worker_send_task_events=False,
    beatstore_url=f"sqlite:///{FOLDER / 'beatstore.db'}",
)


@app.task(bind=True)
def note(self, **kwargs):
    """Append one line to the ledger: which run this is, and when it ran."""
    line = {
        "run_id": self.request.get("beatstore_run_id"),
        "entry": self.request.get("beatstore_entry"),
        "ran_at": time.time(),
    }
    with (FOLDER / "ledger.jsonl").open("a") as ledger:
        ledger.write(json.dumps(line) + "\n")
