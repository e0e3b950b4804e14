"""FloodSet with early stopping: all who finish hold the same ballots, whoever dies when."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins.voting.lockstep import Death, Lockstep, Member, signed_ballot

from fedd.api import Message


def subsets(of: range) -> list[frozenset[int]]:
    return [frozenset(some) for size in range(len(of) + 1) for some in itertools.combinations(of, size)]


def one_digest(lockstep: Lockstep) -> int:
    """Asserts that all who finished agree; returns the most exchanges that one made."""
    finished = lockstep.run()
    dead = {f"n{death.node}" for death in lockstep.deaths}
    assert set(finished) >= {f"n{index}" for index in range(lockstep.count)} - dead
    assert len({digest for digest, _ in finished.values()}) == 1, finished
    return max(exchanges for _, exchanges in finished.values())


@pytest.mark.parametrize(("count", "exchanges"), [(1, 0), (2, 1), (3, 2), (7, 2), (30, 2)])
def test_two_exchanges_when_nobody_dies(count: int, exchanges: int) -> None:
    assert one_digest(Lockstep(count)) == exchanges


def test_whoever_dies_first_and_whomever_its_last_words_reach() -> None:
    for round, reached, missed in itertools.product(range(5), subsets(range(1, 5)), subsets(range(1, 5))):
        assert one_digest(Lockstep(5, [Death(0, round, reached, missed)])) <= 4


def test_two_deaths_at_any_time_on_four() -> None:
    """Every pair of rounds, and every 17th choice of who hears the last words of either."""
    others = subsets(range(4))
    for first, second in itertools.product(range(4), repeat=2):
        for a, b, missed in itertools.islice(itertools.product(others, others, others[:8]), 0, None, 17):
            one_digest(Lockstep(4, [Death(0, first, a, missed), Death(1, second, b)]))


def test_a_chain_of_deaths_that_pass_a_ballot_on_to_one_each() -> None:
    """The worst case: each of f dying members tells the next one alone, so f + 1 exchanges are needed."""
    chain = [Death(index, index, frozenset({index + 1})) for index in range(5)]
    lockstep = Lockstep(8, chain)
    assert one_digest(lockstep) == 7
    assert set(lockstep.finished) == {"n5", "n6", "n7"}


deaths_of_eight = st.lists(
    st.builds(
        Death,
        st.integers(0, 7),
        st.integers(0, 6),
        st.frozensets(st.integers(0, 7)),
        st.frozensets(st.integers(0, 7)),
    ),
    max_size=6,
    unique_by=lambda death: death.node,
)


@settings(max_examples=100, deadline=None)
@given(deaths_of_eight)
def test_up_to_six_of_eight_die(deaths: list[Death]) -> None:
    one_digest(Lockstep(8, deaths))


edges = st.frozensets(st.frozensets(st.integers(0, 5), min_size=2, max_size=2), max_size=4)


@settings(max_examples=100, deadline=None)
@given(edges)
def test_cut_edges_make_it_longer_not_wrong(cut: frozenset[frozenset[int]]) -> None:
    """With four of fifteen edges cut the graph of six still hangs together."""
    if any(sum(index in edge for edge in cut) > 3 for index in range(6)):
        return
    assert one_digest(Lockstep(6, cut=cut)) == (5 if cut else 2)


class Liar(Member):
    """Number 0 votes twice, in another's name, without a signature and for what is not on the list."""

    def ballots(self, index: int) -> list[Message]:
        if index:
            return super().ballots(index)
        forged = signed_ballot(self.me, "yes")
        forged[0] = "n1"
        return [signed_ballot(self.me, "yes"), signed_ballot(self.me, "no"), forged, "rubbish", None]


def test_two_ballots_of_one_voter_void_both_and_nothing_else() -> None:
    lockstep = Lockstep(4, make=Liar)
    assert one_digest(lockstep) == 2


class Rude(Member):
    """Number 0 sends no message of a vote at all."""

    def exchange(self, message: Message, tag: str) -> object:
        return super().exchange([1, 2, 3] if self.me == "n0" else message, tag)


def test_who_sends_rubbish_loses_its_own_ballot_only() -> None:
    lockstep = Lockstep(4, make=Rude)
    finished = lockstep.run()
    assert len({digest for peer, (digest, _) in finished.items() if peer != "n0"}) == 1
    assert max(exchanges for _, exchanges in finished.values()) == 3
