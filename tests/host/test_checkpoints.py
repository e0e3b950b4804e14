"""Checkpoints on disk: the newest of a run, whole or not at all."""

from __future__ import annotations

import pytest
from stores import MemoryStore

from fedd.api.errors import FeddError
from fedd.host.checkpoints import Checkpoints

RUN, OTHER, THIRD = "a" * 40, "b" * 40, "c" * 40


def test_the_newest_state_of_a_run_is_kept_and_found_again() -> None:
    store = MemoryStore()
    kept = Checkpoints(store, 2)
    assert kept.keep(RUN, b"manifest", 3, 17.5, b"one") == ""
    assert kept.keep(RUN, b"manifest", 4, 17.5, memoryview(b"two")) == ""
    assert list(store.files) == [f"checkpoints/{RUN}.state"]
    again = Checkpoints(store, 2)
    assert again.ids() == [RUN]
    found = again.read(RUN)
    assert found is not None
    assert (found.manifest, found.round, found.started_unix_s, bytes(found.state)) == (
        b"manifest",
        4,
        17.5,
        b"two",
    )
    assert again.read(OTHER) is None
    assert again.move(RUN, b"later", 9) == ""
    moved = Checkpoints(store, 2).read(RUN)
    assert moved is not None
    assert (moved.manifest, moved.round, bytes(moved.state)) == (b"later", 9, b"two")
    assert again.move(OTHER, b"later", 9) == ""
    again.remove(RUN)
    again.remove(RUN)
    assert store.files == {}
    assert RUN not in again


def test_there_are_so_many_and_no_more() -> None:
    kept = Checkpoints(MemoryStore(), 2)
    assert kept.keep(RUN, b"", 0, 0.0, b"") == kept.keep(OTHER, b"", 0, 0.0, b"") == ""
    assert "2 runs already" in kept.keep(THIRD, b"", 0, 0.0, b"")
    assert kept.keep(RUN, b"", 1, 0.0, b"new") == ""
    assert kept.ids() == [RUN, OTHER]


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"\0\0\0\x01\xff", b"\0\0\0\x01\x01state"])
def test_a_damaged_file_is_no_checkpoint(damage: bytes) -> None:
    store = MemoryStore()
    store.files[f"checkpoints/{RUN}.state"] = damage
    store.files["checkpoints/notes.txt"] = b"of somebody"
    kept = Checkpoints(store, 2)
    assert kept.ids() == [RUN]
    assert kept.read(RUN) is None


def test_a_state_that_was_changed_is_no_checkpoint() -> None:
    store = MemoryStore()
    kept = Checkpoints(store, 2)
    kept.keep(RUN, b"manifest", 3, 17.5, b"state")
    name = f"checkpoints/{RUN}.state"
    store.files[name] = store.files[name][:-1] + b"E"
    assert kept.read(RUN) is None


def test_a_full_disk_is_told_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FeddError("the disk is full")

    store = MemoryStore()
    kept = Checkpoints(store, 2)
    kept.keep(RUN, b"manifest", 3, 17.5, b"old")
    monkeypatch.setattr(store, "write", refuse)
    monkeypatch.setattr(store, "remove", refuse)
    assert kept.keep(RUN, b"manifest", 4, 17.5, b"new") == "the disk is full"
    found = kept.read(RUN)
    assert found is not None
    assert bytes(found.state) == b"old"
    kept.remove(RUN)
    assert kept.ids() == []
