"""When an epoch is due, who proposes it, and that everybody ends in the same one."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedd.api import InvalidParameter
from fedd.core.epochs import (
    FIRST,
    MAX_EPOCHS,
    PATIENCE_S,
    SETTLE_S,
    End,
    Epochs,
    Mark,
    News,
    Next,
    Sleepers,
    closing_rounds,
    epoch_graph,
)
from fedd.core.run_terms import CONTRIBUTED, RESTART, SURVIVORS
from fedd.core.topology import build

MEMBERS = ("a", "b", "c", "d", "e")


def epochs(me: str = "a", contract: str = RESTART, joinable: bool = False, quorum: int = 3) -> Epochs:
    return Epochs(me, MEMBERS, contract, joinable, quorum)


def test_only_restart_freezes_an_epoch_when_a_member_is_lost() -> None:
    for contract in (SURVIVORS, CONTRIBUTED):
        run = epochs(contract=contract)
        run.lose("c", 5.0)
        assert not run.frozen
        assert run.due_at is None
        assert run.propose(5.0) is None
    run = epochs()
    assert not run.frozen
    run.lose("c", 5.0)
    run.lose("nobody", 5.0)
    assert run.frozen
    assert run.present == ("a", "b", "d", "e")
    assert run.propose(4.9) is None
    assert run.propose(5.0) == Next(2, ("a", "b", "d", "e"), ())
    assert run.propose(5.0) is None


def test_the_lowest_proposes_at_once_and_each_other_later() -> None:
    for turn, me in enumerate(("a", "b", "d", "e")):
        run = epochs(me)
        run.lose("c", 1.0)
        assert run.due_at == 1.0 + turn * PATIENCE_S
    run = epochs("b")
    run.lose("c", 1.0)
    run.lose("a", 1.5)  # who would have proposed
    assert run.due_at == 1.5
    run = epochs("b")
    run.lose("a", 1.0)
    run.lose("c", 2.0)
    assert run.due_at == 1.0


def test_too_few_left_are_lost() -> None:
    run = epochs()
    run.lose("b", 0.0)
    run.lose("c", 0.0)
    assert not run.lost
    run.lose("d", 0.0)
    assert run.lost


def test_the_larger_epoch_counts() -> None:
    run = epochs("c", joinable=True)
    low, high = Mark(2, b"1"), Mark(2, b"2")
    assert run.hear(FIRST, MEMBERS, 0.0) is News.KNOWN
    run.lose("a", 0.0)
    assert run.hear(low, ("b", "c"), 0.0) is News.ENTER
    assert (run.mark, run.members, run.out, run.due_at) == (low, ("b", "c"), set(), None)
    assert run.hear(high, ("a", "b", "c"), 0.0) is News.ENTER
    assert run.hear(low, ("b", "c"), 0.0) is News.STALE
    assert run.hear(high, ("a", "b", "c"), 0.0) is News.KNOWN
    assert run.hear(Mark(3, b""), ("a", "b"), 0.0) is News.EXCLUDED
    assert run.mark == high


def test_whoever_is_to_be_let_in_is_in_the_next_epoch() -> None:
    run = epochs("b", SURVIVORS, joinable=True)
    run.lose("e", 0.0)
    assert run.refusal("x") == ""
    run.let_in(["x", "c"], 3.0)
    following = run.propose(3.0)
    assert following == Next(2, ("a", "b", "c", "d", "x"), ("c", "x"))
    # another's epoch without it wins: it is proposed again, in turn
    assert run.hear(Mark(2, b"z"), ("a", "b", "c"), 4.0, ("c",)) is News.ENTER
    assert run.waiting == {"x"}
    assert run.due_at == 4.0 + PATIENCE_S
    assert run.propose(9.0) == Next(3, ("a", "b", "c", "x"), ("x",))


def test_who_is_refused_learns_why() -> None:
    closed = epochs(contract=SURVIVORS)
    assert "nobody who comes later" in closed.refusal("x")
    assert "nobody who comes later" in closed.refusal("b")
    restart = epochs()
    assert restart.refusal("b") == ""  # was restarted before anybody noticed: all begin anew
    assert "nobody" in restart.refusal("x")
    ending = epochs(joinable=True)
    ending.keep()
    assert "about to end" in ending.refusal("x")
    ending = epochs(joinable=True)
    ending.hear_end("b", FIRST)
    assert "about to end" in ending.refusal("x")
    old = epochs(joinable=True)
    old.hear(Mark(MAX_EPOCHS, b""), MEMBERS, 0.0)
    assert "epochs" in old.refusal("x")
    old.let_in(["x"], 0.0)
    assert old.propose(0.0) is None


def test_who_was_restarted_after_an_epoch_was_proposed_waits_for_another() -> None:
    run = epochs("b", SURVIVORS, joinable=True)
    run.let_in(["c", "x"], 0.0)
    assert run.hear(Mark(2, b"z"), (*MEMBERS, "x"), 1.0, ("x",)) is News.ENTER
    assert run.waiting == {"c"}
    run.lose("c", 2.0)
    assert run.waiting == set()


def test_who_came_with_an_epoch_that_another_outdoes_waits_for_the_next() -> None:
    run = epochs("b", SURVIVORS, joinable=True)
    run.let_in(["c"], 0.0)
    assert run.propose(0.0) == Next(2, MEMBERS, ("c",))
    assert run.hear(Mark(2, b"one"), MEMBERS, 0.0, ("c",)) is News.ENTER
    assert run.waiting == set()
    assert run.hear(Mark(2, b"two"), (*MEMBERS, "x"), 1.0, ("x",)) is News.ENTER
    assert (run.waiting, run.due_at) == ({"c"}, 1.0 + PATIENCE_S)
    assert run.hear(Mark(3, b""), (*MEMBERS, "x"), 9.0, ("c",)) is News.ENTER
    assert (run.waiting, run.due_at) == (set(), None)


def test_whoever_blames_many_is_heard_after_those_who_blame_one() -> None:
    many, one = epochs("a"), epochs("e")
    many.lose("d", 0.0)
    assert many.due_at == 0.0
    for peer in ("b", "c"):
        many.lose(peer, 0.0, blamed=True)
    one.lose("a", 0.0, blamed=True)
    assert one.due_at == 3 * PATIENCE_S
    assert many.due_at == len(MEMBERS) * PATIENCE_S
    many.lose("e", 0.0)
    assert many.due_at == len(MEMBERS) * PATIENCE_S
    assert many.hear(Mark(2, b""), ("a", "b", "c"), 20.0) is News.ENTER
    many.lose("b", 20.0, blamed=True)
    assert many.due_at == 20.0


def test_after_somebody_has_finished_no_epoch_is_proposed() -> None:
    run = epochs()
    run.lose("b", 0.0)
    run.finished.add("c")
    assert not run.frozen
    assert run.propose(10.0) is None
    run.lose("c", 0.0)
    assert run.out == {"b"}


def test_what_somebodys_end_means() -> None:
    run = epochs()
    assert run.hear_end("b", FIRST) is End.NEIGHBOR
    assert run.finished == {"b"}
    assert run.hear_end("b", Mark(2, b"x")) is End.EXCLUDED
    run = epochs()
    run.keep()
    run.hear(Mark(2, b"x"), MEMBERS, 0.0)
    assert run.hear_end("b", FIRST) is End.COMMIT
    plain = epochs(contract=SURVIVORS)
    plain.keep()
    assert not plain.closes
    assert plain.hear_end("b", FIRST) is End.NEIGHBOR


def test_how_many_closing_rounds_prove_that_all_are_done() -> None:
    assert closing_rounds(build("complete", MEMBERS, 0), SURVIVORS) == 1
    assert closing_rounds(build("complete", MEMBERS[:1], 0), RESTART) == 0
    assert closing_rounds(build("ring", MEMBERS, 0), RESTART) == 2
    assert closing_rounds(build("ring", MEMBERS, 0), SURVIVORS) == 4


def test_an_epoch_has_its_runs_graph_or_the_default() -> None:
    assert epoch_graph("ring", MEMBERS, 0) == ("ring", build("ring", MEMBERS, 0))
    name, graph = epoch_graph("hypercube", MEMBERS, 0)
    assert (name, graph) == ("complete", build("complete", MEMBERS, 0))
    with pytest.raises(InvalidParameter):
        epoch_graph("ring", (), 0)


def test_sleepers_go_on_at_once_when_all_are_back() -> None:
    run = Sleepers("b", ("a", "b", "c"), 2)
    assert run.resume(100.0) is None
    run.hear("b", 1, 0.0)
    assert run.resume(100.0) is None  # too few
    run.hear("c", 3, 1.0)
    assert run.due_at == 1.0 + SETTLE_S
    assert run.resume(1.0) is None
    run.hear("c", 3, 2.0)  # nothing new
    assert run.resume(1.0 + SETTLE_S) == Next(4, ("b", "c"), ("b", "c"))
    run.hear("a", 1, 3.0)
    assert run.due_at == 3.0 + PATIENCE_S  # a is to propose
    run.forget("a")
    run.forget("a")
    assert run.due_at == 3.0 + SETTLE_S
    run.forget("b")
    assert run.resume(1e9) is None


# ---- many nodes, messages that take their time, deaths at any moment ------------------------


class World:
    """Nodes that work, close and end as runs do, on virtual time; epochs are told, not agreed upon."""

    def __init__(self, count: int, seed: int, deaths: dict[int, float], slow: float, work_s: float) -> None:
        self.rng = random.Random(seed)
        self.names = tuple(f"n{index}" for index in range(count))
        self.quorum = 1
        self.slow, self.work_s = slow, work_s
        self.nodes = {name: Epochs(name, self.names, RESTART, False, self.quorum) for name in self.names}
        self.lists: dict[Mark, tuple[str, ...]] = {FIRST: self.names}
        self.dead: set[str] = set()
        self.ended: dict[str, Mark] = {}
        self.done: dict[str, set[tuple[str, Mark]]] = {name: set() for name in self.names}
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0
        self.proposals = 0
        for index, at in deaths.items():
            self.at(at, partial(self.die, self.names[index]))
        for name in self.names:
            self.begin(name)

    def at(self, time: float, happens: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, happens))

    def later(self, happens: Callable[[], None]) -> None:
        self.at(self.now + self.rng.uniform(0.001, self.slow), happens)

    def alive(self, name: str) -> bool:
        return name not in self.dead and name not in self.ended

    def run(self) -> None:
        while self.events and self.now < 10_000:
            self.now, _, happens = heapq.heappop(self.events)
            happens()

    def die(self, name: str) -> None:
        if self.alive(name):
            self.dead.add(name)
            for other in self.names:
                self.at(self.now + self.rng.uniform(1.0, 3.0), partial(self.lose, other, name))

    def lose(self, name: str, dead: str) -> None:
        node = self.nodes[name]
        if self.alive(name):
            node.lose(dead, self.now)
            self.look(name)

    def look(self, name: str) -> None:
        due_at = self.nodes[name].due_at
        if due_at is not None:
            self.at(max(due_at, self.now), partial(self.propose, name))

    def propose(self, name: str) -> None:
        following = self.nodes[name].propose(self.now) if self.alive(name) else None
        if following is not None:
            self.proposals += 1
            digest = hashlib.sha256(f"{following} {name}".encode()).digest()
            mark = Mark(following.number, digest)
            self.lists[mark] = following.members
            self.hear(name, name, mark)
            for other in self.names:
                self.later(partial(self.hear, other, name, mark))

    def hear(self, name: str, teller: str, mark: Mark) -> None:
        node = self.nodes[name]
        if name in self.ended:
            self.later(partial(self.hear_end, teller, name, self.ended[name]))
        elif self.alive(name):
            news = node.hear(mark, self.lists[mark], self.now)
            assert news is not News.EXCLUDED, "nobody was declared dead who lives"
            if news is News.ENTER:
                self.begin(name)
            elif news is News.STALE:
                self.later(partial(self.hear, teller, name, node.mark))

    def begin(self, name: str) -> None:
        node = self.nodes[name]
        for dead in self.dead:  # what membership has said before
            self.at(self.now + 3.0, partial(self.lose, name, dead))
        self.at(self.now + self.rng.uniform(0.5, self.work_s), partial(self.returned, name, node.mark))

    def returned(self, name: str, mark: Mark) -> None:
        node = self.nodes[name]
        if self.alive(name) and node.mark == mark:
            node.keep()
            for other in node.members:
                self.later(partial(self.hear_done, other, name, mark))
            self.hear_done(name, name, mark)

    def hear_done(self, name: str, done: str, mark: Mark) -> None:
        """The closing exchange of the complete graph."""
        node = self.nodes[name]
        if not self.alive(name):
            return
        self.done[name].add((done, mark))
        everybody = all((peer, mark) in self.done[name] for peer in self.lists[mark])
        if node.mark == mark and mark in node.kept and everybody and not node.frozen:
            self.end(name, mark)

    def end(self, name: str, mark: Mark) -> None:
        self.ended[name] = mark
        for other in self.names:
            self.later(partial(self.hear_end, other, name, mark))

    def hear_end(self, name: str, ended: str, mark: Mark) -> None:
        if self.alive(name):
            end = self.nodes[name].hear_end(ended, mark)
            assert end is not End.EXCLUDED
            if end is End.COMMIT:
                self.end(name, mark)


DEATHS = st.dictionaries(st.integers(0, 5), st.floats(0.0, 25.0), max_size=4)


@settings(max_examples=100, deadline=None)
@example(292, {0: 0.0, 1: 7.0}, 5.0, 1.0)  # one ends in an epoch, another has results of that and a later one
@given(st.integers(0, 10_000), DEATHS, st.sampled_from([0.05, 1.0, 5.0]), st.sampled_from([1.0, 12.0]))
def test_whoever_dies_and_whoever_proposes_all_survivors_end_in_one_epoch(
    seed: int, deaths: dict[int, float], slow: float, work_s: float
) -> None:
    world = World(6, seed, deaths, slow, work_s)
    world.run()
    survivors = [name for name in world.names if name not in world.dead]
    assert set(survivors) <= set(world.ended)
    assert len({world.ended[name] for name in survivors}) == 1, world.ended
    members = world.lists[world.ended[survivors[0]]]
    assert set(survivors) <= set(members)


def test_two_coordinators_at_once_do_happen_in_these_worlds() -> None:
    def rivals(seed: int) -> bool:
        world = World(6, seed, {0: 0.1, 3: 1.5}, 5.0, 12.0)
        world.run()
        numbers = [mark.number for mark in world.lists]
        return len(numbers) > len(set(numbers))

    assert sum(map(rivals, range(30))) >= 5


def test_the_same_epoch_is_told_in_any_order_with_one_end() -> None:
    rng: Any = random.Random(3)
    marks = [Mark(2, bytes([index])) for index in range(4)] + [Mark(3, b"\0")]
    ends = set()
    for _ in range(50):
        rng.shuffle(marks)
        run = epochs()
        for mark in marks:
            run.hear(mark, MEMBERS, 0.0)
        ends.add(run.mark)
    assert ends == {Mark(3, b"\0")}
