"""One node of the membership by itself: records, links, refusals, bounds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from core.membership_bench import LAN

from fedd.core.membership import Membership
from fedd.core.membership_types import Changed, Close, Dial, Notice, Persist, PresenceTiming, Send
from fedd.core.presence_messages import Bye, Digest, Hello, Pin, Ping, Pong, Refuse, Rows, Versions, Want
from fedd.core.records import Record, Row


def seal(record: Record) -> Record:
    return replace(record, sealed=f"{record.stamp}".encode())


REGISTRY: dict[tuple[str, bytes], Record] = {}


def open_row(row: Row) -> Record:
    from fedd.api.errors import ProtocolError

    if (row.id, row.sealed) not in REGISTRY:
        raise ProtocolError("forged")
    return REGISTRY[row.id, row.sealed]


def known(record: Record) -> Record:
    sealed = seal(record)
    REGISTRY[sealed.id, sealed.sealed] = sealed
    return sealed


def core(
    peer: str = "m", timing: PresenceTiming = LAN, known: Sequence[Record] = (), **mine: Any
) -> Membership:
    fields: dict[str, Any] = {"epoch": 1, "seq": 0, "addresses": ("/at/m",), **mine}
    return Membership(
        Record(peer, **fields),
        seal=seal,
        open_row=open_row,
        rng=random.Random(1),
        now=0.0,
        timing=timing,
        known=known,
    )


def drive(one: Membership, until: float) -> list[Any]:
    """Call the core whenever it asks for it."""
    actions: list[Any] = []
    while one.next_deadline() <= until:
        actions += one.handle_timeout(one.next_deadline())
    return actions


def test_a_forged_record_is_dropped_and_not_passed_on() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    one.link_up("b", False, 0.0)
    actions = one.receive("a", Rows((Row("x", (1, False, 1), b"forged"),)), 1.0)
    actions += one.handle_timeout(1.1)
    assert "x" not in one.records
    assert one.rows_refused == 1
    sent = [
        row.id
        for a in actions
        if isinstance(a, Send) and isinstance(a.message, Rows)
        for row in a.message.rows
    ]
    assert "x" not in sent


def test_forged_rows_do_not_keep_their_victims_records_out_and_end_the_link() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    one.link_up("b", False, 0.0)
    forged = [Row("x", (9, False, seq), b"forged") for seq in range(200)]
    actions = one.receive("a", Rows(tuple(forged[:32])), 1.0)
    assert one.links == ["a", "b"]
    actions += one.receive("a", Rows(tuple(forged[32:])), 1.0)
    assert Close("a", "refused") in actions
    assert one.links == ["b"]
    assert one.rows_refused == 33
    one.receive("b", Rows((known(Record("x", 1, 1)).row,)), 1.1)
    assert one.records["x"].seq == 1
    one.receive("a", Rows(tuple(forged)), 1.2)
    assert one.rows_refused == 33


def test_news_is_passed_on_at_once_but_not_back() -> None:
    one = core()
    for peer in ("a", "b", "c"):
        one.link_up(peer, False, 0.0)
    one.handle_timeout(0.9)
    record = known(Record("x", 1, 1, neighbours=frozenset("y")))
    actions = one.receive("a", Rows((record.row,)), 1.0)
    assert [a.peer for a in actions if isinstance(a, Send) and a.message == Rows((record.row,))] == ["b", "c"]
    assert one.receive("a", Rows((record.row,)), 1.01) == []


def test_an_owner_that_floods_is_slowed_down() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    for seq in range(1, 200):
        one.receive("a", Rows((known(Record("x", 1, seq)).row,)), 1.0)
    assert one.records["x"].seq == 60
    one.receive("a", Rows((known(Record("x", 1, 300)).row,)), 2.0)
    assert one.records["x"].seq == 300


def test_heartbeats_measure_the_round_trip_for_both_ends() -> None:
    lower, upper = core("a"), core("b")
    lower.link_up("b", False, 0.0)
    upper.link_up("a", False, 0.0)
    (ping,) = (
        a.message for a in lower.handle_timeout(1.0) if isinstance(a, Send) and isinstance(a.message, Ping)
    )
    assert not any(isinstance(a, Send) and isinstance(a.message, Ping) for a in upper.handle_timeout(1.0))
    (pong,) = (a.message for a in upper.receive("a", ping, 1.1) if isinstance(a, Send))
    assert isinstance(pong, Pong)
    lower.receive("b", Pong(pong.number + 1), 1.15)
    assert lower.link_of("b") == (1.15, None)
    lower.receive("b", pong, 1.2)
    assert lower.link_of("b") == (1.2, pytest.approx(0.2))
    (ping,) = (
        a.message for a in lower.handle_timeout(2.0) if isinstance(a, Send) and isinstance(a.message, Ping)
    )
    upper.receive("a", ping, 2.1)
    assert upper.link_of("a") == (2.1, pytest.approx(0.2))


def test_any_byte_is_life_and_lists_a_silent_link_again() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    one.heard("a", 2.0, 2.0)
    drive(one, 4.9)
    assert one.link_of("a") is not None
    drive(one, 5.2)
    assert one.link_of("a") is None
    assert one.links == ["a"]
    assert one.records["m"].lost == {"a": "silent"}
    one.heard("a", 5.3, 5.3)
    drive(one, 5.6)
    assert one.records["m"].neighbours == {"a"}
    assert one.records["m"].lost == {}


def test_what_was_heard_too_long_ago_does_not_list_a_silent_link() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    drive(one, 3.2)
    assert one.link_of("a") is None
    one.heard("a", 0.5, 3.6)
    assert one.link_of("a") is None


def test_a_link_silent_for_long_is_closed() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    actions = drive(one, 21.0)
    assert Close("a", "silent") in actions
    assert one.links == []


def test_bytes_of_strangers_and_their_ends_change_nothing() -> None:
    one = core()
    assert one.receive("x", Ping(1), 0.1) == []
    assert one.heard("x", 0.1, 0.1) == []
    assert one.link_down("x", "closed", 0.1) == []
    assert one.drop_link("x", 0.1) == []


def test_at_the_cap_a_link_is_refused_with_others_to_try_unless_it_is_needed() -> None:
    one = core()
    for index in range(24):
        peer = f"p{index:02d}"
        one.link_up(peer, False, 0.0)
        one.receive(peer, Rows((known(Record(peer, 1, 1, addresses=(f"/at/{peer}",))).row,)), 0.0)
    actions = one.link_up("x", False, 0.5)
    (refusal,) = (a.message for a in actions if isinstance(a, Send) and isinstance(a.message, Refuse))
    assert refusal.rows[0].id == "m"  # which says that it has links enough
    assert {row.id for row in refusal.rows[1:]} <= {f"p{index:02d}" for index in range(24)}
    assert len(refusal.rows) > 1
    assert Close("x", "refused") in actions
    assert "x" not in one.links
    one.link_up("y", True, 0.5)
    assert "y" in one.links
    one.pin("z", ("/at/z",), 0.5)
    one.link_up("z", False, 0.5)
    assert "z" in one.links


def test_a_refused_newcomer_tries_those_it_was_told_of() -> None:
    one = core()
    one.hint("a", ("/at/a",), 0.0)
    one.link_up("a", False, 0.1)
    told = known(Record("x", 1, 1, addresses=("/at/x",)))
    actions = one.receive("a", Refuse((told.row, Row("c", (1, False, 1), b"forged"))), 0.2)
    assert Dial("x", ("/at/x",)) in actions
    assert Close("a", "refused") in actions
    assert one.links == []


def test_shutdown_counts_as_closed_and_is_not_dialled_again() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    one.receive(
        "a", Rows((known(Record("a", 1, 1, addresses=("/at/a",), neighbours=frozenset("m"))).row,)), 0.0
    )
    drive(one, 0.5)
    assert one.state_of("a") == "alive"
    actions = one.receive("a", Bye("shutdown"), 0.6)
    assert not any(isinstance(a, Dial) for a in actions)
    one.handle_timeout(0.7)
    assert one.records["m"].lost == {"a": "closed"}
    assert one.state_of("a") == "suspect"
    changes = [a for now in (1.0, 1.8) for a in one.handle_timeout(now) if isinstance(a, Changed)]
    assert [(c.change.new, c.change.reason) for c in changes] == [("dead", "closed")]
    assert one.since("a")[1] == "closed"


def test_pins_are_told_to_the_other_end() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    assert Send("a", Pin(True)) in one.pin("a", (), 0.1)
    assert Send("a", Pin(False)) in one.unpin("a", 0.2)
    one.receive("a", Pin(True), 0.3)
    assert one.unpin("a", 0.4) == []


def test_records_for_which_there_is_no_room_are_counted() -> None:
    one = core()
    assert one.refused_records == 0
    one._exchange.database.refused += 1
    assert one.refused_records == 1


def test_databases_are_compared_by_hash_then_versions_then_rows() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    old, new = known(Record("x", 1, 1)), known(Record("y", 2, 2))
    one.receive("a", Rows((old.row, new.row)), 0.1)
    assert one.receive("a", Digest(one.digest), 0.8) == []
    (versions,) = (a.message for a in one.receive("a", Digest(bytes(24)), 0.8) if isinstance(a, Send))
    assert isinstance(versions, Versions)
    assert dict(versions.stamps)["x"] == (1, False, 1)
    theirs = Versions("", "", (("x", (1, False, 5)), ("y", (1, False, 1)), ("m", one.records["m"].stamp)))
    sent = [a.message for a in one.receive("a", theirs, 0.9) if isinstance(a, Send)]
    assert Want(("x",)) in sent
    assert Rows((new.row,)) in sent
    answer = [a.message for a in one.receive("a", Want(("y", "unknown")), 1.0) if isinstance(a, Send)]
    assert answer == [Rows((new.row,))]


def test_a_hello_in_the_midst_of_a_link_is_ignored() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    assert [a for a in one.receive("a", Hello("f", b""), 0.1) if not isinstance(a, Send)] == []


def test_old_tombstones_are_forgotten_and_not_resurrected() -> None:
    timing = replace(LAN, tombstone_s=30.0)
    one = core(timing=timing)
    one.link_up("a", False, 0.0)
    gone = known(Record("x", 1, 3, left=True))
    one.receive("a", Rows((gone.row,)), 0.1)
    one.handle_timeout(0.9)
    assert one.members() == ["x"]
    now = 1.0
    while now < 32.0:
        one.heard("a", now, now)
        one.handle_timeout(now)
        now += 0.9
    assert "x" not in one.records
    assert one.members() == []
    assert one.state_of("x") is None
    one.receive("a", Rows((gone.row,)), now)
    assert "x" not in one.records
    one.receive("a", Rows((known(Record("x", 2, 1)).row,)), now)
    assert "x" in one.records


def test_hints_are_bounded_and_their_addresses_kept_current() -> None:
    one = core()
    for index in range(100):
        one.hint(f"p{index}", ("/at/old",), 0.0)
    one.hint("p0", ("/at/new",), 0.0)
    assert one.addresses_of("p0") == ("/at/new",)
    assert one.addresses_of("p63") == ("/at/old",)
    assert one.addresses_of("p64") == ()


def test_members_of_earlier_days_are_suspect_then_dead_then_forgotten() -> None:
    old = [known(Record(peer, 1, 9, addresses=(f"/at/{peer}",), neighbours=frozenset("xy"))) for peer in "xy"]
    one = core(timing=replace(LAN, tombstone_s=30.0), known=old)
    actions = drive(one, 2.0)
    assert [a.change.new for a in actions if isinstance(a, Changed)] == ["suspect", "suspect"]
    assert {a.peer for a in actions if isinstance(a, Dial)} == {"x", "y"}
    assert one.records.keys() == {"m"}
    record = one.record_of("x")
    assert record is not None
    assert record.addresses == ("/at/x",)
    one.link_up("x", False, 2.0)
    one.receive("x", Rows((known(Record("x", 2, 1, neighbours=frozenset("my"))).row,)), 2.1)
    one.heard("x", 2.5, 2.5)
    assert one.state_of("x") == "alive"
    assert one.state_of("y") == "suspect"
    now = 2.5
    while now < 40.0:
        now += 0.9
        one.heard("x", now, now)
        one.handle_timeout(now)
        if now < 10.0:
            assert one.state_of("y") == ("dead" if now > 3.5 else "suspect")
    assert one.members() == ["x"]
    assert one.record_of("y") is None
    assert not one.remembered


def test_a_record_that_its_owner_no_longer_refreshes_loses_its_edges() -> None:
    timing = replace(LAN, refresh_s=10.0)
    one = core(timing=timing)
    one.link_up("a", False, 0.0)
    one.handle_timeout(0.1)
    one.receive("a", Rows((known(Record("a", 1, 1, neighbours=frozenset("m"))).row,)), 0.1)
    seqs = set()
    now = 0.2
    while now < 45.0:
        one.heard("a", now, now)
        one.handle_timeout(now)
        seqs.add(one.records["m"].seq)
        if now < 30.0:
            assert one.state_of("a") == "alive"
        now += 0.5
    assert one.state_of("a") == "dead"
    assert len(seqs) >= 4


def test_a_counter_at_its_end_is_not_outbid() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    actions = one.receive("a", Rows((known(Record("m", 2**32 - 1, 1)).row,)), 0.5)
    assert not any(isinstance(a, Persist | Notice) for a in actions)
    assert one.epoch == 1


def test_after_leaving_nothing_is_dialled_nor_outbid() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    actions = one.leave(0.5)
    sent = [a.message for a in actions if isinstance(a, Send) and a.peer == "a"]
    assert sent[-1] == Bye("left")
    assert any(isinstance(m, Rows) and m.rows[0].stamp == (1, True, 2) for m in sent)
    assert actions.index(Close("a", "left")) > actions.index(Send("a", Bye("left")))
    assert one.state_of("m") == "left"
    one.hint("b", ("/at/b",), 1.0)
    assert not any(isinstance(a, Dial) for a in one.handle_timeout(2.0))


def test_profiles_differ_in_patience_and_traffic() -> None:
    assert PresenceTiming.metered().heartbeat_s == 5 * PresenceTiming.lan().heartbeat_s
    assert PresenceTiming.metered().link_silent_s == 15.0
    assert PresenceTiming.metered().confirm_s == 8.0


def test_a_link_given_up_on_purpose_is_no_loss() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    actions = one.drop_link("a", 0.5)
    assert actions[:2] == [Send("a", Bye("trim")), Close("a", "trim")]
    assert one.links == []
    assert one.records["m"].lost == {}


def test_who_cannot_be_dialled_is_not_dialled_when_its_link_closes() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    assert not any(isinstance(a, Dial) for a in one.link_down("a", "closed", 0.5))
    assert one.records["m"].lost == {"a": "closed"}


def test_a_pause_while_isolated_prolongs_the_hold() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    one.receive("a", Rows((known(Record("a", 1, 1, neighbours=frozenset("m"))).row,)), 0.1)
    drive(one, 5.0)
    assert one.state_of("a") == "suspect"
    one.handle_timeout(105.0)
    assert one.state_of("a") == "suspect"
    drive(one, 112.0)
    assert one.state_of("a") == "suspect"
    drive(one, 120.0)
    assert one.state_of("a") == "dead"
