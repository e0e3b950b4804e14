"""Admins in the founder's place, revocation and its flood, approval, allow-lists, in virtual time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes, until
from trio.testing import MockClock

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    NotFound,
    Refused,
    TimedOut,
)
from fedd.core import codec
from fedd.core.certificates import issue_certificate, make_chain, parse_token
from fedd.core.presence_messages import (
    PRESENCE_PROTOCOL,
    Hello,
    RevocationMarks,
    Revocations,
    encode_message,
)
from fedd.core.revocation import sign_list
from fedd.net.federation import FederationIdentity
from fedd.net.invitations import MAX_PENDING
from fedd.net.join_messages import CERTIFICATE_PROTOCOL, JOIN_PROTOCOL, receive, send
from fedd.net.joining import NotYet, ask


def said(node: Node) -> list[tuple[str, dict[str, Any]]]:
    """What the node's operator is told, from now on."""
    notes: list[tuple[str, dict[str, Any]]] = []
    node.admission.subscribe(lambda what, fields: notes.append((what, fields)))
    return notes


def others_say(members: list[Node], subject: Node, state: str) -> bool:
    return all(node.presence.state_of(subject.id) == state for node in members if node is not subject)


# ---- admins ----------------------------------------------------------------------------------------


async def test_an_admin_made_by_the_root_invites_while_the_founder_is_dead(
    autojump_clock: MockClock,
) -> None:
    async with nodes(4) as (a, b, c, d):
        await form([a, b, c])
        await full_mesh([a, b, c])
        await trio.sleep(3)
        notes = said(b)
        await a.admission.authority.grant(b.id)
        assert [what for what, _ in notes] == ["made admin"]
        assert b.admission.federation is not None
        assert b.admission.federation.is_admin
        await trio.sleep(1)
        assert c.presence.revoking.admins() == {a.id, b.id} == b.presence.revoking.admins()
        assert codec.decode(b.store.files["federation"])["chain"] == b.admission.federation.chain
        await trio.sleep(1)
        assert not any(change.new in ("dead", "suspect") for _, change in a.changes + c.changes)
        assert all(one.presence.is_linked(b.id) for one in (a, c))
        a.kill()
        await trio.sleep(2)
        await d.admission.join(b.admission.invite().token)
        await until(lambda: d.presence.state_of(c.id) == "alive" == c.presence.state_of(d.id), 5.0)


async def test_chains_of_two_hold_after_the_admin_who_issued_them_died(autojump_clock: MockClock) -> None:
    async with nodes(4) as (a, b, c, d), trio.open_nursery() as nursery:
        await form([a, b])
        await a.admission.authority.grant(b.id)
        for node in (c, d):
            await node.admission.join(b.admission.invite().token)
        await until(lambda: all_alive([a, b, c, d]), 5.0)
        await trio.sleep(3)
        for node in (a, b, c, d):
            node.kill()
        await trio.sleep(1)
        for node in (a, c, d):
            await node.start(nursery)
        await until(
            lambda: all(n.presence.state_of(o.id) == "alive" for n in (a, c, d) for o in (a, c, d)), 5
        )
        nursery.cancel_scope.cancel()


async def test_granting_needs_the_root_key_and_a_member(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b])
        with pytest.raises(Denied, match="root key of plant7 is not on this device") as caught:
            await b.admission.authority.grant(a.id)
        assert "fedctl root import" in caught.value.hint
        with pytest.raises(NotFound, match="no member"):
            await a.admission.authority.grant(c.id)
        with pytest.raises(Conflict, match="no federation"):
            await c.admission.authority.grant(a.id)
        assert not c.admission.authority.has_root()


async def test_the_root_key_moves_to_another_device(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        pem = a.admission.authority.export_root()
        with pytest.raises(InvalidParameter, match="not the root key of plant7"):
            a.admission.authority.remove_root(a.key.to_pem().decode())
        assert a.admission.authority.has_root()
        a.admission.authority.remove_root(pem)
        assert not a.admission.authority.has_root()
        with pytest.raises(Denied):
            a.admission.authority.export_root()
        with pytest.raises(Denied):
            await a.admission.authority.grant(b.id)
        with pytest.raises(InvalidParameter):
            b.admission.authority.import_root("rubbish")
        with pytest.raises(InvalidParameter, match="not the root key"):
            b.admission.authority.import_root(b.key.to_pem().decode())
        b.admission.authority.import_root(pem)
        await b.admission.authority.grant(b.id)
        await b.admission.authority.grant(c.id)
        assert b.admission.federation is not None
        assert b.admission.federation.is_admin
        assert c.admission.federation is not None
        assert c.admission.federation.is_admin


async def test_who_cannot_be_reached_is_not_made_an_admin(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(2) as (a, b):
        await form([a, b])
        for wire in b.wires():
            wire.hold()  # type: ignore[attr-defined]
        with pytest.raises(TimedOut, match="did not take its certificate"):
            await a.admission.authority.grant(b.id, deadline_s=2.0)
        b.kill()
        await trio.sleep(5)
        with pytest.raises(FeddError):
            await a.admission.authority.grant(b.id, deadline_s=2.0)
        monkeypatch.setattr(a.presence, "members", list)
        monkeypatch.setattr(type(a.swarm), "connections", {})
        with pytest.raises(NotConnected, match="no link"):
            await a.admission.authority._dial(b.id, 1.0)


async def test_certificates_that_members_bring_are_looked_at(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        await full_mesh([a, b, c])
        mine = b.admission.federation
        assert mine is not None
        assert a.admission.federation is not None
        plain = make_chain(
            issue_certificate(a.key, federation=mine.id, name="plant7", peer_id=b.id, serial=9),
            a.admission.federation.chain,
        )

        async def bring(chain: object) -> dict[str, Any]:
            stream = await c.swarm.open_stream(b.id, CERTIFICATE_PROTOCOL)
            await send(stream, {"chain": chain})
            return await receive(stream)

        assert (await bring(mine.chain))["accepted"] is True
        for chain, reason in (
            (plain, "gives no rights"),
            (a.admission.federation.chain, "showed the certificate of"),
            (b"rubbish", "not valid"),
            (7, "no certificate"),
        ):
            answer = await bring(chain)
            assert answer["accepted"] is False
            assert reason in answer["reason"]
        assert b.admission.federation is mine

        b.admission.authority._take = lambda chain, source: (_ for _ in ()).throw(FeddError("no"))  # type: ignore
        with pytest.raises(Refused, match="does not take the certificate: no"):
            await a.admission.authority.grant(b.id)


# ---- revocation ------------------------------------------------------------------------------------


async def test_the_revoked_is_cut_off_here_and_everywhere_and_told(autojump_clock: MockClock) -> None:
    async with nodes(5) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        a, *_, e = members
        notes = said(e)
        done = a.admission.authority.revoke(e.id)
        assert (done.by, done.epoch) == ("root", 1)
        assert a.presence.state_of(e.id) == "left"
        assert not a.presence.is_member(e.id)
        start = trio.current_time()
        await until(lambda: others_say(members, e, "left"), 1.0)
        flooded_s = trio.current_time() - start
        assert flooded_s <= 0.05
        await until(lambda: not any(e.id in node.swarm.connections for node in members[:4]), 1.0)
        assert trio.current_time() - start <= 0.5
        await until(lambda: e.admission.federation is None, 2.0)
        assert ("this node is revoked", "plant7") in [(what, f.get("name")) for what, f in notes]
        assert e.admission.expulsion is not None
        assert e.admission.expulsion.federation == "plant7"
        assert "revoked with the root key" in e.admission.expulsion.reason
        view = next(v for v in members[1].presence.members() if v.peer_id == e.id)
        assert (view.name, view.state, view.reason) == ("e", "left", "revoked")
        await trio.sleep(20)
        assert others_say(members, e, "left")
        assert not [c for node in members[:4] for _, c in node.changes if c.new == "dead"]
        with pytest.raises(Denied):
            await e.admission.join(a.admission.invite().token)


@pytest.mark.parametrize("deaf", [False, True])
async def test_one_that_does_not_want_to_go_is_cut_off_all_the_same(
    deaf: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        *stay, d = members
        monkeypatch.setattr(d.presence.revoking, "receive", lambda peer, message: message)
        if deaf:
            for wire in d.wires():
                wire.hold()  # type: ignore[attr-defined]
        stay[0].admission.authority.revoke(d.id)
        took_s = await until(lambda: not any(d.id in node.swarm.connections for node in stay), 2.0)
        assert took_s <= 0.5
        for wire in d.wires() if deaf else ():
            wire.release()  # type: ignore[attr-defined]
        await trio.sleep(20)  # it comes again and again
        assert d.admission.federation is not None
        assert all(not node.presence.is_member(d.id) for node in stay)
        assert others_say(stay, d, "left")
        assert all(one.presence.is_linked(two.id) for one in stay for two in stay if one is not two)


async def test_revocation_survives_a_restart_of_everybody(autojump_clock: MockClock) -> None:
    async with nodes(4) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        *stay, d = members
        kept = dict(d.store.files)
        stay[0].admission.authority.revoke(d.id)
        await until(lambda: d.admission.expulsion is not None, 1.0)
        for node in members:
            node.kill()
        await trio.sleep(1)
        d.store.files = kept  # a thief who does not let it hear of anything
        for node in members:
            node.changes.clear()
            await node.start(nursery)
        await until(lambda: all(n.presence.state_of(o.id) == "alive" for n in stay for o in stay), 5.0)
        await until(lambda: d.admission.expulsion is not None, 15.0)  # told instead of a hello
        await trio.sleep(20)
        assert all(not node.saw(d, "alive", "suspect") for node in stay)
        assert all(d.id not in node.presence._core.records for node in stay)  # type: ignore[union-attr]
        d.kill()
        await trio.sleep(1)
        await d.start(nursery)
        assert d.admission.federation is None
        assert d.admission.expulsion is not None
        nursery.cancel_scope.cancel()


async def test_who_was_away_hears_of_it_before_it_believes_the_revoked(autojump_clock: MockClock) -> None:
    async with nodes(4) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        a, b, c, d = members
        c.kill()
        await trio.sleep(3)
        b.admission  # noqa: B018
        a.admission.authority.revoke(d.id)
        await trio.sleep(1)
        c.changes.clear()
        await c.start(nursery)
        await until(lambda: c.presence.state_of(a.id) == c.presence.state_of(b.id) == "alive", 5.0)
        await trio.sleep(5)
        assert not c.saw(d, "alive")
        assert c.presence.state_of(d.id) == "left"
        newcomer_sees = c.presence.credentials.revocations.revoked()
        assert set(newcomer_sees) == {d.id}
        nursery.cancel_scope.cancel()


async def test_a_newcomer_has_the_lists_before_its_first_link(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b])
        a.admission.authority.revoke(b.id)
        granted = await ask(c.swarm, parse_token(a.admission.invite().token), a.id, "c", 5.0)
        assert len(granted.lists) == 1
        await c.admission.join(a.admission.invite().token)
        assert set(c.presence.credentials.revocations.revoked()) == {b.id}
        assert "revocations" in c.store.files


async def test_members_revoke_nobody_and_admins_no_admins(autojump_clock: MockClock) -> None:
    async with nodes(4) as (a, b, c, d):
        await form([a, b, c, d])
        with pytest.raises(Denied, match="no admin"):
            c.admission.authority.revoke(d.id)
        await a.admission.authority.grant(b.id)
        await trio.sleep(1)
        with pytest.raises(Denied, match=f"{a.id} is an admin, and only the root key"):
            b.admission.authority.revoke(a.id)
        with pytest.raises(Conflict, match="this node itself"):
            b.admission.authority.revoke(b.id)
        done = b.admission.authority.revoke(d.id)
        assert done.by == "admin"
        await until(lambda: d.admission.federation is None, 2.0)
        assert a.presence.state_of(d.id) == "left"
        with pytest.raises(Conflict, match="revoked already"):
            b.admission.authority.revoke(d.id)
        with pytest.raises(Denied, match="is revoked"):
            await a.admission.authority.grant(d.id)
        assert [named.peer_id for named in a.admission.authority.revoked()] == [d.id]


async def test_a_revoked_admin_takes_nobody_along_whom_the_revoker_knows(autojump_clock: MockClock) -> None:
    async with nodes(5) as (a, b, c, d, e):
        await form([a, b])
        await a.admission.authority.grant(b.id)
        token = b.admission.invite(uses=3).token
        await c.admission.join(token)
        await d.admission.join(token)
        await until(lambda: all_alive([a, b, c, d]), 5.0)
        b.admission.authority.revoke(d.id)
        await until(lambda: d.admission.federation is None, 2.0)
        done = a.admission.authority.revoke(b.id)
        assert (done.stay, done.leave) == (1, 0)
        await until(lambda: b.admission.federation is None, 2.0)
        await trio.sleep(10)
        assert a.presence.state_of(c.id) == "alive" == c.presence.state_of(a.id)
        # what the revoked admin had revoked stays so, and what it lets in is not let in
        assert set(c.presence.credentials.revocations.revoked()) == {b.id, d.id}
        assert c.admission.federation is not None
        late = make_chain(
            issue_certificate(
                b.key, federation=c.admission.federation.id, name="plant7", peer_id=e.id, serial=1
            ),
            make_chain(codec.decode(c.admission.federation.chain)[1]),
        )
        with pytest.raises(Denied, match="let in by"):
            c.presence.credentials.check(e.id, late)


async def test_undone_it_may_join_again(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        a.admission.authority.revoke(c.id)
        await until(lambda: c.admission.federation is None, 2.0)
        with pytest.raises(Denied):
            await c.admission.join(a.admission.invite().token)
        done = a.admission.authority.undo(c.id)
        assert done.epoch == 2
        with pytest.raises(NotFound, match="is not revoked"):
            a.admission.authority.undo(c.id)
        await trio.sleep(1)
        await c.admission.join(a.admission.invite().token)
        assert c.admission.expulsion is None
        await until(lambda: all_alive([a, b, c]), 5.0)


async def test_undoing_tells_who_else_revoked(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        await a.admission.authority.grant(b.id)
        await trio.sleep(1)
        b.admission.authority.revoke(c.id)
        await trio.sleep(1)
        with pytest.raises(Conflict, match=f"still revoked by {b.id}"):
            a.admission.authority.undo(c.id)
        a.admission.authority.revoke(c.id)
        await trio.sleep(1)
        with pytest.raises(Conflict, match="still revoked by the root key"):
            b.admission.authority.undo(c.id)
        await trio.sleep(1)
        a.admission.authority.undo(c.id)
        await trio.sleep(1)
        assert not b.presence.credentials.revocations.revoked()


async def test_older_and_unsigned_lists_are_ignored_and_told(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        a, b, c, d = members
        assert a.admission.federation is not None
        root = a.admission.authority._root(a.admission.federation)
        assert root is not None
        older = sign_list(root, a.admission.federation.id, 1, {})
        a.admission.authority.revoke(d.id)
        a.admission.authority.undo(d.id)
        a.admission.authority.revoke(d.id)
        notes = said(b)
        await trio.sleep(6)
        assert notes == []
        for sealed in (older, older[:-1] + b"\0", b"rubbish", older):
            c.presence._table.send(b.id, Revocations(sealed))
            await trio.sleep(0.1)
        ignored = [(f["kind_of"], f["peer_id"]) for what, f in notes if what == "revocation list ignored"]
        assert ignored == [("older", c.id), ("refused", c.id)]
        assert set(b.presence.credentials.revocations.revoked()) == {d.id}
        assert all(one.presence.is_linked(two.id) for one in (a, b, c) for two in (a, b, c) if one is not two)


async def test_a_flood_of_lists_is_limited_and_the_last_one_counts(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        await full_mesh([a, b, c])
        assert a.admission.federation is not None
        root = a.admission.authority._root(a.admission.federation)
        assert root is not None
        b.store.writes.clear()
        for epoch in range(1, 301):
            sealed = sign_list(root, a.admission.federation.id, epoch, {})
            a.presence.credentials.take(sealed, None)
            a.presence._table.send(b.id, Revocations(sealed))
        await trio.sleep(1)
        assert b.store.writes.count("revocations") <= 70
        await until(lambda: b.presence.credentials.marks == a.presence.credentials.marks, 60.0)


async def test_a_stranger_cannot_make_a_node_believe_that_it_is_revoked(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, stranger):
        await form([a, b])

        async def rude(stream: Any) -> None:
            await stream.send_all(encode_message(Revocations(b"rubbish")))

        stranger.swarm._services.protocols.pop(PRESENCE_PROTOCOL)
        stranger.swarm.handle(PRESENCE_PROTOCOL, rude, "anyone")
        notes = said(b)
        b.presence.pin(stranger.id, stranger.swarm.addresses)
        await trio.sleep(5)
        assert b.admission.federation is not None
        assert notes == []


async def test_a_damaged_file_of_revocations_is_said(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery():
        await form([a, b])
        a.admission.authority.revoke(b.id)
        for content in (b"damaged", codec.encode({"federation": a.admission.federation.id, "lists": [b"x"]})):  # type: ignore[union-attr]
            a.store.files["revocations"] = content
            a.presence.credentials.leave()
            with pytest.raises(FeddError, match="'revocations' in the state directory is damaged"):
                a.presence.credentials.enter(FederationIdentity.from_chain(*chain_of(a)))


def chain_of(node: Node) -> tuple[bytes, str, str]:
    content = codec.decode(node.store.files["federation"])
    return content["chain"], content["id"], node.id


# ---- approval --------------------------------------------------------------------------------------


async def test_a_newcomer_waits_until_it_is_approved(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        notes = said(a)
        token = a.admission.invite(approve=True).token
        with pytest.raises(TimedOut, match="has not approved this node yet") as caught:
            await b.admission.join(token, deadline_s=3.0)
        assert f"fedctl approve {b.id}" in caught.value.hint
        (waiting,) = a.admission.invitations.pending()
        assert (waiting.peer_id, waiting.name) == (b.id, "b")
        assert [what for what, _ in notes] == ["pending"]
        assert b.admission.waits_for == a.id
        with pytest.raises(Conflict, match="waits for"):
            await b.admission.join(token)
        a.admission.invitations.approve(b.id)
        await until(lambda: all_alive([a, b]), 10.0)
        assert b.admission.waits_for is None
        assert a.admission.invitations.pending() == []
        assert "joining" not in b.store.files


async def test_join_returns_when_it_is_approved_in_time(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        a.admission.init("plant7")
        token = a.admission.invite(approve=True).token
        nursery.start_soon(b.admission.join, token, 30.0)
        await until(lambda: len(a.admission.invitations.pending()) == 1, 5.0)
        a.admission.invitations.approve(b.id)
    # the nursery has ended: join came back


async def test_waiting_survives_a_restart_of_the_newcomer(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        b.kill()
        await trio.sleep(1)
        await b.start(nursery)
        assert b.admission.waits_for == a.id
        a.admission.invitations.approve(b.id)
        await until(lambda: all_alive([a, b]), 10.0)
        nursery.cancel_scope.cancel()


async def test_who_is_denied_gives_up(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        a.admission.invitations.deny(b.id)
        with pytest.raises(NotFound, match="does not wait"):
            a.admission.invitations.approve(b.id)
        notes = said(b)
        await until(lambda: b.admission.waits_for is None, 10.0)
        assert [what for what, _ in notes] == ["join denied by the inviter"]
        assert b.admission.federation is None
        assert "joining" not in b.store.files


async def test_waiting_can_be_given_up_by_leave(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        await b.admission.leave()
        assert b.admission.waits_for is None
        a.admission.invitations.approve(b.id)
        await trio.sleep(20)
        assert b.admission.federation is None
        with pytest.raises(Conflict):
            await b.admission.leave()


async def test_no_more_are_approved_than_the_token_is_for(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        a.admission.init("plant7")
        token = a.admission.invite(approve=True).token
        for node in (b, c):
            with pytest.raises(TimedOut):
                await node.admission.join(token, deadline_s=1.0)
        a.admission.invitations.approve(b.id)
        with pytest.raises(Conflict, match="used up"):
            a.admission.invitations.approve(c.id)


async def test_those_who_wait_are_bounded(autojump_clock: MockClock) -> None:
    async with nodes(1) as (a,):
        a.admission.init("plant7")
        token = parse_token(a.admission.invite(approve=True).token)
        request = {"federation": token.federation, "secret": token.secret, "name": "x" * 100}
        answers = [a.admission.invitations.answer(f"12D3KooW{n}", request) for n in range(MAX_PENDING + 5)]
        assert [answer.get("pending") for answer in answers] == [True] * MAX_PENDING + [None] * 5
        assert len(a.admission.invitations.pending()) == MAX_PENDING
        assert len(a.admission.invitations.pending()[0].name) == 64


async def test_a_good_token_of_one_who_waits_is_not_yet(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        token = parse_token(a.admission.invite(approve=True, expires_s=2.0).token)
        with pytest.raises(NotYet):
            await ask(b.swarm, token, a.id, "b", 5.0)
        await trio.sleep(3)  # who came in time may wait longer than the token is good
        a.admission.invite()
        with pytest.raises(NotYet):
            await ask(b.swarm, token, a.id, "b", 5.0)


# ---- a power cut, guesses, allow-lists ---------------------------------------------------------------


async def test_a_power_cut_between_the_answer_and_the_first_link_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        a.admission.init("plant7")
        token = parse_token(a.admission.invite().token)
        await b.admission._ask(token, a.id, 5.0)
        b.kill()  # before anything came over a link
        assert "members" not in b.store.files
        await trio.sleep(1)
        await b.start(nursery)
        await until(lambda: all_alive([a, b]), 3.0)
        nursery.cancel_scope.cancel()


async def test_guesses_of_one_peer_are_limited_and_told_once(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        notes = said(a)
        good = parse_token(a.admission.invite().token)
        wrong = {"federation": good.federation, "secret": bytes(16)}
        answers = [a.admission.invitations.answer(b.id, wrong) for _ in range(1000)]
        assert sum("wait_s" in answer for answer in answers) == 992
        assert [what for what, _ in notes] == ["join denied"]
        right = {"federation": good.federation, "secret": good.secret}
        assert a.admission.invitations.answer(b.id, right)["chain"] is None
        with pytest.raises(Denied, match="too many wrong tokens"):
            await b.admission.join(good.encode())
        await trio.sleep(61)
        await b.admission.join(good.encode())


async def test_strangers_that_dawdle_keep_no_newcomer_out(autojump_clock: MockClock) -> None:
    async with nodes(4) as (a, b, c, d):
        a.admission.init("plant7")
        dawdling = []
        for stranger in (b, c):
            await stranger.swarm.dial(a.swarm.addresses)
            for _ in range(14):
                dawdling.append(await stranger.swarm.open_stream(a.id, JOIN_PROTOCOL))
        start = trio.current_time()
        await d.admission.join(a.admission.invite().token)
        assert trio.current_time() - start < 1.0
        (bound,) = (bound for bound in a.admission.bounds() if bound.name == "joins")
        assert bound.present <= bound.maximum == 16
        assert bound.reached >= 13
        assert len(dawdling) == 28


async def test_comparing_lists_too_often_is_not_answered(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        a.admission.authority.revoke(c.id)
        await trio.sleep(1)
        sent: list[object] = []
        queue = a.presence._table.send
        a.presence._table.send = lambda peer, message: (sent.append(message), queue(peer, message))[1]  # type: ignore
        for _ in range(200):
            a.presence.revoking.receive(b.id, RevocationMarks(()))
        assert len(sent) <= 9
        assert a.presence.is_linked(b.id)


ALLOW = "plant8"


async def enter_allow_list(members: list[Node], everybody: list[Node]) -> None:
    for node in members:
        node.presence.enter(FederationIdentity.from_allow_list(ALLOW, [each.id for each in everybody]))


async def test_devices_that_list_each_other_are_a_federation(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        *three, stranger = members
        await enter_allow_list(three, three)
        for node in three[1:]:
            node.presence.hint(three[0].id, three[0].swarm.addresses)
        await until(lambda: all_alive(three), 5.0)
        # it names them, they do not name it
        await enter_allow_list([stranger], members)
        stranger.presence.pin(three[0].id, three[0].swarm.addresses)
        await trio.sleep(5)
        assert all(node.presence.state_of(stranger.id) is None for node in three)
        for call in (
            lambda: three[0].admission.init("x"),
            lambda: three[0].admission.invite(),
            lambda: three[0].admission.authority.revoke(three[1].id),
            lambda: three[0].admission.authority.export_root(),
            lambda: three[0].admission.authority.undo(three[1].id),
        ):
            with pytest.raises(Conflict, match="federation by allow-list"):
                call()
        with pytest.raises(Conflict, match="federation by allow-list"):
            await three[0].admission.leave()


async def test_whoever_is_taken_off_the_allow_list_is_cut_off(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await enter_allow_list(members, members)
        for node in members[1:]:
            node.presence.hint(members[0].id, members[0].swarm.addresses)
        await until(lambda: all_alive(members), 5.0)
        shorter = FederationIdentity.from_allow_list(ALLOW, [node.id for node in members[:2]])
        members[0].admission.set_allow_list(shorter)
        assert members[0].presence.state_of(members[2].id) == "left"
        members[1].admission.set_allow_list(shorter)
        await trio.sleep(10)
        for node in members[:2]:
            assert node.presence.state_of(members[2].id) == "left"
            assert members[2].id not in node.presence._core.records  # type: ignore[union-attr]
        assert members[0].presence.state_of(members[1].id) == "alive"
        other_name = FederationIdentity.from_allow_list("other", [])
        members[0].admission.set_allow_list(other_name)  # takes a restart
        assert members[0].presence.state_of(members[1].id) == "alive"
        members[0].admission.set_allow_list(None)
        assert members[0].presence.state_of(members[1].id) == "left"


async def test_an_allow_list_that_comes_with_a_reload_is_entered(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        a, b = members
        for node in members:
            node.admission.set_allow_list(None)
            assert node.presence.federation is None
            node.admission.set_allow_list(FederationIdentity.from_allow_list(ALLOW, [a.id, b.id]))
        b.presence.hint(a.id, a.swarm.addresses)
        await until(lambda: all_alive(members), 5.0)


async def test_a_full_disk_lets_nobody_in_and_ends_nothing(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        await form([a, b, c])
        await trio.sleep(2)

        def full(name: str, data: bytes) -> None:
            raise FeddError("disk full")

        for node in (a, b, c):
            node.store.write = full  # type: ignore[method-assign]
        a.admission.authority.revoke(c.id)
        await until(lambda: b.presence.state_of(c.id) == "left", 2.0)
        await until(lambda: c.admission.federation is None, 5.0)
        assert c.admission.expulsion is not None
        assert a.presence.is_linked(b.id)
        with pytest.raises(FeddError, match="disk full"):
            await a.admission.authority.grant(a.id)


async def test_one_who_was_revoked_spoils_no_memory_of_the_others(autojump_clock: MockClock) -> None:
    async with nodes(4) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        a, b, c, d = members
        kept = a.store.files["members"]
        a.admission.authority.revoke(b.id)
        await trio.sleep(2)
        for node in (a, c, d):
            node.kill()
        a.store.files["members"] = kept  # the power went before it was written anew
        await trio.sleep(1)
        await a.start(nursery)
        core = a.presence._core
        assert core is not None
        assert set(core.remembered) == {c.id, d.id}
        nursery.cancel_scope.cancel()


async def test_the_allow_list_counts_only_without_a_certificate(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        await form([a, b])
        list_ = FederationIdentity.from_allow_list(ALLOW, [a.id, b.id])
        a.kill()
        await trio.sleep(1)
        await a.start(nursery)
        await a.presence.goodbye()
        a.presence.credentials.leave()
        assert a.admission.restore(list_) is not list_
        assert a.admission.federation is not None
        assert a.admission.federation.name == "plant7"
        nursery.cancel_scope.cancel()
    async with nodes(1) as (a,):
        list_ = FederationIdentity.from_allow_list(ALLOW, [a.id])
        assert a.admission.restore(list_) is list_


async def test_a_hello_with_another_federations_allow_list_is_refused(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        await enter_allow_list([a], [a, b])
        assert a.admission.federation is not None
        await b.swarm.dial(a.swarm.addresses)
        stream = await b.swarm.open_stream(a.id, PRESENCE_PROTOCOL)
        await stream.send_all(encode_message(Hello("0" * 64, b"")))
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""
        assert a.presence.state_of(b.id) is None
