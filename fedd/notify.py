"""Word to the service manager: ready, what goes on, still alive, stopping. The protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import socket
import time


class Notifier:
    """Sends `NAME=value` lines to the socket of `NOTIFY_SOCKET`; does nothing when there is none."""

    def __init__(self, address: str) -> None:
        self._socket: socket.socket | None = None
        # "@" stands for the NUL of an abstract socket's address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def ready(self) -> None:
        """Start-up, or a reload, is done."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent only when it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Send nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is not None:
            # A service manager that does not listen must not stop the daemon.
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
