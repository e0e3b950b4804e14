"""Real daemons: what one broadcasts comes to all, in one order."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from federation.daemons import GUARD_S, Daemon, eventually, federation

from fedd.api.errors import FeddError
from fedd.control.client import Client

AT_ONCE = 8


class Reader:
    """Reads the notes of one sender from a daemon's event log, as they come."""

    def __init__(self, daemon: Daemon, sender: str) -> None:
        self.daemon = daemon
        self.sender = sender
        self.notes: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(FeddError, OSError), Client(str(self.daemon.socket)) as client:
            for event in client.stream("GET", "/v1/events", query={"since": "0"}):
                if event["kind"] == "command" and event.get("name") == self.sender:
                    self.notes.append(event.get("text") or f"not handled: {event}")


def publish(daemon: Daemon, texts: list[str], missed: list[Any]) -> None:
    """Broadcast these notes from several clients, each waiting for all members' answers."""
    lock = threading.Lock()

    def work() -> None:
        with Client(str(daemon.socket)) as client:
            while True:
                with lock:
                    if not texts:
                        return
                    text = texts.pop(0)
                body = {"parameters": {"text": text}, "deadline_s": 30.0}
                try:
                    missed.extend(client.request("POST", "/v1/commands/note/broadcast", body)["missing"])
                except FeddError as error:
                    missed.append(error)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_all_notes_come_to_all_in_one_order(count: int) -> None:
    with federation(4) as fed:
        readers = [Reader(daemon, fed[0].name) for daemon in fed]
        missed: list[Any] = []
        texts = [f"note {number}" for number in range(count)]
        publish(fed[0], list(texts), missed)
        assert missed == []
        for reader in readers:
            eventually(
                lambda r=reader: len(r.notes) >= count, GUARD_S, f"all of them at {reader.daemon.name}"
            )
        assert sorted(readers[0].notes) == sorted(texts)
        assert all(reader.notes == readers[0].notes for reader in readers)
