"""Any admin in the founder's place, and the root key that makes admins: whole nodes in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from net.federations import all_alive, form, full_mesh, nodes, said
from trio.testing import MockClock
from waiting import until

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
from fedd.core.certificates import issue_certificate, make_chain
from fedd.net.join_messages import CERTIFICATE_PROTOCOL, receive, send


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
            wire.hold()
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


async def test_certificates_that_members_bring_are_looked_at(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
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

        def broken(chain: object, source: str) -> None:
            raise trio.BrokenResourceError

        monkeypatch.setattr(b.admission.authority, "_take", broken)
        with pytest.raises(NotConnected, match="broke before it took"):
            await a.admission.authority.grant(b.id)
        b.admission.authority._take = lambda chain, source: (_ for _ in ()).throw(FeddError("no"))
        with pytest.raises(Refused, match="does not take the certificate: no"):
            await a.admission.authority.grant(b.id)
