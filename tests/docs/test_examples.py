"""The examples do what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from beatstore import Store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_an_order_and_its_reminder_commit_together(tmp_path: Path) -> None:
    """After a request that ends well both rows are there; after one that fails, neither."""
    pytest.importorskip("fastapi", reason="needs fastapi and httpx, of the test group")
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    script = """
import json
from fastapi.testclient import TestClient
from orders import api
client = TestClient(api)
print(json.dumps([
    [answer.status_code, answer.json()] for answer in (
        client.post("/orders", params={"amount": 40}),
        client.post("/orders", params={"amount": 0}),
        client.post("/orders/1/paid"),
        client.post("/orders/7/paid"),
    )
]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "ORDERS_URL": url, "PYTHONPATH": os.pathsep.join(path())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    good, bad, paid, unknown = json.loads(done.stdout)
    assert good == [200, {"order": 1}]
    assert bad[0] == 422
    assert paid == [200, {"reminder stopped in time": True}]
    assert unknown == [404, {"detail": "order 7 has no reminder"}]
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 1
    engine.dispose()
    store = Store(url)
    assert [(entry.name, entry.state) for entry in store.entries()] == [("remind-1", "cancelled")]
    store.close()


@pytest.mark.heavy
def test_the_demo_ends_well(tmp_path: Path) -> None:
    """`make demo` ends by itself, with status 0 and the ledger."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path()), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each run once." in done.stdout
    assert not list(tmp_path.glob("beatstore-demo-*"))


def test_the_demo_says_when_something_is_missing(tmp_path: Path) -> None:
    """The demo's account is a check: a run that the worker has not done makes it fail."""
    script = """
import sys, tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
import demo
from beatstore import Once
from sqlalchemy import text
with tempfile.TemporaryDirectory() as folder:
    show = demo.Demo(Path(folder))
    show.store.migrate()
    show.add_entries()
    for name in demo.ENTRIES:
        show.store.trigger(name)
    with show.store.database.session() as session:
        session.execute(text("UPDATE beatstore_run SET state = 'sent', sent_at = due_at"))
    sys.exit(show.account())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *path()])},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ran 0 times" in done.stdout


@pytest.mark.heavy
def test_the_nightly_pipeline_runs_by_itself(tmp_path: Path) -> None:
    """With a real beat and worker `load` runs once, after both before it, and no alarm goes off."""
    done = nightly(tmp_path)
    said = [line.split("  ", 2)[-1].strip() for line in done.stdout.splitlines()]
    ends = [said.index(f"{name} is done") for name in ("clean   ", "enrich   (attempt 2)")]
    assert said.count("load     has started") <= said.count("load     is done") == 1
    assert max(ends) < said.index("load     is done")
    assert "enrich   failed: ConnectionError: the address service does not answer" in said
    assert not any(line.startswith("alarm ") for line in said)
    assert "'load' is active: after its upstreams, without a schedule." in said
    assert "flowchart LR" in said
    assert said[-1] in (
        "extract, clean, enrich, load: each ran once, in order.",
        "extract, enrich, clean, load: each ran once, in order.",
    )


@pytest.mark.heavy
def test_the_nightly_pipeline_cries_for_help(tmp_path: Path) -> None:
    """When a part of it fails for good, `load` is given up, with the reason, and the alarm runs."""
    done = nightly(tmp_path, "--broken")
    assert "load     was skipped: upstream 'enrich' failed" in done.stdout
    assert "alarm    is done" in done.stdout
    assert done.stdout.endswith("load was given up, and the alarm went off.\n")


def nightly(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the example to its good end."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "nightly.py"), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path()), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob("beatstore-nightly-*"))
    return done


def path() -> list[str]:
    """Return the import path of the examples' processes."""
    return [str(EXAMPLES), *filter(None, sys.path)]
