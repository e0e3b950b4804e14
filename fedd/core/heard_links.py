"""The links of one node and which of them it hears."""

from __future__ import annotations

from collections.abc import Iterator

from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.deadlines import NEVER
from fedd.core.records import MAX_LOST, LossReason


@dataclass(slots=True)
class HeardLink:
    """A link: when its peer was last heard, whether that is recent enough, whether its end needs the link."""

    heard: float
    up: bool = True
    needed_there: bool = False
    pinged_at: float = 0.0
    rtt_s: float | None = None
    bad_rows: int = 0


class HeardLinks:
    """Links by peer, and why those that were lost were lost.

    A link that is silent for `silent_s` stays open and is no edge until it is heard again; after `close_s` it
    is given up.
    """

    __slots__ = ("_close_s", "_links", "_lost_at", "_silent_s", "_up", "due", "get", "lost")

    def __init__(self, silent_s: float, close_s: float) -> None:
        self._silent_s = silent_s
        self._close_s = close_s
        self._links: dict[PeerId, HeardLink] = {}
        # Asked for every message: the dictionary's own method, which is called without a step in between.
        self.get = self._links.get
        """The link with a peer, None if there is none."""
        # Not later than when `check` finds something: what is heard moves it, and is not worth counting then.
        self.due = NEVER
        """Before then `check` finds nothing."""
        # Those that are heard, sorted; None: to be found out.
        self._up: list[PeerId] | None = None
        self.lost: dict[PeerId, LossReason] = {}
        self._lost_at: dict[PeerId, float] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._links

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self._links)

    def items(self) -> list[tuple[PeerId, HeardLink]]:
        """All of them, as they are now."""
        return list(self._links.items())

    @property
    def up(self) -> list[PeerId]:
        """The peers that are heard, sorted."""
        if self._up is None:
            self._up = sorted(peer for peer, link in self._links.items() if link.up)
        return self._up

    @property
    def any_up(self) -> bool:
        """Whether anybody is heard."""
        return bool(self.up)

    def add(self, peer: PeerId, needed_there: bool, now: float) -> bool:
        """A link with `peer` stands; True when that makes an edge that was not there before."""
        known = self._links.get(peer)
        self._links[peer] = HeardLink(now, needed_there=needed_there)
        self._up = None
        self._expect(now + self._silent_s)
        self.forget_loss(peer)
        return known is None or not known.up

    def remove(self, peer: PeerId, reason: LossReason | None, now: float) -> bool:
        """The link with `peer` is gone, for a reason to tell the others or None; False if there was none."""
        if self._links.pop(peer, None) is None:
            return False
        self._up = None
        self._note(peer, reason, now)
        return True

    def bad_rows(self, peer: PeerId) -> int:
        """How many bad records `peer`, with which a link stands, passed on."""
        return self._links[peer].bad_rows

    def blame(self, peer: PeerId, bad_rows: int) -> int:
        """`peer` passed on so many bad records; how many it did on this link."""
        link = self._links[peer]
        link.bad_rows += bad_rows
        return link.bad_rows

    def clear(self) -> None:
        """All links are gone."""
        self._links.clear()
        self._up = None

    def hear(self, peer: PeerId, at: float, now: float) -> bool:
        """Something came from `peer` at time `at`; True when that makes its link an edge again."""
        link = self._links.get(peer)
        if link is None or at <= link.heard:
            return False
        link.heard = at
        if link.up or now >= at + self._silent_s:
            return False
        link.up = True
        self._up = None
        self._expect(at + self._silent_s)
        self.forget_loss(peer)
        return True

    def check(self, now: float) -> tuple[list[PeerId], list[PeerId]]:
        """Who has fallen silent, and who was silent so long that the link is given up."""
        silent: list[PeerId] = []
        given_up: list[PeerId] = []
        self._up = None
        for peer, link in self.items():
            if link.up and now >= link.heard + self._silent_s:
                link.up = False
                self._note(peer, "silent", now)
                silent.append(peer)
            if now >= link.heard + self._close_s:
                del self._links[peer]
                given_up.append(peer)
        self.due = min(
            (link.heard + (self._silent_s if link.up else self._close_s) for link in self._links.values()),
            default=NEVER,
        )
        return silent, given_up

    def excuse(self, now: float) -> None:
        """This process slept: whoever was heard before has half the time again."""
        for link in self._links.values():
            if link.up:
                link.heard = max(link.heard, now - self._silent_s / 2)

    def forget_loss(self, peer: PeerId) -> None:
        """That `peer` was lost is of no interest any more."""
        if self.lost.pop(peer, None) is not None:
            del self._lost_at[peer]

    def forget_losses(self, before: float) -> None:
        """Losses of before that time have had their effect."""
        for peer in [peer for peer, at in self._lost_at.items() if at < before]:
            self.forget_loss(peer)

    def _expect(self, at: float) -> None:
        self.due = min(self.due, at)

    def _note(self, peer: PeerId, reason: LossReason | None, now: float) -> None:
        self.forget_loss(peer)
        if reason is not None:
            self.lost[peer] = reason
            self._lost_at[peer] = now
        # The latest losses: an older one has had its effect.
        while len(self.lost) > MAX_LOST:
            self.forget_loss(next(iter(self.lost)))
