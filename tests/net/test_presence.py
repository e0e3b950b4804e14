"""Whole nodes over an in-memory network on virtual time: who sees what when members come, die and return."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from net.federations import Node, all_alive, form, full_mesh, nodes
from trio.testing import MockClock
from waiting import until

from fedd.core.presence_messages import Message, Ping, encode_message
from fedd.net import link_table
from fedd.net.known_members import KnownMembers
from fedd.net.swarm import Swarm


def others_say(members: list[Node], subject: Node, state: str) -> bool:
    return all(node.presence.state_of(subject.id) == state for node in members if node is not subject)


def accused(members: list[Node], *, besides: Node | None = None) -> list[object]:
    return [
        change
        for node in members
        for _, change in node.changes
        if node is not besides and change.new == "dead" and (besides is None or change.peer_id != besides.id)
    ]


async def test_a_killed_process_is_dead_within_1_4_s_when_all_saw_it_close(autojump_clock: MockClock) -> None:
    async with nodes(5) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        members[4].kill()
        took_s = await until(lambda: others_say(members, members[4], "dead"), 3.0)
        assert 1.0 <= took_s <= 1.4
        assert not accused(members, besides=members[4])
        view = next(v for v in members[0].presence.members() if v.peer_id == members[4].id)
        assert (view.name, view.reason, view.link, view.last_heard_s) == ("e", "closed", "indirect", None)


async def test_a_silent_member_is_dead_in_about_six_seconds(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        for wire in members[3].wires():
            wire.hold()
        took_s = await until(lambda: others_say(members, members[3], "dead"), 8.0)
        assert 5.0 <= took_s <= 6.9
        assert not accused(members, besides=members[3])
        assert "dead" not in members[3].states().values()
        await until(lambda: members[3].notices == ["isolated"], 3.0)


async def test_five_seconds_of_silence_are_tolerated(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        for _ in range(3):
            wires = members[3].wires()
            for wire in wires:
                wire.hold()
            await trio.sleep(5.0)
            for wire in wires:
                wire.release()
            await until(lambda: all_alive(members), 2.0)
            await trio.sleep(3.0)
        assert not accused(members)


async def test_a_process_that_slept_accuses_nobody(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3.0)
        mock_clock.autojump_threshold = float("inf")
        # nobody runs for half a minute, then all do
        mock_clock.jump(30.0)
        mock_clock.autojump_threshold = 0
        await trio.sleep(20.0)
        assert not accused(members)
        assert all_alive(members)


async def test_leave_is_seen_at_once_and_is_no_death(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await full_mesh(members)
        start = trio.current_time()
        await members[2].admission.leave()
        await until(lambda: others_say(members, members[2], "left"), 1.0)
        assert trio.current_time() - start <= 0.3
        await trio.sleep(20)
        assert others_say(members, members[2], "left")
        assert not accused(members)
        assert members[2].presence.members() == []
        assert members[2].presence.federation is None
        assert not members[0].presence.is_member(members[2].id)
        await members[2].admission.join(members[0].admission.invite().token)
        await until(lambda: all_alive(members), 3.0)


async def test_an_orderly_stop_shows_at_once(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        await members[2].presence.goodbye()
        members[2].kill()
        took_s = await until(lambda: others_say(members, members[2], "dead"), 3.0)
        assert took_s <= 1.4


async def test_a_killed_member_comes_back_by_itself_in_a_higher_epoch(autojump_clock: MockClock) -> None:
    async with nodes(4) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        members[3].kill()
        await until(lambda: others_say(members, members[3], "dead"), 3.0)
        epoch = int(members[3].store.files["epoch"])
        await members[3].start(nursery)
        await until(lambda: all_alive(members), 2.0)
        assert int(members[3].store.files["epoch"]) == epoch + 1
        assert members[3].presence.federation is not None
        nursery.cancel_scope.cancel()


async def test_a_quick_restart_is_still_told_as_a_death(autojump_clock: MockClock) -> None:
    async with nodes(3) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        members[2].kill()
        await trio.sleep(0.1)
        await members[2].start(nursery)
        await until(lambda: all_alive(members), 2.0)
        await trio.sleep(3)
        for node in members[:2]:
            assert len(node.saw(members[2], "dead")) == 1
        nursery.cancel_scope.cancel()


async def test_all_restart_and_find_each_other_without_an_invite(autojump_clock: MockClock) -> None:
    async with nodes(5) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        for node in members:
            node.kill()
        await trio.sleep(1)
        for node in members:
            await node.start(nursery)
        await until(lambda: all_alive(members), 3.0)
        nursery.cancel_scope.cancel()


async def test_a_power_cut_the_moment_that_joining_worked_loses_nobody(autojump_clock: MockClock) -> None:
    async with nodes(3) as members, trio.open_nursery() as nursery:
        members[0].admission.init("plant7")
        token = members[0].admission.invite(uses=2).token
        for node in members[1:]:
            await node.admission.join(token)
        for node in members:
            node.kill()
        await trio.sleep(1)
        for node in members:
            await node.start(nursery)
        await until(lambda: all_alive(members), 3.0)
        nursery.cancel_scope.cancel()


async def test_who_comes_back_to_nobody_says_whom_it_misses_and_remembers_them(
    autojump_clock: MockClock,
) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        for node in members:
            node.kill()
        await trio.sleep(1)
        a = members[0]
        async with trio.open_nursery() as lives:
            for _ in range(2):  # an orderly stop in between must not make it forget
                await a.start(lives)
                await trio.sleep(2)
                assert a.states() == {"a": "alive", "b": "suspect", "c": "suspect"}
                assert a.presence.name_of(members[1].id) == "b"
                assert not a.presence.is_member(members[1].id)
                await until(lambda: a.states() == {"a": "alive", "b": "dead", "c": "dead"}, 20.0)
                assert a.notices[-1] == "isolated"
                await a.presence.goodbye()
                a.kill()
                await trio.sleep(1)
            for node in members:
                node.changes.clear()
                await node.start(lives)
            await until(lambda: all_alive(members), 15.0)
            assert not accused(members)
            lives.cancel_scope.cancel()


async def test_a_member_without_memory_of_others_is_found_by_them(autojump_clock: MockClock) -> None:
    async with nodes(3) as members, trio.open_nursery() as nursery:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        members[2].kill()
        await until(lambda: others_say(members, members[2], "dead"), 3.0)
        members[2].store.files["members"] = b"damaged"
        await members[2].start(nursery)
        await until(lambda: all_alive(members), 13.0)
        nursery.cancel_scope.cancel()


async def test_twelve_members_form_quickly_with_enough_links(autojump_clock: MockClock) -> None:
    async with nodes(12) as members:
        start = trio.current_time()
        await form(members)
        assert trio.current_time() - start <= 10.0
        await trio.sleep(5)
        for node in members:
            assert sum(node.presence.is_linked(other.id) for other in members) >= 5
        assert not accused(members)


async def test_both_ends_dial_at_once_and_one_stream_stays(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        await form(members)
        a, b = members
        await a.presence.disconnect(b.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.swarm.dial, b.swarm.addresses)
            nursery.start_soon(b.swarm.dial, a.swarm.addresses)
        await trio.sleep(15)
        assert a.presence.is_linked(b.id)
        assert b.presence.is_linked(a.id)
        for node in members:
            assert len(node.swarm.connections) == 1
        assert not accused(members)


async def test_a_cut_connection_is_dialled_again(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(3)
        for wire in members[2].wires():
            wire.cut()
        await trio.sleep(0.5)
        await full_mesh(members)
        assert all_alive(members)
        assert not accused(members)


async def test_views_tell_what_is_known(autojump_clock: MockClock) -> None:
    async with nodes(3, latency_s=0.01) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        me, *rest = members[1].presence.members()
        assert (me.link, me.name, me.state, me.rtt_s, me.last_heard_s) == ("self", "b", "alive", None, None)
        assert list(me.addresses) == members[1].swarm.addresses
        for view in rest:
            assert view.link == "direct"
            assert view.version == "0.1.0"
            assert view.rtt_s is not None
            assert 0.0199 <= view.rtt_s <= 0.1
            assert view.last_heard_s is not None
            assert view.last_heard_s <= 1.1
        assert members[1].presence.name_of(members[0].id) == "a"
        assert members[1].presence.name_of("unknown") == ""


async def test_a_crowd_that_comes_together_costs_one_write(autojump_clock: MockClock) -> None:
    async with nodes(4) as members:
        await form(members)
        await until(lambda: all(others_say(members, node, "alive") for node in members), 1.0)
        assert all("members" not in node.store.writes for node in members)
        await trio.sleep(4.0)
        for node in members:
            assert node.store.writes.count("members") == 1
            known = KnownMembers(node.store, trio.current_time).load(node.presence._open_row)
            assert {record.id for record in known} == {each.id for each in members} - {node.id}


async def test_who_moves_is_remembered_at_its_new_address(autojump_clock: MockClock) -> None:
    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(5)
        a, b, _ = members
        core = b.presence._core
        assert core is not None
        core._own._mine = replace(core._own._mine, addresses=("/memory/77",))
        core._publish(trio.current_time())
        writes = a.store.writes.count("members")
        await trio.sleep(2.0)
        known = KnownMembers(a.store, trio.current_time).load(a.presence._open_row)
        assert {record.id: record.addresses for record in known}[b.id] == ("/memory/77",)
        assert not [change for at, change in a.changes if at > trio.current_time() - 2.0]
        assert a.store.writes.count("members") == writes + 1
        await trio.sleep(30.0)
        assert a.store.writes.count("members") == writes + 1


async def test_pins_are_counted(autojump_clock: MockClock) -> None:
    async with nodes(2) as members:
        await form(members)
        a, b = members
        a.presence.pin(b.id)
        a.presence.pin(b.id)
        a.presence.unpin(b.id)
        core = a.presence._core
        assert core is not None
        assert core.is_pinned(b.id)
        a.presence.unpin(b.id)
        assert not core.is_pinned(b.id)
        a.presence.unpin(b.id)
        assert a.presence.is_linked(b.id)


async def test_waiting_for_a_link_that_does_not_come_ends(autojump_clock: MockClock) -> None:
    import pytest

    from fedd.api.errors import Conflict, TimedOut

    async with nodes(2) as members:
        members[0].admission.init("plant7")
        with pytest.raises(TimedOut, match="no link"):
            await members[0].presence.wait_linked(members[1].id, 2.0)
        with pytest.raises(Conflict):
            members[0].presence.pin(members[0].id)


async def test_an_idle_node_wakes_a_few_times_a_second(autojump_clock: MockClock) -> None:
    class Count(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            Count.steps += 1

    async with nodes(3) as members:
        await form(members)
        await full_mesh(members)
        await trio.sleep(10)
        trio.lowlevel.add_instrument(Count())
        await trio.sleep(20)
        # a ping and a pong a link and second pass five tasks each
        assert Count.steps / 20 / 3 <= 40


def test_the_swarm_asks_presence_who_is_a_member() -> None:
    async def main() -> None:
        async with nodes(1) as (node,):
            assert isinstance(node.swarm, Swarm)
            assert node.swarm.member_check == node.presence.is_member

    trio.run(main)


async def test_what_goes_to_many_links_is_put_into_a_frame_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes(5) as members:
        await form(members)
        await full_mesh(members)
        encoded: list[object] = []

        def noting(message: Message) -> bytes:
            encoded.append(message)
            return encode_message(message)

        monkeypatch.setattr(link_table, "encode_message", noting)
        table, others = members[0].presence._table, members[1:]
        heard: list[Message] = []
        for other in others:
            monkeypatch.setattr(other.presence.revoking, "receive", lambda _, said: heard.append(said))
        for message in (Ping(5), Ping(6)):
            for other in others:
                table.send(other.id, message)
        await trio.sleep(0.1)
        assert encoded.count(Ping(5)) == encoded.count(Ping(6)) == 1
        assert heard.count(Ping(5)) == heard.count(Ping(6)) == len(others)
