"""identify and ping, and peers that answer them badly."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import KEYS, connected, running

from fedd.api.errors import FeddError, NotConnected, ProtocolError, Refused, TimedOut
from fedd.core.protobuf import encode_message
from fedd.core.varint import encode_uvarint
from fedd.net import identify as identify_module
from fedd.net import ping as ping_module
from fedd.net.identify import decode_identification, identify, serve_identify
from fedd.net.ping import ping, serve_ping
from fedd.net.stream import Stream

Clock = trio.testing.MockClock


async def test_everybody_may_ask_who_we_are(autojump_clock: Clock) -> None:
    async def nothing(stream: Stream) -> None:
        pass

    async with running(members=False) as links:
        a, b = links.swarms
        serve_identify(b)
        b.handle("/fedd/secret", nothing)
        await connected(links)
        found = await identify(a, b.peer_id)
        assert found.peer_id == b.peer_id
        assert found.agent == "fedd/0.1.0"
        assert found.protocol_version == "ipfs/0.1.0"
        assert found.protocols == ("/ipfs/id/1.0.0",)  # what is for members is not told to strangers
        assert found.addresses == ("/memory/2",)
        assert found.observed_address == "/memory/1000001"
        with pytest.raises(Refused):
            await identify(b, a.peer_id)


async def answering(raw: bytes, end: bool = True) -> identify_module.Identification:
    async def answer(stream: Stream) -> None:
        for index in range(len(raw)):
            await stream.send_all(raw[index : index + 1])
        if not end:
            await trio.sleep_forever()

    async with running() as links:
        a, b = links.swarms
        b.handle(identify_module.PROTOCOL, answer, "anyone")
        await connected(links)
        try:
            result: identify_module.Identification | FeddError = await identify(a, b.peer_id)
        except FeddError as error:  # carried out of the nursery, which would wrap it
            result = error
    if isinstance(result, FeddError):
        raise result
    return result


def message(*fields: tuple[int, bytes]) -> bytes:
    body = encode_message(fields)
    return encode_uvarint(len(body)) + body


async def test_what_peers_say_about_themselves(autojump_clock: Clock) -> None:
    found = await answering(
        message((6, b"\xff\x1b[31m"), (2, b"\xff\xff"), (2, bytes([4, 1, 2, 3, 4, 6, 0, 80])))
    )
    assert found.agent == "\ufffd\x1b[31m"
    assert found.addresses == ("/ip4/1.2.3.4/tcp/80",)
    assert found.observed_address is None
    assert (await answering(message((4, b"\xff"), (6, b"a" * 1000)))).observed_address is None
    assert await answering(message((6, b"x")), end=False)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "ends inside"),
        (message((6, b"hello"))[:-1], "ended its identification"),
        (encode_uvarint(100_000) + b"x", "more than 8192 bytes"),
        (encode_uvarint(2) + b"\xff\xff", "varint"),
        (message((1, KEYS[5].public_key.to_protobuf())), "another key"),
    ],
)
async def test_bad_identifications(autojump_clock: Clock, raw: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        await answering(raw)


async def test_identify_does_not_wait_for_ever(autojump_clock: Clock) -> None:
    with pytest.raises(TimedOut):
        await answering(b"", end=False)

    async def refuse(stream: Stream) -> None:
        stream.reset()

    async with running() as links:
        a, b = links.swarms
        b.handle(identify_module.PROTOCOL, refuse)
        await connected(links)
        with pytest.raises(NotConnected, match="did not identify itself"):
            await identify(a, b.peer_id)


def test_texts_of_peers_are_bounded() -> None:
    found = decode_identification(encode_message([(6, b"a" * 5000)] + [(3, b"/p")] * 200), KEYS[0].peer_id)
    assert len(found.agent) == 512
    assert len(found.protocols) == 200


async def test_ping_measures_the_round_trip(autojump_clock: Clock) -> None:
    async with running(latency_s=0.05, members=False) as links:
        a, b = links.swarms
        serve_ping(b)
        connection, _ = await connected(links)
        assert await ping(a, b.peer_id, 3, interval_s=1.0) == [pytest.approx(0.1)] * 3
        await trio.sleep(1)
        assert connection.streams == []
        with pytest.raises(Refused):
            await ping(b, a.peer_id)
        with pytest.raises(NotConnected):
            await ping(a, KEYS[5].peer_id)


async def test_idle_pingers_lose_their_seat(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        serve_ping(b)
        await connected(links)
        stream = await a.open_stream(b.peer_id, ping_module.PROTOCOL)
        start = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - start == pytest.approx(ping_module.IDLE_S)


async def test_bad_answers_to_pings(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        behaviour = ["lie", "end", "reset", "sleep"]

        async def answer(stream: Stream) -> None:
            payload = await stream.receive_exactly(32)
            how = behaviour.pop(0)
            if how == "lie":
                await stream.send_all(payload[::-1])
            elif how == "reset":
                stream.reset()
            elif how == "sleep":
                await trio.sleep_forever()

        b.handle(ping_module.PROTOCOL, answer)
        await connected(links)
        with pytest.raises(ProtocolError, match="other bytes"):
            await ping(a, b.peer_id)
        for _ in range(2):
            with pytest.raises(NotConnected, match="stopped answering"):
                await ping(a, b.peer_id)
        with pytest.raises(TimedOut, match="did not answer a ping in 3 s"):
            await ping(a, b.peer_id, deadline_s=3)
