"""Marks of what changed: three neighbours a second, everybody soon, and each node in an order of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from core.broadcast_world import PEERS

from fedd.core.broadcast_marks import MARKS_S, MarkTeller
from fedd.core.broadcast_messages import Marks
from fedd.core.broadcast_table import OriginTable

ME, NINE, ORIGINS = PEERS[0], PEERS[1:10], PEERS[10:14]
# Each time round takes three seconds for nine. Who is told last may be passed by in the next, which begins in
# the same second, and be the last of the one after.
MOST_TICKS = 6


class Teller:
    """The marks of four origins, and what their teller says second by second."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.table = OriginTable(ME, 1, lambda peer: True, self.now)
        self.marks = MarkTeller(self.table, self.now)
        self.rng = random.Random(seed)
        for name in ORIGINS:
            self.table.other(name, self.now)
            self.table.by_name[name].next = 2

    def change(self, *names: str) -> None:
        for name in names:
            self.table.by_name[name].next += 1
            self.marks.changed(name, self.now)

    def tick(self, links: Iterable[str]) -> dict[str, dict[str, int]]:
        """What each is told: the seq of each origin. One second, in which a moment earlier says nothing."""
        links = dict.fromkeys(links)
        self.now += MARKS_S
        assert self.marks.tell(links, self.rng, self.now - 0.01) == []
        told: dict[str, dict[str, int]] = {}
        for peer, message in self.marks.tell(links, self.rng, self.now):
            assert isinstance(message, Marks)
            assert peer not in told
            told[peer] = {name: seq for name, _, seq in message.entries}
        return told

    def order(self) -> list[str]:
        """In which order nine are told of one change."""
        self.change(ORIGINS[0])
        return [peer for _ in range(3) for peer in self.tick(NINE)]


@pytest.mark.parametrize(("count", "seconds"), [(9, [3, 3, 3]), (10, [4, 4, 2]), (20, [7, 7, 6])])
def test_a_third_and_no_fewer_than_three_are_told_each_second(count: int, seconds: list[int]) -> None:
    one, links = Teller(), PEERS[1 : 1 + count]
    assert one.marks.due is None
    one.change(ORIGINS[0])
    heard: list[str] = []
    for told_now in seconds:
        assert one.marks.due == one.now + MARKS_S
        told = one.tick(links)
        assert len(told) == told_now
        assert all(entries == {ORIGINS[0]: 2} for entries in told.values())
        heard += told
    assert sorted(heard) == sorted(links)
    assert one.marks.due is None
    assert one.tick(links) == {}


@pytest.mark.parametrize("seed", range(5))
def test_everybody_hears_of_each_change_soon_and_once(seed: int) -> None:
    one, dice = Teller(seed), random.Random(seed)
    since: dict[tuple[str, str], int] = {}
    for second in range(200):
        changed = {name for name in ORIGINS if second < 190 and dice.random() < 0.3}
        one.change(*changed)
        for peer in NINE:
            for name in changed:
                since.setdefault((peer, name), second)
        for peer, entries in one.tick(NINE).items():
            assert entries.keys() == {name for other, name in since if other == peer}
            assert entries == {name: one.table.by_name[name].mark[1] for name in entries}
            for name in entries:
                del since[peer, name]
        assert all(second - first < MOST_TICKS - 1 for first in since.values())
        assert (one.marks.due is None) == (not since)
    assert since == {}


def test_for_whom_something_was_thrown_away_is_told_everything_at_once() -> None:
    *others, last = Teller().order()
    one = Teller()
    one.change(ORIGINS[0])
    one.marks.behind(last, one.now)
    told = one.tick(NINE)
    assert told.pop(last) == {ORIGINS[0]: 2} | dict.fromkeys(ORIGINS[1:], 1)
    # it takes nobody's place, and need not be told again
    assert [list(told), list(one.tick(NINE)), list(one.tick(NINE))] == [others[:3], others[3:6], others[6:]]
    assert one.marks.due is None
    one.marks.behind("gone", one.now)
    assert one.tick(NINE) == {}
    assert one.marks.due is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_are_told_all_at_once(count: int) -> None:
    one = Teller()
    for _ in range(4):
        one.change(*ORIGINS)
        assert one.tick(NINE[:count]).keys() == set(NINE[:count])
        assert one.marks.due is None


def test_whose_link_went_is_not_told_and_not_waited_for() -> None:
    one = Teller()
    one.change(ORIGINS[0])
    told = one.tick(NINE)
    left = [peer for peer in NINE if peer not in told]
    gone, stay = left[:3], left[3:]
    one.marks.behind(gone[0], one.now)
    assert one.tick(stay).keys() == set(stay)
    assert one.marks.due is None
    # another link has been greeted with everything
    one.change(ORIGINS[1])
    assert all(entries == {ORIGINS[1]: 2} for entries in one.tick(gone).values())
    one.change(ORIGINS[1])
    assert one.tick([]) == {}
    assert one.marks.due is None


def test_each_node_has_an_order_of_its_own_and_another_each_time_round() -> None:
    one, other = Teller(1), Teller(2)
    orders = [tuple(one.order()), tuple(one.order()), tuple(other.order())]
    assert len(set(orders)) == 3
    assert all(sorted(order) == sorted(NINE) for order in orders)
