"""identify while a link lasts: peers are asked once, told of changes, and believed in nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from net.links import KEYS, Links, connected, running

from fedd.core.protobuf import encode_message
from fedd.core.varint import encode_uvarint
from fedd.net.identify import MAX_MESSAGE_BYTES
from fedd.net.identify_push import PUSH, SETTLE_MOST_S, SETTLE_S, Identifier
from fedd.net.stream import Stream

Clock = trio.testing.MockClock


async def nothing(stream: Stream) -> None:
    pass


@asynccontextmanager
async def identified(count: int = 2, members: bool = True) -> AsyncIterator[tuple[Links, list[Identifier]]]:
    """Swarms with an identifier each, the first of which has dialled the second."""
    async with running(count, members=members) as links:
        identifiers = [Identifier(swarm) for swarm in links.swarms]
        for identifier in identifiers:
            await links.nursery.start(identifier.run)
        await connected(links)
        await trio.sleep(2)
        yield links, identifiers


async def push(links: Links, *fields: tuple[int, bytes], raw: bytes | None = None) -> None:
    a, b = links.swarms[:2]
    body = encode_message(fields)
    stream = await a.open_stream(b.peer_id, PUSH)
    await stream.send_all(encode_uvarint(len(body)) + body if raw is None else raw)
    await stream.send_eof()
    await trio.sleep(1)


async def test_both_ends_know_each_other_and_hear_of_changes(autojump_clock: Clock) -> None:
    async with identified() as (links, (knows, other)):
        a, b = links.swarms
        said = knows.known(b.peer_id)
        assert said is not None
        assert (said.agent, said.addresses) == (b.agent, ("/memory/2",))
        assert PUSH in said.protocols
        assert other.known(a.peer_id) is not None
        b.handle("/new", nothing)
        await b.listen("/memory/77")
        await trio.sleep(2)
        said = knows.known(b.peer_id)
        assert said is not None
        assert "/new" in said.protocols
        assert said.addresses == ("/memory/2", "/memory/77")


async def test_a_new_member_is_told_what_it_may_speak_and_nobody_is_told_twice(autojump_clock: Clock) -> None:
    async with identified(members=False) as (links, (knows, other)):
        a, b = links.swarms
        pushed: list[str] = []
        hear = a._services.protocols[PUSH].handler

        async def count(stream: Stream) -> None:
            pushed.append(stream.peer_id)
            await hear(stream)

        a._services.protocols[PUSH] = replace(a._services.protocols[PUSH], handler=count)
        b.handle("/members/only", nothing)
        await trio.sleep(2)
        assert pushed == []  # for a stranger nothing has changed
        b.member_check = lambda peer_id: True
        for _ in range(3):
            other.refresh()
            await trio.sleep(2)
        assert pushed == [b.peer_id]
        said = knows.known(b.peer_id)
        assert said is not None
        assert "/members/only" in said.protocols


async def test_changes_are_told_when_no_more_come_or_by_a_deadline(autojump_clock: Clock) -> None:
    async with identified() as (links, (knows, other)):
        b = links.swarms[1]

        def protocols() -> int:
            said = knows.known(b.peer_id)
            assert said is not None
            return len(said.protocols)

        before = protocols()
        pause_s = SETTLE_S * 0.8
        for number in range(round(SETTLE_MOST_S / pause_s) - 1):
            b.handle(f"/soon/{number}", nothing)
            other.refresh()
            await trio.sleep(pause_s)
            assert protocols() == before
        for number in range(3):
            b.handle(f"/late/{number}", nothing)
            other.refresh()
            await trio.sleep(pause_s)
        assert protocols() > before  # though changes go on
        told = protocols()
        await trio.sleep(3 * SETTLE_S)
        assert protocols() == before + round(SETTLE_MOST_S / pause_s) - 1 + 3
        assert told <= protocols()


async def test_what_a_push_does_not_say_stays(autojump_clock: Clock) -> None:
    async with identified() as (links, (_, knows)):
        a = links.swarms[0]
        before = knows.known(a.peer_id)
        assert before is not None
        await push(links, (6, b"new agent"))
        assert knows.known(a.peer_id) == replace(before, agent="new agent")
        await push(links, (3, b"/one"), (3, b"/two"))
        assert knows.known(a.peer_id) == replace(before, agent="new agent", protocols=("/one", "/two"))


@pytest.mark.parametrize(
    "raw",
    [
        encode_uvarint(MAX_MESSAGE_BYTES + 1) + bytes(10),
        encode_uvarint(5) + b"ab",
        b"\xff" * 20,
        encode_uvarint(2) + b"\xff\xff",
    ],
)
async def test_a_bad_push_changes_nothing(autojump_clock: Clock, raw: bytes) -> None:
    async with identified() as (links, (_, knows)):
        a, b = links.swarms
        before = knows.known(a.peer_id)
        await push(links, raw=raw)
        assert knows.known(a.peer_id) is before
        body = encode_message([(1, KEYS[9].public_key.to_protobuf()), (6, b"liar")])
        await push(links, raw=encode_uvarint(len(body)) + body)
        assert knows.known(a.peer_id) is before
        assert a.peer_id in b.connections


async def test_a_push_before_any_answer_and_one_that_never_ends(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        knows = Identifier(b)  # which does not run, so it asks nobody
        await connected(links)
        await push(links, (6, b"first"))
        said = knows.known(a.peer_id)
        assert said is not None
        assert said.agent == "first"
        stream = await a.open_stream(b.peer_id, PUSH)
        await trio.sleep(11)
        assert await stream.receive_some() == b""  # the other end has given it up
        assert a.peer_id in b.connections


async def test_what_the_gone_said_is_forgotten(autojump_clock: Clock) -> None:
    async with identified() as (links, (knows, _)):
        a, b = links.swarms
        assert knows.known(b.peer_id) is not None
        await a.disconnect(b.peer_id)
        assert knows.known(b.peer_id) is None
        assert not knows._told
        assert not knows._asked
        await a.dial(b.addresses)
        await trio.sleep(2)
        assert knows.known(b.peer_id) is not None  # it was asked again


async def test_where_others_see_this_node(autojump_clock: Clock) -> None:
    async with identified(4) as (links, (hub, *_)):
        a, b, c, d = links.swarms
        assert hub.observed() == {"/memory/": 1}  # a port of a connection out is nobody else's business
        for swarm in (c, d):
            await swarm.dial(a.addresses)
        await trio.sleep(2)
        assert hub.observed() == {"/memory/1": 2, "/memory/": 1}
        hub._known[b.peer_id] = replace(hub._known[b.peer_id], observed_address="/ip4/1.2.3.4/udp/1/quic")
        hub._known["nobody"] = hub._known[c.peer_id]
        assert hub.observed() == {"/memory/1": 2}


async def test_a_peer_that_does_not_answer_costs_nothing(autojump_clock: Clock) -> None:
    async def stall(stream: Stream) -> None:
        await trio.sleep_forever()

    async with running(3) as links:
        a, b, c = links.swarms
        knows = Identifier(a)
        await links.nursery.start(knows.run)
        b.handle("/ipfs/id/1.0.0", stall)
        Identifier(c)
        await connected(links)
        await a.dial(c.addresses)
        await trio.sleep(20)
        assert knows.known(b.peer_id) is None
        assert knows.known(c.peer_id) is not None
        assert set(a.connections) == {b.peer_id, c.peer_id}
