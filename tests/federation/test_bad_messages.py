"""A member whose plugin was tampered with sends rubbish: it is out of the run for that, and no other is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federation.daemons import GUARD_S, Federation, eventually, federation, result_of
from federation.plugged import plugged

pytestmark = pytest.mark.slow

TAMPERED = '''
"""The same plugin everywhere, but where the input is 1 it sends what is no message."""
from dataclasses import dataclass
from typing import ClassVar

from fedd.api import Algorithm, Message, NotConnected, RunContext, hookimpl

RUBBISH = b"\\xff no CBOR"
TAGS = {"exchange": "", "ledger": "fedd.ledger", "flood": "flood:", "merge": "merge:", "reduce": "reduce:"}


async def work(ctx: RunContext, kind: str) -> Message:
    if ctx.input == 1 and kind == "letter":  # before the others' letters: who has heard three reads no more
        for peer in ctx.neighbors:
            await ctx._letters._mail.send(peer, "", RUBBISH)
    for number in range(3):
        await ctx.exchange(number)
    if ctx.input == 1:
        await tampered(ctx, kind)
    return await honest(ctx, kind)


async def honest(ctx: RunContext, kind: str) -> Message:
    me = ctx.members.index(ctx.me)
    if kind == "exchange":
        heard = [sorted((await ctx.exchange(number)).values()) for number in range(6)]
        return [ctx.round, heard[-1]]
    if kind == "ledger":
        made = await ctx.ledger(float(me)).agree(tolerance=1e-12, iterations=500)
        return float(made.value) * len(made.contributors)
    if kind == "flood":
        return sum((await ctx.flood(me)).values())
    if kind == "merge":
        merged = await ctx.merge({str(me): 1}, lambda a, b: {**a, **b})
        return sum(map(int, merged.value))
    if kind == "reduce":
        return (await ctx.reduce(me, lambda a, b: a + b)).value
    await ctx.broadcast(me)
    heard = {(await ctx.receive()).message for _ in range(len(ctx.members) - 2)}
    for _ in range(6):
        await ctx.exchange(None)
    return sum(heard) + me


async def tampered(ctx: RunContext, kind: str) -> None:
    if kind == "letter":
        await ctx.receive("never")
    while ctx.present:
        await ctx.swap(dict.fromkeys(ctx.present, RUBBISH), TAGS[kind])
    raise NotConnected("nobody is left here")


@dataclass(frozen=True)
class Tampered:
    """Sums up the members' places."""

    name: ClassVar[str] = "tampered"
    kind: str = "exchange"

    async def run(self, ctx: RunContext) -> Message:
        return await work(ctx, self.kind)


@dataclass(frozen=True)
class Restarted(Tampered):
    """The same, with contract restart."""

    name: ClassVar[str] = "restarted"
    contract: ClassVar[str] = "restart"


@hookimpl
def fedd_register_algorithms() -> list[type[Algorithm]]:
    return [Tampered, Restarted]
'''

CONFIG = '[policy]\nalgorithms = ["tampered", "restarted", "consensus"]\n'
HACKED = 3


@pytest.fixture(scope="module")
def fed() -> Iterator[Federation]:
    with (
        plugged({"tampered": TAMPERED}) as python,
        federation(5, python=str(python), configs=[CONFIG] * 5) as daemons,
    ):
        for number, daemon in enumerate(daemons):
            daemon.ctl("set", "x", str(int(number == HACKED))).ok()
        yield daemons


@pytest.mark.parametrize("topology", ["complete", "ring"])
@pytest.mark.parametrize("kind", ["exchange", "ledger", "flood", "merge", "reduce", "letter"])
def test_rubbish_costs_its_sender_the_run_and_nobody_else(fed: Federation, kind: str, topology: str) -> None:
    if (kind, topology) == ("letter", "ring"):
        pytest.skip("letters go to neighbours: on a ring nobody hears from all")
    command = ("run", "tampered", f"kind={kind}", "--input", "x", "--topology", topology)
    made = fed[0].ctl(*command).ok()
    bad = fed[HACKED].peer_id()
    good = [index for index, peer in enumerate(made["members"]) if peer != bad]
    for daemon in fed:
        result = result_of(daemon, made["run_id"])
        if daemon is fed[HACKED]:
            assert result["state"] == "failed", result
            continue
        assert result["state"] == "finished", result
        assert [dropped["peer_id"] for dropped in result["dropped"]] == [bad], result
        reason = result["dropped"][0]["reason"]
        assert reason.startswith("bad message: "), reason
        if kind == "exchange":
            assert result["value"][0] == 9
        else:
            assert result["value"] == pytest.approx(sum(good), abs=1e-9)
    eventually(lambda: not running(fed), GUARD_S, "no run goes on anywhere")


def running(fed: Federation) -> bool:
    return any(run["state"] == "running" for daemon in fed for run in daemon.ctl("runs").ok())


def test_with_contract_restart_it_goes_and_the_others_begin_anew(fed: Federation) -> None:
    made = fed[0].ctl("run", "restarted", "kind=flood", "--input", "x", "--topology", "ring").ok()
    bad = fed[HACKED].peer_id()
    for daemon in fed:
        result = result_of(daemon, made["run_id"])
        if daemon is fed[HACKED]:
            assert result["state"] == "failed", result
            assert "can make nothing of what this node sent" in result["error"]
        else:
            assert (result["state"], result["value"], result["epoch"]) == ("finished", 0 + 1 + 2 + 3, 2), (
                result
            )
            assert bad not in result["members"]
            assert [dropped["peer_id"] for dropped in result["dropped"]] == [bad], result
            assert "bad message: " in result["dropped"][0]["reason"]
