"""What the tests share: servers found or started, brokers, beats and workers, waiting.

Nothing here tests anything. `tests/conftest.py` turns it into fixtures.
"""
