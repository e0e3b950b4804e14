from __future__ import annotations

import pytest
import trio
from federation.daemons import GUARD_S
from net.federations import all_alive, form, nodes, said
from trio.testing import MockClock
from waiting import until

from fedd.api.errors import (
    Conflict,
    Denied,
    FeddError,
    InvalidParameter,
    NotConnected,
    ProtocolError,
    TimedOut,
)
from fedd.core import codec
from fedd.core.certificates import InviteToken, parse_token, verify_chain
from fedd.core.identity import PrivateKey
from fedd.net import join_messages
from fedd.net.admission import JOIN_PROTOCOL
from fedd.net.joining import ask
from fedd.net.stream import Stream


async def test_three_real_daemons_by_one_token_over_tcp() -> None:
    async with nodes(3, memory=False) as (a, b, c):
        a.admission.init("plant7")
        token = a.admission.invite(uses=2).token
        await b.admission.join(token)
        assert b.presence.is_linked(a.id)
        assert b.presence.state_of(a.id) == "alive"
        await c.admission.join(token)
        assert c.presence.is_linked(a.id)
        await until(lambda: b.presence.is_linked(c.id) and c.presence.is_linked(b.id), GUARD_S)
        await until(lambda: all_alive([a, b, c]), GUARD_S)


async def test_init_makes_the_founder_an_admin_and_only_once(autojump_clock: MockClock) -> None:
    async with nodes(1) as (node,):
        identity = node.admission.init("plant7")
        assert identity.name == "plant7"
        assert identity.is_admin
        assert verify_chain(identity.chain, identity.root_public_key, node.id).is_admin
        assert node.states() == {"a": "alive"}
        with pytest.raises(Conflict, match="plant7"):
            node.admission.init("other")
        assert b"PRIVATE KEY" in node.store.files[f"root-{identity.id[:16]}.key"]


async def test_a_bad_name_changes_nothing(autojump_clock: MockClock) -> None:
    async with nodes(1) as (node,):
        for name in ("", "   ", "a\x1bb"):
            with pytest.raises(InvalidParameter):
                node.admission.init(name)
        assert node.presence.federation is None
        assert node.store.files == {}


async def test_a_joined_member_may_not_invite(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        await form([a, b])
        assert b.presence.federation is not None
        assert not b.presence.federation.is_admin
        with pytest.raises(Denied, match="may not invite"):
            b.admission.invite()


@pytest.mark.parametrize(("uses", "expires_s"), [(0, 60.0), (-1, 60.0), (10**9, 60.0), (1, 0.0), (1, 1e9)])
async def test_numbers_out_of_bounds_are_refused(
    uses: int, expires_s: float, autojump_clock: MockClock
) -> None:
    async with nodes(1) as (node,):
        node.admission.init("plant7")
        with pytest.raises(InvalidParameter):
            node.admission.invite(uses, expires_s)


async def test_without_a_federation_nothing_is_invited_or_left(autojump_clock: MockClock) -> None:
    async with nodes(1) as (node,):
        with pytest.raises(Conflict, match="no federation"):
            node.admission.invite()
        with pytest.raises(Conflict, match="no"):
            await node.admission.leave()


async def test_one_use_lets_one_in_and_its_retry(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, c):
        a.admission.init("plant7")
        token = a.admission.invite().token
        first = await b.admission.join(token)
        with pytest.raises(Denied, match="token"):
            await c.admission.join(token)
        assert c.presence.federation is None
        # the same peer asks again: its answer was lost, so it gets the same certificate and uses nothing up
        again = await ask(b.swarm, parse_token(token), a.id, "b", 5.0)
        assert again.chain == first.chain
        with pytest.raises(Denied):
            await c.admission.join(token)


async def test_the_spend_is_stored_before_the_answer(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        a.store.writes.clear()
        chain = (await ask(b.swarm, parse_token(a.admission.invite().token), a.id, "b", 5.0)).chain
        assert "admitted" in a.store.writes
        _, entry = codec.decode(a.store.files["admitted"])
        assert a.presence.federation is not None
        assert entry[1] == verify_chain(chain, a.presence.federation.id, b.id).serial
        a.store.write = broken_store
        with pytest.raises(NotConnected):
            await ask(b.swarm, parse_token(a.admission.invite().token), a.id, "b", 5.0)


async def test_those_who_ask_at_the_same_moment_are_stored_by_one_write(autojump_clock: MockClock) -> None:
    async with nodes(1) as (a,):
        a.admission.init("plant7")
        invitations = a.admission.invitations
        token = parse_token(a.admission.invite(uses=3).token)
        request = {"federation": token.federation, "secret": token.secret, "name": ""}
        notes = said(a)
        write, a.store.write = a.store.write, broken_store
        failed = 0

        async def ask_and_spend(peer: str) -> None:
            nonlocal failed
            batch = invitations._batch
            assert invitations.answer(peer, request)["chain"]
            try:
                await invitations._spend(batch)
            except FeddError:
                failed += 1

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for seed in range(3):
                    peer = PrivateKey.from_seed(bytes([seed + 50]) * 32).peer_id
                    nursery.start_soon(ask_and_spend, peer)

        await ask_all()
        assert (failed, notes) == (3, [])
        a.store.write = write
        a.store.writes.clear()
        await ask_all()  # nobody has used the token up
        assert failed == 3
        assert a.store.writes.count("admitted") == 1
        assert len(codec.decode(a.store.files["admitted"])) == 4  # the founder is one
        assert [what for what, _ in notes] == ["admitted"] * 3


def broken_store(name: str, data: bytes) -> None:
    raise FeddError("disk full")


async def test_wrong_expired_foreign_and_restarted_tokens_get_the_same_answer(
    autojump_clock: MockClock,
) -> None:
    async with nodes(4) as (a, b, c, d), trio.open_nursery() as nursery:
        a.admission.init("plant7")
        d.admission.init("plant8")
        good = parse_token(a.admission.invite(uses=5).token)
        wrong = InviteToken(good.federation, good.addresses, bytes(16)).encode()
        foreign_secret = parse_token(d.admission.invite().token).secret
        foreign = InviteToken(good.federation, good.addresses, foreign_secret).encode()
        assert d.presence.federation is not None
        other = InviteToken(d.presence.federation.id, good.addresses, good.secret).encode()
        expired = a.admission.invite(expires_s=1.0).token
        await trio.sleep(2.0)
        answers = set()
        for token in (wrong, foreign, other, expired):
            with pytest.raises(Denied) as caught:
                await b.admission.join(token)
            answers.add(str(caught.value))
        a.kill()
        await trio.sleep(1)
        await a.start(nursery)
        with pytest.raises(Denied) as caught:
            await c.admission.join(good.encode())
        answers.add(str(caught.value))
        assert len(answers) == 1
        assert b.presence.federation is None
        nursery.cancel_scope.cancel()


async def test_the_secret_goes_to_nobody_but_the_inviter(autojump_clock: MockClock) -> None:
    async with nodes(3) as (a, b, impostor):
        a.admission.init("plant7")
        token = parse_token(a.admission.invite().token)
        elsewhere = impostor.listen.split("/p2p/")[0]
        redirected = InviteToken(token.federation, (f"{elsewhere}/p2p/{a.id}",), token.secret)
        with pytest.raises(Denied):
            await b.admission.join(redirected.encode())
        assert b.presence.federation is None


async def test_joining_twice_or_oneself_is_a_conflict(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        await form([a, b])
        with pytest.raises(Conflict):
            await b.admission.join(a.admission.invite().token)
        token = a.admission.invite().token
        await a.admission.leave()
        with pytest.raises(Conflict, match="own"):
            await a.admission.join(token)


async def test_nonsense_is_no_token_and_an_absent_inviter_is_said(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        with pytest.raises(InvalidParameter):
            await b.admission.join("fedd1-nonsense")
        a.admission.init("plant7")
        token = a.admission.invite().token
        a.kill()
        await trio.sleep(0.1)
        with pytest.raises(NotConnected):
            await b.admission.join(token)


async def test_an_inviter_that_does_not_answer_is_given_up(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        token = a.admission.invite().token
        await b.swarm.dial(a.swarm.addresses)
        for wire in b.wires():
            wire.hold()
        start = trio.current_time()
        with pytest.raises(FeddError):
            await b.admission.join(token, deadline_s=4.0)
        assert trio.current_time() - start <= 4.5


async def test_an_inviter_that_answers_nonsense_costs_no_stream(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        token = a.admission.invite().token

        async def rude(stream: Stream) -> None:
            await stream.send_all(b"\xff\xff")
            await trio.sleep(60)

        a.swarm._services.protocols.pop(JOIN_PROTOCOL)
        a.swarm.handle(JOIN_PROTOCOL, rude, "anyone")
        with pytest.raises(FeddError):
            await b.admission.join(token)
        await trio.sleep(1)
        assert not b.swarm.connections[a.id].streams


async def test_a_member_whose_link_is_late_is_told_that_it_is_a_member(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")

        async def late(peer: str, deadline_s: float) -> None:
            raise TimedOut("there was no link")

        monkeypatch.setattr(b.presence, "wait_linked", late)
        with pytest.raises(TimedOut, match="a member of plant7 now, but there was no link"):
            await b.admission.join(a.admission.invite().token)
        await until(lambda: all_alive([a, b]), 10.0)


async def test_a_slow_or_rude_stranger_costs_a_seat_for_five_seconds(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        await b.swarm.dial(a.swarm.addresses)
        stream = await b.swarm.open_stream(a.id, JOIN_PROTOCOL)
        start = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - start <= 6.0
        for rude in (b"\xff\xff", b"\x00\x01\xff", b"\x00\x01\x80"):
            stream = await b.swarm.open_stream(a.id, JOIN_PROTOCOL)
            await stream.send_all(rude)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        await b.admission.join(a.admission.invite().token)


async def test_a_certificate_that_does_not_hold_is_not_entered(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        identity = a.admission.init("plant7")
        a.admission.invitations.answer = lambda *_: {"chain": identity.chain}
        with pytest.raises(ProtocolError, match="does not hold"):
            await b.admission.join(a.admission.invite().token)
        assert b.presence.federation is None


async def test_whoever_has_joined_is_a_member_after_a_power_cut_too(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        assert (a.store.volatile, a.store.writes.count("epoch")) == (set(), 1)
        await b.admission.join(a.admission.invite().token)
        assert (b.store.volatile, b.store.writes.count("epoch")) == (set(), 1)
        await b.admission.leave()
        assert b.store.volatile == set()


async def test_the_others_hear_of_a_leave_though_the_disk_fails_in_the_end(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b):
        await form([a, b])

        def broken(name: str) -> None:
            assert (name, b.store.files[name]) == ("federation", b"left\n")
            raise FeddError("disk gone")

        b.store.flush = broken
        with pytest.raises(FeddError, match="disk gone"):
            await b.admission.leave()
        await until(lambda: a.presence.state_of(b.id) == "left", 0.1)
        assert b.admission.federation is None


async def test_membership_survives_a_restart_and_ends_with_leave(autojump_clock: MockClock) -> None:
    async with nodes(2) as (a, b), trio.open_nursery() as nursery:
        await form([a, b])
        await trio.sleep(3)
        b.kill()
        await trio.sleep(2)
        await b.start(nursery)
        await until(lambda: all_alive([a, b]), 2.0)
        await b.admission.leave()
        b.kill()
        await trio.sleep(1)
        await b.start(nursery)
        assert b.presence.federation is None
        nursery.cancel_scope.cancel()


async def test_a_damaged_membership_file_is_said(autojump_clock: MockClock) -> None:
    async with nodes(1) as (node,):
        for content in (b"damaged", b""):
            node.store.files["federation"] = content
            with pytest.raises(FeddError, match="membership"):
                node.admission.restore()


async def test_a_node_that_listens_nowhere_cannot_invite(autojump_clock: MockClock) -> None:
    async with nodes(1) as (node,):
        node.admission.init("plant7")
        node.swarm._listeners.clear()
        with pytest.raises(Conflict, match="listens nowhere"):
            node.admission.invite()


@pytest.mark.parametrize(("breaks", "joins"), [(1, True), (2, True), (3, False)])
async def test_a_link_that_breaks_while_joining_is_no_refusal(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, breaks: int, joins: bool
) -> None:
    real, broken = join_messages.send, []

    async def send(stream: Stream, message: dict[str, object]) -> None:
        if len(broken) < breaks:
            broken.append(message)
            await stream.connection.aclose()
        await real(stream, message)

    monkeypatch.setattr(join_messages, "send", send)
    async with nodes(2) as (a, b):
        a.admission.init("plant7")
        token = a.admission.invite().token
        if joins:
            await b.admission.join(token)
            assert b.presence.is_linked(a.id)
        else:
            with pytest.raises(NotConnected, match="did not answer"):
                await b.admission.join(token)
        assert len(broken) == breaks
