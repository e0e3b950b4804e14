"""Links that are held whatever the degree: by runs, by `fedctl connect`, by the configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fedd.api.errors import Conflict
from fedd.api.types import PeerId
from fedd.core.overlay import MAX_PINS
from fedd.net.bounds import Bound


class Pins:
    """Peers with which a link is held, each as often as somebody asked for it, and where to dial them."""

    def __init__(self) -> None:
        self._addresses: dict[PeerId, tuple[str, ...]] = {}
        self._counts: Counter[PeerId] = Counter()
        self._refused = 0

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._addresses

    def items(self) -> Iterator[tuple[PeerId, tuple[str, ...]]]:
        """Every pinned peer and where it can be dialled."""
        return iter(self._addresses.items())

    def add(self, peer: PeerId, addresses: Sequence[str]) -> tuple[str, ...]:
        """One more wants the link with `peer`; where to dial it.

        Raises:
            Conflict: too many links are pinned.
        """
        if peer not in self._addresses and len(self._addresses) >= MAX_PINS:
            self._refused += 1
            raise Conflict(f"{MAX_PINS} links are pinned", hint="`fedctl disconnect` one of them")
        self._counts[peer] += 1
        self._addresses[peer] = tuple(addresses) or self._addresses.get(peer, ())
        return self._addresses[peer]

    def drop(self, peer: PeerId) -> bool:
        """One less wants it; whether that was the last."""
        self._counts[peer] -= 1
        if self._counts[peer] > 0:
            return False
        self.remove(peer)
        return True

    def remove(self, peer: PeerId) -> None:
        """Nobody wants it any more."""
        self._counts.pop(peer, None)
        self._addresses.pop(peer, None)

    def clear(self) -> None:
        """Nobody wants any."""
        self._counts.clear()
        self._addresses.clear()

    def bound(self) -> Bound:
        """How many links are held, and the most."""
        return Bound(
            "pins", len(self._addresses), MAX_PINS, self._refused, "links that runs or `connect` hold"
        )
