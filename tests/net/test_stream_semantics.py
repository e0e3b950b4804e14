"""The tables of docs/reference/streams.md, cell by cell."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from net.links import Links, running, stream_pair

from fedd.api.errors import ProtocolError
from fedd.net.stream import Stream

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "streams.md"
ERRORS = {
    "ClosedResourceError": trio.ClosedResourceError,
    "BrokenResourceError": trio.BrokenResourceError,
    "BusyResourceError": trio.BusyResourceError,
    "EOFError": EOFError,
}


def table(heading: str) -> list[tuple[str, str, str]]:
    """The cells of the table under `heading`: (operation, column, cell)."""
    part = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*", part, re.M)
    ]
    columns = rows[0][1:]
    return [
        (row[0].strip("`"), column, cell)
        for row in rows[2:]
        for column, cell in zip(columns, row[1:], strict=True)
    ]


THEN = table("What an operation does then")
WAITING = table("While it waits")


async def call(stream: Stream, operation: str) -> object:
    match operation:
        case "send_all":
            return await stream.send_all(b"more")
        case "receive_exactly":
            return await stream.receive_exactly(4)
        case "reset":
            return stream.reset()
        case _:
            result: object = await getattr(stream, operation)()
            return result


async def prepare(situation: str, here: Stream, there: Stream) -> None:
    await there.send_all(b"four")
    await trio.sleep(1)
    match situation:
        case "after `send_eof` here":
            await here.send_eof()
        case "after `aclose` here":
            await here.aclose()
        case "after `reset` here":
            here.reset()
        case "the peer ended its half":
            await there.send_eof()
        case "the peer closed":
            await there.aclose()
        case "the peer reset it":
            there.reset()
        case "the connection ended":
            await there.connection.aclose()
        case _:
            raise AssertionError(situation)
    await trio.sleep(1)


async def outcome(stream: Stream, operation: str, says: str) -> None:
    """Call the operation and see that it does what the word says."""
    if says in ERRORS:
        with pytest.raises(ERRORS[says]):
            await call(stream, operation)
        return
    result = await call(stream, operation)
    assert result == {"works": None, "the bytes": b"four", "the end": b""}[says]


@pytest.mark.parametrize(("operation", "situation", "cell"), THEN)
async def test_what_an_operation_does_then(
    autojump_clock: trio.testing.MockClock, operation: str, situation: str, cell: str
) -> None:
    async with running() as links:
        here, there = await stream_pair(links)
        await prepare(situation, here, there)
        for says in cell.split(", then "):
            await outcome(here, operation, says)
            await trio.sleep(1)


def test_the_page_has_all_cells() -> None:
    assert len(THEN) == 7 * 7
    assert len(WAITING) == 4 * 3


async def waiting(
    links: Links, operation: str
) -> tuple[Stream, Stream, Callable[[], Awaitable[object]], int]:
    """A stream on which the operation will wait, its other end, the call, and how much was sent."""
    here, there = await stream_pair(links)
    sent = 0
    if operation in ("send_all", "wait_send_all_might_not_block"):
        sent = here._core.send_window  # what the peer takes
        await here.send_all(bytes(sent))

    async def begin() -> object:
        return await call(here, operation)

    return here, there, begin, sent


@pytest.mark.parametrize(("operation", "situation", "cell"), WAITING)
async def test_what_happens_while_it_waits(
    autojump_clock: trio.testing.MockClock, operation: str, situation: str, cell: str
) -> None:
    async with running() as links:
        here, there, begin, sent = await waiting(links, operation)
        ended: list[BaseException | object] = []
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                try:
                    ended.append(await begin())
                except Exception as error:
                    ended.append(error)

        links.nursery.start_soon(wait)
        await trio.sleep(1)
        if operation == "receive_exactly":
            await there.send_all(b"fo")  # it is in the midst of them
            await trio.sleep(1)
        assert not ended
        match situation:
            case "it is cancelled":
                scope.cancel()
                await trio.sleep(1)
                await check_cancelled(here, there, operation, sent, cell)
            case "another task closes the stream":
                await here.aclose()
                await trio.sleep(1)
                assert [type(end) for end in ended] == [ERRORS[cell]]
            case _:
                with pytest.raises(ERRORS[cell]):
                    await begin()
                scope.cancel()


async def check_cancelled(here: Stream, there: Stream, operation: str, sent: int, cell: str) -> None:
    if cell == "the stream is reset":
        assert (here.closed, here.broken) == (True, True)
        with pytest.raises(trio.BrokenResourceError):
            await there.send_all(b"x")
        return
    assert cell == "nothing is lost"
    await there.send_all(b"ur" if operation == "receive_exactly" else b"four")
    assert await here.receive_exactly(4) == b"four"
    if sent:
        await there.receive_exactly(sent)
    await here.send_all(b"works")
    assert (await there.receive_exactly(len(b"works"))) == b"works"


async def test_a_message_cut_in_its_midst(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as links:
        here, there = await stream_pair(links)
        await there.send_all(b"fo")
        await there.send_eof()
        with pytest.raises(ProtocolError, match="after 2 of 4 bytes"):
            await here.receive_exactly(4)


async def test_ending_beside_a_send_is_refused_and_closing_beside_it_resets(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as links:
        here, there, begin, _ = await waiting(links, "send_all")

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await begin()

        links.nursery.start_soon(send)
        await trio.sleep(1)
        with pytest.raises(trio.BusyResourceError):
            await here.send_eof()
        await here.aclose()
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError, match="reset the stream"):
            await there.send_all(b"x")


@pytest.mark.parametrize("operation", ["send_eof", "aclose"])
async def test_what_waits_for_nobody_is_done_though_it_is_cancelled(
    autojump_clock: trio.testing.MockClock, operation: str
) -> None:
    async with running() as links:
        here, there = await stream_pair(links)
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(here, operation)
        assert scope.cancelled_caught
        await trio.sleep(1)
        assert await there.receive_some() == b""


async def test_a_cancelled_opening_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with running(latency_s=1.0) as links:
        a, b = links.swarms
        here, _ = await stream_pair(links)
        for give_up_s in (0.0, 0.5, 1.5):
            with trio.move_on_after(give_up_s):
                await a.open_stream(b.peer_id, "/pair")
        await trio.sleep(10)
        assert here.connection.streams == [here]
        assert len(b.connections[a.peer_id].streams) == 1
