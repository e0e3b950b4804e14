"""A member that breaks the rules of a run hurts its own edge, and nobody's daemon."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import trio
from host.worlds import Node, request, rounds_of, world
from trio.testing import MockClock
from waiting import until

from fedd.core.identity import PrivateKey
from fedd.core.mail import Item, MailKind, Receipt
from fedd.core.manifest import accept, issue, state_end, state_stop
from fedd.host.run_control import CONTROL_PROTOCOL, ask
from fedd.host.run_limits import RunLimits
from fedd.host.run_wire import (
    FrameDecoder,
    Kind,
    encode_confirm,
    encode_frame,
    encode_mail,
    encode_preamble,
    encode_round,
)
from fedd.host.runs import RUN_PROTOCOL

STRANGER = PrivateKey.from_seed(b"s" * 32)


async def begin(nodes: list[Node], rounds: int = 20, **more: Any) -> str:
    for node in nodes:
        node.workers.script = rounds_of(rounds)
    return str((await nodes[0].runs.start(request(**{"pace_s": 0.2, **more})))["run_id"])


def sealed_of(node: Node, run_id: str) -> bytes:
    return node.runs.nodes[run_id].manifest.sealed


@pytest.mark.parametrize(
    "frame",
    [
        encode_round(9, "", b"two ahead")[0],
        encode_frame(Kind.ACK),
        encode_frame(Kind.END, 0, b"unsigned"),
        encode_frame(Kind.NOTICE, 0, b"unsigned"),
        encode_frame(Kind.STOP, 0, b"unsigned"),
        b"\x63" + bytes(9),
        b"".join(encode_mail(3, Item(MailKind.LETTER, 0, "", b"x"), Receipt())),
        b"".join(encode_mail(0, Item(MailKind.ANSWER, 7, "", b"x"), Receipt())),
        b"".join(encode_mail(0, Item(MailKind.LETTER, 0, "", b"x"), Receipt(arrived=9))),
        encode_frame(Kind.MAIL, 0, bytes(20)),
        encode_confirm(Receipt(read_letters=1)),
        encode_frame(Kind.CONFIRM, 0, b"short"),
    ],
    ids=[
        *("two ahead", "ack", "end", "notice", "stop", "unknown", "a letter left out", "an answer unasked"),
        *("a letter with a false receipt", "cut mail", "a false receipt", "a cut receipt"),
    ],
)
async def test_a_violation_cuts_that_edge_only(autojump_clock: MockClock, frame: bytes) -> None:
    async with world(4) as nodes:
        run_id = await begin(nodes, topology="complete")
        await until(lambda: nodes[0].round_of(run_id) >= 2)
        stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
        await stream.send_all(encode_preamble(sealed_of(nodes[1], run_id)) + frame)
        for node in nodes:
            result = await node.result(run_id)
            assert (result["state"], result["dropped"]) == ("finished", []), result
            assert result["value"][-1] == (2 if node in nodes[:2] else 3)
        await until(lambda: not any(node.runs.nodes for node in nodes), 200.0)


async def test_statements_of_others_runs_and_strangers_change_nothing(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        run_id = await begin(nodes, topology="complete")
        forged = [
            encode_frame(Kind.END, 0, state_end(nodes[2].key, run_id, 0, "not mine").sealed),
            encode_frame(Kind.NOTICE, 0, state_end(STRANGER, run_id, 0, "a stranger").sealed),
            encode_frame(Kind.NOTICE, 0, state_end(nodes[2].key, "0" * 40, 0, "another run").sealed),
            encode_frame(Kind.STOP, 0, state_stop(STRANGER, run_id)),
        ]
        for frame in forged:
            stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
            await stream.send_all(encode_preamble(sealed_of(nodes[1], run_id)) + frame)
        for node in nodes:
            result = await node.result(run_id)
            assert (result["state"], result["dropped"]) == ("finished", [])


async def test_one_neighbour_has_few_streams_to_fill(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        run_id = await begin(nodes, pace_s=1.0, topology="complete")
        await until(lambda: nodes[0].round_of(run_id) >= 1)
        # the first half of a message of the largest size, on each
        half = struct.pack("!BIBI", Kind.ROUND, 1, 0, 16 * 1024 * 1024) + bytes(1000)
        for _ in range(40):
            stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
            await stream.send_all(encode_preamble(sealed_of(nodes[1], run_id)) + half)
        await trio.sleep(0.1)
        assert nodes[0].runs.nodes[run_id].links[nodes[1].id].inbound == 8
        for node in nodes:
            result = await node.result(run_id)
            assert (result["state"], result["dropped"]) == ("finished", [])


async def test_a_stream_that_begins_with_no_manifest(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:
        for start in (b"\xff\xff\xff\xff", encode_preamble(b"rubbish"), struct.pack("!I", 9)):
            stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
            await stream.send_all(start)
            await stream.send_eof()
        run_id = await begin(nodes, 3)
        assert (await nodes[0].result(run_id))["state"] == "finished"


async def test_one_who_is_no_neighbour_may_not_send_rounds(autojump_clock: MockClock) -> None:
    async with world(4) as nodes:
        run_id = await begin(nodes, topology="ring")
        ring = {node.id: node for node in nodes}
        members = nodes[0].runs.get(run_id)["members"]
        one, opposite = ring[members[0]], ring[members[2]]
        stream = await one.swarm.open_stream(opposite.id, RUN_PROTOCOL)
        await stream.send_all(encode_preamble(sealed_of(one, run_id)) + encode_round(0, "", b"x")[0])
        for node in nodes:
            assert (await node.result(run_id))["value"] == [2] * 20


async def test_who_asks_after_the_end_is_told(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        run_id = await begin(nodes, 2)
        sealed = sealed_of(nodes[0], run_id)
        await until(lambda: not any(node.runs.nodes for node in nodes), 60.0)
        stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
        await stream.send_all(encode_preamble(sealed))
        assert (await stream.receive_some())[0] == Kind.END


async def test_questions_that_nobody_can_answer(autojump_clock: MockClock) -> None:
    async with world(2) as nodes:
        swarm, peer = nodes[1].swarm, nodes[0].id
        documents = {"dance": None, "propose": "proposal", "manifest": "manifest", "stop": "statement"}
        for kind, name in documents.items():
            message = {"kind": kind} if name is None else {"kind": kind, name: b"x"}
            reply = await ask(swarm, peer, message, 5.0)
            assert reply["kind"] == "error"
            assert reply["code"] == "protocol"
        assert (await ask(swarm, peer, {"kind": "withdraw", "proposal": b"x"}, 5.0))["kind"] == "ok"
        unknown = {"kind": "stop", "statement": state_stop(STRANGER, "0" * 40)}
        assert (await ask(swarm, peer, unknown, 5.0))["kind"] == "ok"
        proposal = nodes[0].runs.rooms.proposer.draft(request())[0].encode()
        reply = await ask(swarm, peer, {"kind": "propose", "proposal": proposal}, 5.0)
        assert reply["kind"] == "declined"
        for raw in (
            b"\x00\x00\x00\x00",
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x01\xff",
            b"\x00\x00\x00\x01\xf6",
        ):
            stream = await swarm.open_stream(peer, CONTROL_PROTOCOL)
            await stream.send_all(raw)
            await stream.send_eof()
        run_id = await begin(nodes, 2)
        assert (await nodes[0].result(run_id))["state"] == "finished"


async def test_one_member_does_not_take_all_places(autojump_clock: MockClock) -> None:
    async with world(3, RunLimits(runs=4)) as nodes:
        peer = nodes[0].id

        async def propose(node: Node) -> dict[str, Any]:
            proposal = node.runs.rooms.proposer.draft(request())[0].encode()
            return dict(await ask(node.swarm, peer, {"kind": "propose", "proposal": proposal}, 5.0))

        answers = [await propose(nodes[1]) for _ in range(4)]
        assert [answer["kind"] for answer in answers] == ["accepted", "accepted", "declined", "declined"]
        assert "2 proposals of yours" in answers[2]["reason"]
        assert (await propose(nodes[2]))["kind"] == "accepted"


async def test_a_manifest_that_nobody_waits_for_costs_one_signature(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(2) as nodes:
        offer = nodes[1].runs.rooms.proposer.draft(request())[0]
        keys = [node.key for node in nodes]
        made = issue(nodes[1].key, offer, {key.peer_id: accept(key, offer) for key in keys}, {}, 1000)
        monkeypatch.setattr("fedd.host.run_desk.open_any", lambda sealed: pytest.fail("was opened"))
        message = {"kind": "manifest", "manifest": made.sealed}
        reply = await ask(nodes[1].swarm, nodes[0].id, message, 5.0)
        assert (reply["kind"], reply["code"]) == ("error", "conflict")
        stream = await nodes[1].swarm.open_stream(nodes[0].id, RUN_PROTOCOL)
        await stream.send_all(encode_preamble(made.sealed))
        (frame,) = FrameDecoder(4096).receive_data(await stream.receive_some())
        assert frame.kind == Kind.END


async def test_an_answer_that_is_none(autojump_clock: MockClock) -> None:
    async with world(3) as nodes:

        async def nonsense(peer: str, message: Any) -> dict[str, Any]:
            return {"kind": "accepted", "acceptance": b"forged", "max_payload_bytes": 7}

        async def worse(peer: str, message: Any) -> dict[str, Any]:
            return {"kind": "accepted"}

        nodes[1].runs.rooms.desk.answer = nonsense
        nodes[2].runs.rooms.desk.answer = worse
        started = await nodes[0].runs.start(request(quorum=1))
        reasons = {entry["peer_id"]: entry["reason"] for entry in started["declined"]}
        assert reasons[nodes[2].id] == "its answer is malformed"
        assert "envelope" in reasons[nodes[1].id]
