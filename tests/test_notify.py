import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedd.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        yield sock


def test_each_word_reaches_the_manager(manager: socket.socket) -> None:
    notifier = Notifier(str(manager.getsockname()))
    notifier.ready()
    notifier.status("7 alive")
    notifier.status("7 alive")
    notifier.alive()
    notifier.stopping()
    notifier.reloading()
    said = [manager.recv(200).decode() for _ in range(5)]
    assert said[:4] == ["READY=1", "STATUS=7 alive", "WATCHDOG=1", "STOPPING=1"]
    assert said[4].startswith("RELOADING=1\nMONOTONIC_USEC=")
    notifier.close()
    notifier.close()
    notifier.ready()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


def test_an_abstract_socket_begins_with_at() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel chooses an abstract name
        notifier = Notifier("@" + sock.getsockname()[1:].decode())
        notifier.ready()
        sock.settimeout(5)
        assert sock.recv(100) == b"READY=1"
        notifier.close()


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.ready()
    notifier.close()
    Notifier("").ready()
