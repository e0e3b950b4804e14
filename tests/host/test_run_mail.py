"""Messages outside the exchanges between whole nodes: over links that break, with members that die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from host.worlds import Node, PlayedWorker, Script, play, request, world
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import NotConnected
from fedd.core.mail import WINDOW
from fedd.host.run_limits import RunLimits
from fedd.worker.context import Context

Does = Callable[[Context], Awaitable[Any]]


def script(what: Does) -> Script:
    async def run(worker: PlayedWorker, start: dict[str, Any]) -> None:
        class Work:
            async def run(self, ctx: Context) -> Any:
                return await what(ctx)

        await play(worker, start, Work())

    return run


async def started(nodes: list[Node], *what: Does, **more: Any) -> str:
    """A run in which node i does the i-th, the others the last."""
    for index, node in enumerate(nodes):
        node.workers.script = script(what[min(index, len(what) - 1)])
    begun = await nodes[0].runs.start(request(**{"topology": "complete", **more}))
    return str(begun["run_id"])


async def values(nodes: list[Node], run_id: str) -> list[Any]:
    found = []
    for node in nodes:
        result = await node.result(run_id)
        assert result["state"] == "finished", (result["error"], result["error_code"])
        found.append(result["value"])
    return found


@pytest.mark.parametrize("how", ["cut", "disconnect"])
async def test_letters_and_answers_survive_broken_links(autojump_clock: MockClock, how: str) -> None:
    """Each letter and answer once and in order, although the link breaks in the middle, several times."""
    count = 60

    async def work(ctx: Context) -> Any:
        ctx.on_ask("square", lambda peer, message: message * message)
        peers = list(ctx.neighbors)
        answers = []
        for number in range(count):
            await ctx.broadcast(number)
            answers.append(await ctx.ask(peers[number % 2], number, "square"))
            await trio.sleep(0.05)
        letters: dict[str, list[Any]] = {peer: [] for peer in peers}
        for _ in range(2 * count):
            letter = await ctx.receive()
            letters[letter.sender].append(letter.message)
        await ctx.exchange(None)
        return [answers, list(letters.values())]

    async with world(3) as nodes:
        run_id = await started(nodes, work)
        for _ in range(4):
            await trio.sleep(0.45)
            if how == "cut":
                nodes[0].link_to(nodes[1]).cut()
            else:
                await nodes[0].swarm.disconnect(nodes[1].id)
        for value in await values(nodes, run_id):
            assert value == [[number * number for number in range(count)], [list(range(count))] * 2]


async def test_a_member_that_dies_answers_nobody(autojump_clock: MockClock) -> None:
    async def dies(ctx: Context) -> Any:
        await trio.sleep_forever()  # before it awaits its context, so that it refuses no question

    async def asks(ctx: Context) -> Any:
        other = next(peer for peer in ctx.neighbors if peer == dead)
        with pytest.raises(NotConnected, match="does not answer: dead"):
            await ctx.ask(other, 1)
        await ctx.send(other, "into the void")
        left = sorted(ctx.neighbors)
        await ctx.exchange(None)  # the first to hear of the death ends no sooner than the other has looked
        return left

    async with world(3) as nodes:
        dead = nodes[2].id
        run_id = await started(nodes, asks, asks, dies)
        await trio.sleep(1.0)
        nodes[2].kill()
        assert await values(nodes[:2], run_id) == [[nodes[1].id], [nodes[0].id]]


async def test_the_last_letters_come_before_the_end(autojump_clock: MockClock) -> None:
    """More than the mailbox holds: the end waits behind them, and so does a reader's exchange."""

    async def sends(ctx: Context) -> Any:
        (other,) = ctx.neighbors
        for number in range(300):
            await ctx.send(other, number)

    async def reads(ctx: Context) -> Any:
        await trio.sleep(5)
        found = [(await ctx.receive()).message for _ in range(300)]
        with pytest.raises(NotConnected):
            await ctx.receive()
        return found

    async with world(2) as nodes:
        run_id = await started(nodes, sends, reads)
        assert (await values(nodes, run_id))[1] == list(range(300))


async def test_letters_that_nobody_reads_hold_an_end_back_for_seconds_only(
    autojump_clock: MockClock,
) -> None:
    async def sends(ctx: Context) -> Any:
        (other,) = ctx.neighbors
        for number in range(256 + WINDOW):
            await ctx.send(other, number)

    async def reads_none(ctx: Context) -> Any:
        await ctx.exchange(None)
        return trio.current_time()

    async with world(2) as nodes:
        began = trio.current_time()
        run_id = await started(nodes, sends, reads_none, quorum=1)
        ended = (await values(nodes, run_id))[1]
        assert 9 < ended - began < 15
        await until(lambda: not any(node.runs.nodes for node in nodes), 20.0)


async def test_who_waits_for_others_and_reads_nothing_stalls(autojump_clock: MockClock) -> None:
    """One waits in an exchange for the other, who waits until the first reads its letters."""

    async def sends(ctx: Context) -> Any:
        (other,) = ctx.neighbors
        for number in range(1000):
            await ctx.send(other, number)
        return "sent"

    async def waits(ctx: Context) -> Any:
        await ctx.exchange(None)

    async with world(2) as nodes:
        run_id = await started(nodes, sends, waits, quorum=1)
        stalled = await nodes[1].result(run_id, 200.0)
        assert (stalled["state"], stalled["error_code"]) == ("failed", "plugin_failed")
        assert "has read no letter of n0" in stalled["error"]
        assert await values(nodes[:1], run_id) == ["sent"]


async def test_who_waits_for_letters_does_not_stall(autojump_clock: MockClock) -> None:
    async def late(ctx: Context) -> Any:
        (other,) = ctx.neighbors
        for _ in range(10):  # ten steps of 50 s, each shorter than a stall
            await trio.sleep(50)
            await ctx.send(other, "now")
            await ctx.ask(other, None, "well")
        return "late"

    async def waits(ctx: Context) -> Any:
        ctx.on_ask("well", lambda peer, message: None)
        for _ in range(10):
            await ctx.receive()
        await ctx.exchange(None)
        return "patient"

    async with world(2) as nodes:
        run_id = await started(nodes, late, waits, quorum=1)
        assert (await nodes[1].result(run_id, 700.0))["value"] == "patient"
        assert (await nodes[0].result(run_id, 700.0))["value"] == "late"


async def test_who_hangs_after_a_letter_stalls(autojump_clock: MockClock) -> None:
    async def sends(ctx: Context) -> Any:
        (other,) = ctx.neighbors
        await ctx.send(other, "now")
        await ctx.exchange(None)
        return "done"

    async def hangs(ctx: Context) -> Any:
        await ctx.receive()
        await trio.sleep_forever()

    async with world(2, RunLimits(stall_timeout_s=20.0)) as nodes:
        run_id = await started(nodes, sends, hangs, quorum=1)
        assert (await nodes[1].result(run_id, 200.0))["error"].startswith("stall: ")
        assert await values(nodes[:1], run_id) == ["done"]


async def test_the_daemon_signs_for_its_algorithm(autojump_clock: MockClock) -> None:
    async def work(ctx: Context) -> Any:
        signatures = await ctx.exchange(await ctx.sign(b"yes"))
        return [
            [ctx.verify(peer, b"yes", signature), ctx.verify(peer, b"no", signature)]
            for peer, signature in signatures.items()
            if isinstance(signature, bytes)
        ]

    async with world(3) as nodes:
        run_id = await started(nodes, work)
        assert await values(nodes, run_id) == [[[True, False]] * 2] * 3


async def test_a_neighbour_that_has_finished_is_named_to_the_worker(autojump_clock: MockClock) -> None:
    """In the round after its last, and not among those that are gone."""

    async def short(ctx: Context) -> Any:
        await ctx.exchange(1)

    async def long(ctx: Context) -> Any:
        for number in range(3):
            await ctx.exchange(number)
        return sorted(ctx.finished)

    async with world(3) as nodes:
        run_id = await started(nodes, short, long)
        assert (await values(nodes, run_id))[1:] == [[nodes[0].id]] * 2
        for node in nodes[1:]:
            rounds = node.workers.made[0].rounds
            assert [header.get("finished") for header in rounds].count([nodes[0].id]) == 1
            assert all(header["gone"] == [] for header in rounds)


async def malformed(worker: PlayedWorker, start: dict[str, Any]) -> None:
    worker.emit({"kind": "mail", "to": start["members"][0], "what": 9, "ref": 0, "tag": ""}, [b"\x01"])


async def unasked(worker: PlayedWorker, start: dict[str, Any]) -> None:
    (other,) = (peer for peer in start["members"] if peer != start["me"])
    worker.emit({"kind": "mail", "to": other, "what": 3, "ref": 7, "tag": ""}, [b"\x01"])


async def unread(worker: PlayedWorker, start: dict[str, Any]) -> None:
    (other,) = (peer for peer in start["members"] if peer != start["me"])
    worker.emit({"kind": "read", "from": other, "letters": 1, "bytes": 1})


async def odd(worker: PlayedWorker, start: dict[str, Any]) -> None:
    worker.emit({"kind": "read", "from": 5})


@pytest.mark.parametrize("bad", [malformed, unasked, unread, odd])
async def test_a_worker_that_breaks_the_rules_of_mail_costs_its_own_node_the_run(
    autojump_clock: MockClock, bad: Script
) -> None:
    async def good(ctx: Context) -> Any:
        await ctx.exchange(None)

    async with world(2) as nodes:
        nodes[0].workers.script = script(good)
        nodes[1].workers.script = bad
        begun = await nodes[0].runs.start(request(topology="complete", quorum=1))
        failed = await nodes[1].result(begun["run_id"])
        assert (failed["state"], failed["error_code"]) == ("failed", "protocol")
        assert (await nodes[0].result(begun["run_id"]))["state"] == "finished"
