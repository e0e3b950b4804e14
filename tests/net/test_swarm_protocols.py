"""Streams and their protocols on a swarm: who may open what, and what a failing handler costs."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
import trio.testing
from net.links import connected, running
from net.test_swarm import Clock, echo, settle

from fedd.api.errors import (
    Conflict,
    NotConnected,
    Refused,
    TimedOut,
)
from fedd.net import connection as connection_module
from fedd.net.reader import Reader
from fedd.net.stream import Stream


async def test_a_stranger_is_refused_what_is_for_members(autojump_clock: Clock) -> None:
    async with running(members=False) as links:
        a, b = links.swarms
        b.handle("/fedd/secret/1.0.0", echo)
        b.handle("/public", echo, "anyone")
        with pytest.raises(Conflict):
            b.handle("/public", echo)
        await connected(links)
        with pytest.raises(Refused, match=r"does not speak /fedd/secret/1\.0\.0"):
            await a.open_stream(b.peer_id, "/fedd/secret/1.0.0")
        with pytest.raises(Refused):
            await a.open_stream(b.peer_id, "/nothing")
        assert b.protocols_for(a.peer_id) == ["/public"]
        stream = await a.open_stream(b.peer_id, "/public")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        b.member_check = lambda peer_id: peer_id == a.peer_id
        stream = await a.open_stream(b.peer_id, "/fedd/secret/1.0.0")
        await stream.send_all(b"now we know each other")
        assert await stream.receive_some() == b"now we know each other"


async def test_a_handler_that_fails_costs_its_stream_alone(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fedd.net")

    async def fail(stream: Stream) -> None:
        await stream.receive_some()
        raise RuntimeError("a mistake of ours")

    async def complain(stream: Stream) -> None:
        await stream.receive_exactly(10)

    async with running() as links:
        a, b = links.swarms
        b.handle("/fail", fail)
        b.handle("/complain", complain)
        b.handle("/echo", echo)
        await connected(links)
        good = await a.open_stream(b.peer_id, "/echo")
        bad = await a.open_stream(b.peer_id, "/fail")
        await bad.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await bad.receive_some()
        short = await a.open_stream(b.peer_id, "/complain")
        await short.send_all(b"x")
        await short.send_eof()
        with pytest.raises(trio.BrokenResourceError):
            await short.receive_some()
        gone = await a.open_stream(b.peer_id, "/echo")
        gone.reset()
        await good.send_all(b"still here")
        assert await good.receive_some() == b"still here"
        assert "a mistake of ours" in caplog.text
        assert "after 1 of 10 bytes" in caplog.text


async def test_a_handler_with_a_nursery_may_end_with_its_stream(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_exactly, 10)

    async with running() as links:
        a, b = links.swarms
        b.handle("/wait", wait)
        await connected(links)
        stream = await a.open_stream(b.peer_id, "/wait")
        stream.reset()
        await settle()
        assert not b.connections[a.peer_id].streams
        assert "Traceback" not in caplog.text


async def test_a_mistake_of_ours_in_a_handshake_costs_one_connection(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as links:
        a, b = links.swarms
        with monkeypatch.context() as patch:
            patch.setattr(b, "_admit", lambda *_: 1 / 0)
            with contextlib.suppress(NotConnected):
                await a.dial(b.addresses)
            await settle()
        assert "ZeroDivisionError" in caplog.text
        assert not a.connections
        await connected(links)


async def test_a_mistake_of_ours_in_reading_costs_one_connection(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as links:
        there, here = await connected(links)
        await settle()
        monkeypatch.setattr(Reader, "_read", lambda *_: 1 / 0)
        with pytest.raises(NotConnected):
            await there.measure_rtt()
        assert here.close_reason == "error: internal"
        assert "ZeroDivisionError" in caplog.text
        monkeypatch.undo()
        await connected(links)


async def test_a_stream_that_names_no_protocol_is_closed(autojump_clock: Clock) -> None:
    async with running() as links:
        connection, here = await connected(links)
        stream = Stream(connection, connection._session, connection._session.open())
        connection.flush()
        silent_since = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - silent_since == pytest.approx(10)
        ended = Stream(connection, connection._session, connection._session.open())
        await ended.send_eof()
        with pytest.raises(trio.BrokenResourceError):
            await ended.receive_some()
        assert not here.streams


async def test_a_peer_that_resets_at_opening_is_asked_again(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        b.handle("/echo", echo)
        _, here = await connected(links)
        full = [True, True]
        here._hooks.inbound_quota = lambda peer_id: 0 if full and full.pop() else 10
        stream = await a.open_stream(b.peer_id, "/echo")
        assert not full
        stream.reset()
        full[:] = [True] * 5
        with pytest.raises(Refused, match="resets every stream"):
            await a.open_stream(b.peer_id, "/echo")


async def test_opening_has_a_deadline_and_can_be_cancelled(autojump_clock: Clock) -> None:
    async with running() as links:
        a, b = links.swarms
        b.handle("/echo", echo)
        connection, _ = await connected(links)
        links.network.wires[0].hold()
        with pytest.raises(TimedOut, match="did not answer for /echo in 2 s"):
            await a.open_stream(b.peer_id, "/echo", 2)
        with trio.move_on_after(1):
            await a.open_stream(b.peer_id, "/echo")
        assert connection.streams == []
        async with trio.open_nursery() as nursery:

            async def expect_the_end() -> None:
                with pytest.raises(NotConnected, match="ended"):
                    await a.open_stream(b.peer_id, "/echo")

            nursery.start_soon(expect_the_end)
            await trio.testing.wait_all_tasks_blocked()
            links.network.wires[0].cut()


async def test_handlers_have_a_moment_after_the_end(
    autojump_clock: Clock,
) -> None:
    ended_at = []

    async def linger(stream: Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended_at.append(trio.current_time())

    async with running() as links:
        a, b = links.swarms
        b.handle("/linger", linger)
        await connected(links)
        await a.open_stream(b.peer_id, "/linger")
        start = trio.current_time()
        await a.disconnect(b.peer_id)
        await trio.sleep(100)
        assert ended_at == [pytest.approx(start + connection_module.HANDLER_GRACE_S)]


# ---- limits ---------------------------------------------------------------------------
