"""Presence among strangers, forgeries and mistakes of ours: each costs a link at most."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from net.federations import all_alive, form, full_mesh, nodes
from net.test_presence import accused, others_say
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.core.membership import Membership
from fedd.core.membership_types import Action, Persist
from fedd.core.presence_messages import PRESENCE_PROTOCOL, Hello, Message, Rows, encode_message
from fedd.core.records import Record, Row, sign_record


async def test_a_stranger_without_a_certificate_is_refused_and_never_a_member(
    autojump_clock: MockClock,
) -> None:
    async with nodes(3) as members:
        await form(members[:2])
        stranger, insider = members[2], members[0]
        await stranger.swarm.dial(insider.swarm.addresses)
        # nobody in its own right
        stream = await stranger.swarm.open_stream(insider.id, PRESENCE_PROTOCOL)
        federation = insider.presence.federation
        assert federation is not None
        for chain in (b"", b"nonsense", federation.chain):
            stream = await stranger.swarm.open_stream(insider.id, PRESENCE_PROTOCOL)
            await stream.send_all(encode_message(Hello(federation.id, chain)))
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""
        # nor as the founder of a federation of the same name
        stranger.admission.init("plant7")
        stranger.presence.pin(insider.id, insider.swarm.addresses)
        await trio.sleep(10)
        assert not insider.presence.is_member(stranger.id)
        assert not insider.presence.is_linked(stranger.id)
        assert insider.presence.state_of(stranger.id) is None
        assert sorted(insider.states()) == ["a", "b"]
        assert sorted(stranger.states()) == ["c"]


async def test_a_node_of_no_federation_refuses_every_presence_stream(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        members[0].admission.init("plant7")
        members[0].presence.pin(members[1].id, members[1].swarm.addresses)
        await trio.sleep(5)
        assert members[1].presence.members() == []
        assert not members[1].presence.is_member(members[0].id)
        assert not members[0].presence.is_linked(members[1].id)


async def test_a_forged_record_is_dropped(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        insider, target = members[2], members[0]
        outsider = PrivateKey.from_seed(bytes([77]) * 32)
        federation = insider.presence.federation
        assert federation is not None
        # signed by its owner, who has no certificate; and with another's
        forged = [
            sign_record(outsider, Record(outsider.peer_id, 1, 1, name="ghost")).row,
            sign_record(outsider, Record(outsider.peer_id, 1, 2, name="ghost", chain=federation.chain)).row,
        ]
        # a goodbye for b that b never said
        goodbye = sign_record(outsider, Record(outsider.peer_id, 999, 1, left=True))
        forged.append(Row(members[1].id, (999, True, 1), goodbye.sealed))
        insider.presence._table.send(target.id, Rows(tuple(forged)))
        await trio.sleep(5)
        assert target.presence.state_of(outsider.peer_id) is None
        assert target.presence.state_of(members[1].id) == "alive"
        assert all_alive(members)


async def test_bytes_that_are_no_message_cost_the_stream_and_nothing_else(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        for one in members:  # on the streams that the offender opened, and on those opened to it
            for other in members:
                if one is not other:
                    await one.presence._table.links[other.id].stream.send_all(b"\xff\xff garbage")
                    await trio.sleep(5)
                    assert all_alive(members)
                    await full_mesh(members)
        assert not accused(members)


async def test_a_mistake_of_ours_costs_one_link_and_an_observers_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)

        receive = Membership.receive
        mistaken: list[Membership | None] = []

        def fail(*_: object) -> None:
            raise KeyError("a mistake")

        def receive_or_fail(core: Membership, peer: PeerId, message: Message, now: float) -> list[Action]:
            if core in mistaken:
                fail()
            return receive(core, peer, message, now)

        monkeypatch.setattr(Membership, "receive", receive_or_fail)
        for node in members:
            node.presence.subscribe(fail)
            assert node.presence._core is not None
            mistaken[:] = [node.presence._core]
            await trio.sleep(1.5)
            mistaken.clear()
            await until(lambda: all_alive(members), 10.0)
            await full_mesh(members)
        members[2].kill()
        await until(lambda: others_say(members, members[2], "dead"), 3.0)
        assert "could not be taken" in caplog.text
        assert "an observer of members failed" in caplog.text


async def test_a_death_while_a_stream_is_replaced_is_no_silence(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        a, _, c = members
        for one, other in ((a, c), (c, a)):
            one.presence._table.links[other.id].said_bye = True  # nobody opens another stream
        a.presence._table.links[c.id].stream.reset()
        await trio.sleep(0.1)
        assert c.id not in a.presence._table.links
        assert a.presence.is_linked(c.id)
        c.kill()
        took_s = await until(lambda: others_say(members, c, "dead"), 8.0)
        assert took_s <= 1.7
        assert next(view for view in a.presence.members() if view.peer_id == c.id).reason == "closed"


async def test_a_mistake_of_ours_in_a_dial_is_a_failed_dial(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(2) as members:
        await form(members)
        members[1].kill()
        await trio.sleep(5)
        with monkeypatch.context() as patch:
            patch.setattr(members[0].swarm._dialling, "dial", lambda *_: 1 / 0)
            await until(lambda: "dialling" in caplog.text, 30.0)
        members[1].listen = "/memory/2"
        async with trio.open_nursery() as lives:
            members[1].store.files.pop("members", None)  # so that the other has to dial
            await members[1].start(lives)
            await until(lambda: all_alive(members), 30.0)
            lives.cancel_scope.cancel()


async def test_an_epoch_that_cannot_be_stored_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(1) as (node,):
        await form([node])

        def full(name: str, data: bytes) -> None:
            raise FeddError("no space left on device")

        monkeypatch.setattr(node.store, "write", full)
        node.presence._perform([Persist(7)])
        assert "cannot store this node's epoch: no space left" in caplog.text


async def test_a_hello_that_does_not_come_ends_the_stream(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        members[0].admission.init("plant7")
        await members[1].swarm.dial(members[0].swarm.addresses)
        stream = await members[1].swarm.open_stream(members[0].id, PRESENCE_PROTOCOL)
        start = trio.current_time()
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - start <= 6.0
