"""Invariants of membership under any history of joins, deaths, pauses, cuts, departures and returns."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from core.membership_bench import LAN, Bench, Node
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedd.core.records import Record

# Time for a ping after a pause, the pacing of records, flooding and the batches of reachability.
PROPAGATION_S = LAN.heartbeat_s + LAN.addition_calm_s + 0.5


class Histories(RuleBasedStateMachine):
    """Five members and whatever befalls them; the rest of the class checks the first six invariants."""

    @initialize(seed=st.integers(0, 2**16), size=st.integers(2, 7))
    def begin(self, seed: int, size: int) -> None:
        self.bench = Bench(seed)
        self.remembered: dict[str, tuple[Record, ...]] = {}
        self.checked = 0
        names = [f"p{index}" for index in range(size)]
        self.bench.add(*names, boot="p0")
        self.run_for(3.0)

    def run_for(self, seconds: float) -> None:
        """Run in small steps and examine each verdict while its circumstances are still to be seen."""
        end = self.bench.now + seconds
        while self.bench.now < end:
            self.bench.run(min(0.1, end - self.bench.now))
            self.check_deaths()

    def pick(self, data: Any, *, alive: bool) -> Node:
        return data.draw(
            st.sampled_from(
                sorted((n for n in self.bench.nodes.values() if n.alive == alive), key=lambda n: n.peer)
            )
        )

    def some(self, *, alive: bool, at_least: int = 1) -> bool:
        return hasattr(self, "bench") and sum(n.alive == alive for n in self.bench.nodes.values()) >= at_least

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
        self.bench.pause(self.pick(data, alive=True).peer, seconds)

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

    # -- 5. no `dead` while some live path existed throughout the confirm time

    def check_deaths(self) -> None:
        for node in self.bench.nodes.values():
            for at, change in node.changes:
                if change.new != "dead" or change.reason == "restarted":
                    continue
                confirm_s = LAN.confirm_closed_s if change.reason == "closed" else LAN.confirm_s
                since = self.bench.path_since(node, self.bench.nodes[change.peer_id])
                assert since > at - confirm_s - PROPAGATION_S, (
                    f"{node.peer} accuses the living {change} at {at}"
                )
            self.check_left(node)
            node.changes.clear()

    # -- 4. `left` only from an owner-signed record; never left -> alive in one epoch

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

    # -- 3. the edges are those that both ends list, recomputed

    @invariant()
    def edges_are_two_sided(self) -> None:
        if not hasattr(self, "bench"):
            return
        for node in self.bench.nodes.values():
            records = node.core.records
            for peer, record in records.items():
                expected = {
                    other
                    for other in record.neighbours
                    if other in records
                    and peer in records[other].neighbours
                    and not record.left
                    and not records[other].left
                }
                assert node.core.edges.adjacent(peer) == expected

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


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
