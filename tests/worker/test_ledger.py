"""The average is exact and the stop is safe, whoever dies and whomever its last messages reach."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker.lockstep import Death, Lockstep, complete, irregular, line, name, ring, values

from fedd.api.errors import InvalidMessage
from fedd.worker.ledger import LedgerCore, Window, start_value
from fedd.worker.reading import BadMessage

Shape: TypeAlias = Callable[[int], frozenset[frozenset[int]]]

LOOSE = 2e-3
"""Far below the differences between any two sets' means, and soon reached: more schedules a second."""


@pytest.mark.parametrize(
    ("shape", "count"),
    [(shape, count) for shape in (ring, complete, line) for count in (1, 2, 3, 5, 8)]
    + [(irregular, 5), (irregular, 8)],
)
def test_without_deaths_the_mean_is_exact(shape: Shape, count: int) -> None:
    edges = frozenset() if count == 1 else frozenset({frozenset({0, 1})}) if count == 2 else shape(count)
    run = Lockstep(edges, values(count, 3), 1e-12)
    run.finish()
    run.check(1e-12)
    assert {decided[1].origins for decided in run.decided.values()} == {2**count - 1}


def schedules(run: Lockstep, nodes: range) -> Iterator[tuple[Death, ...]]:
    """Every node in every round of the undisturbed run, its last message to none, one, some, all."""
    undisturbed = run.snapshot()
    undisturbed.finish()
    for node, round in itertools.product(nodes, range(undisturbed.round)):
        near = sorted(run.near[node])
        subsets = {
            frozenset(near[:0]),
            frozenset(near[:1]),
            frozenset(near[::2]),
            frozenset(near),
            frozenset(near[-1:]),
        }
        for reaches in subsets:
            for at_once in (False, True):
                yield (Death(node, round, reaches, at_once),)
        if round:
            yield (Death(node, round, frozenset(near[-1:]), True, frozenset(near[:1])),)


def every_schedule_ends_well(run: Lockstep, nodes: range) -> int:
    """Kill in every way; the rounds before a death are run once only. Returns how many ways."""
    prefix = run.snapshot()
    before: dict[int, Lockstep] = {}
    tried = 0
    for deaths in schedules(run, nodes):
        first = max(0, deaths[0].round - 1)
        if first not in before:
            while prefix.round < first:
                prefix.step()
            before = {first: prefix.snapshot()}
        trial = before[first].snapshot()
        trial.finish(deaths)
        trial.check(LOOSE)
        tried += 1
    return tried


@pytest.mark.parametrize(
    ("shape", "count", "nodes"),
    [
        (ring, 3, range(3)),
        (ring, 4, range(4)),
        (ring, 5, range(5)),
        (line, 4, range(4)),
        (complete, 4, range(4)),
        (complete, 5, range(0, 5, 2)),
        (irregular, 5, range(5)),
        (complete, 7, range(1)),
    ],
)
def test_one_dies_in_every_round_and_way(shape: Shape, count: int, nodes: range) -> None:
    assert every_schedule_ends_well(Lockstep(shape(count), values(count), LOOSE), nodes) > 40


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "count"),
    [(shape, count) for shape in (ring, complete, irregular) for count in range(6, 10)]
    + [(line, 5), (line, 6)],
)
def test_one_dies_in_every_round_and_way_on_larger_graphs(shape: Shape, count: int) -> None:
    every_schedule_ends_well(Lockstep(shape(count), values(count), LOOSE), range(count))


@pytest.mark.parametrize(("shape", "count"), [(ring, 5), (complete, 5), (irregular, 6), (line, 5)])
def test_whoever_gets_the_last_message_dies_next(shape: Shape, count: int) -> None:
    """Chains: the dying node's message reaches one, whose own in the next round reaches one as well."""
    run = Lockstep(shape(count), values(count), LOOSE)
    undisturbed = run.snapshot()
    undisturbed.finish()
    for round in range(undisturbed.round):
        for first in range(count):
            for second in sorted(run.near[first]):
                third = next((n for n in sorted(run.near[second]) if n != first), None)
                reaches = frozenset() if third is None else frozenset({third})
                trial = run.snapshot()
                trial.finish((Death(first, round, frozenset({second})), Death(second, round + 1, reaches)))
                trial.check(LOOSE)
        run.step()


@st.composite
def disasters(draw: st.DrawFn) -> tuple[Lockstep, list[Death]]:
    count = draw(st.integers(3, 8))
    tree = {frozenset({node, draw(st.integers(0, node - 1))}) for node in range(1, count)}
    chords = draw(st.sets(st.sampled_from([frozenset({a, b}) for a in range(count) for b in range(a)])))
    starts = [np.array([draw(st.integers(-100, 100)) + node / 7]) for node in range(count)]
    run = Lockstep(frozenset(tree | chords), starts, LOOSE)
    deaths = []
    for node in draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count - 1)):
        near = sorted(run.near[node])
        subset = st.sets(st.sampled_from(near)).map(frozenset)
        reaches, missed = draw(subset), draw(subset)
        deaths.append(Death(node, draw(st.integers(0, 40)), reaches, draw(st.booleans()), missed - reaches))
    return run, deaths


@settings(max_examples=100, deadline=None)
@given(disasters())
def test_any_number_may_die_on_any_graph(disaster: tuple[Lockstep, list[Death]]) -> None:
    run, deaths = disaster
    run.finish(deaths)
    run.check(LOOSE)


@pytest.mark.parametrize("round", [0, 3, 11, 40, 60])
def test_after_a_death_the_mean_is_as_exact_as_without(round: int) -> None:
    run = Lockstep(ring(5), values(5), 1e-12)
    run.finish([Death(2, round, frozenset({1}))])
    run.check(1e-12)


def test_a_dead_giant_leaves_no_rounding_behind() -> None:
    """Entries of 1e9 would leave 1e-7 of noise among survivors with values about 1."""
    starts = [np.array([value]) for value in (1.0, 2.0, 4.0, 7.0, 1e9)]
    run = Lockstep(ring(5), starts, 1e-12)
    run.finish([Death(4, 6, frozenset({3}))], limit=200)
    assert {decided[1].origins for decided in run.decided.values()} == {0b01111}
    for _, verdict in run.decided.values():
        assert verdict.value[0] == pytest.approx(3.5, abs=1e-11)


def test_a_death_that_parts_the_line_leaves_two_answers() -> None:
    run = Lockstep(line(5), values(5), 1e-12)
    run.finish([Death(2, 9, frozenset({1, 3}))])
    run.check(1e-12)
    assert {decided[1].origins for decided in run.decided.values()} == {0b00011, 0b11000}


# -- one node's books ------------------------------------------------------------------------------


def pair(start: float = 1.0, other: float = 3.0) -> tuple[LedgerCore, LedgerCore]:
    return (
        LedgerCore("a", ["a", "b"], ["b"], np.array([start])),
        LedgerCore("b", ["a", "b"], ["a"], np.array([other])),
    )


def test_an_exchange_books_the_metropolis_transfer_at_both_ends() -> None:
    a, b = pair()
    to_b, to_a = a.messages(["b"])["b"], b.messages(["a"])["a"]
    a.apply({"b": to_a}, ["b"])
    b.apply({"a": to_b}, ["a"])
    assert a.value.tolist() == b.value.tolist() == [2.0]
    a.apply({}, [])
    assert a.value.tolist() == [1.0]


def test_what_went_to_one_who_has_finished_is_not_taken_back() -> None:
    a, b = pair()
    to_b, to_a = a.messages(["b"])["b"], b.messages(["a"])["a"]
    b.apply({"a": to_b}, ["a"])
    a.apply({"b": to_a}, [], {"b"})
    assert a.value.tolist() == b.value.tolist() == [2.0]
    assert a.messages([]) == {}
    assert a.value.tolist() == [2.0]


def test_after_the_last_window_nobody_starts_afresh() -> None:
    for last, value in ((False, 1.0), (True, 2.0)):
        a, b = pair()
        a.begin_agreement()
        b.begin_agreement()
        to_a = b.messages(["a"])["a"]
        a.messages(["b"])
        a.apply({"b": to_a}, ["b"])
        a._known = 0b111  # somebody was there in the window before
        assert a.close_window(0.0, last=last) is not None
        assert (a.value.tolist(), a.is_fresh) == ([value], not last)


def test_an_entry_that_does_not_mirror_mine_is_refused_and_named() -> None:
    a, b = pair()
    message = bytearray(b.messages(["a"])["a"])
    message[-8:] = struct.pack("<d", 0.5)
    a.messages(["b"])
    with pytest.raises(BadMessage, match="it claims transfers") as caught:
        a.apply({"b": bytes(message)}, ["b"])
    assert caught.value.peer == "b"
    assert a.value.tolist() == [1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e306])
def test_a_value_that_is_not_finite_is_refused_and_named(bad: float) -> None:
    a, b = pair()
    message = bytearray(b.messages(["a"])["a"])
    message[-16:-8] = struct.pack("<d", bad)
    a.messages(["b"])
    with pytest.raises(BadMessage, match="it sent a value that is not finite") as caught:
        a.apply({"b": bytes(message)}, ["b"])
    assert caught.value.peer == "b"


def test_another_shape_is_said_with_both_shapes() -> None:
    a = LedgerCore("a", ["a", "b"], ["b"], np.zeros((2, 3)))
    b = LedgerCore("b", ["a", "b"], ["a"], np.zeros(5))
    a.messages(["b"])
    with pytest.raises(InvalidMessage, match=r"it holds a value of shape \(5,\), against \(2, 3\) at a"):
        a.apply({"b": b.messages(["a"])["a"]}, ["b"])


def test_another_step_of_the_ledger_is_said() -> None:
    a, b = pair()
    b.begin_agreement()
    a.messages(["b"])
    with pytest.raises(InvalidMessage, match="another step"):
        a.apply({"b": b.messages(["a"])["a"]}, ["b"])


def test_a_ledger_of_another_run_is_refused() -> None:
    a, _ = pair()
    stranger = LedgerCore("b", ["a", "b", "c"], ["a"], np.array([1.0]))
    a.messages(["b"])
    with pytest.raises(InvalidMessage, match="another run"):
        a.apply({"b": stranger.messages(["a"])["a"]}, ["b"])
    longer = stranger.messages(["a"])["a"] + bytes(8)
    with pytest.raises(InvalidMessage, match="another run"):
        a.apply({"b": longer}, ["b"])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 120), st.booleans())
def test_rubbish_raises_nothing_else(rubbish: bytes, at: int, agreeing: bool) -> None:
    a, b = pair()
    if agreeing:
        a.begin_agreement()
        b.begin_agreement()
    good = b.messages(["a"])["a"]
    a.messages(["b"])
    for message in (rubbish, good[:at] + rubbish, good[:at] + rubbish + good[at + len(rubbish) :]):
        with suppress(InvalidMessage):
            a.apply({"b": message}, ["b"])
        a, _ = pair()
        if agreeing:
            a.begin_agreement()
        a.messages(["b"])


def test_a_window_is_closed_only_if_the_adjacency_is_symmetric_and_complete() -> None:
    zero = np.zeros(1)

    def window(rows: dict[int, int]) -> Window:
        result = Window(3, 0, rows[0], zero, zero)
        for index, row in rows.items():
            result.origins |= 1 << index
            result.adjacency |= row << (3 * index)
        return result

    assert window({0: 0b010, 1: 0b001}).verdict(0.1).agreed
    assert not window({0: 0b010, 1: 0b101}).verdict(0.1).closed  # 2 is not heard
    assert not window({0: 0b010, 1: 0b000}).verdict(0.1).closed  # 1 does not know 0
    assert not window({0: 0b000, 1: 0b001}).verdict(0.1).closed  # 0 does not know 1
    assert window({0: 0b000}).verdict(0.1).agreed


def test_spread_counts_against_the_largest_magnitude_of_its_own_element() -> None:
    window = Window(1, 0, 0, np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    window.highest = np.array([1.0 + 1e-7, 0.0])
    assert window.residual == pytest.approx(1e-7)
    assert window.verdict(2e-7).agreed
    assert not window.verdict(5e-8).agreed
    window.highest = np.array([1.0, 1e-300])
    assert window.residual == float("inf")
    assert not window.verdict(1.0).agreed


@pytest.mark.parametrize("bad", ["text", None, [1, [2]], [float("nan")], [float("inf")], 1e301, [1 + 2j]])
def test_what_a_ledger_cannot_start_from(bad: object) -> None:
    with pytest.raises(InvalidMessage):
        start_value(bad)


def test_a_start_value_is_a_copy_without_negative_zero() -> None:
    mine = np.array([[-0.0, 2.0]])
    start = start_value(mine)
    mine[0, 1] = 5.0
    assert start.tolist() == [[0.0, 2.0]]
    assert not np.signbit(start).any()
    assert start_value([1, True]).dtype == np.float64


def test_names_sort_like_indices() -> None:
    assert sorted(map(name, range(20))) == list(map(name, range(20)))
