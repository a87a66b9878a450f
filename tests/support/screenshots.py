"""Take the pictures of docs/dashboard.md: `make screenshots`.

They show the made-up company of examples/company.py, on SQLite, in Chromium.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from waitress.server import create_server

from beatstore import Store
from beatstore.web import Actor, Dashboard
from tests.support.ports import free_port
from tests.support.processes import ROOT

PICTURES = ROOT / "docs" / "pictures"

#: Each picture: its page, the colours, and how high it is.
SHOTS = {
    "today": ("/", "light", 860),
    "entries": ("/entries", "light", 1000),
    "entry": ("/entry?name=etl.extract", "light", 1150),
    "run": ("/runs?state=failed", "light", 760),
    "upcoming": ("/upcoming", "light", 1000),
    "graph": ("/graph", "light", 460),
    "edit": ("/entry/edit?name=report.sales", "light", 900),
    "audit": ("/audit", "dark", 700),
}


def main() -> None:
    """Make the company, serve it, and take the pictures."""
    sys.path.insert(0, str(ROOT / "examples"))
    company = importlib.import_module("company")

    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder) / 'company.db'}")
        store.migrate()
        company.fill(store)
        dashboard = Dashboard(store, authorize=lambda _: Actor("maria", can_write=True))
        port = free_port()
        server = create_server(dashboard, listen=f"127.0.0.1:{port}")
        threading.Thread(target=server.run, daemon=True).start()
        PICTURES.mkdir(exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            for name, shot in SHOTS.items():
                _take(browser, f"http://127.0.0.1:{port}", name, shot)
            browser.close()
        server.close()
        store.close()


def _take(browser: Browser, address: str, name: str, shot: tuple[str, str, int]) -> None:
    path, colours, height = shot
    context = browser.new_context(
        color_scheme="dark" if colours == "dark" else "light",
        viewport={"width": 1280, "height": height},
    )
    page = context.new_page()
    page.goto(address)
    page.fill("#zone", "Europe/Berlin")
    page.click("text=Set")
    page.goto(f"{address}{path}")
    if name == "edit":
        page.fill("#i-spec", "30 6 * * mon-fri")
        page.wait_for_selector("button[name=save]")
        page.locator("#preview").scroll_into_view_if_needed()
    page.screenshot(path=PICTURES / f"{name}.png")
    context.close()


if __name__ == "__main__":
    main()
