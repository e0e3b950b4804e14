"""A member that sends rubbish costs itself the run, and nobody else: over everything that a run receives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from fedd.api import InvalidMessage, Message, NotConnected, QuorumLost, RunContext
from fedd.core import codec
from fedd.testing import Federation, NodeResult
from fedd.worker.context import Context

HACKED = 2
RUBBISH = b"\xff\x00no CBOR"
NAMES = [f"node-{index:02d}" for index in range(6)]
GOOD = [name for name in NAMES if name != NAMES[HACKED]]

Does = Callable[[RunContext], Awaitable[Message]]


@dataclass(frozen=True)
class Hacked:
    """`what` everywhere but on the hacked device, which does `instead`."""

    what: Does
    instead: Does
    name: ClassVar[str] = "hacked"

    async def run(self, ctx: RunContext) -> Message:
        return await (self.instead if ctx.me == NAMES[HACKED] else self.what)(ctx)


async def sends_rubbish(ctx: RunContext) -> Message:
    """The same exchanges as the others, each message of them undecodable."""
    return await sends(ctx, lambda peer: RUBBISH)


async def sends(ctx: RunContext, payload: Callable[[str], bytes], tag: str | None = None) -> Message:
    inside = cast(Context, ctx)
    tags = {"flood": "flood:", "merge": "merge:", "gather": "gather:", "reduce": "reduce:"}
    for _ in range(40):
        at = str(ctx.input) if tag is None else tag
        await inside.swap({peer: payload(peer) for peer in inside.present}, tags.get(at, at))
    return None


def play(
    what: Does, instead: Does = sends_rubbish, topology: str = "complete", kind: str = "", **more: Any
) -> list[NodeResult]:
    federation = Federation(6, topology=topology, **more)
    return federation.run(Hacked(what, instead), [kind] * 6)


def good(results: list[NodeResult], said: str = "") -> list[Any]:
    """What the others ended with; the hacked one is out on all of them, for what it sent."""
    values = []
    for result in results:
        if result.node == HACKED:
            assert isinstance(result.error, QuorumLost | NotConnected), result.error
            continue
        assert result.error is None, result.error
        assert [dropped.peer_id for dropped in result.dropped] == [NAMES[HACKED]], result.dropped
        assert result.dropped[0].reason.startswith("bad message: ")
        assert said in result.dropped[0].reason
        values.append(result.value)
    return values


# ---- exchanges -----------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["complete", "ring", "random-regular:3"])
def test_what_does_not_decode_costs_its_sender_the_run(topology: str) -> None:
    async def work(ctx: RunContext) -> Message:
        left: list[Message] = []
        ctx.on_leave(lambda peer, reason: left.append(peer))
        for number in range(12):
            answers = await ctx.exchange(number)
            assert NAMES[HACKED] not in answers
            assert set(answers.values()) <= {number}
        assert NAMES[HACKED] not in ctx.neighbors
        return left

    assert good(play(work, topology=topology)) == [[NAMES[HACKED]]] * 5


def test_rubbish_to_one_neighbour_costs_that_edge_only() -> None:
    async def work(ctx: RunContext) -> Message:
        return [len(await ctx.exchange(1)) for _ in range(6)]

    async def once(ctx: RunContext) -> Message:
        inside = cast(Context, ctx)
        payloads = {peer: RUBBISH if peer == NAMES[0] else codec.encode(1) for peer in inside.present}
        await inside.swap(payloads, "")
        return [0, *[len(await ctx.exchange(1)) for _ in range(5)]]

    results = play(work, once)
    assert [result.error for result in results] == [None] * 6
    assert [result.dropped for result in results] == [()] * 6
    assert results[0].value == [4] * 6
    assert results[1].value == [5] * 6
    assert results[HACKED].value == [0, 4, 4, 4, 4, 4]


@pytest.mark.parametrize("topology", ["complete", "directed-exponential"])
def test_what_a_reader_refuses_is_no_answer(topology: str) -> None:
    shapes = {"shape": np.zeros(3), "type": np.zeros(2, dtype=np.float32), "none": None, "text": "x"}

    def read(peer: str, message: Message) -> float:
        if not isinstance(message, np.ndarray) or message.shape != (2,) or message.dtype != np.float64:
            raise InvalidMessage("it sent no two numbers", hint="look at it")
        return float(message.sum())

    async def work(ctx: RunContext) -> Message:
        return [sorted((await ctx.exchange(np.ones(2), read=read)).values()) for _ in range(8)]

    for bad in shapes.values():

        async def instead(ctx: RunContext, bad: Any = bad) -> Message:
            return [len(await ctx.exchange(bad)) for _ in range(8)]

        for value in good(play(work, instead, topology), "it sent no two numbers (look at it)"):
            assert all(set(heard) <= {2.0} for heard in value)


def test_whatever_a_reader_raises_is_the_senders_fault() -> None:
    async def work(ctx: RunContext) -> Message:
        heard = [await ctx.exchange({"x": 1}, read=lambda peer, message: message["x"] + 1) for _ in range(3)]
        return [sorted(each.values()) for each in heard]

    async def instead(ctx: RunContext) -> Message:
        return [len(await ctx.exchange({"y": 1})) for _ in range(3)]

    assert good(play(work, instead), "KeyError: 'x'") == [[[2] * 4] * 3] * 5


def test_a_lenient_exchange_takes_rubbish_for_silence() -> None:
    async def work(ctx: RunContext) -> Message:
        return [(await ctx.exchange(1, lenient=True))[NAMES[HACKED]] for _ in range(4)]

    async def instead(ctx: RunContext) -> Message:
        inside = cast(Context, ctx)
        for tag in ("", "", "other", ""):
            await inside._swap(dict.fromkeys(inside.present, RUBBISH), tag, lenient=True)
        return None

    results = play(work, instead)
    assert [(result.error, result.dropped) for result in results if result.node != HACKED] == [(None, ())] * 5
    assert [result.value for result in results if result.node != HACKED] == [[None] * 4] * 5


@pytest.mark.parametrize("when", [0, 1, 4])
@pytest.mark.parametrize(
    "bad", [RUBBISH, b"", codec.encode(1), b"FL1" + bytes(60)], ids=["rubbish", "empty", "number", "ledger"]
)
def test_a_ledger_ends_at_the_mean_of_those_who_kept_books(when: int, bad: bytes) -> None:
    """The hacked one takes part for a while: what it put in comes out again."""

    async def work(ctx: RunContext) -> Message:
        agreement = await ctx.ledger(float(NAMES.index(ctx.me)) ** 2).agree(tolerance=1e-12, iterations=300)
        assert agreement.agreed
        assert agreement.contributors == tuple(GOOD)
        return float(agreement.value)

    async def instead(ctx: RunContext) -> Message:
        await ctx.ledger(1000.0).agree(tolerance=0, iterations=when) if when else None
        return await sends(ctx, lambda peer: bad, "fedd.ledger")

    for topology in ("complete", "random-regular:3"):
        for value in good(play(work, instead, topology)):
            assert value == pytest.approx((0 + 1 + 9 + 16 + 25) / 5, abs=1e-9)


def test_a_value_of_another_shape_is_not_averaged() -> None:
    async def work(ctx: RunContext) -> Message:
        return (await ctx.ledger([1.0, 3.0]).agree(tolerance=1e-12, iterations=200)).value

    async def instead(ctx: RunContext) -> Message:
        return (await ctx.ledger([1.0, 2.0, 3.0]).agree(tolerance=1e-12, iterations=200)).value

    for value in good(play(work, instead), "it holds a value of shape (3,), against (2,)"):
        assert value.tolist() == [1.0, 3.0]


# ---- collective operations -----------------------------------------------------------------


@pytest.mark.parametrize("topology", ["complete", "ring"])
@pytest.mark.parametrize("payload", [RUBBISH, codec.encode(5), codec.encode([HACKED, RUBBISH])])
def test_a_flood_is_that_of_the_others(topology: str, payload: bytes) -> None:
    """Also when rubbish is hidden in a well-formed message: who got it first refuses it."""

    async def work(ctx: RunContext) -> Message:
        return await ctx.flood(ctx.me)

    for value in good(play(work, lambda ctx: sends(ctx, lambda peer: payload), topology, "flood")):
        assert value == {name: name for name in GOOD}


def test_a_flood_keeps_what_its_reader_makes_of_it() -> None:
    def read(origin: str, message: Message) -> int:
        if not isinstance(message, int):
            raise InvalidMessage("it sent no number")
        return message + NAMES.index(origin)

    async def work(ctx: RunContext) -> Message:
        return await ctx.flood(10, read=read)

    async def instead(ctx: RunContext) -> Message:
        return await ctx.flood("ten")

    for value in good(play(work, instead, "ring"), "it sent no number"):
        assert value == {name: 10 + NAMES.index(name) for name in GOOD}


@pytest.mark.parametrize("topology", ["complete", "ring"])
@pytest.mark.parametrize("bad", ["text", None, {"x": 1}])
def test_a_merge_is_that_of_the_others(topology: str, bad: Any) -> None:
    async def work(ctx: RunContext) -> Message:
        merged = await ctx.merge(NAMES.index(ctx.me), max)
        return [merged.value, list(merged.contributors)]

    async def instead(ctx: RunContext) -> Message:
        return (await ctx.merge(bad, lambda one, other: one)).value

    assert good(play(work, instead, topology), "TypeError") == [[5, GOOD]] * 5


def test_a_function_that_combines_nothing_is_the_plugins_own_fault() -> None:
    async def work(ctx: RunContext) -> Message:
        return (await ctx.merge(1, lambda one, other: one["x"])).value

    for result in play(work, work):
        assert "TypeError" in str(result.error)


@pytest.mark.parametrize("payload", [RUBBISH, codec.encode(5)])
def test_a_reduction_is_that_of_the_others(payload: bytes) -> None:
    async def work(ctx: RunContext) -> Message:
        found: list[Message] = []
        for _ in range(2):
            merged = await ctx.reduce(1 << NAMES.index(ctx.me), lambda one, other: one + other)
            found.append([merged.value, list(merged.contributors)])
        return found

    everybody = sum(1 << number for number in range(6) if number != HACKED)
    for topology in ("complete", "ring", "random-regular:3"):
        results = play(work, lambda ctx: sends(ctx, lambda peer: payload), topology, "reduce")
        for value in good(results):
            assert value == [[everybody, GOOD]] * 2


def test_a_reader_guards_a_reduction() -> None:
    def read(peer: str, message: Message) -> Any:
        if not isinstance(message, np.ndarray) or message.shape != (2,):
            raise InvalidMessage("it sent no two numbers")
        return message

    async def work(ctx: RunContext) -> Message:
        return (await ctx.reduce(np.ones(2), np.add, read=read)).value

    async def instead(ctx: RunContext) -> Message:
        return (await ctx.reduce(np.ones(()), lambda one, other: np.ones(()))).value

    for topology in ("complete", "ring"):
        for value in good(play(work, instead, topology), "it sent no two numbers"):
            assert np.asarray(value).tolist() == [5.0, 5.0]


@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_who_gathers_gets_what_the_others_sent(topology: str) -> None:
    async def work(ctx: RunContext) -> Message:
        return await ctx.gather(ctx.me, NAMES[0])

    kind = "gather" if topology == "complete" else "flood"
    results = play(work, lambda ctx: sends(ctx, lambda peer: RUBBISH), topology, kind)
    assert results[0].value == {name: name for name in GOOD}
    assert [result.error for result in results if result.node != HACKED] == [None] * 5


# ---- letters and questions -----------------------------------------------------------------


async def letters_of_rubbish(ctx: RunContext) -> Message:
    mail = cast(Context, ctx)._letters._mail
    for peer in ctx.neighbors:
        await mail.send(peer, "", RUBBISH)
    await ctx.receive("never")
    return None


def test_a_letter_that_cannot_be_read_is_none() -> None:
    async def work(ctx: RunContext) -> Message:
        await ctx.broadcast(ctx.me)
        heard = sorted([(await ctx.receive()).sender for _ in range(4)])
        with pytest.raises(NotConnected):
            await ctx.ask(NAMES[HACKED], 1)
        await ctx.exchange(None)
        return heard

    results = play(work, letters_of_rubbish)
    for name, value in zip(GOOD, good(results), strict=True):
        assert value == [other for other in GOOD if other != name]


def test_a_reader_of_letters_passes_over_what_it_refuses() -> None:
    async def work(ctx: RunContext) -> Message:
        await ctx.broadcast(1)
        return [(await ctx.receive(read=lambda peer, message: message + 1)).message for _ in range(4)]

    async def instead(ctx: RunContext) -> Message:
        for _ in range(3):
            await ctx.broadcast("one")
        await ctx.receive("never")
        return None

    results = play(work, instead)
    assert [result.value for result in results if result.node != HACKED] == [[2] * 4] * 5


@pytest.mark.parametrize("how", ["undecodable", "wrong", "refused"])
def test_an_answer_that_cannot_be_used_ends_the_question(how: str) -> None:
    async def work(ctx: RunContext) -> Message:
        ctx.on_ask("", lambda peer, message: 7)
        answers: list[Message] = []
        for peer in sorted(ctx.neighbors):
            try:
                answers.append(await ctx.ask(peer, 1, read=lambda peer, message: message + 1))
            except NotConnected:
                answers.append(None)
        for _ in range(3):
            await ctx.exchange(None)
        return answers

    async def instead(ctx: RunContext) -> Message:
        if how == "undecodable":
            cast(Context, ctx)._letters._mail.on_ask("", lambda peer, payload: RUBBISH)
        elif how == "wrong":
            ctx.on_ask("", lambda peer, message: "seven")
        for _ in range(3):
            await ctx.exchange(None)
        return None

    for value in good(play(work, instead)):
        assert sorted(value, key=str) == [8] * 4 + [None]


# ---- contract restart ----------------------------------------------------------------------


@dataclass(frozen=True)
class Restarting(Hacked):
    contract: ClassVar[str] = "restart"


@pytest.mark.parametrize("topology", ["complete", "ring"])
def test_with_contract_restart_the_run_begins_anew_without_it(topology: str) -> None:
    async def work(ctx: RunContext) -> Message:
        for number in range(8):
            await ctx.exchange(number)
        return list(ctx.members)

    federation = Federation(6, topology=topology)
    results = federation.run(Restarting(work, sends_rubbish), [""] * 6)
    for result in results:
        if result.node == HACKED:
            assert isinstance(result.error, InvalidMessage)
            assert "can make nothing of what this node sent" in str(result.error)
        else:
            assert (result.error, result.value, result.epoch) == (None, GOOD, 2)
            assert "bad message: " in result.dropped[0].reason


def test_with_contract_restart_one_who_finds_all_others_wrong_is_the_one_who_goes() -> None:
    def read(peer: str, message: Message) -> Message:
        if message != "right":
            raise InvalidMessage("it is wrong")
        return message

    async def work(ctx: RunContext) -> Message:
        for _ in range(8):
            await ctx.exchange("right", read=read)
        return list(ctx.members)

    async def instead(ctx: RunContext) -> Message:
        def other(peer: str, message: Message) -> Message:
            raise InvalidMessage("it is not like mine")

        for _ in range(8):
            await ctx.exchange("mine", read=other)
        return None

    for topology in ("complete", "ring"):
        results = Federation(6, topology=topology).run(Restarting(work, instead), [""] * 6)
        assert [result.value for result in results if result.node != HACKED] == [GOOD] * 5, topology
        assert results[HACKED].error is not None
