"""Which protocols are served, to whom, and how an inbound stream comes to its handler."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import trio

from fedd.api.errors import Conflict, FeddError
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.core.multistream import Listener
from fedd.net.doors import SwarmLimits, TokenBucket
from fedd.net.stream import Stream

log = logging.getLogger("fedd.net")

Access = Literal["members", "anyone"]
Handler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol's handler, and who may speak it."""

    handler: Handler
    access: Access


class Services:
    """The protocols of this node. `is_member` says who may use those for members."""

    def __init__(self, limits: SwarmLimits, is_member: Callable[[PeerId], bool]) -> None:
        self.protocols: dict[str, Service] = {}
        self._families: dict[str, Service] = {}
        self._limits = limits
        self._is_member = is_member
        self._strangers: dict[PeerId, TokenBucket] = {}

    def add(self, protocol: str, handler: Handler, access: Access) -> None:
        """Serve a protocol; Conflict when it is served already."""
        if protocol in self.protocols:
            raise Conflict(f"{protocol} is served already")
        self.protocols[protocol] = Service(handler, access)

    def add_family(self, prefix: str, handler: Handler, access: Access) -> None:
        """Serve every protocol whose id begins so and goes on; the stream says which one it is."""
        self._families[prefix] = Service(handler, access)

    def of(self, peer_id: PeerId) -> list[str]:
        """The protocols that this peer may speak to us."""
        return [protocol for protocol in self.protocols if self._may_speak(peer_id, protocol)]

    def forget(self, peer_id: PeerId) -> None:
        """The peer has no connection any more."""
        self._strangers.pop(peer_id, None)

    def inbound_quota(self, peer_id: PeerId) -> int:
        """How many streams this peer may have open; asked once for each that it opens."""
        limits = self._limits
        if self._is_member(peer_id):
            return limits.streams.inbound_streams
        now = trio.current_time()
        bucket = self._strangers.get(peer_id)
        if bucket is None:
            bucket = self._strangers[peer_id] = TokenBucket(
                limits.stranger_streams_burst, limits.stranger_streams_per_s, now
            )
        return limits.streams_per_stranger if bucket.take(now) else 0

    async def serve(self, stream: Stream) -> None:
        """Negotiate an inbound stream and run its handler. Raises nothing but cancellation."""
        try:
            with trio.move_on_after(self._limits.negotiation_s):
                await self._negotiate(stream)
            service = self._service(stream.protocol)
            if service is not None:
                await service.handler(stream)
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError) as error:
            log.debug("%r ended: %s", stream, error)
        except FeddError as error:
            log.info("%r: %s", stream, error)
        except Exception as error:
            if _is_broken_stream(error):
                log.debug("%r ended: %s", stream, error)
            else:
                log.exception("the handler of %r failed", stream)
        finally:
            stream.reset()  # does nothing to a stream that was closed

    def _may_speak(self, peer_id: PeerId, protocol: str) -> bool:
        service = self._service(protocol)
        return service is not None and (service.access == "anyone" or self._is_member(peer_id))

    def _service(self, protocol: str) -> Service | None:
        if protocol in self.protocols:
            return self.protocols[protocol]
        for prefix, service in self._families.items():
            if protocol.startswith(prefix) and len(protocol) > len(prefix):
                return service
        return None

    async def _negotiate(self, stream: Stream) -> None:
        peer_id = stream.peer_id
        machine = Listener(lambda protocol: self._may_speak(peer_id, protocol), listed=self.of(peer_id))
        protocol = ""
        while not machine.finished:
            data = await stream.receive_some()
            if not data:
                machine.receive_eof()
            for event in machine.receive_data(data):
                protocol = getattr(event, "protocol", "")
            if answer := machine.data_to_send():
                await stream.send_all(answer)
        stream.unread(machine.trailing)
        stream.protocol = protocol


def _is_broken_stream(error: BaseException) -> bool:
    """Whether a handler's nursery failed for nothing but what the peer did to its stream."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_broken_stream(part) for part in error.exceptions)
    return isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError, EOFError, FeddError))
