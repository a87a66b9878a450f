"""The README's first steps in one file.

    celery -A quickstart worker --beat --scheduler beatstore:DBScheduler --loglevel INFO

run in this folder, fires its entries out of `quickstart-data/quickstart.db`. The broker is a
folder, so that nothing needs to be installed; a real one is one line.
"""

from datetime import timedelta
from pathlib import Path

from celery import Celery
from celery.signals import beat_init

import beatstore
from beatstore import Cron, Store

HERE = Path(__file__).resolve().parent / "quickstart-data"
(HERE / "broker").mkdir(parents=True, exist_ok=True)

app = Celery("quickstart", broker="filesystem://")
app.conf.broker_transport = "beatstore.testing.files:Transport"
app.conf.broker_transport_options = {
    "data_folder_in": str(HERE / "broker"),
    "data_folder_out": str(HERE / "broker"),
    "control_folder": str(HERE / "control"),
}
app.conf.beatstore_url = f"sqlite:///{HERE / 'quickstart.db'}"
beatstore.setup(app)  # workers report how runs end


@app.task
def report(city):
    print(f"report for {city}")


@beat_init.connect
def store_entries(**kwargs):
    """Store the entries; put() may be called as often as you like."""
    store = Store.from_app(app)
    store.put("berlin", report, Cron("* * * * * */5", "Europe/Berlin"), args=["Berlin"])
    store.put("oslo", report, timedelta(seconds=3), args=["Oslo"])
    store.put("night", report, "0 2 * * *", args=["everywhere"], description="at two each night")
    store.put("both", report, after=["berlin", "oslo"], args=["Berlin and Oslo"])
