"""Any admin sees who waits and decides, wherever the newcomer came to: whole nodes in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes, said
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    NotConnected,
    NotFound,
    ProtocolError,
    Refused,
    TimedOut,
)
from fedd.core.certificates import parse_token
from fedd.core.identity import PrivateKey
from fedd.net.approval import APPROVAL_PROTOCOL, ASK_ADMIN_S, raise_if_refused, read_waiting
from fedd.net.invitations import MAX_PENDING
from fedd.net.join_messages import MAX_ANSWER_BYTES, encode_message, receive, send

ELSEWHERE, OTHER = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in (77, 78))


@asynccontextmanager
async def two_admins(count: int) -> AsyncIterator[list[Node]]:
    """`a` and `b` are admins, `c` a member, whoever follows waits at `a`."""
    async with nodes(count) as made, trio.open_nursery() as nursery:
        await form(made[:3])
        await full_mesh(made[:3])
        a, b = made[:2]
        await a.admission.authority.grant(b.id)
        await until(lambda: a.presence.revoking.admins() == {a.id, b.id}, 5.0)
        token = a.admission.invite(uses=2, approve=True).token
        for newcomer in made[3:]:
            nursery.start_soon(newcomer.admission.join, token, 300.0)
            await until(lambda n=newcomer: n.admission.waits_for == a.id, 5.0)
            await trio.sleep(1)
        yield made
        nursery.cancel_scope.cancel()


def serve_otherwise(node: Node, handler: Any) -> None:
    """The node's end of the protocol is another one."""
    protocols = node.swarm._services.protocols
    protocols[APPROVAL_PROTOCOL] = replace(protocols[APPROVAL_PROTOCOL], handler=handler)


async def test_another_admin_sees_who_waits_and_lets_it_in(autojump_clock: MockClock) -> None:
    async with two_admins(4) as (a, b, c, d):
        notes = said(a)
        (row,) = await b.admission.approvals.waiting()
        assert (row.waiting.peer_id, row.waiting.name, row.at) == (d.id, "d", a.id)
        assert 0.9 < row.waiting.waiting_s < 5
        assert [each.waiting.peer_id for each in await a.admission.approvals.waiting()] == [d.id]
        await b.admission.approvals.approve(d.id, [row.at])
        assert notes == [("approved", {"peer_id": d.id, "by": b.id})]
        await until(lambda: all_alive([a, b, c, d]), 10.0)
        assert await b.admission.approvals.waiting() == []


async def test_another_admin_turns_it_away(autojump_clock: MockClock) -> None:
    async with two_admins(3) as (a, b, _c):
        notes = said(a)
        a.admission.invitations._let_wait(ELSEWHERE, _open_one(a), "x", "/memory/9")
        await b.admission.approvals.deny(ELSEWHERE, [a.id])
        assert [what for what, _ in notes] == ["pending", "denied"]
        assert a.admission.invitations.pending() == []
        with pytest.raises(NotFound, match=r"says: .* does not wait"):
            await b.admission.approvals.deny(ELSEWHERE, [a.id])
        with pytest.raises(NotFound, match="does not wait"):
            await a.admission.approvals.approve(ELSEWHERE, [a.id, b.id])


def _open_one(node: Node) -> Any:
    node.admission.invite(approve=True)
    return node.admission.invitations._open[-1]


async def test_one_of_several_decisions_is_enough(autojump_clock: MockClock) -> None:
    async with two_admins(3) as (a, b, _c):
        a.admission.invitations._let_wait(ELSEWHERE, _open_one(a), "x", "/memory/9")
        await b.admission.approvals.approve(ELSEWHERE, [b.id, a.id])
        await b.admission.approvals.approve(ELSEWHERE, [a.id])  # again: nothing happens


async def test_what_an_admin_approved_does_not_count_once_it_is_revoked(autojump_clock: MockClock) -> None:
    async with two_admins(4) as (a, b, c, d):
        d.kill()  # so that it does not ask before the other is revoked
        await b.admission.approvals.approve(d.id, [a.id])
        a.admission.authority.revoke(b.id)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            await d.start(nursery)
            await trio.sleep(30)
            assert c.presence.state_of(d.id) is None
            assert [each.peer_id for each in a.admission.invitations.pending()] == [d.id]
            await a.admission.approvals.approve(d.id, [a.id])
            await until(lambda: c.presence.state_of(d.id) == "alive", 10.0)
            nursery.cancel_scope.cancel()


async def test_a_full_disk_costs_the_approved_one_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token has one use, which the newcomer has until its certificate is on disk."""
    async with two_admins(3) as (a, b, _c):
        answer = a.admission.invitations.answer
        token = parse_token(a.admission.invite(uses=1, approve=True).token)
        request = {"federation": token.federation, "secret": token.secret, "name": "x"}
        assert answer(ELSEWHERE, request)["pending"] is True
        await b.admission.approvals.approve(ELSEWHERE, [a.id])
        full = FeddError("no space left")

        def write(name: str, data: bytes) -> None:
            raise full

        monkeypatch.setattr(a.store, "write", write)
        batch = a.admission.invitations._batch
        assert answer(ELSEWHERE, request)["chain"] is not None
        with pytest.raises(FeddError, match="no space left"):
            await a.admission.invitations._spend(batch)
        monkeypatch.undo()
        batch = a.admission.invitations._batch
        assert answer(ELSEWHERE, request)["chain"] is not None
        await a.admission.invitations._spend(batch)
        assert answer(OTHER, request) == {"chain": None}  # nobody else has that use


async def test_who_is_no_admin_sees_and_decides_nothing(autojump_clock: MockClock) -> None:
    async with two_admins(4) as (a, _b, c, d):
        with pytest.raises(Denied, match="may not see who waits"):
            await c.admission.approvals.waiting()
        for what in ("approve", "deny"):
            with pytest.raises(Denied, match="is no admin"):
                await getattr(c.admission.approvals, what)(d.id, [a.id])
        with pytest.raises(Conflict, match="in no federation"):
            await d.admission.approvals.waiting()
        with pytest.raises(Conflict, match="in no federation"):
            await d.admission.approvals.approve(d.id, [a.id])
        # an admin's certificate is not the asker's
        assert a.admission.federation is not None
        stolen = {"do": "approve", "peer": d.id, "chain": a.admission.federation.chain}
        with pytest.raises(Denied):
            a.admission.approvals.answer(c.id, stolen)
        assert len(a.admission.invitations.pending()) == 1
        # neither does a stranger: to it there is no such protocol
        await d.swarm.dial(parse_token(a.admission.invite().token).addresses, a.id)
        with pytest.raises(Refused):
            await d.swarm.open_stream(a.id, APPROVAL_PROTOCOL)


async def test_an_admin_that_does_not_answer_is_told_of(autojump_clock: MockClock) -> None:
    async with two_admins(4) as (a, b, _c, d):
        notes = said(b)

        async def silent(stream: Any) -> None:
            await trio.sleep_forever()

        serve_otherwise(a, silent)
        start = trio.current_time()
        assert await b.admission.approvals.waiting() == []
        assert trio.current_time() - start == pytest.approx(ASK_ADMIN_S, abs=0.5)
        ((what, fields),) = notes
        assert (what, fields["peer_id"]) == ("pending unknown", a.id)
        with pytest.raises(TimedOut, match="did not answer within 10 s"):
            await b.admission.approvals.approve(d.id, [a.id])
        a.kill()
        await trio.sleep(0.5)
        with pytest.raises(NotConnected):
            await b.admission.approvals.approve(d.id, [a.id])
        await until(lambda: b.presence.state_of(a.id) == "dead", 20.0)
        assert await b.admission.approvals.waiting() == []  # and nobody was asked
        assert len(notes) == 1


async def test_a_broken_answer_is_no_answer(autojump_clock: MockClock) -> None:
    async with two_admins(3) as (a, b, _c):

        async def broken(stream: Any) -> None:
            await receive(stream)
            stream.reset()

        serve_otherwise(a, broken)
        with pytest.raises(NotConnected, match="the link with the admin"):
            await b.admission.approvals.approve(ELSEWHERE, [a.id])


@pytest.mark.parametrize(
    "question",
    [
        {"do": "list"},
        {"do": "list", "chain": b"\x80"},
        {"do": "list", "chain": 3},
    ],
)
async def test_without_an_admins_certificate_there_is_no_answer(
    autojump_clock: MockClock, question: dict[str, Any]
) -> None:
    async with two_admins(3) as (a, b, _c):
        stream = await b.swarm.open_stream(a.id, APPROVAL_PROTOCOL)
        await send(stream, question)
        answer = await receive(stream, MAX_ANSWER_BYTES)
        assert answer["error"] == "denied"


@pytest.mark.parametrize(
    ("question", "error", "says"),
    [
        ({"do": "invite"}, ProtocolError, "no such thing"),
        ({"do": "approve"}, ProtocolError, "whom to approve"),
        ({"do": "deny", "peer": b"x"}, ProtocolError, "whom to deny"),
    ],
)
async def test_questions_that_are_none(
    autojump_clock: MockClock, question: dict[str, Any], error: type[Exception], says: str
) -> None:
    async with two_admins(3) as (a, b, _c):
        assert b.admission.federation is not None
        with pytest.raises(error, match=says):
            a.admission.approvals.answer(b.id, {**question, "chain": b.admission.federation.chain})


ROW = [ELSEWHERE, "c", "/ip4/192.0.2.7/tcp/1", 1.5]


@pytest.mark.parametrize(
    "waiting",
    [
        None,
        "abc",
        [ROW] * (MAX_PENDING + 1),
        [[*ROW, 1]],
        [["x", *ROW[1:]]],
        [[3, *ROW[1:]]],
        [[ELSEWHERE, "c" * 65, *ROW[2:]]],
        [[ELSEWHERE, "c\n", *ROW[2:]]],
        [[ELSEWHERE, "c", "/" * 300, 1.5]],
        [[*ROW[:3], -1.0]],
        [[*ROW[:3], float("nan")]],
        [[*ROW[:3], float("inf")]],
        [[*ROW[:3], 1 << 4000]],
    ],
)
def test_what_another_admin_tells_is_checked(waiting: Any) -> None:
    with pytest.raises(ProtocolError, match="b "):
        read_waiting({"waiting": waiting}, "b")


def test_as_many_as_can_wait_fit_into_an_answer() -> None:
    row = [ELSEWHERE, "\U0001f980" * 64, "/ip6/" + "f" * 39 + "/tcp/65535/p2p/" + ELSEWHERE, 1e9 / 3]
    message = {"waiting": [row] * MAX_PENDING}
    assert len(encode_message(message)) <= MAX_ANSWER_BYTES
    assert len(read_waiting(message, "b")) == MAX_PENDING


def test_a_refusal_is_raised_as_what_it_is() -> None:
    raise_if_refused({}, "b")
    for code, kind in (("conflict", Conflict), ("not_found", NotFound), ("denied", Denied), ("x", Refused)):
        with pytest.raises(kind, match="the admin b says: because"):
            raise_if_refused({"error": code, "reason": "because"}, "b")
    for reason in (3, "a\nb", None):
        with pytest.raises(Refused, match="says: no"):
            raise_if_refused({"error": [1], "reason": reason}, "b")
