"""Ordered exactly-once broadcast of small messages over the links of the federation.

A decision machine: every method takes the time (seconds, monotonic), changes the state and returns the
actions to perform, in order. `next_deadline` says when `handle_timeout` is due.

Small broadcasts are flooded, larger ones announced and fetched. Each origin numbers and signs its own, so a
copy needs no trust in whom it came from, and is delivered in the order of its numbers. What is missing is
asked of neighbours whose marks say that they have it; what nobody has any more is told as a gap. In the
manner of Bimodal Multicast (Birman et al. 1999: best-effort spreading, then repair between neighbours by
digests) and of Plumtree (Leitao, Pereira, Rodrigues 2007: payloads eagerly, announcements lazily).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from fedd.api.errors import FeddError, InvalidParameter, Unhealthy
from fedd.api.types import PeerId
from fedd.core.broadcast_acks import OWN_MOST
from fedd.core.broadcast_answers import answer_pull, answer_want
from fedd.core.broadcast_intake import BroadcastIntake, Neighbour
from fedd.core.broadcast_keys import BroadcastKeys
from fedd.core.broadcast_messages import (
    MAX_CHANNEL_CHARS,
    MAX_FLOODED_BYTES,
    MAX_PAYLOAD_BYTES,
    Acks,
    Bcast,
    BroadcastMessage,
    Chunk,
    Gone,
    Header,
    Ihave,
    Iwant,
    Marks,
    Post,
    Pull,
    encode_items,
)
from fedd.core.broadcast_origin import Held
from fedd.core.broadcast_types import BroadcastAction, BroadcastId
from fedd.core.membership_types import Send
from fedd.core.overlay import Dice
from fedd.core.records import MAX_COUNTER

# How often memory is tidied and a neighbour told some marks unasked.
DIGEST_S: Final = 10.0
# Of those asked to acknowledge again, as many as a small broadcast holds: 40 bytes each.
MAX_ASKED: Final = 20


class Broadcasts(BroadcastIntake):
    """The broadcasts of one federation as one node sees them; see the module for the rules.

    `certified(peer)` tells whether that peer is a member: what others publish is dropped, and comes with the
    next marks once they are. `rtt_of(peer)` is a link's round trip in seconds, None when unknown;
    `neighbours_of(peer)` are the members with which that member has links, by both their records, and
    `links_version()` is equal as long as these are the same, for all.
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
        links_version: Callable[[], object] = object,
        rng: Dice,
        now: float,
    ) -> None:
        super().__init__(
            me,
            epoch,
            keys=keys,
            certified=certified,
            rtt_of=rtt_of,
            neighbours_of=neighbours_of,
            links_version=links_version,
            now=now,
        )
        self._rng = rng
        self._digest_due = now + DIGEST_S

    # -- what is known

    @property
    def held_bytes(self) -> int:
        """What broadcasts take in memory."""
        return self._table.retained_bytes + self._table.pending_bytes

    @property
    def refused(self) -> int:
        """How many broadcasts were beyond the allowance of their origin, or found no room."""
        return self._table.refused

    @property
    def epoch(self) -> int:
        """The epoch of this node's own broadcasts."""
        return self._table.own.epoch

    def mark_of(self, peer: PeerId) -> tuple[int, int] | None:
        """(epoch, seq) of the last broadcast of `peer` that was delivered or given up."""
        origin = self._table.get(peer)
        return origin.mark if origin is not None else None

    def wait_s(self, size: int, now: float, *, wants_acks: bool = False) -> float:
        """How long until this node may publish `size` bytes; 0.0: now."""
        wait_s = self._table.own.allowance.wait_s(size, now)
        return max(wait_s, self._acks.wait_s(self.me, OWN_MOST, now)) if wants_acks else wait_s

    def used(self, now: float) -> float:
        """How many broadcasts of those that this node may publish at once are used up."""
        return self._table.own.allowance.used(now)

    # -- what happens

    def begin_epoch(self, epoch: int, now: float) -> None:
        """This node's records have a new epoch, so its broadcasts have."""
        self._table.begin_epoch(epoch, now)

    def publish(
        self, channel: str, payload: bytes, now: float, *, wants_acks: bool = False
    ) -> tuple[BroadcastId, list[BroadcastAction]]:
        """Broadcast `payload` to all members, this node among them.

        Raises:
            InvalidParameter: it is larger than 64 KiB, or the channel's name is not 1 to 32 characters.
            Unhealthy: this node has used up its allowance; that for acknowledgements is smaller.
        """
        if not 0 < len(channel) <= MAX_CHANNEL_CHARS:
            raise InvalidParameter(
                f"a channel's name has 1 to {MAX_CHANNEL_CHARS} characters, not {len(channel)}",
                field="channel",
            )
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidParameter(
                f"a broadcast has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}", field="payload"
            )
        wait_s = self.wait_s(len(payload), now, wants_acks=wants_acks)
        if wait_s:
            raise Unhealthy(
                "this node broadcasts more than it may", hint=f"there is room again in {wait_s:.2f} s"
            )
        name = self._publish(channel, payload, wants_acks, now)
        return name, self._finish(now)

    def ask_again(self, seq: int, missing: Iterable[PeerId], now: float) -> list[BroadcastAction]:
        """Ask for acknowledgements of an earlier broadcast that did not come: their way was cut.

        Names as many of `missing` as fit, the others when these have answered; not when the allowance is
        used up.
        """
        asked = encode_items(seq, list(missing)[:MAX_ASKED])
        if self.wait_s(len(asked), now) == 0.0:
            self._publish("", asked, False, now)
        return self._finish(now)

    def link_up(self, peer: PeerId, now: float) -> list[BroadcastAction]:
        """A link with `peer` stands, or another stream has taken its place."""
        self._links[peer] = Neighbour(peer)
        self._search.link_up(peer)
        self._sends += self._marks.greet(peer, now)
        return self._finish(now)

    def link_down(self, peer: PeerId, now: float) -> list[BroadcastAction]:
        """The link with `peer` is gone."""
        self._drop_link(peer, now)
        return self._finish(now)

    def congested(self, peer: PeerId, now: float) -> None:
        """A message for `peer` was thrown away, too many wait: tell it the marks later, so that it asks."""
        if peer in self._links:
            self._marks.behind(peer, now)

    def receive(self, peer: PeerId, message: BroadcastMessage, now: float) -> list[BroadcastAction]:
        """`peer`, with which a link stands, said `message`."""
        link = self._links.get(peer)
        if link is None:
            return []
        match message:
            case Bcast(posts):
                self._spread([post for post in posts if self._take(link, post, now)], True, peer)
            case Ihave(posts):
                for post in posts:
                    self._announced(link, post, now)
            case Iwant():
                self._asked(peer, message)
            case Gone():
                self._gone(link, message, now)
            case Pull(name):
                self._sends.append(Send(peer, answer_pull(self._table.get(name), message)))
            case Chunk():
                self._piece(peer, message, now)
            case Marks():
                self._told_marks(peer, message, now)
            case _:
                self._acknowledged(link, message, now)
        return self._finish(now)

    # -- time

    def next_deadline(self) -> float:
        """When `handle_timeout` has something to do."""
        due = self._digest_due
        for at in (
            self._marks.due,
            self._search.next_deadline(),
            self._bodies.next_deadline(),
            self._acks.next_deadline(),
        ):
            if at is not None and at < due:
                due = at
        return due

    def handle_timeout(self, now: float) -> list[BroadcastAction]:
        """Do whatever is due."""
        self._sends += self._acks.handle_timeout(now)
        self._bodies.handle_timeout(now)
        sends, lost = self._search.step(now)
        self._sends += sends
        for origin, last in lost:
            self._hand_over(origin, origin.skip(last), now)
            self._search.look(origin, now)
        self._sends += self._marks.tell(self._links, self._rng, now)
        if now >= self._digest_due:
            self._digest_due = now + DIGEST_S * self._rng.uniform(0.75, 1.25)
            for name in self._table.tidy(now):
                self._search.forget(name)
                self._bodies.forget_until(name, (MAX_COUNTER, MAX_COUNTER), now)
            self._sends += self._marks.digest(self._links, self._rng)
        return self._finish(now)

    # -- publishing

    def _publish(self, channel: str, payload: bytes, wants_acks: bool, now: float) -> BroadcastId:
        own = self._table.own
        digest = hashlib.sha256(payload).digest()
        header = Header(own.epoch, own.next, channel, wants_acks, len(payload), digest)
        small = header.size <= MAX_FLOODED_BYTES
        post = Post(self.me, own.epoch, own.next, self._keys.sign(header), payload if small else b"")
        own.allowance.charge(header.size)
        own.prove(post)
        own.hold(Held(post, header, None, payload, now))
        self._spread([post], small, None)
        self._hand_over(own, own.advance(), now)
        return BroadcastId(self.me, header.epoch, header.seq)

    def _acknowledged(self, link: Neighbour, acks: Acks, now: float) -> None:
        try:
            self._actions += self._acks.receive(link.peer, acks, self._table.certified, now)
        except FeddError as error:
            self._blame(link, error.detail, now)

    def _asked(self, peer: PeerId, want: Iwant) -> None:
        """A neighbour misses something."""
        origin = self._table.get(want.origin)
        if origin is None:
            return
        self._sends += [Send(peer, answer) for answer in answer_want(origin, want)]
        if origin.provisional and not origin.head_wanted:
            # A newcomer cannot prove what was before it; with the head it can, when it is asked again.
            origin.head_wanted = True
            epoch, mark = origin.mark
            question = Iwant(origin.name, epoch, ((mark, mark),))
            self._sends += [Send(other, question) for other in self._links if other != peer]

    def _told_marks(self, peer: PeerId, marks: Marks, now: float) -> None:
        elder = self._marks.is_elder(peer, marks, now)
        for name, epoch, seq in marks.entries:
            origin = self._table.other(name, now)
            if origin is None:
                continue
            if elder:
                origin.adopt(epoch, seq)
                self._came_further(origin, now)
            self._search.claim(peer, origin, epoch, seq, now)

    def _finish(self, now: float) -> list[BroadcastAction]:
        """Sends first: what is told here may take its time."""
        bodies = self._bodies
        while bodies.lost or bodies.liars:
            for peer in bodies.take_liars():
                self._blame(self._links[peer], "a payload is not what was signed", now)
            lost = [(self._table.get(name.origin), name.seq) for name in bodies.take_lost()]
            for origin, seq in [(origin, seq) for origin, seq in lost if origin is not None]:
                origin.drop(seq)
                self._search.look(origin, now)
        actions = [*self._sends, *bodies.take_sends(), *self._actions]
        self._sends, self._actions = [], []
        return actions
