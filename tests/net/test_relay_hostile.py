"""Relays, members and strangers that do with circuits what they should not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from net.relays import ECHO, Device, devices, echoes
from waiting import until

from fedd.api.errors import FeddError, NotConnected, Refused
from fedd.api.types import PeerId
from fedd.core.identity import PrivateKey
from fedd.core.relay_messages import (
    RELAY_IN_PROTOCOL,
    RELAY_PROTOCOL,
    decode_answer,
    encode_answer,
    encode_source,
    encode_target,
)
from fedd.net.circuits import CLOSING_S, Circuit, Circuits, RelayLimits, receive_message
from fedd.net.stream import Stream
from fedd.net.swarm import Swarm

Clock = trio.testing.MockClock


async def ask_for(device: Device, relay: Device, target: PeerId) -> tuple[str | None, Stream]:
    """Ask `relay` for a circuit by hand; its refusal, None when it agrees."""
    stream = await device.swarm.open_stream(relay.id, RELAY_PROTOCOL)
    await stream.send_all(encode_target(target))
    return decode_answer(await receive_message(stream, 10.0)), stream


def used(device: Device) -> dict[str, tuple[float, int]]:
    return {bound.name: (bound.present, bound.reached) for bound in device.relay.bounds()}


# ---- a relay that cannot be trusted -----------------------------------------------------


def alter(where: Callable[[int, bytes], bytes]) -> Callable[..., object]:
    """A relay's `_join` that puts each chunk through `where(bytes so far, chunk)`."""

    async def join(self: Circuits, one: Stream, other: Stream, circuit: Circuit) -> None:
        async def copy(source: Stream, sink: Stream) -> None:
            passed = 0
            while data := await source.receive_some():
                await sink.send_all(where(passed, data))
                passed += len(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other)
            nursery.start_soon(copy, other, one)

    return join


@pytest.mark.parametrize("at", range(0, 400, 37))
async def test_a_relay_that_alters_the_handshake_is_refused(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def flip(passed: int, data: bytes) -> bytes:
        place = at - passed
        if not 0 <= place < len(data):
            return data
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    monkeypatch.setattr(Circuits, "_join", alter(flip))
    async with devices(1, 2) as (_, a, b):
        heard: list[bytes] = []

        async def listen(stream: Stream) -> None:
            heard.append(await stream.receive_some())

        b.swarm.handle("/heard", listen)
        # beyond the handshake the connection comes up, and ends at the first record that was touched
        with pytest.raises((FeddError, trio.BrokenResourceError)):  # noqa: PT012 - either step may fail
            stream = await a.relay.open_stream(b.id, "/heard", 8.0)
            await stream.send_all(b"x" * 500)
            await stream.receive_some()
        await trio.sleep(1)
        assert not [data for data in heard if data.strip(b"x")]
        assert not b.relayed()


async def test_a_relay_that_alters_an_established_connection_breaks_it_and_no_more(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = False

    def flip(passed: int, data: bytes) -> bytes:
        return data if not evil else data[:-1] + bytes([data[-1] ^ 0x80])

    monkeypatch.setattr(Circuits, "_join", alter(flip))
    async with devices(1, 2) as (gateway, a, b):
        stream = await a.relay.open_stream(b.id, ECHO)
        assert await echoes(stream, b"untouched")
        evil = True
        await stream.send_all(b"touched")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await until(lambda: not a.relayed() and not b.relayed())
        assert a.presence.is_linked(gateway.id)
        assert b.presence.is_linked(gateway.id)


async def test_a_relay_cannot_put_another_member_at_the_far_end(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with devices(1, 3) as (gateway, a, b, c):
        reach_target = Circuits._reach_target

        async def elsewhere(self: Circuits, circuit: Circuit) -> Stream:
            return await reach_target(self, Circuit(circuit.source, c.id, circuit.rate))

        monkeypatch.setattr(Circuits, "_reach_target", elsewhere)
        with pytest.raises(NotConnected, match="answered where"):
            await a.relay.reach(b.id)
        assert not a.relayed()
        await until(lambda: gateway.relay.carried_for(a.id)[0] == 0, 6.0)
        assert not c.relayed()


async def test_a_relay_cannot_lie_about_who_asks(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with devices(1, 3) as (_, a, b, c):
        reach_target = Circuits._reach_target

        async def as_another(self: Circuits, circuit: Circuit) -> Stream:
            return await reach_target(self, Circuit(c.id, circuit.target, circuit.rate))

        monkeypatch.setattr(Circuits, "_reach_target", as_another)
        with pytest.raises((FeddError, trio.BrokenResourceError)):
            await echoes(await a.relay.open_stream(b.id, ECHO), b"x")
        await trio.sleep(1)
        assert not b.relayed()


async def test_a_relay_that_answers_nonsense_or_nothing_costs_its_time(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with devices(1, 2) as (gateway, a, b):
        answers = [b"\x00\x00", b"\xff\xff", b"\x00\x03abc", b"\x00\x05\xa1\x62ok\xf4", b"\x00"]

        async def nonsense(stream: Stream) -> None:
            await stream.send_all(answers.pop())

        gateway.swarm._services.protocols.pop(RELAY_PROTOCOL)
        gateway.swarm.handle(RELAY_PROTOCOL, nonsense)
        while answers:
            with pytest.raises(NotConnected, match="cannot be reached"):
                await a.relay.reach(b.id)

        async def silence(stream: Stream) -> None:
            await trio.sleep_forever()

        gateway.swarm._services.protocols.pop(RELAY_PROTOCOL)
        gateway.swarm.handle(RELAY_PROTOCOL, silence)
        started_at = trio.current_time()
        with pytest.raises(NotConnected):
            await a.relay.reach(b.id, 20.0)
        assert trio.current_time() - started_at < 20.1
        assert not a.relayed()


# ---- strangers ---------------------------------------------------------------------------


async def test_nothing_is_relayed_for_strangers(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b), trio.open_nursery() as nursery:
        key = PrivateKey.from_seed(b"stranger" * 4)
        stranger = Swarm(key, network=gateway.network)
        await nursery.start(stranger.run)
        await stranger.dial(gateway.swarm.addresses)
        for protocol in (RELAY_PROTOCOL, RELAY_IN_PROTOCOL):
            with pytest.raises(Refused, match="does not speak"):
                await stranger.open_stream(gateway.id, protocol)
        # nor is a member put through to a stranger
        refusal, _ = await ask_for(a, gateway, key.peer_id)
        assert refusal == "the target is no member"
        # nor does a member take one from a relay
        stream = await gateway.swarm.open_stream(b.id, RELAY_IN_PROTOCOL)
        await stream.send_all(encode_source(key.peer_id))
        assert decode_answer(await receive_message(stream, 5.0)) == "the source is no member"
        assert not b.relayed()
        nursery.cancel_scope.cancel()


async def test_who_is_no_member_any_more_when_the_handshake_ends_gets_no_connection(
    autojump_clock: Clock,
) -> None:
    async with devices(1, 2) as (_, a, b):
        revoked = False
        adopt = b.swarm.adopt

        async def late(*arguments: object, **options: object) -> object:
            nonlocal revoked
            revoked = True  # between the offer and the handshake
            return await adopt(*arguments, **options)

        is_member = b.swarm.member_check
        b.swarm.member_check = lambda peer: is_member(peer) and not (revoked and peer == a.id)
        b.swarm.adopt = late
        with pytest.raises((FeddError, trio.BrokenResourceError)):
            await echoes(await a.relay.open_stream(b.id, ECHO, 5.0), b"x")
        assert revoked
        await trio.sleep(1)
        assert not b.relayed()


# ---- loops -------------------------------------------------------------------------------


async def test_circuits_that_lead_nowhere_are_refused(autojump_clock: Clock) -> None:
    async with devices(2, 2) as (gateway, other, a, b):
        assert "the relay itself" in str((await ask_for(a, gateway, gateway.id))[0])
        assert "to oneself" in str((await ask_for(a, gateway, a.id))[0])
        await other.presence.disconnect(a.id)
        await until(lambda: not a.presence.is_linked(other.id))
        refusal, _ = await ask_for(b, other, a.id)
        assert refusal == "this relay has no connection with the target"
        for source in (b.id, gateway.id):  # b asked for b, and a relay for itself
            stream = await gateway.swarm.open_stream(b.id, RELAY_IN_PROTOCOL)
            await stream.send_all(encode_source(source))
            assert decode_answer(await receive_message(stream, 5.0)) == "a circuit needs three members"


async def test_a_circuit_leads_through_one_relay_only(autojump_clock: Clock) -> None:
    async with devices(1, 3) as (gateway, a, b, c):
        await a.relay.reach(b.id)
        refusal, _ = await ask_for(a, b, c.id)  # over the relayed connection
        assert refusal == "a circuit does not lead through two relays"
        stream = await a.swarm.open_stream(b.id, RELAY_IN_PROTOCOL)
        await stream.send_all(encode_source(c.id))
        assert (
            decode_answer(await receive_message(stream, 5.0)) == "a circuit does not lead through two relays"
        )
        await b.relay.reach(c.id)
        refusal, _ = await ask_for(a, gateway, c.id)  # directly, that is another matter
        assert refusal is None


# ---- more than there is ------------------------------------------------------------------


async def test_a_storm_of_circuits_is_bounded_and_others_are_served(autojump_clock: Clock) -> None:
    limits = RelayLimits(circuits=12, circuits_per_member=8, requests_burst=40)
    async with devices(1, 4, limits=limits) as (gateway, a, b, c, d):
        refusals: list[str | None] = []
        held: list[Stream] = []

        async def one() -> None:
            refusal, stream = await ask_for(a, gateway, b.id)
            refusals.append(refusal)
            held.append(stream)

        for _ in range(60):
            await one()
            assert used(gateway)["relay.circuits"][0] <= 8
        assert refusals.count(None) <= 40
        assert sum("circuits of" in str(refusal) for refusal in refusals) >= 1
        assert sum("short time" in str(refusal) for refusal in refusals) >= 15
        assert used(gateway)["relay.circuits_per_member"][1] >= 1
        assert used(gateway)["relay.requests"][1] >= 15
        stream = await c.relay.open_stream(d.id, ECHO)
        assert await echoes(stream, b"served")
        assert used(b)["relay.handshakes"][0] <= limits.handshakes
        await trio.sleep(limits.handshake_s + CLOSING_S + 1)  # nobody shook hands on a's circuits
        assert used(b)["relay.handshakes"][0] == 0
        assert used(gateway)["relay.circuits"][0] == 1


async def test_all_circuits_of_a_relay_are_bounded(autojump_clock: Clock) -> None:
    limits = RelayLimits(circuits=2, circuits_per_member=2)
    async with devices(1, 6, limits=limits) as (gateway, *others):
        for one, two in zip(others[0:4:2], others[1:4:2], strict=True):
            await one.relay.reach(two.id)
        with pytest.raises(NotConnected, match="2 circuits are open here"):
            await others[4].relay.reach(others[5].id)
        assert used(gateway)["relay.circuits"] == (2, 2)  # reached twice: it is tried again


async def test_a_storm_of_handshakes_at_the_target_is_bounded(autojump_clock: Clock) -> None:
    limits = RelayLimits(handshakes=4)
    async with devices(1, 2, limits=limits) as (gateway, a, b):
        refusals = []
        for _ in range(8):
            stream = await gateway.swarm.open_stream(b.id, RELAY_IN_PROTOCOL)
            await stream.send_all(encode_source(a.id))
            refusals.append(decode_answer(await receive_message(stream, 5.0)))
        assert refusals == [None] * 4 + ["too many handshakes are under way"] * 4
        assert used(b)["relay.handshakes"] == (4, 4)


async def test_requests_that_say_nothing_are_dropped(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b):
        streams = [await a.swarm.open_stream(gateway.id, RELAY_PROTOCOL) for _ in range(3)]
        await streams[0].send_all(encode_target(b.id)[:-1])
        await streams[1].send_all(b"\xff\xff")
        await streams[2].send_all(encode_answer(None))
        for stream in streams:
            with trio.fail_after(6), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert used(gateway)["relay.circuits"][0] == 0


async def test_a_target_that_refuses_is_told_to_the_source(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (_, a, b):
        b.swarm.member_check = lambda peer: peer != a.id
        with pytest.raises(NotConnected, match="the target refuses: the source is no member"):
            await a.relay.reach(b.id)


async def test_an_end_that_does_not_read_holds_two_windows_at_the_relay(autojump_clock: Clock) -> None:
    async with devices(1, 2) as (gateway, a, b):

        async def sleep(stream: Stream) -> None:
            await trio.sleep_forever()

        b.swarm.handle("/sleep", sleep)
        relayed = await a.relay.open_stream(b.id, "/sleep")
        with trio.move_on_after(30):
            while True:
                await relayed.send_all(bytes(64 * 1024))
        held = sum(link.usage().buffered for link in gateway.swarm.all_connections)
        assert held <= 2 * gateway.swarm.limits.streams.max_window_bytes
        assert await a.swarm.connections[gateway.id].measure_rtt() < 1  # and the link itself is not held up
        assert gateway.states()["d1"] == "alive"


class Sink:
    """Reads what comes, and knows how much and since when."""

    def __init__(self) -> None:
        self.read_bytes = 0

    async def serve(self, stream: Stream) -> None:
        while data := await stream.receive_some():
            self.read_bytes += len(data)


async def flood(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(16 * 1024))


async def test_a_circuit_has_a_byte_rate_and_delays_nobody_else(autojump_clock: Clock) -> None:
    limits = RelayLimits(circuit_bytes_per_s=100_000, circuit_burst_bytes=200_000)
    async with devices(1, 4, limits=limits) as (gateway, a, b, c, d), trio.open_nursery() as nursery:
        sink = Sink()
        b.swarm.handle("/sink", sink.serve)
        relayed = await a.relay.open_stream(b.id, "/sink")
        carried = gateway.relay.carried_for(a.id)[1]
        nursery.start_soon(flood, relayed)
        other = await c.relay.open_stream(d.id, ECHO)
        for second in range(1, 11):
            start = trio.current_time()
            assert await echoes(other, b"served")
            assert trio.current_time() - start < 0.2
            await trio.sleep_until(trio.current_time() + 1)
            passed = gateway.relay.carried_for(a.id)[1] - carried
            assert passed <= 200_000 + 100_000 * (second + 1)
        assert passed >= 900_000  # it is a rate, not a stop
        assert sink.read_bytes >= 0.9 * 900_000
        bounds = {bound.name: bound for bound in gateway.relay.bounds()}
        rate = bounds["relay.circuit_bytes_per_s"]
        assert 80_000 <= rate.present <= 120_000 == rate.maximum + 20_000
        assert rate.reached >= 10
        assert bounds["relay.bytes_per_s"].reached == 0
        # what waits is not held here: the sender is not read
        held = sum(link.usage().buffered for link in gateway.swarm.all_connections)
        assert held <= 2 * gateway.swarm.limits.streams.max_window_bytes
        assert all(device.states()["d0"] == "alive" for device in (a, b, c, d))
        nursery.cancel_scope.cancel()


async def test_all_circuits_share_a_byte_rate(autojump_clock: Clock) -> None:
    limits = RelayLimits(
        circuit_bytes_per_s=100_000,
        circuit_burst_bytes=100_000,
        relayed_bytes_per_s=120_000,
        relayed_burst_bytes=100_000,
    )
    async with devices(1, 4, limits=limits) as (gateway, a, b, c, d), trio.open_nursery() as nursery:
        sinks = [Sink(), Sink()]
        for (source, target), sink in zip(((a, b), (c, d)), sinks, strict=True):
            target.swarm.handle("/sink", sink.serve)
            nursery.start_soon(flood, await source.relay.open_stream(target.id, "/sink"))
        start = trio.current_time()
        await trio.sleep(20)
        passed = [gateway.relay.carried_for(source.id)[1] for source in (a, c)]
        assert sum(passed) <= 120_000 + 120_000 * (trio.current_time() - start)
        assert sum(passed) >= 2_000_000
        assert max(passed) <= 1.5 * min(passed)  # by halves
        bounds = {bound.name: bound for bound in gateway.relay.bounds()}
        assert bounds["relay.bytes_per_s"].reached >= 10
        assert 90_000 <= bounds["relay.bytes_per_s"].present <= 150_000
        nursery.cancel_scope.cancel()
