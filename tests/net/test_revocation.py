"""Revocation: who is cut off, who hears of it when, and whose word counts: whole nodes in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes, others_say, said
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    NotFound,
)
from fedd.core import codec
from fedd.core.certificates import issue_certificate, make_chain, parse_token
from fedd.core.presence_messages import (
    PRESENCE_PROTOCOL,
    Revocations,
    encode_message,
)
from fedd.core.revocation import sign_list
from fedd.net.federation import FederationIdentity
from fedd.net.joining import ask


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
                wire.hold()
        stay[0].admission.authority.revoke(d.id)
        took_s = await until(lambda: not any(d.id in node.swarm.connections for node in stay), 2.0)
        assert took_s <= 0.5
        for wire in d.wires() if deaf else ():
            wire.release()
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
        assert all(d.id not in node.presence._core.records for node in stay)
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


async def test_a_power_cut_while_it_is_told_changes_nothing(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        await form([a, b])
        membership = b.store.files["federation"]
        a.admission.authority.revoke(b.id)
        await until(lambda: b.admission.federation is None, 2.0)
        b.kill()
        await trio.sleep(1)
        b.store.files["federation"] = membership  # the list was on disk, the rest not yet
        await b.start(nursery)
        assert b.admission.federation is None
        assert b.admission.expulsion is not None
        assert "revoked" in codec.decode(b.store.files["federation"])
        nursery.cancel_scope.cancel()


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
        for content in (b"damaged", codec.encode({"federation": a.admission.federation.id, "lists": [b"x"]})):
            a.store.files["revocations"] = content
            a.presence.credentials.leave()
            with pytest.raises(FeddError, match="'revocations' in the state directory is damaged"):
                a.presence.credentials.enter(FederationIdentity.from_chain(*chain_of(a)))


def chain_of(node: Node) -> tuple[bytes, str, str]:
    content = codec.decode(node.store.files["federation"])
    return content["chain"], content["id"], node.id
