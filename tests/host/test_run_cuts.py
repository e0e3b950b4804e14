"""Whose plugin sends what cannot be used is out on every node; nobody cuts edges of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from host.worlds import Node, PlayedWorker, Script, context, request, rounds_of, world
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import FeddError
from fedd.core.identity import PrivateKey
from fedd.core.manifest import CutStatement, state_cut
from fedd.host.run_wire import Kind, encode_frame, encode_preamble
from fedd.host.runs import RUN_PROTOCOL

STRANGER = PrivateKey.from_seed(b"s" * 32)


class Cutting(PlayedWorker):
    """A played worker whose context can cut a neighbour off."""

    def cut(self, peer: str, reason: str) -> None:
        self.emit({"kind": "cut", "peer": peer, "reason": reason})


@pytest.fixture(autouse=True)
def cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.worlds.PlayedWorker", Cutting)


def rubbish_after(good: int) -> Script:
    """So many good exchanges, then undecodable ones to all until nobody is left."""

    async def script(worker: PlayedWorker, start: dict[str, Any]) -> None:
        ctx = context(worker, start)
        try:
            for number in range(good):
                await ctx.exchange(number)
            while ctx.present:
                await ctx.swap(dict.fromkeys(ctx.present, b"\xff"), "")
        except FeddError as error:
            worker.emit({"kind": "failed", "code": error.code, "detail": error.detail, "hint": error.hint})
        else:
            worker.emit({"kind": "failed", "code": "failed", "detail": "nobody is left", "hint": ""})

    return script


@pytest.mark.parametrize("topology", ["complete", "ring"])
async def test_who_sends_rubbish_to_all_is_out_on_every_node(
    autojump_clock: MockClock, topology: str
) -> None:
    async with world(5) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(12)
        bad = nodes[3]
        bad.workers.script = rubbish_after(4)
        started = await nodes[0].runs.start(request(topology=topology, pace_s=0.2))
        for node in nodes:
            result = await node.result(started["run_id"])
            if node is bad:
                assert result["state"] == "failed"
                why = "cut: it can make nothing of what this node sent: bad message: a message is malformed"
                told = [dropped["reason"].startswith(why) for dropped in result["dropped"]]
                assert told.count(True) == (4 if topology == "complete" else 2), result  # its neighbours
                continue
            assert result["state"] == "finished", result
            ((peer, reason),) = [(dropped["peer_id"], dropped["reason"]) for dropped in result["dropped"]]
            assert peer == bad.id
            assert reason.startswith("bad message: a message is malformed")
            assert bad.id not in result["contributors"]
        await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)


async def test_with_contract_restart_who_is_blamed_leaves_and_the_others_begin_anew(
    autojump_clock: MockClock,
) -> None:
    async with world(4) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(12)
        bad = nodes[3]
        bad.workers.script = rubbish_after(4)
        started = await nodes[0].runs.start(request(topology="ring", pace_s=0.2, contract="restart"))
        result = await bad.result(started["run_id"])
        assert (result["state"], result["error_code"]) == ("failed", "invalid_message")
        assert "can make nothing of what this node sent" in result["error"]
        node = nodes[0].runs.nodes[started["run_id"]]
        await until(lambda: node.manifest.epoch == 2)
        assert bad.id not in node.manifest.members
        await nodes[0].runs.stop(started["run_id"])
        await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)


async def test_a_worker_cannot_cut_whom_it_has_no_edge_to(autojump_clock: MockClock) -> None:
    async def script(worker: PlayedWorker, start: dict[str, Any]) -> None:
        worker.emit({"kind": "cut", "peer": "nobody", "reason": "because"})

    async with world(3) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(3)
        nodes[2].workers.script = script
        started = await nodes[0].runs.start(request())
        own = await nodes[2].result(started["run_id"])
        assert (own["state"], own["error_code"]) == ("failed", "protocol")
        assert "who is no neighbour" in own["error"]


@pytest.mark.parametrize("whose", ["stranger", "no edge", "another run", "rubbish"])
async def test_nobody_cuts_edges_of_others(autojump_clock: MockClock, whose: str) -> None:
    """The statement costs who hands it on its own edge; the edge that it speaks of stays."""
    async with world(4) as nodes:
        for node in nodes:
            node.workers.script = rounds_of(20)
        started = await nodes[0].runs.start(request(topology="ring", pace_s=0.2))
        run_id = started["run_id"]
        await until(lambda: nodes[0].round_of(run_id) >= 2)
        by_id = {node.id: node for node in nodes}
        ring = [by_id[peer] for peer in started["members"]]
        manifest = ring[0].runs.nodes[run_id].manifest
        frames: Mapping[str, bytes] = {
            "stranger": cut_by(STRANGER, ring, manifest).sealed,
            "no edge": state_cut(ring[0].key, manifest, ring[2].id, 0, "", fault=True).sealed,
            "another run": cut_by(ring[2].key, ring, manifest).sealed[:-1],
            "rubbish": b"rubbish",
        }
        stream = await ring[1].swarm.open_stream(ring[0].id, RUN_PROTOCOL)
        await stream.send_all(
            encode_preamble(manifest.sealed) + encode_frame(Kind.CUT_NOTICE, 0, frames[whose])
        )
        for node in nodes:
            result = await node.result(run_id)
            assert (result["state"], result["dropped"]) == ("finished", []), result
            assert result["value"][-1] == (1 if node in ring[:2] else 2)


def cut_by(key: PrivateKey, ring: list[Node], manifest: Any) -> CutStatement:
    return state_cut(key, manifest, ring[3].id, 0, "bad message: not mine", fault=True)
