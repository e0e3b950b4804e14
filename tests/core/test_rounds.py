from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedd.api.errors import InvalidMessage, ProtocolError
from fedd.core.rounds import Action, Completed, Rounds, Send


def rounds(neighbors: str = "bc", max_payload_bytes: int = 100) -> Rounds:
    return Rounds(neighbors, max_payload_bytes)


def begin(machine: Rounds, tag: str = "", text: str = "x") -> list[Action]:
    return machine.begin(tag, {peer: f"{text}{peer}".encode() for peer in machine.neighbors})


def only(actions: list[Action]) -> Completed:
    (done,) = actions
    assert isinstance(done, Completed)
    return done


def test_a_round_from_begin_to_completion() -> None:
    machine = rounds("cb")
    assert machine.round == 0
    assert not machine.in_progress
    assert machine.waiting_for == ()
    assert begin(machine) == [Send("b", 0, "", b"xb"), Send("c", 0, "", b"xc")]
    assert machine.in_progress
    assert machine.waiting_for == ("b", "c")
    assert machine.receive("c", 0, "", b"1") == []
    assert machine.waiting_for == ("b",)
    done = only(machine.receive("b", 0, "", b"2"))
    assert done == Completed(0, {"b": b"2", "c": b"1"}, {})
    assert list(done.messages) == ["b", "c"]
    assert machine.round == 1
    assert machine.neighbors == ("b", "c")
    assert not machine.in_progress


def test_a_node_without_neighbours_completes_at_once() -> None:
    machine = rounds("")
    assert begin(machine) == [Completed(0, {}, {})]
    assert begin(machine) == [Completed(1, {}, {})]


def test_early_messages_wait_for_their_round() -> None:
    machine = rounds()
    machine.receive("b", 0, "", b"b0")
    begin(machine)
    machine.receive("b", 1, "", b"b1")
    assert only(machine.receive("c", 0, "", b"c0")).messages == {"b": b"b0", "c": b"c0"}
    machine.receive("c", 1, "", b"c1")
    sends = begin(machine)
    assert sends[-1] == Completed(1, {"b": b"b1", "c": b"c1"}, {})
    assert [type(action) for action in sends] == [Send, Send, Completed]


def test_duplicates_and_strangers_are_ignored() -> None:
    machine = rounds()
    begin(machine)
    machine.receive("b", 0, "", b"first")
    assert machine.receive("b", 0, "", b"second") == []
    assert machine.receive("z", 0, "", b"z") == []
    assert machine.release("z", "dead") == []
    assert only(machine.receive("c", 0, "", b"c")).messages == {"b": b"first", "c": b"c"}
    assert machine.receive("b", 0, "", b"late") == []
    begin(machine)
    assert machine.waiting_for == ("b", "c")


def test_two_ahead_is_a_violation_that_changes_nothing() -> None:
    machine = rounds()
    with pytest.raises(ProtocolError, match="b sent exchange 1 when it can be at 0 at most"):
        machine.receive("b", 1, "", b"")
    begin(machine)
    machine.receive("b", 1, "", b"")
    with pytest.raises(ProtocolError, match="exchange 2"):
        machine.receive("b", 2, "", b"")
    assert machine.waiting_for == ("b", "c")


def test_sizes_are_bounded() -> None:
    machine = rounds(max_payload_bytes=3)
    with pytest.raises(InvalidMessage, match="the message to c has 4 bytes"):
        machine.begin("", {"b": b"333", "c": b"4444"})
    assert not machine.in_progress
    with pytest.raises(InvalidMessage, match="no message for neighbour c"):
        machine.begin("", {"b": b"333"})
    with pytest.raises(InvalidMessage, match="tag"):
        machine.begin("\u00e4" * 128, {"b": b"", "c": b""})
    with pytest.raises(ProtocolError, match="the message of b has 4 bytes"):
        machine.receive("b", 0, "", b"4444")
    machine.begin("t" * 255, {"b": b"333", "c": memoryview(b"")})


def test_begin_twice_is_refused() -> None:
    machine = rounds()
    begin(machine)
    with pytest.raises(ProtocolError, match="before it was complete"):
        begin(machine)


def test_other_tags_are_reported() -> None:
    machine = rounds()
    begin(machine, tag="mean")
    machine.receive("b", 0, "variance", b"b")
    done = only(machine.receive("c", 0, "mean", b"c"))
    assert done.other_tags == {"b": "variance"}
    assert done.messages == {"b": b"b", "c": b"c"}


def test_release_ends_the_wait() -> None:
    machine = rounds()
    begin(machine)
    machine.receive("c", 0, "", b"c")
    assert only(machine.release("b", "dead")) == Completed(0, {"c": b"c"}, {"b": "dead"})
    assert machine.neighbors == ("c",)
    assert begin(machine) == [Send("c", 1, "", b"xc")]


def test_what_arrived_before_the_release_counts_once() -> None:
    machine = rounds()
    begin(machine)
    machine.receive("b", 0, "", b"b")
    assert machine.release("b", "left") == []
    assert machine.release("b", "dead") == []
    done = only(machine.receive("c", 0, "", b"c"))
    assert done == Completed(0, {"b": b"b", "c": b"c"}, {"b": "left"})


def test_a_message_one_ahead_keeps_its_dead_sender_for_one_more_round() -> None:
    machine = rounds()
    begin(machine)
    machine.receive("b", 0, "", b"b0")
    machine.receive("b", 1, "", b"b1")
    machine.release("b", "dead")
    assert only(machine.receive("c", 0, "", b"c0")).gone == {}
    assert machine.neighbors == ("b", "c")
    assert begin(machine) == [Send("c", 1, "", b"xc")]
    assert machine.waiting_for == ("c",)
    assert only(machine.receive("c", 1, "", b"c1")) == Completed(1, {"b": b"b1", "c": b"c1"}, {"b": "dead"})


def test_release_between_rounds_is_told_with_the_next() -> None:
    machine = rounds("b")
    machine.release("b", "dead")
    assert machine.neighbors == ("b",)
    assert begin(machine) == [Completed(0, {}, {"b": "dead"})]
    machine = rounds("b")
    machine.receive("b", 0, "", b"b")
    machine.release("b", "dead")
    assert machine.receive("b", 1, "", b"ignored") == []
    assert begin(machine) == [Completed(0, {"b": b"b"}, {"b": "dead"})]


def test_a_renewed_link_gets_the_last_two_messages() -> None:
    machine = rounds("b")
    assert machine.unsent_for("b") == []
    for number in range(3):
        begin(machine, text=str(number))
        assert machine.unsent_for("z") == []
        machine.receive("b", number, "", b"")
    assert machine.unsent_for("b") == [Send("b", 1, "", b"1b"), Send("b", 2, "", b"2b")]
    begin(machine, text="3")
    assert [send.round for send in machine.unsent_for("b")] == [2, 3]
    machine.release("b", "dead")
    assert machine.unsent_for("b") == []


@dataclass
class Node:
    machine: Rounds
    queues: dict[str, list[Send]] = field(default_factory=dict)
    done: list[Completed] = field(default_factory=list)


class Wires:
    """Nodes joined by in-order wires that lose what is on them when they break, and are then renewed."""

    def __init__(self, adjacency: dict[str, str]) -> None:
        self.adjacency = adjacency
        self.nodes = {
            name: Node(Rounds(near, 64), {peer: [] for peer in near}) for name, near in adjacency.items()
        }
        self.dead: set[str] = set()

    def act(self, name: str, actions: list[Action]) -> None:
        node = self.nodes[name]
        for action in actions:
            if isinstance(action, Send):
                node.queues[action.peer].append(action)
            else:
                node.done.append(action)

    def begin(self, name: str) -> None:
        machine = self.nodes[name].machine
        self.act(
            name,
            machine.begin("", {near: f"{name}{near}{machine.round}".encode() for near in machine.neighbors}),
        )

    def deliver(self, sender: str, to: str) -> None:
        send = self.nodes[sender].queues[to].pop(0)
        assert send.peer == to
        self.act(to, self.nodes[to].machine.receive(sender, send.round, send.tag, send.payload))

    def renew(self, one: str, other: str) -> None:
        for sender, to in ((one, other), (other, one)):
            self.nodes[sender].queues[to] = self.nodes[sender].machine.unsent_for(to)

    def choices(self, limit: int) -> list[tuple[str, ...]]:
        living = [name for name in self.nodes if name not in self.dead]
        found: list[tuple[str, ...]] = []
        for name in living:
            node = self.nodes[name]
            if not node.machine.in_progress and node.machine.round < limit:
                found.append(("begin", name))
        for name, node in self.nodes.items():
            for to, queue in node.queues.items():
                if queue and to not in self.dead:
                    found.append(("deliver", name, to))
        for dead in self.dead:
            found += [
                ("notice", dead, near)
                for near in self.adjacency[dead]
                if near not in self.dead
                and near not in self.noticed[dead]
                and not self.nodes[dead].queues[near]
            ]
        return found

    noticed: dict[str, set[str]]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=st.sampled_from([
    {"a": "b", "b": "a"},
    {"a": "bd", "b": "ac", "c": "bd", "d": "ca"},
    {"a": "bcd", "b": "acd", "c": "abd", "d": "abc"},
    {"a": "b", "b": "acd", "c": "b", "d": "b"},
]))  # fmt: skip
def test_no_schedule_hangs_or_mixes_rounds(data: st.DataObject, shape: dict[str, str]) -> None:
    """Any order of deliveries, links that break and come back, one death, its last words lost or not."""
    limit = 5
    wires = Wires(shape)
    wires.noticed = {name: set() for name in shape}
    breaks_left = 3
    victim = data.draw(st.sampled_from([None, *shape]))
    for _ in range(2000):
        choices = wires.choices(limit)
        if breaks_left:
            choices += [("break", name, near) for name in shape for near in shape[name]
                        if name < near and not wires.dead & {name, near}]  # fmt: skip
        if victim is not None and victim not in wires.dead:
            choices.append(("kill", victim))
        if not wires.choices(limit):
            break
        kind, name, *rest = data.draw(st.sampled_from(choices))
        if kind == "begin":
            wires.begin(name)
        elif kind == "deliver":
            wires.deliver(name, rest[0])
        elif kind == "break":
            breaks_left -= 1
            wires.renew(name, rest[0])
        elif kind == "kill":
            wires.dead.add(name)
            for queue in wires.nodes[name].queues.values():
                del queue[data.draw(st.integers(0, len(queue))) :]
        else:
            wires.noticed[name].add(rest[0])
            wires.act(rest[0], wires.nodes[rest[0]].machine.release(name, "dead"))
    else:
        pytest.fail("the schedule did not end")
    for name, node in wires.nodes.items():
        if name in wires.dead:
            continue
        assert [done.round for done in node.done] == list(range(limit))
        for done in node.done:
            assert list(done.messages) == sorted(done.messages)
            assert set(done.messages) >= set(shape[name]) - wires.dead
            for peer, payload in done.messages.items():
                assert payload == f"{peer}{name}{done.round}".encode()
        gone = [peer for done in node.done for peer in done.gone]
        assert set(gone) <= wires.dead
        assert len(gone) == len(set(gone))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("bcz"), st.integers(-1, 6), st.sampled_from(["receive", "release", "begin"])
        )
    )
)
def test_memory_is_bounded_and_only_protocol_errors_come_out(script: list[tuple[str, int, str]]) -> None:
    machine = rounds(max_payload_bytes=4)
    for peer, number, verb in script:
        before = machine.round
        try:
            if verb == "receive":
                machine.receive(peer, number, "", bytes(max(number, 0)))
            elif verb == "release":
                machine.release(peer, "dead")
            else:
                begin(machine)
        except ProtocolError:
            assert machine.round == before
        for near in machine.neighbors:
            assert len(machine.unsent_for(near)) <= 2
        assert set(machine.waiting_for) <= set(machine.neighbors)
        assert bool(machine.waiting_for) == machine.in_progress
