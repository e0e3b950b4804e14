"""What comes from a neighbour: checked, held, delivered in order, and passed on.

The signature is checked last, and only of what is news; whoever passes on what no honest member would is
told of, and its link given up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Final

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.broadcast_acks import Acknowledgements
from fedd.core.broadcast_bodies import Bodies
from fedd.core.broadcast_givers import Givers
from fedd.core.broadcast_keys import BroadcastKeys
from fedd.core.broadcast_marks import MarkTeller
from fedd.core.broadcast_messages import (
    MAX_FLOODED_BYTES,
    Bcast,
    Chunk,
    Gone,
    Header,
    Ihave,
    Post,
    decode_items,
    split_posts,
)
from fedd.core.broadcast_origin import WINDOW, Held, Origin
from fedd.core.broadcast_search import Search
from fedd.core.broadcast_table import OriginTable
from fedd.core.broadcast_types import BroadcastAction, BroadcastId, Deliver, Distrust, Gap
from fedd.core.dataclass import dataclass
from fedd.core.membership_types import Send

# Honest members pass on only what they have verified; a liar costs so many signature checks a link.
MAX_BAD: Final = 32
# An honest origin stays at half of its allowance: who sends so much beyond it is a storm.
MAX_EXCESS: Final = 4096


@dataclass(slots=True)
class Neighbour:
    """A link, and how much of what came by it no honest member passes on."""

    peer: PeerId
    bad: int = 0
    excess: int = 0


class BroadcastIntake:
    """The parts of which `Broadcasts` is made, and the way of a message through them.

    Its methods note what is to be sent and told; `Broadcasts` hands it over.
    """

    def __init__(
        self,
        me: PeerId,
        epoch: int,
        *,
        keys: BroadcastKeys,
        certified: Callable[[PeerId], bool],
        rtt_of: Callable[[PeerId], float | None],
        neighbours_of: Callable[[PeerId], AbstractSet[PeerId]],
        links_version: Callable[[], object],
        now: float,
    ) -> None:
        self.me = me
        self._keys = keys
        self._givers = Givers(me, neighbours_of, links_version)
        self._table = OriginTable(me, epoch, certified, now)
        self._links: dict[PeerId, Neighbour] = {}
        self._search = Search(self._table.by_name, rtt_of)
        self._bodies = Bodies(rtt_of)
        self._acks = Acknowledgements(me, keys.sign_ack, keys.verify_ack)
        self._marks = MarkTeller(self._table, now)
        self._sends: list[Send] = []
        self._actions: list[BroadcastAction] = []

    # -- passing on

    def _spread(self, posts: list[Post], whole: bool, source: PeerId | None) -> None:
        """Pass on what is held here, so once: small ones to those to whom it falls to this node to give them.

        Announcements of large ones go to all but whom they came from and who has them from there.
        """
        make = Bcast if whole else Ihave
        for origin, posts_of in groupby(posts, key=attrgetter("origin")):
            group = list(posts_of)
            # All get the same, which is then put into a frame once.
            messages = [make(part) for part in split_posts(group)]
            if whole:
                receivers = self._givers.mine(self._links, origin, source)
                if not receivers:
                    # Nobody has it from here, so nobody acknowledges through here: nothing to wait for.
                    names = [BroadcastId(origin, post.epoch, post.seq) for post in group]
                    self._sends += [send for name in names for send in self._acks.release(name)]
            else:
                known = {source, origin, *self._givers.served_by(source)}
                receivers = [peer for peer in self._links if peer not in known]
            self._sends += [Send(peer, message) for peer in receivers for message in messages]

    # -- taking what comes

    def _open(self, link: Neighbour, post: Post, now: float) -> tuple[Origin, Header] | None:
        """Origin and header of what is news and signed, None for all else. The signature is checked last."""
        if link.peer not in self._links:
            return None
        origin = self._table.other(post.origin, now)
        if origin is None or not origin.is_news(post.epoch, post.seq):
            return None
        if origin.allowance.wait_s(len(post.body), now):
            self._table.refused += 1
            self._search.claim(link.peer, origin, post.epoch, post.seq, now)
            link.excess += link.peer == post.origin
            if link.excess > MAX_EXCESS:
                self._distrust(link, "it broadcasts far more than it may", now)
            return None
        try:
            header = self._keys.open(post)
        except FeddError as error:
            self._blame(link, error.detail, now)
            return None
        self._hand_over(origin, origin.begin(header), now)
        origin.prove(post)
        return origin, header

    def _take(self, link: Neighbour, post: Post, now: float) -> bool:
        """A small broadcast has come; whether it is to be passed on."""
        opened = self._open(link, post, now)
        if opened is None:
            return False
        origin, header = opened
        if (
            header.size > MAX_FLOODED_BYTES
            or len(post.body) != header.size
            or hashlib.sha256(post.body).digest() != header.digest
        ):
            self._search.look(origin, now)
            self._blame(link, f"a broadcast of {post.origin} is not what was signed", now)
            return False
        return self._keep(origin, Held(post, header, link.peer, post.body, now), link.peer, now)

    def _announced(self, link: Neighbour, post: Post, now: float) -> None:
        """A neighbour has a large broadcast."""
        name = BroadcastId(post.origin, post.epoch, post.seq)
        self._bodies.announced(name, link.peer)
        opened = self._open(link, post, now)
        if opened is None:
            return
        origin, header = opened
        if header.size <= MAX_FLOODED_BYTES:
            self._search.look(origin, now)
            self._blame(link, f"a small broadcast of {post.origin} was announced", now)
        elif self._keep(origin, Held(post, header, link.peer, None, now), link.peer, now):
            self._bodies.want(name, header, link.peer, now)

    def _keep(self, origin: Origin, held: Held, source: PeerId, now: float) -> bool:
        """Hold what is verified, and deliver what can be; False when it is late or there is no room."""
        epoch, seq = held.header.epoch, held.header.seq
        origin.allowance.charge(held.header.size)
        if not origin.is_news(epoch, seq):
            return False
        if seq >= origin.next + WINDOW:
            self._hand_over(origin, origin.skip(seq - WINDOW), now)
        if seq > origin.next:
            self._search.claim(source, origin, epoch, seq, now)
            if not self._table.has_room(origin, held.cost):
                return False
        origin.hold(held)
        self._came_further(origin, now)
        return True

    def _piece(self, peer: PeerId, chunk: Chunk, now: float) -> None:
        """A piece of a large payload; with the last one the broadcast is whole."""
        payload = self._bodies.take(peer, chunk, now)
        if payload is None:
            return
        self._bodies.forget(BroadcastId(chunk.origin, chunk.epoch, chunk.seq), now)
        origin = self._table.get(chunk.origin)
        held = origin.pending.get(chunk.seq) if origin is not None else None
        if origin is None or held is None or held.header.epoch != chunk.epoch:
            return
        if chunk.seq > origin.next and not self._table.has_room(origin, len(payload)):
            origin.drop(chunk.seq)
        else:
            origin.hold(replace(held, payload=payload, source=peer))
            self._spread([held.post], False, peer)
        self._came_further(origin, now)

    def _came_further(self, origin: Origin, now: float) -> None:
        self._hand_over(origin, origin.advance(), now)
        self._search.look(origin, now)

    def _hand_over(self, origin: Origin, items: Iterable[Held | Gap], now: float) -> None:
        """Deliver in order, tell the gaps, and keep what others may have missed."""
        for item in items:
            self._marks.changed(origin.name, now)
            if isinstance(item, Gap):
                self._actions.append(item)
                self._bodies.forget_until(origin.name, (item.epoch, item.last), now)
                continue
            header, payload = item.header, item.payload or b""
            name = BroadcastId(origin.name, header.epoch, header.seq)
            if header.channel:
                self._actions.append(Deliver(*name, header.channel, payload))
            else:
                self._asked_again(name, payload, item.source, now)
            if header.wants_acks:
                self._acks.delivered(name, item.source, now)
            if header.epoch == origin.epoch:
                origin.retain(item if item.at == now else replace(item, at=now))
                self._table.retained(item.cost)

    def _asked_again(self, name: BroadcastId, payload: bytes, source: PeerId | None, now: float) -> None:
        try:
            seq, wanted = decode_items(payload)
        except FeddError:  # signed by its origin: nonsense of its own, passed on by others in good faith
            return
        earlier = BroadcastId(name.origin, name.epoch, seq)
        self._acks.asked_again(earlier, source, not wanted or self.me in wanted, now)

    def _gone(self, link: Neighbour, gone: Gone, now: float) -> None:
        """A neighbour has these no longer; its head proves that they were."""
        head = gone.head
        origin = self._table.get(head.origin)
        if origin is None:
            return
        if (head.epoch, head.seq) > (origin.epoch, origin.top) and self._open(link, head, now):
            origin.allowance.charge(0)
            self._search.look(origin, now)
        if head.epoch == origin.epoch:
            self._search.gone(link.peer, origin, gone.ranges, now)

    # -- the parts

    def _blame(self, link: Neighbour, reason: str, now: float) -> None:
        link.bad += 1
        if link.bad > MAX_BAD:
            self._distrust(link, reason, now)

    def _distrust(self, link: Neighbour, reason: str, now: float) -> None:
        self._actions.append(Distrust(link.peer, reason))
        self._drop_link(link.peer, now)

    def _drop_link(self, peer: PeerId, now: float) -> None:
        if self._links.pop(peer, None) is not None:
            self._search.link_down(peer)
            self._bodies.link_down(peer, now)
