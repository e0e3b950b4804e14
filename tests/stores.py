"""A state directory in memory, for tests of who keeps something in one."""

from __future__ import annotations


class MemoryStore:
    """As `fedd.state.StateDirectory`, as far as the rooms use it; `writes` names what was written.

    `volatile` names what a power cut would bring the old content of back.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.volatile: set[str] = set()

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        self.replace(name, data)
        self.volatile.clear()

    def replace(self, name: str, data: bytes, mode: int = 0o600) -> None:
        self.files[name] = data
        self.writes.append(name)
        self.volatile.add(name)

    def flush(self, name: str) -> None:
        assert name in self.files
        self.volatile.clear()

    def remove(self, name: str) -> None:
        self.files.pop(name, None)

    def names(self, directory: str = "") -> list[str]:
        return sorted(name for name in self.files if name.startswith(f"{directory}/"))
