"""libp2p's ping, `/ipfs/ping/1.0.0`: 32 random bytes come back as they were sent."""

from __future__ import annotations

import random
from typing import Final

import trio

from fedd.api.errors import NotConnected, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

PROTOCOL: Final = "/ipfs/ping/1.0.0"
PAYLOAD_BYTES: Final = 32
IDLE_S: Final = 60.0
"""A peer that pings no more for this long is given no seat."""


def serve_ping(swarm: Swarm) -> None:
    """Answer everybody's pings."""
    swarm.handle(PROTOCOL, _echo, "anyone")


async def _echo(stream: Stream) -> None:
    with trio.move_on_after(IDLE_S) as scope:
        while True:
            try:
                payload = await stream.receive_exactly(PAYLOAD_BYTES)
            except EOFError:
                return
            await stream.send_all(payload)
            scope.deadline = trio.current_time() + IDLE_S


async def ping(
    swarm: Swarm, peer_id: PeerId, count: int = 1, *, interval_s: float = 0.0, deadline_s: float = 10.0
) -> list[float]:
    """Measure `count` round trips to a connected peer, in seconds.

    TimedOut when an answer takes longer than `deadline_s`, NotConnected without a connection.
    """
    stream = await swarm.open_stream(peer_id, PROTOCOL, deadline_s)
    times: list[float] = []
    generator = random.Random(f"{peer_id} {trio.current_time()}")
    try:
        for index in range(count):
            if index and interval_s:
                await trio.sleep(interval_s)
            payload = generator.randbytes(PAYLOAD_BYTES)
            sent_at = trio.current_time()
            with trio.fail_after(deadline_s):
                await stream.send_all(payload)
                answer = await stream.receive_exactly(PAYLOAD_BYTES)
            if answer != payload:
                raise ProtocolError(f"{peer_id} answered a ping with other bytes")
            times.append(trio.current_time() - sent_at)
        await stream.aclose()
    except trio.TooSlowError:
        raise TimedOut(f"{peer_id} did not answer a ping in {deadline_s:g} s") from None
    except (trio.BrokenResourceError, EOFError) as error:
        raise NotConnected(f"{peer_id} stopped answering pings: {error}") from error
    finally:
        stream.reset()  # does nothing to a stream that was closed
    return times
