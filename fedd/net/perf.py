"""libp2p's perf protocol, `/perf/1.0.0`: how fast a link carries bytes up and down.

The dialler says in 8 bytes, big-endian, how much it wants back, uploads what it likes and closes its
writing side; the listener then sends what was asked for and closes. To strangers a listener is a
bandwidth sink, so nobody serves this unless the owner of a swarm calls `serve_perf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import trio

from fedd.api.errors import NotConnected, ProtocolError, TimedOut
from fedd.api.types import PeerId
from fedd.core.dataclass import dataclass
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

PROTOCOL: Final = "/perf/1.0.0"
BLOCK_BYTES: Final = 256 * 1024
"""Sent at once: a whole initial window, so that the pump has always something to take."""
STALL_S: Final = 10.0
"""A transfer that moves no block for so long is given up; the stream is reset."""
MAX_DOWNLOAD_BYTES: Final = 1 << 40
"""More than this is nobody's measurement."""

_HEADER_BYTES: Final = 8
_ZEROS: Final = memoryview(bytes(BLOCK_BYTES))


@dataclass(frozen=True, slots=True)
class PerfResult:
    """One measurement: bytes each way, and the seconds that each took.

    `upload_s` ends when the last byte was handed to the link, so of a short upload up to one window
    is still on its way; the download begins there.
    """

    upload_bytes: int
    download_bytes: int
    upload_s: float
    download_s: float


def serve_perf(swarm: Swarm, access: Literal["members", "anyone"] = "members") -> None:
    """Answer measurements of members, or of anyone who can dial; there is no limit but the link's."""
    swarm.handle(PROTOCOL, _answer, access=access)


async def measure(swarm: Swarm, peer_id: PeerId, upload_bytes: int, download_bytes: int) -> PerfResult:
    """Send and fetch so many bytes over the existing link to `peer_id`.

    NotConnected without a link or when it ends, TimedOut when nothing moves for STALL_S seconds,
    ProtocolError when the peer returns another number of bytes.
    """
    stream = await swarm.open_stream(peer_id, PROTOCOL)
    try:
        start = trio.current_time()
        with _must_move(peer_id):
            await stream.send_all(download_bytes.to_bytes(_HEADER_BYTES, "big"))
        await _send_zeros(stream, upload_bytes)
        await stream.send_eof()
        uploaded = trio.current_time()
        received = await _drain(stream)
        downloaded = trio.current_time()
        if received != download_bytes:
            raise ProtocolError(f"{peer_id} returned {received} bytes where {download_bytes} were asked for")
        await stream.aclose()
    except trio.BrokenResourceError as error:
        raise NotConnected(f"{peer_id} broke the measurement off: {error}") from error
    finally:
        stream.reset()  # does nothing to a stream that was closed
    return PerfResult(upload_bytes, download_bytes, uploaded - start, downloaded - uploaded)


async def _answer(stream: Stream) -> None:
    with _must_move(stream.peer_id):
        wanted = int.from_bytes(await stream.receive_exactly(_HEADER_BYTES), "big")
    if wanted > MAX_DOWNLOAD_BYTES:
        raise ProtocolError(f"{stream.peer_id} asks for {wanted} bytes; {MAX_DOWNLOAD_BYTES} is the most")
    await _drain(stream)
    await _send_zeros(stream, wanted)


@contextmanager
def _must_move(peer_id: PeerId) -> Iterator[None]:
    try:
        with trio.fail_after(STALL_S):
            yield
    except trio.TooSlowError:
        raise TimedOut(f"a measurement with {peer_id} did not move for {STALL_S:g} s") from None


async def _send_zeros(stream: Stream, count: int) -> None:
    while count:
        size = min(count, BLOCK_BYTES)
        with _must_move(stream.peer_id):
            await stream.send_all(_ZEROS[:size])
        count -= size


async def _drain(stream: Stream) -> int:
    """Read to the end; return how many bytes there were."""
    count = 0
    while True:
        with _must_move(stream.peer_id):
            data = await stream.receive_some()
        if not data:
            return count
        count += len(data)
