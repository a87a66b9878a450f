"""Two editors of one entry: the second learns that the first was there, and overwrites nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy.orm import Session

from beatstore import Declared, Entry, Store
from beatstore.errors import EntryChangedError, EntryNotFoundError, InvalidEntryError
from tests.support.command import Command

pytestmark = pytest.mark.every_database


@pytest.fixture
def entry(store: Store) -> Entry:
    """Return an entry with an upstream, as somebody has read it."""
    store.add("up", "t", 60)
    store.add("other", "t", 60)
    return store.add("a", "t", 60, after=["up"])


def test_an_entry_as_it_was_read_is_changed(store: Store, entry: Entry) -> None:
    """The version that was read is the entry's, and the change makes the next one."""
    changed = store.change("a", if_version=entry.version, max_runs=5)
    assert (changed.max_runs, changed.version) == (5, entry.version + 1)
    assert store.change("a", if_version=changed.version, max_runs=5) == changed


#: What somebody else may do to an entry in between.
EDITS: dict[str, Callable[[Store], Any]] = {
    "change": lambda s: s.change("a", grace=7),
    "tags": lambda s: s.change("a", tags=["x"]),
    "after": lambda s: s.change("a", after=["up", "other"]),
    "put": lambda s: s.put("a", "t", 60),
    "pause": lambda s: s.pause("a"),
    "cancel": lambda s: s.cancel("a"),
    "link": lambda s: s.link("a", "other"),
    "unlink": lambda s: s.unlink("a", "up"),
    "sync": lambda s: (
        s.change("a", source="code"),
        s.sync([Declared("a", "t", 90)], source="code"),
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_edit_in_between_refuses_the_change(store: Store, entry: Entry, edit: str) -> None:
    """Neither the entry nor its upstreams, its tags or the audit are written."""
    EDITS[edit](store)
    theirs, edges, audit = store.get("a"), store.edges("a"), store.audit()
    with pytest.raises(EntryChangedError) as caught:
        store.change(
            "a", if_version=entry.version, new_name="b", max_runs=5, after=["other"], tags=["mine"]
        )
    error = caught.value
    assert (error.name, error.expected, error.found) == ("a", entry.version, theirs.version)
    assert (store.get("a"), store.edges("a"), store.audit()) == (theirs, edges, audit)


def test_what_changes_nothing_refuses_nothing(store: Store, entry: Entry) -> None:
    """An edit that wrote nothing, a trigger and an edit of an upstream leave the version."""
    store.change("a", max_runs=None)
    store.link("a", "up")
    store.trigger("a")
    store.change("up", max_runs=3)
    assert store.change("a", if_version=entry.version, max_runs=5).max_runs == 5


def test_the_error_says_what_to_do(store: Store, entry: Entry) -> None:
    """It names both versions, and can be pickled."""
    store.pause("a")
    with pytest.raises(EntryChangedError) as caught:
        store.change("a", if_version=1, max_runs=5)
    assert str(caught.value) == (
        "entry 'a' has version 2, and if_version is 1: it was edited since you read it; read it "
        "again, and if your change is still right, write if_version=2"
    )
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.name, copy.expected, copy.found) == ("a", 1, 2)


@pytest.mark.parametrize("wrong", [-1, True, "1", 1.0, 2**31])
def test_a_version_is_a_whole_number(store: Store, entry: Entry, wrong: Any) -> None:
    """Anything else is refused, and nothing is written."""
    with pytest.raises(InvalidEntryError, match="if_version"):
        store.change("a", if_version=wrong, max_runs=5)
    assert store.get("a").version == entry.version


def test_a_removed_entry_is_not_found(store: Store, entry: Entry) -> None:
    """The version of an entry that is gone matches none."""
    store.remove("a")
    with pytest.raises(EntryNotFoundError):
        store.change("a", if_version=entry.version, max_runs=5)


def test_of_editors_at_once_one_wins(store: Store, entry: Entry) -> None:
    """Of threads that have read the same version, one changes it, and all others are told."""
    barrier, version = Barrier(3), entry.version

    def edit(seen: int, number: int) -> Entry | EntryChangedError:
        barrier.wait(30)
        try:
            return store.change("a", if_version=seen, args=[seen, number])
        except EntryChangedError as error:
            return error

    for _ in range(5):
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(edit, [version] * 3, range(3)))
        [won] = [one for one in found if isinstance(one, Entry)]
        lost = [one for one in found if isinstance(one, EntryChangedError)]
        assert [(one.expected, one.found) for one in lost] == [(version, won.version)] * 2
        assert (store.get("a").args, won.version) == (won.args, version + 1)
        assert [one.after["args"] for one in store.audit("a", limit=1)] == [won.args]  # type: ignore[index]
        version = won.version
    assert len(store.audit("a")) == 1 + 5


def test_in_a_callers_transaction_it_is_refused_and_no_more(store: Store, entry: Entry) -> None:
    """What else the caller has written stays, and can be committed."""
    store.pause("a")
    with Session(store.database.engine) as session:
        store.change("up", max_runs=3, session=session)
        with pytest.raises(EntryChangedError):
            store.change("a", if_version=entry.version, max_runs=5, session=session)
        session.commit()
    assert (store.get("up").max_runs, store.get("a").max_runs) == (3, None)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_on_the_command_line(migrated_url: str, store: Store, entry: Entry) -> None:
    """`show --json` prints the version, and `change --if-version` compares it."""
    call = Command(migrated_url)
    version = str(call("show", "a", "--json").json["version"])
    assert call("change", "a", "--max-runs", "5", "--if-version", version).code == 0
    done = call("change", "a", "--max-runs", "6", "--if-version", version)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("beatstore: entry 'a' has version 2, and if_version is 1: it was ")
    assert store.get("a").max_runs == 5
    assert call("change", "a", "--if-version", "2").code == 2
