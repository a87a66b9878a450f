"""The broker in a folder: whatever two processes do at once, a message is whole or not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from beatstore.testing import files


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Any]:
    """Return a channel to a folder of the test's own."""
    options = {f"data_folder_{way}": str(tmp_path / "messages") for way in ("in", "out")}
    options["control_folder"] = str(tmp_path / "control")
    (tmp_path / "messages").mkdir()
    with Connection("filesystem://", transport=files.Transport, transport_options=options) as made:
        yield made.channel()


def test_a_message_is_there_when_it_is_complete(
    channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks while it is written finds nothing, and nothing is lost."""
    looked = []

    def look_meanwhile(payload: Any) -> str:
        with pytest.raises(Empty):
            channel._get("q")
        looked.append(channel._size("q"))
        return json.dumps(payload)

    monkeypatch.setattr(files, "dumps", look_meanwhile)
    channel._put("q", {"number": 1})
    assert looked == [0]
    assert channel._get("q") == {"number": 1}


def test_messages_come_in_their_order(channel: Any) -> None:
    """Through a producer and a consumer, as Celery's."""
    queue = channel.connection.client.SimpleQueue("q")
    for number in range(5):
        queue.put({"number": number})
    assert [queue.get(timeout=5).payload["number"] for _ in range(5)] == list(range(5))
    queue.close()


def test_bindings_that_are_being_written_are_waited_for(channel: Any, tmp_path: Path) -> None:
    """Another process has made their file, and not written it yet."""
    channel._queue_bind("e", "q", "", "q")
    [file] = (tmp_path / "control").iterdir()
    written = file.read_text()
    file.write_text("")
    later = threading.Timer(0.05, file.write_text, [written])
    later.start()
    assert [one.queue for one in channel.get_table("e")] == ["q"]
    later.join()


def test_a_folder_that_is_missing_is_named(channel: Any, tmp_path: Path) -> None:
    """The error is one of the transport's, with the name of the file."""
    (tmp_path / "messages").rmdir()
    with pytest.raises(ChannelError, match="messages"):
        channel._put("q", {})
