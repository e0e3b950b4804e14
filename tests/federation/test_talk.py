"""What a plugin's algorithm can say outside of exchanges, among real daemons: letters, questions, sums."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of
from federation.plugged import plugged

pytestmark = pytest.mark.slow

TALK = '''
"""A plugin that uses every way to talk within a run."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedd.api import Algorithm, Message, RunContext, hookimpl


@dataclass(frozen=True)
class Talk:
    """Letters to all neighbours, a question to each, and a sum over everybody."""

    name: ClassVar[str] = "talk"
    letters: int = 40

    async def run(self, ctx: RunContext) -> Message:
        me = ctx.members.index(ctx.me)
        ctx.on_ask("square", lambda peer, number: [number * number, ctx.members.index(peer)])
        near = sorted(ctx.neighbors)
        heard = {peer: [] for peer in near}
        for number in range(self.letters):
            for peer in near:
                await ctx.send(peer, {"number": number, "body": np.full(500, me, np.float32)}, "letters")
        for _ in range(self.letters * len(near)):
            letter = await ctx.receive("letters")
            good = letter.message["body"].tolist() == [float(ctx.members.index(letter.sender))] * 500
            heard[letter.sender].append(letter.message["number"] if good else -1)
        answers = [await ctx.ask(peer, me + 2, "square") for peer in near]
        signature = await ctx.sign(b"talk")
        total = await ctx.reduce(
            {"sum": me, "signed": {ctx.me: signature}},
            lambda a, b: {"sum": a["sum"] + b["sum"], "signed": {**a["signed"], **b["signed"]}},
        )
        signed = total.value["signed"]
        everybody = await ctx.gather(me, ctx.members[0])
        return {
            "heard": [heard[peer] for peer in near],
            "answers": answers,
            "sum": total.value["sum"],
            "contributors": list(total.contributors),
            "signed": [ctx.verify(peer, b"talk", signed[peer]) for peer in ctx.members if peer in signed],
            "forged": ctx.verify(ctx.members[0], b"talk", signed[ctx.members[-1]]),
            "gathered": None if everybody is None else list(everybody.values()),
        }


@dataclass(frozen=True)
class Count:
    """Sums over everybody, again and again; whoever dies counts no more."""

    name: ClassVar[str] = "count"
    times: int = 30

    async def run(self, ctx: RunContext) -> Message:
        found = []
        for number in range(self.times):
            mine = {str(ctx.members.index(ctx.me)): 10 ** ctx.members.index(ctx.me)}
            total = await ctx.reduce(mine, lambda a, b: {**a, **b})
            assert len(total.value) == len(total.contributors)
            found.append(sum(total.value.values()))
            ctx.report(counted=number)
        return found


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    return [Talk, Count]
'''
NODES = 5
CONFIG = '[policy]\nalgorithms = ["talk", "count"]\n'


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with (
        plugged({"talk": TALK}) as python,
        federation(NODES, python=str(python), configs=[CONFIG] * NODES) as fed,
    ):
        yield fed


def test_letters_questions_and_a_sum(fed: Federation) -> None:
    run_id = fed[2].ctl("run", "talk", "--topology", "ring", "--seed", "1", "--detach").ok()["run_id"]
    results = {daemon.peer_id(): result_of(daemon, run_id) for daemon in fed}
    members = sorted(results)
    for peer, result in results.items():
        assert result["state"] == "finished", result
        told, me = result["value"], members.index(peer)
        assert told["heard"] == [list(range(40))] * 2  # each once, in order, from both
        assert told["answers"] == [[(me + 2) ** 2, me]] * 2
        assert told["sum"] == sum(range(NODES))
        assert told["contributors"] == members == result["contributors"]
        assert told["signed"] == [True] * NODES
        assert told["forged"] is False
        assert told["gathered"] == (list(range(NODES)) if me == 0 else None)


def test_a_sum_in_which_somebody_dies_is_the_same_for_all(fed: Federation) -> None:
    """Every sum is over exactly those whom it names, and the survivors agree on each."""
    command = ("run", "count", "--topology", "ring", "--seed", "1", "--pace", fed.pace(0.02), "--detach")
    ids = [daemon.peer_id() for daemon in fed]
    dead = sorted(ids).index(ids[3])
    run_id = fed[0].ctl(*command).ok()["run_id"]

    def counted() -> bool:
        return bool(fed[1].shown(run_id).get("metrics", {}).get("counted", 0) >= 5)

    eventually(counted, GUARD_S, "five sums are made")
    fed[3].kill()
    results = [result_of(daemon, run_id) for daemon in fed.survivors()]
    assert {result["state"] for result in results} == {"finished"}, results
    assert all(result["value"] == results[0]["value"] for result in results)
    everybody, living = int("1" * NODES), int("1" * NODES) - 10**dead
    sums = results[0]["value"]
    assert sums[0] == everybody
    assert sums[-1] == living
    assert sums == sorted(sums, reverse=True)
    assert set(sums) == {everybody, living}
