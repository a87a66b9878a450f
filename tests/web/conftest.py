"""A dashboard without a server: requests are answered in this process.

dashboard   of the fixture `store`; whoever asks may do everything
browser     sends requests to it as a browser does
"""

from __future__ import annotations

import pytest
from werkzeug.test import Client

from beatstore import Store
from beatstore.web import Actor, Dashboard


@pytest.fixture
def dashboard(store: Store) -> Dashboard:
    return Dashboard(store, authorize=lambda _: Actor("anna", can_write=True))


@pytest.fixture
def browser(dashboard: Dashboard) -> Client:
    return Client(dashboard)
