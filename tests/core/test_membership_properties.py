"""The eleven invariants of membership, under any history of joins, deaths, pauses, cuts and departures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from core.broadcast_world import PEERS
from core.membership_bench import LAN, Bench, Node
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedd.api.errors import ProtocolError, Unhealthy
from fedd.core.broadcast_origin import PENDING_BYTES, RETAINED_BYTES
from fedd.core.broadcast_types import Deliver
from fedd.core.database import Database
from fedd.core.deadlines import NEVER
from fedd.core.membership import Membership
from fedd.core.presence_messages import MAX_FRAME_BYTES, MessageDecoder, Ping, Rows, Want, encode_message
from fedd.core.records import Record

# Time for a ping after a pause, the pacing of records, flooding and the batches of reachability.
PROPAGATION_S = LAN.heartbeat_s + LAN.addition_calm_s + 0.5
# A pause of so long is noticed for what it is, wherever in the interval of heartbeats it begins.
NOTICED_S = 2.5


class Histories(RuleBasedStateMachine):
    """Some members and whatever befalls them; each of the invariants has its number in a comment."""

    @initialize(seed=st.integers(0, 2**16), size=st.integers(2, 7))
    def begin(self, seed: int, size: int) -> None:
        self.bench = Bench(seed, broadcasts=True)
        self.remembered: dict[str, tuple[Record, ...]] = {}
        self.woke: dict[str, float] = {}
        self.published: dict[tuple[str, int, int], bytes] = {}
        self.edges: dict[tuple[Membership, object], dict[str, set[str]]] = {}
        self.bench.add(*PEERS[:size], boot=PEERS[0])
        self.run_for(3.0)

    def run_for(self, seconds: float) -> None:
        """Run in small steps and examine each verdict while its circumstances are still to be seen."""
        end = self.bench.now + seconds
        while self.bench.now < end:
            self.bench.run(min(0.1, end - self.bench.now))
            self.check_changes()

    def pick(self, data: Any, *, alive: bool) -> Node:
        return data.draw(
            st.sampled_from(
                sorted((n for n in self.bench.nodes.values() if n.alive == alive), key=lambda n: n.peer)
            )
        )

    def some(self, *, alive: bool, at_least: int = 1) -> bool:
        return hasattr(self, "bench") and sum(n.alive == alive for n in self.bench.nodes.values()) >= at_least

    # -- what may happen

    @rule(seconds=st.sampled_from([0.02, 0.3, 1.2, 4.0, 9.0]))
    def time_passes(self, seconds: float) -> None:
        self.run_for(seconds)

    @precondition(lambda self: self.some(alive=True, at_least=2))
    @rule(data=st.data(), fin=st.booleans())
    def kill(self, data: Any, fin: bool) -> None:
        node = self.pick(data, alive=True)
        self.remembered[node.peer] = tuple(node.core.records.values())
        self.bench.kill(node.peer, fin=fin)

    @precondition(lambda self: self.some(alive=False))
    @rule(data=st.data())
    def restart(self, data: Any) -> None:
        node = self.pick(data, alive=False)
        self.woke.pop(node.peer, None)
        self.bench.restart(node.peer, self.remembered.get(node.peer, ()))
        for other in self.bench.nodes:
            if other != node.peer:
                node.perform(node.core.hint(other, (f"/at/{other}",), self.bench.now))

    @precondition(lambda self: self.some(alive=True, at_least=2))
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        node = self.pick(data, alive=True)
        if self.bench.now >= node.paused_until:
            self.bench.leave(node.peer)
            self.run_for(0.6)

    @precondition(lambda self: self.some(alive=True))
    @rule(data=st.data(), seconds=st.sampled_from([0.4, 2.5, 5.0, 8.0, 25.0]))
    def pause(self, data: Any, seconds: float) -> None:
        node = self.pick(data, alive=True)
        if self.bench.now >= node.paused_until:
            self.bench.pause(node.peer, seconds)
            if seconds >= NOTICED_S:
                self.woke[node.peer] = node.paused_until

    @precondition(lambda self: self.some(alive=True, at_least=3))
    @rule(data=st.data(), suspected_s=st.sampled_from([3.5, 4.5, 5.5]), asleep_s=st.sampled_from([2.5, 8.0]))
    def sleep_over_a_verdict(self, data: Any, suspected_s: float, asleep_s: float) -> None:
        self.kill(data, fin=False)
        self.run_for(suspected_s)
        node = self.pick(data, alive=True)
        if self.bench.now >= node.paused_until:
            self.bench.pause(node.peer, asleep_s)
            self.woke[node.peer] = node.paused_until
        self.run_for(asleep_s + 1.5)

    @rule(data=st.data())
    def sever(self, data: Any) -> None:
        a, b = data.draw(
            st.lists(st.sampled_from(sorted(self.bench.nodes)), min_size=2, max_size=2, unique=True)
        )
        self.bench.sever(a, b)

    @precondition(lambda self: hasattr(self, "bench") and self.bench.cut)
    @rule(data=st.data())
    def mend(self, data: Any) -> None:
        self.bench.mend(*sorted(data.draw(st.sampled_from(sorted(self.bench.cut, key=sorted)))))

    @precondition(lambda self: self.some(alive=True))
    @rule(data=st.data(), sizes=st.lists(st.sampled_from([1, 300, 1500, 20_000]), min_size=1, max_size=4))
    def broadcast(self, data: Any, sizes: list[int]) -> None:
        node = self.pick(data, alive=True)
        if self.bench.now < node.paused_until or node.core.state_of(node.peer) == "left":
            return
        for size in sizes:
            payload = data.draw(st.integers(0, 255)).to_bytes(1, "big") * size

            def publish(casts: Any, now: float, payload: bytes = payload) -> Any:
                try:
                    name, actions = casts.publish("note", payload, now)
                except Unhealthy:
                    return []
                self.published[name] = payload
                return actions

            node.cast(publish)

    # -- 4. `left` only from an owner-signed record; never left -> alive in one epoch
    # -- 5. no `dead` while some live path existed throughout the confirm time
    # -- 9. a node that wakes from a pause gives no `dead` first

    def check_changes(self) -> None:
        for node in self.bench.nodes.values():
            for at, change in node.changes:
                if change.new == "dead" and change.reason != "restarted":
                    confirm_s = LAN.confirm_closed_s if change.reason == "closed" else LAN.confirm_s
                    since = self.bench.path_since(node, self.bench.nodes[change.peer_id])
                    assert since > at - confirm_s - PROPAGATION_S, (
                        f"{node.peer} accuses the living {change} at {at}"
                    )
                    woke_at = self.woke.get(node.peer, float("-inf"))
                    assert not woke_at <= at < woke_at + LAN.confirm_closed_s, (
                        f"{node.peer} woke at {woke_at} and says {change} at {at}"
                    )
            self.check_left(node)
            node.changes.clear()

    def check_left(self, node: Node) -> None:
        for _, change in node.changes:
            records = [r for r in self.bench.registry.values() if r.id == change.peer_id]
            if change.new == "left":
                assert any(record.left for record in records)
            if change.old == "left" and change.new == "alive":
                # what is held by now may be the goodbye of that later epoch
                assert any(
                    gone.left and not back.left and gone.epoch < back.epoch
                    for gone in records
                    for back in records
                )

    # -- 1. versions never fall for any observer; an owner's own strictly rise

    @invariant()
    def versions_rise(self) -> None:
        if not hasattr(self, "bench"):
            return
        for node in self.bench.nodes.values():
            for stamps in node.versions.values():
                assert all(earlier < later for earlier, later in pairwise(stamps))
                del stamps[:-1]
        issued: dict[str, Any] = {}
        for (peer, _), record in self.bench.registry.items():
            assert peer not in issued or issued[peer] < record.stamp
            issued[peer] = record.stamp

    # -- 2. merging is commutative, associative, idempotent

    @invariant()
    def merging_is_a_join(self) -> None:
        if not hasattr(self, "bench"):
            return
        held = [list(node.core.records.values()) for node in self.bench.nodes.values()]
        one, two = Database("one"), Database("one")
        for records in held:
            for record in records:
                one.merge(record, 0.0)
        for records in reversed(held):
            for record in (*reversed(records), *records):
                two.merge(record, 0.0)
        assert one.digest == two.digest
        assert one.records == two.records

    # -- 3. the edges are those that both ends list, and the reachable those that they connect, recomputed

    @invariant()
    def edges_are_two_sided(self) -> None:
        if not hasattr(self, "bench"):
            return
        for node in self.bench.nodes.values():
            records = node.core.records
            expected = {
                peer: {
                    other
                    for other in record.neighbours
                    if other in records
                    and peer in records[other].neighbours
                    and not record.left
                    and not records[other].left
                }
                for peer, record in records.items()
            }
            assert {peer: node.core.edges.adjacent(peer) for peer in records} == expected
            # who remembers what follows from them asks for their version alone
            assert self.edges.setdefault((node.core, node.core.edges_version), expected) == expected
            if node.core._judge_due == NEVER:
                reachable = {node.peer}
                todo = [node.peer]
                for peer in todo:
                    todo += expected[peer] - reachable
                    reachable |= expected[peer]
                assert set(node.core.edges.reachable) == reachable

    # -- 8. broadcasts exactly once, in order, or a gap; memory bounded

    @invariant()
    def broadcasts_come_once_and_in_order(self) -> None:
        if not hasattr(self, "bench"):
            return
        for node in self.bench.nodes.values():
            ends: dict[tuple[str, int], int] = {}
            for item in node.heard:
                first, last = (item.seq, item.seq) if isinstance(item, Deliver) else (item.first, item.last)
                expected = ends.get((item.origin, item.epoch), first - 1) + 1
                assert first == expected, f"{node.peer} hears {first} of {item.origin} instead of {expected}"
                ends[item.origin, item.epoch] = last
                if isinstance(item, Deliver):
                    assert item.payload == self.published[item.origin, item.epoch, item.seq]
            assert node.casts is not None
            most = (RETAINED_BYTES + PENDING_BYTES) * len(self.bench.nodes)
            assert node.casts.held_bytes <= most

    # -- 7. all links of X silent for link + confirm + eps: every survivor says dead, nobody else changes

    def calm(self) -> bool:
        """Whether nothing disturbs anybody, and everybody sees it."""
        return (
            self.some(alive=True, at_least=3)
            and not self.bench.cut
            and all(self.bench.now >= node.paused_until + 8.0 for node in self.bench.living())
            and self.bench.all_alive()
            and all(
                node.core.state_of(other.peer) in (None, "dead", "left")
                for node in self.bench.living()
                for other in self.bench.nodes.values()
                if not other.alive
            )
            and len({node.core.digest for node in self.bench.living()}) == 1
        )

    @precondition(calm)
    @rule(data=st.data())
    def silence(self, data: Any) -> None:
        self.run_for(6.0)
        if not self.calm():
            return
        victim = self.pick(data, alive=True)
        self.remembered[victim.peer] = tuple(victim.core.records.values())
        self.bench.kill(victim.peer, fin=False)
        seen = []
        for _ in range(round((LAN.link_silent_s + LAN.confirm_s + 1.0) / 0.1)):
            self.bench.run(0.1)
            seen += [change for node in self.bench.living() for _, change in node.changes]
            self.check_changes()
        assert self.bench.everybody_says(victim.peer, "dead")
        assert {change.peer_id for change in seen} == {victim.peer}

    # -- 10. messages per node per quiet second <= 1.1 * 1.5 a link

    @precondition(calm)
    @rule()
    def listen_to_the_quiet(self) -> None:
        self.run_for(8.0)
        living = self.bench.living()
        if not self.calm() or any(node.heard[-1:] and self.recent(node) for node in living):
            return
        before = {node.peer: node.sent for node in living}
        self.run_for(10.0)
        for node in living:
            assert (node.sent - before[node.peer]) / 10.0 <= 1.1 * 1.5 * len(node.core.links)

    def recent(self, node: Node) -> bool:
        """Whether broadcasts may still be acknowledged, announced or compared on account of news."""
        return bool(self.published)

    # -- 11. arbitrary bytes raise only the protocol error and never allocate more than the frame cap

    @precondition(lambda self: self.some(alive=True))
    @rule(
        data=st.data(),
        noise=st.binary(min_size=1, max_size=200) | st.just(b"\xff\xff" + bytes(40_000)),
        at=st.just(0) | st.integers(0, 10_000),
    )
    def hostile_bytes(self, data: Any, noise: bytes, at: int) -> None:
        node = self.pick(data, alive=True)
        if not node.core.links or self.bench.now < node.paused_until:
            return
        peer = node.core.links[0]
        rows = tuple(record.row for record in node.core.records.values())[:3]
        honest = b"".join(map(encode_message, (Ping(7), Rows(rows), Want(tuple(row.id for row in rows)))))
        at %= len(honest)
        decoder = MessageDecoder()
        for part in (honest[:at], noise, honest[at:]):
            try:
                messages = decoder.receive_data(part)
            except ProtocolError:
                return
            assert len(decoder._buffer) <= MAX_FRAME_BYTES + 2
            for message in messages:
                node.receive(peer, message)

    # -- 6. quiet and connected for long enough: all equal, all alive, degrees within bounds

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        for pair in sorted(bench.cut, key=sorted):
            bench.mend(*sorted(pair))
        self.run_for(30.0)
        living = bench.living()
        if not living:
            return
        bench.run_until(bench.all_alive, 90.0, step_s=0.5)
        bench.run(45.0)
        assert bench.all_alive()
        degrees = [len(node.core.links) for node in living]
        assert min(degrees) >= min(5, len(living) - 1)
        assert max(degrees) <= 24
        assert len({node.core.digest for node in living}) == 1
        for node in living:
            for other in bench.nodes.values():
                if not other.alive and other.peer in node.core.records:
                    assert node.core.state_of(other.peer) in ("dead", "left")
        self.broadcasts_come_once_and_in_order()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
