"""Who may begin a handshake, and what failing costs."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net.links import KEYS, running

from fedd.api.errors import FeddError
from fedd.net import connection as connection_module
from fedd.net import doors as doors_module
from fedd.net.doors import DoorLimits, Doors, TokenBucket, Visit, prefix_of
from fedd.net.stream import Stream
from fedd.net.swarm import SwarmLimits
from fedd.net.transport import Address

Clock = trio.testing.MockClock


def at(number: int) -> Address:
    return Address("ip4", f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}", 4001)


def admitted(doors: Doors, address: Address, now: float) -> Visit:
    visit = doors.enter(address, now)
    assert visit is not None
    return visit


def test_what_counts_as_one_address() -> None:
    assert prefix_of(Address("ip4", "192.0.2.7", 1)) == prefix_of(Address("ip4", "192.0.2.7", 2))
    assert prefix_of(Address("ip4", "192.0.2.7", 1)) != prefix_of(Address("ip4", "192.0.2.8", 1))
    assert prefix_of(Address("ip6", "2001:db8:0:1::1", 1)) == prefix_of(Address("ip6", "2001:db8:0:ff::1", 1))
    assert prefix_of(Address("ip6", "2001:db8:0:1::1", 1)) != prefix_of(
        Address("ip6", "2001:db8:0:100::1", 1)
    )
    assert prefix_of(Address("memory", "", 7)) == "memory"


def test_eight_at_a_time_from_one_address() -> None:
    doors = Doors(DoorLimits(), 0.0)
    visits = [admitted(doors, at(1), 0.0) for _ in range(8)]
    assert doors.enter(at(1), 0.0) is None
    assert doors.refused["prefix"] == 1
    doors.leave(visits[0])
    admitted(doors, at(1), 0.0)


def test_a_quarter_of_the_pending_is_kept_for_where_members_come_from() -> None:
    doors = Doors(DoorLimits(handshakes_per_s=1000.0), 0.0)
    member = admitted(doors, at(9999), 0.0)
    doors.leave(member)
    doors.vouch(member)
    for number in range(48):
        admitted(doors, at(number), 0.0)
    assert doors.enter(at(48), 0.0) is None
    assert doors.refused["pending"] == 1
    for _ in range(8):
        admitted(doors, at(9999), 0.0)
    assert doors.pending == 56


def test_sixteen_failures_then_one_in_five_seconds() -> None:
    doors = Doors(DoorLimits(), 0.0)
    for _ in range(16):
        doors.leave(admitted(doors, at(1), 0.0))
    assert doors.enter(at(1), 4.9) is None
    assert doors.refused["failures"] == 1
    doors.leave(admitted(doors, at(1), 5.0))
    assert doors.enter(at(1), 5.1) is None
    admitted(doors, at(2), 5.1)


def test_members_are_never_charged() -> None:
    doors = Doors(DoorLimits(), 0.0)
    now = 0.0
    for _ in range(200):
        visit = admitted(doors, at(1), now)
        doors.leave(visit)
        doors.vouch(visit)
        doors.vouch(visit)  # says the same again
        now += 0.02
    for _ in range(16):
        doors.leave(admitted(doors, at(1), now))
    assert doors.enter(at(1), now) is None


def test_closing_without_a_word_costs_an_eighth() -> None:
    doors = Doors(DoorLimits(handshakes_per_s=1000.0), 0.0)
    for _ in range(16 * 8 - 7):
        doors.leave(admitted(doors, at(1), 0.0), silent=True)
    assert doors.enter(at(1), 0.0) is None


def test_fifty_handshakes_a_second_in_all_and_a_quarter_of_them_kept() -> None:
    doors = Doors(DoorLimits(), 0.0)
    member = admitted(doors, at(9999), 0.0)
    doors.leave(member)
    doors.vouch(member)
    begun = 0
    for number in range(100):
        visit = doors.enter(at(number), 0.0)
        if visit is not None:
            doors.leave(visit)
            begun += 1
    assert begun == 36  # 49 were left, of which 12.5 are kept
    assert doors.refused["rate"] == 64
    kept = 0
    while (visit := doors.enter(at(9999), 0.0)) is not None:
        doors.leave(visit)
        doors.vouch(visit)
        kept += 1
    assert kept == 13
    assert doors.enter(at(200), 0.2) is None
    admitted(doors, at(9999), 0.2)


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors_module, "MAX_PREFIXES", 10)
    monkeypatch.setattr(doors_module, "MAX_PROVEN", 10)
    doors = Doors(DoorLimits(handshakes_per_s=1000.0), 0.0)
    held = admitted(doors, at(1000), 0.0)
    for number in range(100):
        visit = admitted(doors, at(number), 0.0)
        doors.leave(visit)
        doors.vouch(visit)
    assert len(doors._prefixes) == 10
    assert len(doors._proven) == 10
    doors.leave(held)  # was forgotten, and is counted all the same
    assert doors.pending == 0


def test_a_visit_leaves_once() -> None:
    doors = Doors(DoorLimits(), 0.0)
    visit = admitted(doors, at(1), 0.0)
    doors.leave(visit)
    with pytest.raises(ValueError, match="already"):
        doors.leave(visit)


def test_a_bucket_does_not_overflow_and_time_does_not_run_back() -> None:
    bucket = TokenBucket(2, 1.0, 10.0)
    bucket.give_back(5)
    assert bucket.level(100.0) == 2
    assert bucket.take(100.0)
    assert bucket.level(50.0) == 1
    assert not bucket.take(100.0, keep=0.5)


# ---- with a swarm behind them ----------------------------------------------------------------


async def test_twenty_four_devices_that_reboot_together_are_back_within_seconds(
    autojump_clock: Clock,
) -> None:
    """All behind one address, all strangers until they have shown their certificate."""
    async with running(25, latency_s=0.02, members=False) as links:
        hub, *devices = links.swarms
        shown: set[str] = set()
        hub.member_check = shown.__contains__

        async def reboot(index: int) -> None:
            device = devices[index]
            await device.dial(hub.addresses)
            await trio.sleep(0.1)  # the presence stream and the certificate on it
            shown.add(device.peer_id)
            hub.vouch(device.peer_id)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for index in range(24):
                nursery.start_soon(reboot, index)
        assert trio.current_time() - start < 5.0
        assert len(hub.connections) == 24


async def test_strangers_from_one_address_are_held_against_it(autojump_clock: Clock) -> None:
    async with running(29, members=False) as links:
        hub, *strangers = links.swarms
        got_in = 0
        for stranger in strangers:
            try:
                await stranger.dial(hub.addresses)
                got_in += 1
            except FeddError:
                break
        assert 16 <= got_in < len(strangers)
        assert hub.doors.refused["failures"]


async def test_whoever_shows_a_certificate_has_a_members_limits(autojump_clock: Clock) -> None:
    limits = SwarmLimits()
    async with running(2, members=False, limits=limits) as links:
        a, b = links.swarms
        await a.dial(b.addresses)
        await trio.testing.wait_all_tasks_blocked()
        connection = b.connections[a.peer_id]
        assert connection._session.limits == limits.stranger_streams
        b.member_check = lambda peer_id: True
        b.vouch(KEYS[5].peer_id)
        assert connection._session.limits == limits.stranger_streams
        b.vouch(a.peer_id)
        assert connection._session.limits == limits.streams
        b.vouch(a.peer_id)


async def test_a_strangers_streams_are_rationed(autojump_clock: Clock) -> None:
    limits = SwarmLimits(stranger_streams_burst=3, stranger_streams_per_s=1.0)
    async with running(2, members=False, limits=limits) as links:
        a, b = links.swarms
        assert [b._services.inbound_quota(a.peer_id) for _ in range(4)] == [16, 16, 16, 0]
        await trio.sleep(1.1)
        assert [b._services.inbound_quota(a.peer_id) for _ in range(2)] == [16, 0]
        await a.dial(b.addresses)
        await a.disconnect(b.peer_id)
        await trio.sleep(1)
        assert not b._services._strangers  # nothing is kept of who has gone


async def quiet(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_whoever_opens_streams_without_end_is_not_served(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_REFUSED_STREAMS", 10)
    async with running(2, members=False, limits=SwarmLimits(streams_per_stranger=2)) as links:
        a, b = links.swarms
        b.handle("/quiet/1", quiet, "anyone")
        connection = await a.dial(b.addresses)
        kept = await a.open_stream(b.peer_id, "/quiet/1")
        for _ in range(11):
            connection._session.open().user = connection_module._NOBODY
        connection.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert not kept.broken
        await trio.sleep(0.001)
        connection._session.open().user = connection_module._NOBODY
        connection._session.open().user = connection_module._NOBODY
        connection.flush()
        await trio.testing.wait_all_tasks_blocked()
        assert not b.connections
        assert "without end" in links.changes[1][-1][2]
