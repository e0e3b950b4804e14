"""The presence streams of this node, one a peer: opening, accepting, replacing, ending."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVarTuple

import trio

from fedd.api.errors import FeddError, NotConnected, ProtocolError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.presence_messages import PRESENCE_PROTOCOL, Bye, Hello, Message, encode_message
from fedd.core.records import LossReason
from fedd.core.revocation import Revoked
from fedd.net.connection import Connection
from fedd.net.presence_link import PresenceLink, RefusedByList
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

Arguments = TypeVarTuple("Arguments")

logger = logging.getLogger("fedd.net.presence")

# A stream may be replaced by another, on a connection that lives on, without the link being called lost.
REPLACE_S: Final = 1.0
# A peer that resets every stream is asked again, but not in a hurry.
REOPEN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """What the owner of the table provides; all but `hello` and `check` are told, synchronously.

    `hello(peer)` gives this node's greeting, None while it belongs to no federation; `check(peer, chain)`
    raises FeddError when the certificate does not hold. `told(peer, sealed)` says that `peer` refused this
    node because of a revocation list. `down` says "closed" when the peer's end closed the connection,
    "silent" when it broke otherwise, None when this end did it.
    """

    hello: Callable[[PeerId], Hello | None]
    check: Callable[[PeerId, bytes], object]
    up: Callable[[PresenceLink], None]
    message: Callable[[PeerId, Message], None]
    down: Callable[[PeerId, LossReason | None], None]
    dial_failed: Callable[[PeerId], None]
    told: Callable[[PeerId, bytes], None]


class _Opening:
    """One attempt, for all who want its outcome."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.worked = False


class LinkTable:
    """Holds at most one stream a peer; both ends agree on which stays when both opened one."""

    def __init__(self, swarm: Swarm, events: LinkEvents) -> None:
        self._swarm = swarm
        self._events = events
        self._opening: dict[PeerId, _Opening] = {}
        self._closing: set[PresenceLink] = set()
        # What was sent last: news goes to many links, and is put into a frame once.
        self._sent: Message | None = None
        self._frame = b""
        self.links: dict[PeerId, PresenceLink] = {}
        self.nursery: trio.Nursery | None = None

    async def dial(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Link with `peer`; the outcome is told by `up` or `dial_failed`."""
        worked = False
        try:
            await self._swarm.dial(addresses, peer)
            worked = await self.open(peer)
        except FeddError as error:
            logger.debug("cannot dial %s: %s", peer, error)
        except Exception:  # a mistake of ours: without an outcome the peer would never be dialled again
            logger.exception("dialling %s failed", peer)
        if not worked:
            self._events.dial_failed(peer)

    async def open(self, peer: PeerId, *, anew: bool = False) -> bool:
        """Have a presence stream with `peer`, or `anew` another; False when that does not work."""
        if peer in self.links and not anew:
            return True
        opening = self._opening.get(peer)
        if opening is not None:
            await opening.over.wait()
            return opening.worked
        opening = self._opening[peer] = _Opening()
        try:
            opening.worked = await self._open(peer)
        finally:
            del self._opening[peer]
            opening.over.set()
        return opening.worked

    async def _open(self, peer: PeerId) -> bool:
        hello = self._events.hello(peer)
        if hello is None:
            return False
        try:
            stream = await self._swarm.open_stream(peer, PRESENCE_PROTOCOL)
        except FeddError as error:
            logger.debug("no presence stream with %s: %s", peer, error)
            return False
        if stream.connection.relayed_by is not None:  # the direct connection ended this moment
            stream.reset()
            return False
        link = PresenceLink(stream, opened_here=True)
        if not await self._greet(link, hello):
            return False
        self.start(self._serve, link)
        return True

    async def accept(self, stream: Stream) -> None:
        """Serve a presence stream that the peer opened."""
        hello = self._events.hello(stream.peer_id)
        if hello is None or stream.connection.relayed_by is not None:  # what is relayed proves no link
            stream.reset()
            return
        link = PresenceLink(stream, opened_here=False)
        if await self._greet(link, hello):
            await self._serve(link)

    def start(self, function: Callable[[*Arguments], Awaitable[object]], *args: *Arguments) -> None:
        """Start a task of presence's own; nothing is started any more once presence has ended."""

        async def run() -> None:
            try:
                await function(*args)
            except Exception:  # a mistake of ours with one peer must not cost all links and the daemon
                logger.exception("a task of presence failed")

        if self.nursery is not None:
            self.nursery.start_soon(run)

    def reopen(self, peer: PeerId) -> None:
        """Open another stream with `peer`, on the connection that both ends keep."""
        self.start(partial(self.open, anew=True), peer)

    def send(self, peer: PeerId, message: Message) -> None:
        """Queue a message for `peer`; without a link it is lost, and the next digest makes up for it."""
        link = self.links.get(peer)
        if link is not None:
            link.send(message, self._framed(message))

    def send_bulk(self, peer: PeerId, message: Message) -> bool:
        """Queue a message that can be had again; False when it was thrown away."""
        link = self.links.get(peer)
        return link is not None and link.send_bulk(message, self._framed(message))

    def _framed(self, message: Message) -> bytes:
        if message is not self._sent:
            self._sent, self._frame = message, encode_message(message)
        return self._frame

    def retire(self, peer: PeerId, *, abrupt: bool = False) -> None:
        """End the stream with `peer`, after what is queued or `abrupt`ly with its connection."""
        link = self.links.pop(peer, None)
        if link is None:
            return
        link.finish()
        if abrupt:
            link.stream.reset()
            self.start(self.hang_up, peer)
        elif not link.done.is_set():
            self._closing.add(link)

    async def hang_up(self, peer: PeerId) -> None:
        """Close all connections with `peer`, if there are any."""
        with suppress(NotConnected):
            await self._swarm.disconnect(peer)

    async def drain(self, deadline_s: float) -> None:
        """Wait until the retired streams have sent what was queued."""
        with trio.move_on_after(deadline_s):
            for link in list(self._closing):
                await link.done.wait()

    async def _greet(self, link: PresenceLink, hello: Hello) -> bool:
        try:
            await link.greet(hello, self._events.check)
        except Revoked as error:
            logger.info("refused %s as a member: %s", link.peer_id, error.detail)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await link.refuse(error.sealed)
            # It has no other business here, and dials at once when its link is ended.
            self.start(self.hang_up, link.peer_id)
        except RefusedByList as error:
            self._events.told(link.peer_id, error.sealed)
        except FeddError as error:
            logger.info("refused %s as a member: %s", link.peer_id, error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("%s broke the presence stream off", link.peer_id)
        except BaseException:  # cancelled: the peer must not go on believing in this stream
            link.stream.reset()
            raise
        else:
            self._swarm.vouch(link.peer_id)
            return True
        link.stream.reset()
        return False

    async def _serve(self, link: PresenceLink) -> None:
        peer = link.peer_id
        known = self.links.get(peer)
        if known is not None:
            known_wins = self._rank(known) > self._rank(link)
            loser = known if not known_wins else link
            loser.send(Bye("duplicate"))
            loser.finish()
            if known_wins:
                await link.write()
                return
            self._closing.add(known)
        self.links[peer] = link
        try:
            self._events.up(link)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.write)
                await self._read(link)
                if link.stream.connection.closed:
                    nursery.cancel_scope.cancel()
                link.finish()
        finally:
            link.done.set()
            self._closing.discard(link)
            self._ended(link)

    async def _read(self, link: PresenceLink) -> None:
        """Read to the end. Inside the link's nursery, which would wrap what came out of here into a group."""
        try:
            await link.read(lambda message: self._deliver(link, message))
        except ProtocolError as error:
            logger.warning("%s breaks the presence protocol: %s", link.peer_id, error)
            link.stream.reset()
        except Exception:  # a mistake of ours must cost no more than this link
            logger.exception("a message of %s could not be taken", link.peer_id)
            link.stream.reset()

    def _deliver(self, link: PresenceLink, message: Message) -> None:
        if self.links.get(link.peer_id) is not link:
            return
        if type(message) is Bye and message.reason == "duplicate":
            link.finish()
        else:
            self._events.message(link.peer_id, message)

    def _ended(self, link: PresenceLink) -> None:
        peer = link.peer_id
        if self.links.get(peer) is not link:
            return
        del self.links[peer]
        if self._swarm.direct(peer) is not None:
            self.start(self._replace, link)
        else:
            self._tell_down(peer, link.stream.connection)

    def _tell_down(self, peer: PeerId, connection: Connection) -> None:
        """No stream is left with `peer`; what is known of its end is how this connection ended."""
        if connection.close_reason == "closed":
            self._events.down(peer, "closed")
        else:
            self._events.down(peer, None if connection.close_reason == "local" else "silent")

    async def _replace(self, link: PresenceLink) -> None:
        """The stream ended and a connection stands: whoever opened it opens another, while that stands.

        When the connection ends meanwhile, it says how: the peer may have died at this moment.
        """
        peer, last = link.peer_id, link.stream.connection
        with trio.move_on_after(REPLACE_S):
            while peer not in self.links and (standing := self._swarm.direct(peer)) is not None:
                last = standing
                if link.opened_here and not link.said_bye:
                    await self.open(peer)
                await trio.sleep(REOPEN_S)
        if peer not in self.links:
            self._tell_down(peer, last)

    def _rank(self, link: PresenceLink) -> tuple[bool, bool]:
        """Of two streams that on the connection both ends keep stays, then that which the lower id opened.

        Of equals the newer stays.
        """
        current = self._swarm.connections.get(link.peer_id) is link.stream.connection
        return current, link.opened_here == (self._swarm.peer_id < link.peer_id)
