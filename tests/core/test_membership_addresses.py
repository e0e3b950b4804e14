"""Members whose addresses change: they say so, and are found where they are now."""

from __future__ import annotations

import random

import pytest
from core.membership_bench import LAN, federation

from fedd.api.errors import Denied
from fedd.core.membership import Membership
from fedd.core.membership_types import Action, Dial
from fedd.core.overlay import CAP, CAP_DIALABLE, HINT_ATTEMPTS
from fedd.core.records import Record, Row


def refuse(row: Row) -> Record:
    raise Denied("nobody is known here")


def alone(*addresses: str) -> Membership:
    """A member that has just come, and knows nobody."""
    return Membership(
        Record("m", 1, 0, addresses=addresses),
        seal=lambda record: record,
        open_row=refuse,
        rng=random.Random(1),
        now=0.0,
        timing=LAN,
    )


def drive(one: Membership, until: float) -> list[Action]:
    actions: list[Action] = []
    while one.next_deadline() <= until:
        actions += one.handle_timeout(one.next_deadline())
    return actions


def dials(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, Dial)]


def test_new_addresses_are_published_once_and_known_to_all() -> None:
    bench = federation(4)
    node = bench.nodes["p01"]
    before = node.core.records["p01"]
    node.perform(node.core.set_addresses(("/at/elsewhere",), bench.now))
    bench.run_until(
        lambda: all(n.core.records["p01"].addresses == ("/at/elsewhere",) for n in bench.living()), 2.0
    )
    node.perform(node.core.set_addresses(("/at/elsewhere",), bench.now))
    bench.run(5.0)
    after = node.core.records["p01"]
    assert (after.epoch, after.seq) == (before.epoch, before.seq + 1)
    assert not bench.changes("suspect", "dead")


def test_who_gets_an_address_can_be_dialled_and_carries_more_links() -> None:
    one = alone()
    assert one._overlay.cap == CAP
    one.set_addresses(("/at/m",), 1.0)
    assert one._overlay.cap == CAP_DIALABLE
    one.set_addresses((), 2.0)
    assert one._overlay.cap == CAP
    drive(one, 5.0)
    assert one.records["m"].addresses == ()


def test_addresses_learnt_while_dialling_are_dialled_beside_the_others() -> None:
    one = alone("/at/m")
    assert dials(one.hint("a", ("/at/old",), 0.0)) == [Dial("a", ("/at/old",))]
    assert dials(drive(one, 0.1)) == []
    assert dials(one.hint("a", ("/at/old",), 0.2)) == []
    assert dials(one.hint("a", ("/at/new",), 0.2)) == [Dial("a", ("/at/new",))]
    assert dials(one.hint("a", ("/at/new",), 0.3)) == []
    one.link_up("a", False, 0.4)
    assert dials(drive(one, 5.0)) == []


def test_failures_elsewhere_do_not_delay_the_first_dial_of_a_new_address() -> None:
    one = alone("/at/m")
    told = one.hint("a", ("/at/old",), 0.0)
    now, failures = 0.0, 0
    while now < 30.0:
        if dials(told):
            one.dial_failed("a", now)
            failures += 1
        now = one.next_deadline()
        told = one.handle_timeout(now)
    assert 4 <= failures <= 8
    one.dial_failed("a", now)
    assert dials(drive(one, now + 1.0)) == []
    assert dials(one.hint("a", ("/at/new",), now + 1.0)) == [Dial("a", ("/at/new",))]


@pytest.mark.parametrize("again", [("/at/old",), ("/at/new",)])
def test_a_hint_that_fails_among_others_is_left_to_healing_until_it_changes(again: tuple[str, ...]) -> None:
    one = alone("/at/m")
    one.link_up("b", False, 0.0)
    told = one.hint("a", ("/at/old",), 0.0)
    now, tried = 0.0, 0
    while tried < HINT_ATTEMPTS:
        if dials(told):
            one.dial_failed("a", now)
            tried += 1
        now = one.next_deadline()
        assert now < 20.0
        told = one.heard("b", now, now) + one.handle_timeout(now)
    told = one.hint("a", again, now + 20.0)
    assert bool(dials(told)) == (again == ("/at/new",))
