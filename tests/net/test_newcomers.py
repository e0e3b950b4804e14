"""Approval, guesses, power cuts while joining, allow-lists: whole nodes in virtual time."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes, said
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    NotFound,
    TimedOut,
)
from fedd.core.certificates import parse_token
from fedd.core.presence_messages import (
    PRESENCE_PROTOCOL,
    Hello,
    RevocationMarks,
    encode_message,
)
from fedd.net.federation import FederationIdentity
from fedd.net.invitations import MAX_PENDING
from fedd.net.join_messages import JOIN_PROTOCOL
from fedd.net.joining import NotYet, ask


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
        a.admission.invitations.approve(b.id, a.id)
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
        a.admission.invitations.approve(b.id, a.id)
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
        a.admission.invitations.approve(b.id, a.id)
        await until(lambda: all_alive([a, b]), 10.0)
        nursery.cancel_scope.cancel()


async def test_who_is_denied_gives_up(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        a.admission.invitations.deny(b.id)
        with pytest.raises(NotFound, match="does not wait"):
            a.admission.invitations.approve(b.id, a.id)
        notes = said(b)
        await until(lambda: b.admission.waits_for is None, 10.0)
        assert [what for what, _ in notes] == ["join denied by the inviter"]
        assert b.admission.federation is None
        assert "joining" not in b.store.files


async def test_an_inviter_that_restarts_has_forgotten_who_waits(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        a.kill()
        await trio.sleep(30)
        assert b.admission.waits_for == a.id  # nobody there: it goes on asking
        await a.start(nursery)
        await until(lambda: b.admission.waits_for is None, 20.0)
        assert b.admission.federation is None
        nursery.cancel_scope.cancel()


async def test_waiting_can_be_given_up_by_leave(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        with pytest.raises(TimedOut):
            await b.admission.join(a.admission.invite(approve=True).token, deadline_s=1.0)
        await b.admission.leave()
        assert b.admission.waits_for is None
        a.admission.invitations.approve(b.id, a.id)
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
        a.admission.invitations.approve(b.id, a.id)
        with pytest.raises(Conflict, match="used up"):
            a.admission.invitations.approve(c.id, a.id)


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
        a.presence._table.send = lambda peer, message: (sent.append(message), queue(peer, message))[1]
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
            assert members[2].id not in node.presence._core.records
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
            node.store.write = full
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
