"""What the host's rooms want of the state directory (`fedd.state`)."""

from __future__ import annotations

from typing import Protocol


class Store(Protocol):
    """Files by name, read and replaced."""

    def read(self, name: str) -> bytes | None:
        """The file's content, None when there is none."""
        ...

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Replace the file durably."""
        ...


class ResultStore(Store, Protocol):
    """Files that come and go as well."""

    def remove(self, name: str) -> None:
        """Delete the file."""
        ...

    def names(self, directory: str = "") -> list[str]:
        """The files of a directory."""
        ...
