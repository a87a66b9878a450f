"""What the tests share: servers found or started, brokers, real processes, waiting.

Nothing here tests anything. `tests/conftest.py` turns it into fixtures.
"""
