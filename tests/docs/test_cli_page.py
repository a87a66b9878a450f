"""The page on the command line is typed into a shell: what it prints is what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from beatstore.cli import VERBS
from tests.support.command import Command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def sessions() -> list[tuple[str, list[str]]]:
    """Return each command that begins with `beatstore`, and the lines that it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    calls = [part for block in blocks for part in block.split("$ ")[1:]]
    found = [(call.splitlines()[0], call.splitlines()[1:]) for call in calls]
    return [(line, shown) for line, shown in found if re.match(r"beatstore (?!--url)", line)]


def like(shown: list[str]) -> re.Pattern[str]:
    """Return the pattern for what is shown; … stands for anything, and so do runs of blanks."""
    lines = ["…" if line.strip() == "…" else " ".join(line.split()) for line in shown]
    text = re.escape("\n".join(lines)).replace("…", "(?:.|\n)*?").replace(r"\ ", r" +")
    return re.compile(text)


def parted(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the remarks among lines, and the others."""
    remarks = [line for line in lines if line.startswith("beatstore: ")]
    return remarks, [line for line in lines if line not in remarks]


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `$ beatstore …` of the page works, and prints the lines below it."""
    pytest.importorskip("ephem")
    monkeypatch.chdir(tmp_path)
    call = Command(f"sqlite:///{tmp_path / 'page.db'}")
    typed = sessions()
    assert len(typed) > 10
    for line, shown in typed:
        done = call(*shlex.split(line)[1:])
        code = re.fullmatch(r"\[exit code (\d+)\]", shown[-1]) if shown else None
        assert done.code == (int(code[1]) if code else 0), f"{line}: {done.err}"
        shown = shown[:-1] if code else shown  # noqa: PLW2901
        if shown:
            said = [" ".join(part.split()) for part in (done.err + done.out).splitlines()]
            # Remarks have a stream of their own, so where they stand is not known.
            for part, printed in zip(parted(shown), parted(said), strict=True):
                assert like(part).fullmatch("\n".join(printed)), f"{line}\n{printed}"


def test_every_verb_is_on_the_page() -> None:
    """Each verb of the command line is told of, under the heading that the help has it under."""
    written = PAGE.read_text()
    sections = {part.partition("\n")[0]: part for part in re.split(r"^## ", written, flags=re.M)}
    for heading, verbs in VERBS.items():
        for verb in verbs:
            assert re.search(rf"`(beatstore )?{verb}\b|beatstore {verb}\b", sections[heading]), verb


def test_the_python_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the page shows in Python works on the database that it names."""
    monkeypatch.chdir(tmp_path)
    call = Command("sqlite:///beatstore.db")
    assert call("migrate").code == call("add", "a", "t.a", "--every", "1h").code == 0
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in said[:3]] == [["a", "ahead"]] * 3
    assert said[3] == "1 {}"
