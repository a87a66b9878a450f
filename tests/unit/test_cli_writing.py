"""What is printed is in characters that the output has, and that do no harm."""

from __future__ import annotations

import io
import json

import pytest

from beatstore.cli.drawing import drawn
from beatstore.cli.writing import clean, in_dot, in_json, in_mermaid, writable
from beatstore.rules.graph import Edge, Graph, Node

ODD = "é€日😀\ud800"


def stream(encoding: str) -> io.TextIOWrapper:
    """Return an output of this encoding."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "shift_jis"])
def test_any_text_can_be_written(encoding: str) -> None:
    """Whatever an entry is called, an output of any encoding takes what is written of it."""
    for text in (ODD, "plain", "… → ●│"):
        written = writable(text, stream=stream(encoding))
        assert written.encode(encoding)
        assert ("plain" in written) == (text == "plain")
    assert writable("é", stream=stream(encoding)) == ("\\xe9" if encoding in PLAIN else "é")


PLAIN = ("ascii", "shift_jis")


def test_json_stays_json() -> None:
    """What JSON says is the same in every encoding, far planes and halves of pairs included."""
    said = json.dumps({"name": ODD}, ensure_ascii=False)
    for encoding in ("ascii", "latin-1", "utf-8"):
        written = writable(said, in_json, stream=stream(encoding))
        assert json.loads(written.encode(encoding).decode(encoding)) == {"name": ODD}


def test_labels_of_pictures_keep_their_characters() -> None:
    """Mermaid and DOT are given a code for what can't be written, which they show as it was."""
    assert writable("é😀", in_mermaid, stream=stream("ascii")) == "#233;#128512;"
    assert writable("é😀", in_dot, stream=stream("ascii")) == "&#233;&#128512;"


def test_a_drawing_keeps_its_shape() -> None:
    """In ASCII each character of a drawing's lines and marks stands for one."""
    states = ["active", "paused", "finished", "missed", "cancelled", "broken"]
    nodes = [Node(state, state) for state in states] + [Node("w", waits_because="x"), Node("z")]
    edges = [Edge("active", node.name) for node in nodes[1:]]
    edges += [Edge(node.name, "z") for node in nodes[1:-1]]
    for row in drawn(Graph.of(nodes, edges)):
        written = writable(row.picture, stream=stream("ascii"))
        assert written.isascii()
        assert len(written) == len(row.picture)


def test_no_character_steers_a_terminal() -> None:
    """Control characters are spelt, line ends are blanks, and brackets are brackets."""
    assert clean("a\x1b[2J\nb\x07[red]") == "a\\x1b[2J b\\x07[red]"
    assert clean("\u202e\u2028") == "\\u202e "
