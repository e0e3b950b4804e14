"""Broadcasts of small messages to all members: drives the broadcast core over the links of presence."""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from fedd.api.errors import Conflict, Unhealthy
from fedd.api.types import PeerId
from fedd.core.broadcast import Broadcasts
from fedd.core.broadcast_keys import BroadcastKeys
from fedd.core.broadcast_messages import BroadcastMessage
from fedd.core.broadcast_origin import BURST
from fedd.core.broadcast_table import TOTAL_PENDING_BYTES, TOTAL_RETAINED_BYTES
from fedd.core.broadcast_types import Acked, BroadcastAction, BroadcastId, Deliver, Distrust, Gap
from fedd.core.dataclass import dataclass
from fedd.core.identity import PrivateKey, open_sealed, seal
from fedd.core.membership_types import Send
from fedd.core.verdicts import MemberChange
from fedd.net.alarm import Alarm
from fedd.net.bounds import Bound
from fedd.net.presence import Presence

if TYPE_CHECKING:
    from trio_typing import TaskStatus

logger = logging.getLogger("fedd.net.broadcast")

# Acknowledgements are asked for again after this long, then after twice as long, and so on.
ASK_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Delivery:
    """A broadcast as it comes to who subscribed: seqs of an origin rise by one, in each of its epochs."""

    origin: PeerId
    epoch: int
    seq: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reached:
    """Who has acknowledged a broadcast, and who has not of those that were alive or suspect; both sorted."""

    delivered: tuple[PeerId, ...]
    missing: tuple[PeerId, ...]


Subscriber = Callable[[Delivery | Gap], None]


class _Waiting:
    """A broadcast whose acknowledgements somebody waits for."""

    def __init__(self, missing: set[PeerId]) -> None:
        self.missing = missing
        self.delivered: set[PeerId] = set()
        self.news = trio.Event()


class Broadcaster:
    """This node's broadcasts: publish to all members, subscribe by channel.

    Every member that stays connected gets each broadcast exactly once in an epoch of its origin, and those of
    one origin in order; else a Gap.
    """

    def __init__(
        self,
        presence: Presence,
        key: PrivateKey,
        *,
        clock: Callable[[], float] = trio.current_time,
        rng: random.Random | None = None,
    ) -> None:
        self._presence = presence
        self._key = key
        self._clock = clock
        self._rng = rng or random.Random()
        self._core: Broadcasts | None = None
        self._subscribers: list[tuple[str, Subscriber]] = []
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._refused = 0
        self._actions: deque[BroadcastAction] = deque()
        self._performing = False
        self._alarm = Alarm(clock)
        presence.attach(self)
        presence.subscribe(self._member_changed)

    # -- verbs

    def publish(self, channel: str, payload: bytes) -> BroadcastId:
        """Broadcast `payload` (at most 64 KiB) to all members, this node among them; waits for nothing.

        Raises:
            Conflict: this node is in no federation.
            InvalidParameter: the payload is too large, or the channel's name is not 1 to 32 characters.
            Unhealthy: this node has used up its allowance; the hint says when there is room again.
        """
        return self._publish(channel, payload, wants_acks=False)

    def wait_s(self, payload_bytes: int) -> float:
        """How long until so many bytes may be published, in seconds; 0.0: now."""
        return self._core.wait_s(payload_bytes, self._clock()) if self._core is not None else 0.0

    async def publish_and_wait(self, channel: str, payload: bytes, deadline_s: float) -> Reached:
        """Broadcast, and wait until all members have acknowledged, for at most `deadline_s` seconds.

        It ends earlier when all that are missing have died or left. All members answer, so there is a smaller
        allowance for this, for which it waits too. Raises as `publish`.
        """
        give_up_at = self._clock() + deadline_s
        while self._core is not None:
            wait_s = self._core.wait_s(len(payload), self._clock(), wants_acks=True)
            if not 0.0 < wait_s < give_up_at - self._clock():
                break
            await trio.sleep(max(wait_s, 0.001))
        name = self._publish(channel, payload, wants_acks=True)  # on its way before anything else is done
        members = self._presence.members()[1:]
        waiting = _Waiting({view.peer_id for view in members if view.state in ("alive", "suspect")})
        self._waiting[name.epoch, name.seq] = waiting
        try:
            with trio.move_on_after(max(0.0, give_up_at - self._clock())):
                await self._wait(name, waiting)
        finally:
            del self._waiting[name.epoch, name.seq]
        return Reached(tuple(sorted(waiting.delivered)), tuple(sorted(waiting.missing)))

    def subscribe(self, channel: str, callback: Subscriber) -> None:
        """Call back, synchronously, at each broadcast on `channel` and at each gap, which has no channel."""
        self._subscribers.append((channel, callback))

    def bounds(self) -> list[Bound]:
        """What broadcasts hold here, and the most of it."""
        core = self._core
        held, refused = (core.held_bytes, core.refused) if core is not None else (0, 0)
        used = core.used(self._clock()) if core is not None else 0.0
        return [
            Bound(
                "broadcast_bytes",
                held,
                TOTAL_RETAINED_BYTES + TOTAL_PENDING_BYTES,
                refused,
                "bytes of broadcasts kept for others or waiting for their turn",
            ),
            Bound("broadcasts", round(used, 1), BURST, self._refused, "published of those allowed at once"),
        ]

    # -- the loop

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive repair and acknowledgements until cancelled."""
        task_status.started()
        while True:
            self._alarm.set(self._core.next_deadline() if self._core is not None else math.inf)
            await self._alarm.wait()
            if self._core is not None:
                self._perform(self._core.handle_timeout(self._clock()))

    # -- what presence tells

    def entered(self) -> None:
        """This node is in a federation now."""
        federation = self._presence.federation
        if federation is None:
            return
        self._core = Broadcasts(
            self._key.peer_id,
            self._presence.epoch,
            keys=BroadcastKeys(
                federation.id,
                lambda domain, data: seal(self._key, domain, data),
                lambda domain, sealed, peer: open_sealed(sealed, domain, peer)[1],
            ),
            certified=self._presence.is_member,
            rtt_of=self._presence.rtt_of,
            neighbours_of=self._presence.neighbours_of,
            links_version=self._presence.links_version,
            rng=self._rng,
            now=self._clock(),
        )
        self._alarm.set(self._core.next_deadline())

    def left(self) -> None:
        """It is in none any more."""
        self._core = None
        for waiting in self._waiting.values():
            waiting.news.set()

    def link_up(self, peer: PeerId) -> None:
        """A link with `peer` stands, or another stream has taken its place."""
        if self._core is not None:
            self._perform(self._core.link_up(peer, self._clock()))

    def link_down(self, peer: PeerId) -> None:
        """The link with `peer` is gone, if there was one."""
        if self._core is not None:
            self._perform(self._core.link_down(peer, self._clock()))

    def received(self, peer: PeerId, message: BroadcastMessage) -> None:
        """`peer`, with which a link stands, said this."""
        if self._core is not None:
            self._perform(self._core.receive(peer, message, self._clock()))

    def _member_changed(self, change: MemberChange) -> None:
        if change.new in ("dead", "left"):
            for waiting in self._waiting.values():
                waiting.news.set()

    # -- the parts

    def _publish(self, channel: str, payload: bytes, *, wants_acks: bool) -> BroadcastId:
        core = self._core
        if core is None:
            raise Conflict("this node is in no federation", hint="`fedctl init` one, or `fedctl join`")
        # If another machine had this node's key, or an old state directory came back, presence has outbid it.
        core.begin_epoch(self._presence.epoch, self._clock())
        try:
            name, actions = core.publish(channel, payload, self._clock(), wants_acks=wants_acks)
        except Unhealthy:
            self._refused += 1
            raise
        self._perform(actions)
        return name

    async def _wait(self, name: BroadcastId, waiting: _Waiting) -> None:
        pause_s = ASK_AGAIN_S
        ask_at = self._clock() + pause_s
        while self._core is not None and any(
            self._presence.state_of(peer) in ("alive", "suspect") for peer in waiting.missing
        ):
            with trio.move_on_after(max(0.0, ask_at - self._clock())) as scope:
                await waiting.news.wait()
            waiting.news = trio.Event()
            if scope.cancelled_caught and self._core is not None:
                pause_s *= 2
                ask_at = self._clock() + pause_s
                self._perform(self._core.ask_again(name.seq, sorted(waiting.missing), self._clock()))

    def _perform(self, actions: list[BroadcastAction]) -> None:
        """Do what the core asks for, in order also when a subscriber publishes; nothing here waits."""
        self._actions += actions
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                self._do(self._actions.popleft())
        finally:
            self._performing = False
        if self._core is not None:
            self._alarm.advance(self._core.next_deadline())

    def _do(self, action: BroadcastAction) -> None:
        match action:
            case Send(peer, message):
                if not self._presence.send_bulk(peer, message) and self._core is not None:
                    self._core.congested(peer, self._clock())
            case Deliver(origin, epoch, seq, channel, payload):
                delivery = Delivery(origin, epoch, seq, payload)
                self._tell([callback for name, callback in self._subscribers if name == channel], delivery)
            case Gap():
                self._tell([callback for _, callback in self._subscribers], action)
            case Acked(epoch, seq, peer):
                waiting = self._waiting.get((epoch, seq))
                if waiting is not None and peer in waiting.missing:
                    waiting.missing.remove(peer)
                    waiting.delivered.add(peer)
                    waiting.news.set()
            case Distrust(peer, reason):
                self._presence.distrust(peer, reason)

    def _tell(self, callbacks: list[Subscriber], what: Delivery | Gap) -> None:
        for callback in callbacks:
            try:
                callback(what)
            except Exception:  # a subscriber's mistake must not cost the others theirs
                logger.exception("a subscriber to broadcasts failed at one of %s", what.origin)
