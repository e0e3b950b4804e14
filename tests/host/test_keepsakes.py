"""The newest histories and values are kept, and survive a restart."""

from __future__ import annotations

import pytest
from stores import MemoryStore

from fedd.api.errors import FeddError
from fedd.host import keepsakes
from fedd.host.keepsakes import Keepsakes

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def test_the_newest_of_each_kind_survive_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepsakes, "KEPT", {"history": 2, "value": 1})
    store = MemoryStore()
    store.files["runs/rubbish"] = b""
    kept = Keepsakes(store)
    for number, run_id in enumerate((A, B, C)):
        kept.keep("history", run_id, b"h%d" % number)
        kept.keep("value", run_id, b"v%d" % number)
    again = Keepsakes(store)
    for found in (kept, again):
        assert [found.get("history", run_id) for run_id in (A, B, C)] == [None, b"h1", b"h2"]
        assert [found.get("value", run_id) for run_id in (A, B, C)] == [None, None, b"v2"]
    again.keep("history", A, b"h3")
    assert len(store.names("runs")) == 4
    assert [again.get("history", run_id) for run_id in (A, B, C)] == [b"h3", None, b"h2"]


class Failing(MemoryStore):
    failing = ""

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        if self.failing == "write":
            raise FeddError("no space")
        super().write(name, data, mode)

    def remove(self, name: str) -> None:
        if self.failing == "remove":
            raise FeddError("read only")
        super().remove(name)


def test_a_disk_that_refuses_costs_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepsakes, "KEPT", {"history": 1, "value": 1})
    store = Failing()
    kept = Keepsakes(store)
    kept.keep("history", A, b"1")
    store.failing = "write"
    kept.keep("history", B, b"2")
    assert (kept.get("history", A), kept.get("history", B)) == (b"1", None)
    store.failing = "remove"
    kept.keep("history", C, b"3")
    assert (kept.get("history", A), kept.get("history", C)) == (None, b"3")
