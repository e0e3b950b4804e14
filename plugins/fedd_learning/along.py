"""The first exchanges of `spread`, which go along with those of an agreement: so many less in a round.

Trainings need no agreement to be sent: a root looks at those whose offers count, once these are known. The
means need one, but when nobody dies every member knows all offers after the first exchange; the further ones
are there to make sure that all know the same. So a root makes its means of the offers that it has heard, and
sends them at once. Should the agreement come to something else, they are not taken (they say whose they are),
and the round is spread again, as after any death.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fedd.api import Message, PeerId
from fedd_learning.agreement import Agreement
from fedd_learning.spread import MeanSpread, WholeSpread

Offers: TypeAlias = tuple[Mapping[PeerId, int], str]
"""The weights of those whose offers count, and the shapes of their further arrays."""


@dataclass
class Along:
    """What goes along with one agreement on offers, and what came.

    `new_spread` makes this member's part of spreading for what is known of the offers.
    """

    new_spread: Callable[[Offers], MeanSpread | WholeSpread]
    mine: Offers | None
    """This member's own offer, None when it has nothing to give."""

    def __post_init__(self) -> None:
        self._known = self.mine
        self._spread = None if self.mine is None else self.new_spread(self.mine)
        self._came: list[Mapping[PeerId, Message]] = []

    def message(self, number: int, peer: PeerId) -> Message:
        """For this peer in exchange `number` of the agreement."""
        spread = self._spread
        return spread.message(number, peer) if spread is not None and number < spread.exchanges else None

    def take(self, came: Mapping[PeerId, Message], known: Callable[[], Offers | None]) -> None:
        """What came along in an exchange; after the first, `known` gives the offers if all were heard."""
        self._came.append(came)
        if len(self._came) == 1:
            self._known = known()
            self._spread = None if self._known is None else self.new_spread(self._known)
        if self._spread is not None:
            _take(self._spread, len(self._came) - 1, came)

    def agreed(self, offers: Offers) -> tuple[MeanSpread | WholeSpread, int]:
        """This member's part of spreading now that all know the same, and its next exchange."""
        spread = self._spread
        if spread is None or offers != self._known:
            spread = self.new_spread(offers)
            for number, came in enumerate(self._came):
                _take(spread, number, came)
        return spread, min(len(self._came), spread.exchanges)


def together(agreement: Agreement, along: Along, number: int) -> Callable[[PeerId], Message]:
    """What each peer gets in an exchange of the agreement: the same object if the same goes along."""
    last: list[Message] = []

    def message(peer: PeerId) -> Message:
        beside = along.message(number, peer)
        if not last or last[0] is not beside:
            last[:] = [beside, agreement.message(beside)]
        return last[1]

    return message


def _take(spread: MeanSpread | WholeSpread, number: int, came: Mapping[PeerId, Message]) -> None:
    if number < spread.exchanges:
        spread.take(number, came)
