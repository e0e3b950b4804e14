"""Messages outside the exchanges, on virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from worker.test_context import everywhere, good

from fedd.api import (
    InvalidMessage,
    InvalidParameter,
    Message,
    NotConnected,
    NotFound,
    PluginFailed,
    QuorumLost,
    RunContext,
)
from fedd.core import codec
from fedd.core.mail import Item, MailKind
from fedd.testing import Federation, Kill, NodeResult
from fedd.worker.mail import Mailroom

Does = Callable[[RunContext], Awaitable[Message]]
A, B, C = "node-00", "node-01", "node-02"


def each(federation: Federation, **what: Does) -> list[NodeResult]:
    """Every node does its own: `n0=...`, the others `rest`."""

    async def work(ctx: RunContext) -> Message:
        return await what.get(f"n{int(ctx.me[-2:])}", what.get("rest", nothing))(ctx)

    return everywhere(federation, work)


async def nothing(ctx: RunContext) -> Message:
    return None


def test_letters_arrive_once_and_in_order_whatever_the_link_does() -> None:
    async def send(ctx: RunContext) -> Message:
        for number in range(100):
            await ctx.send(B, number, "count" if number % 2 else "")
        return None

    async def receive(ctx: RunContext) -> Message:
        odd = [(await ctx.receive("count")).message for _ in range(50)]
        letters = [await ctx.receive() for _ in range(50)]
        assert {letter.sender for letter in letters} == {A}
        return [odd, [letter.message for letter in letters]]

    federation = Federation(2, latency_s=(0.001, 0.5), loss=0.3, seed=3)
    for result in (each(federation, n0=send, n1=receive), each(federation, n0=send, n1=receive)):
        assert good(result)[1] == [list(range(1, 100, 2)), list(range(0, 100, 2))]


def test_newest_skips_the_earlier_ones_of_its_sender() -> None:
    async def send(ctx: RunContext) -> Message:
        for number in range(5):
            await ctx.send(C, [ctx.me, number])
        await ctx.exchange(None)
        return None

    async def receive(ctx: RunContext) -> Message:
        await ctx.exchange(None)
        await trio.sleep(1)
        return [(await ctx.receive(newest=True)).message for _ in range(2)]

    results = each(Federation(3), n0=send, n1=send, n2=receive)
    assert sorted(good(results)[2]) == [[A, 4], [B, 4]]


def test_a_sender_waits_for_a_reader_and_nothing_is_lost() -> None:
    """More letters than the mailbox holds; the sender's time shows that it waited."""

    async def send(ctx: RunContext) -> Message:
        for number in range(600):
            await ctx.send(B, number)
        return trio.current_time()

    async def receive(ctx: RunContext) -> Message:
        await trio.sleep(100)
        return [(await ctx.receive()).message for _ in range(600)]

    began, received = good(each(Federation(2), n0=send, n1=receive))
    assert received == list(range(600))
    assert began > 100


def test_large_letters_wait_by_their_bytes() -> None:
    async def send(ctx: RunContext) -> Message:
        for _ in range(4):
            await ctx.send(B, bytes(60_000))
        return None

    async def receive(ctx: RunContext) -> Message:
        await trio.sleep(5)
        total = 0
        for _ in range(4):
            letter = (await ctx.receive()).message
            assert isinstance(letter, bytes)
            total += len(letter)
        return total

    assert good(each(Federation(2, max_payload_bytes=70_000), n0=send, n1=receive)) == [None, 240_000]


def test_a_broadcast_reaches_every_neighbour() -> None:
    async def work(ctx: RunContext) -> Message:
        await ctx.broadcast({"from": ctx.me}, "hello")
        return sorted([(await ctx.receive("hello")).sender for _ in ctx.neighbors])

    federation = Federation(5, topology="ring")
    for peer, value in zip(federation.peer_ids, good(everywhere(federation, work)), strict=True):
        assert value == list(federation.graph.neighbors(peer))


def test_questions_are_answered_by_handlers() -> None:
    async def ask(ctx: RunContext) -> Message:
        ctx.on_ask("double", lambda peer, message: [peer, message * 2])
        found = [await ctx.ask(peer, number, "double") for number in range(20) for peer in ctx.neighbors]
        await ctx.exchange(None)
        return found

    for peer, value in zip((A, B, C), good(everywhere(Federation(3), ask)), strict=True):
        assert value == [[peer, 2 * number] for number in range(20) for _ in range(2)]


def test_many_tasks_of_one_algorithm_may_ask_at_once() -> None:
    async def ask(ctx: RunContext) -> Message:
        found: dict[int, Any] = {}

        async def one(number: int) -> None:
            found[number] = await ctx.ask(B, number, "square")

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(one, number)
        await ctx.exchange(None)
        return [found[number] for number in range(30)]

    async def answer(ctx: RunContext) -> Message:
        ctx.on_ask("square", lambda peer, message: message * message)
        await ctx.exchange(None)
        return None

    results = each(Federation(2, latency_s=(0.01, 0.2)), n0=ask, n1=answer)
    assert good(results)[0] == [number * number for number in range(30)]


def test_why_there_is_no_answer() -> None:
    async def ask(ctx: RunContext) -> Message:
        said = []
        for tag in ("nobody", "raises", "refuses", "large"):
            try:
                await ctx.ask(B, 1, tag)
            except (NotFound, PluginFailed) as error:
                said.append([error.code, error.detail])
        await ctx.exchange(None)
        return said

    def refuses(peer: str, message: Message) -> Message:
        raise InvalidParameter("not this one")

    async def answer(ctx: RunContext) -> Message:
        ctx.on_ask("raises", lambda peer, message: 1 // 0)
        ctx.on_ask("refuses", refuses)
        ctx.on_ask("large", lambda peer, message: bytes(10_000))
        await ctx.exchange(None)
        return None

    said = good(each(Federation(2, max_payload_bytes=5000), n0=ask, n1=answer))[0]
    assert said == [
        ["not_found", "node-01: it has no handler for questions tagged 'nobody'"],
        ["plugin_failed", said[1][1]],
        ["plugin_failed", "node-01 failed to answer 'refuses': not this one"],
        ["plugin_failed", said[3][1]],
    ]
    assert "ZeroDivisionError" in said[1][1]
    assert "more than this run's 5000" in said[3][1]


def test_a_question_that_comes_before_its_handler_waits_for_it() -> None:
    """As long as the other algorithm has not awaited anything of its context."""

    async def ask(ctx: RunContext) -> Message:
        return [await ctx.ask(B, 1, "late"), await ctx.ask(B, 1, "later")]

    async def answer(ctx: RunContext) -> Message:
        await trio.sleep(10)
        ctx.on_ask("late", lambda peer, message: "first")
        ctx.on_ask("later", lambda peer, message: "second")
        await ctx.exchange(None)
        return None

    assert good(each(Federation(2), n0=ask, n1=answer))[0] == ["first", "second"]


def test_a_death_ends_every_wait() -> None:
    async def dies(ctx: RunContext) -> Message:
        await ctx.exchange(None)
        return None

    async def asks(ctx: RunContext) -> Message:
        left: list[str] = []
        ctx.on_leave(lambda peer, reason: left.append(f"{peer} {reason}"))
        with pytest.raises(NotConnected, match="node-00 does not answer: dead"):
            await ctx.ask(A, 1, "x")
        assert A not in ctx.neighbors
        with pytest.raises(NotConnected, match="node-00 does not answer: dead"):
            await ctx.ask(A, 1, "x")
        await ctx.send(A, 1)
        await ctx.exchange(None, "after")
        return left

    async def receives(ctx: RunContext) -> Message:
        with pytest.raises(NotConnected, match="no message tagged 'y' can come"):
            await ctx.receive("y")
        return None

    async def fills(ctx: RunContext) -> Message:
        for number in range(1000):
            await ctx.send(A, number)
        return "sent"

    kills = [Kill(0, 0)]
    assert good(each(Federation(3, kills=kills), n0=dies, n1=asks, n2=asks)) == [["node-00 dead"]] * 2
    assert good(each(Federation(2, kills=kills, quorum=1), n0=dies, n1=receives)) == [None]
    assert good(each(Federation(3, kills=kills), n0=dies, n1=fills, n2=fills)) == ["sent"] * 2
    lost = each(Federation(2, kills=kills), n0=dies, n1=receives)[1].error
    assert isinstance(lost, QuorumLost)


def test_a_neighbour_that_has_finished_is_no_correspondent_but_what_it_sent_is_read() -> None:
    async def finishes(ctx: RunContext) -> Message:
        await ctx.send(B, "last words")
        return None

    async def reads(ctx: RunContext) -> Message:
        await trio.sleep(5)
        letter = await ctx.receive()
        with pytest.raises(NotConnected):
            await ctx.receive()
        with pytest.raises(NotConnected, match="finished"):
            await ctx.ask(A, 1)
        assert ctx.neighbors == {}
        await ctx.exchange(None)
        return [letter.sender, letter.message]

    assert good(each(Federation(2), n0=finishes, n1=reads))[1] == [A, "last words"]


def test_letters_and_exchanges_may_be_mixed() -> None:
    """A death that a waiting node hears of between two exchanges does not unsettle the next one."""

    async def work(ctx: RunContext) -> Message:
        heard = []
        for number in range(6):
            heard.append(sorted(await ctx.exchange(number)))
            await ctx.broadcast(number, f"r{number}")
            if ctx.me == B and number == 3:
                with pytest.raises(NotConnected):
                    await ctx.ask(A, 0, "nobody")
        return heard

    results = each(Federation(3, kills=[Kill(0, 3, "all")]), rest=work)
    assert good(results) == [
        [[A, C], [A, C], [A, C], [A, C], [C], [C]],
        [[A, B], [A, B], [A, B], [A, B], [B], [B]],
    ]


def test_what_cannot_be_sent_is_said() -> None:
    async def work(ctx: RunContext) -> Message:
        for wrong in ("nobody", ctx.me, "node-02"):
            with pytest.raises(InvalidParameter, match="no neighbour"):
                await ctx.send(wrong, 1)
            with pytest.raises(InvalidParameter, match="no neighbour"):
                await ctx.ask(wrong, 1)
        with pytest.raises(InvalidMessage, match="more than this run's 100"):
            await ctx.send(B, bytes(200))
        with pytest.raises(InvalidMessage, match="200 bytes"):
            await ctx.send(B, 1, "x" * 201)
        with pytest.raises(InvalidMessage):
            await ctx.broadcast({1, 2})
        return None

    federation = Federation(4, topology="ring", max_payload_bytes=100)
    each(federation, n0=work)
    assert good(each(federation, n0=work))[0] is None


class Played:
    """A port that does what the test says whenever the algorithm waits."""

    def __init__(self, *then: Callable[[Mailroom], None]) -> None:
        self.then = list(then)
        self.posted: list[Item] = []
        self.room = Mailroom(self, ["p"], 1000, lambda peer, reason, how: None)

    async def listen(self) -> None:
        pass

    async def post(self, peer: str, item: Item) -> None:
        self.posted.append(item)

    def answer(self, peer: str, item: Item) -> None:
        self.posted.append(item)

    def read(self, peer: str, letters: int, size: int) -> None:
        pass

    async def wait(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self.then.pop(0)(self.room)
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("refusal", [5, [1], {"a": 1}, "abc"])
async def test_a_refusal_that_cannot_be_read_is_one(refusal: Any) -> None:
    item = Item(MailKind.REFUSAL, 0, "t", codec.encode(refusal))
    port = Played(lambda room: room.on_mail("p", item))
    with pytest.raises(PluginFailed, match="failed to answer 't'"):
        await port.room.ask("p", "t", b"")


async def test_an_answer_that_nobody_waits_for_any_more_is_dropped() -> None:
    port = Played()
    port.then.append(lambda room: scope.cancel())
    with trio.CancelScope() as scope:
        await port.room.ask("p", "t", b"")
    port.room.on_mail("p", Item(MailKind.ANSWER, 0, "t", b"late"))
    port.then.append(lambda room: room.on_mail("p", Item(MailKind.ANSWER, 1, "t", b"now")))
    assert await port.room.ask("p", "t", b"") == b"now"
    assert [item.ref for item in port.posted] == [0, 1]


async def test_the_first_word_about_a_member_stays() -> None:
    port = Played(lambda room: (room.on_left("p", "dead", "gone"), room.on_left("p", "again", "gone"))[0])
    with pytest.raises(NotConnected, match="p does not answer: dead"):
        await port.room.ask("p", "t", b"")


def test_signatures_are_of_one_member_one_run_and_one_text() -> None:
    async def work(ctx: RunContext) -> Message:
        signatures = await ctx.exchange(await ctx.sign(b"yes"))
        for peer, signature in signatures.items():
            assert isinstance(signature, bytes)
            assert len(signature) == 64
            assert ctx.verify(peer, b"yes", signature)
            assert not ctx.verify(peer, b"no", signature)
            assert not ctx.verify(ctx.me, b"yes", signature)
            assert not ctx.verify("nobody", b"yes", signature)
            assert not ctx.verify(peer, b"yes", signature[:-1])
            assert not ctx.verify(peer, bytes(70_000), signature)
        with pytest.raises(InvalidMessage, match="sign a digest"):
            await ctx.sign(bytes(70_000))
        return None

    good(everywhere(Federation(3), work))
