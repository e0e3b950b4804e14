"""What membership does at its bounds, after a suspend, with a cloned key, and where bytes cost money."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from core.membership_bench import LAN, Bench, federation
from core.test_membership_core import REGISTRY, core, drive, known

from fedd.core import database, membership_parts
from fedd.core.database import MAX_RECORDS, OWNER_BURST, Database
from fedd.core.membership_types import Changed, Dial, Notice, PresenceTiming, Send
from fedd.core.overlay import CALM_DIAL_S, CANDIDATES, HASTY_DEGREE, MIN_DEGREE, Overlay
from fedd.core.presence_messages import Digest, Ping, Refuse, Rows, Versions
from fedd.core.records import MAX_SEALED_BYTES, Record
from fedd.core.verdicts import Verdicts

METERED = PresenceTiming.metered()


def sent(actions: list[Any], kind: type) -> list[Any]:
    return [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, kind)]


# -- suspend


def test_after_a_suspend_all_are_pinged_and_told_and_nobody_is_accused() -> None:
    one = core("a")
    one.link_up("b", False, 0.0)
    gone = known(Record("x", 1, 1, neighbours=frozenset("b")))
    one.receive("b", Rows((gone.row,)), 0.1)
    actions = drive(one, 3.0)
    assert one.state_of("x") == "suspect"
    before = one.records["a"].seq
    # 0.1 s before x would be dead the machine sleeps for an hour, which this clock does not show
    actions = one.woke(3600.0, 3.0)
    assert sent(actions, Ping)
    assert one.records["a"].seq == before + 1
    one.heard("b", 3.1, 3.1)
    one.heard("b", 5.0, 5.0)
    drive(one, 5.9)
    assert one.state_of("x") == "suspect"
    one.heard("b", 6.0, 6.0)
    drive(one, 6.4)
    assert one.state_of("x") == "dead"


def test_no_suspend_changes_nothing() -> None:
    one = core("a")
    one.link_up("b", False, 0.0)
    before = one.records["a"].seq
    assert one.woke(0.001, 0.01) == []
    assert one.records["a"].seq == before


@pytest.mark.parametrize(("gap_s", "expected"), [(0.5, 1.5), (2.0, 1.9), (60.0, 3.9)])
def test_a_closed_connection_counts_unless_the_gap_was_long(gap_s: float, expected: float) -> None:
    """x was closed by its only neighbour at 0; 0.9 s later this process stands still."""
    verdicts = Verdicts("m", confirm_s=3.0, confirm_closed_s=1.0, isolated_hold_s=15.0)
    records = {
        "x": Record("x", 1, 1, neighbours=frozenset("w")),
        "w": Record("w", 1, 1, lost={"x": "closed"}),
    }
    verdicts.judge(["x"], records, {"m", "w"}, 0.0)
    verdicts.woke(gap_s, 0.9)
    assert not [c for c in verdicts.expire(expected - 0.01) if c.new == "dead"]
    assert [c.reason for c in verdicts.expire(expected + 0.01) if c.new == "dead"] == ["closed"]


# -- one key on two machines


def test_a_cloned_key_is_said_loudly_and_backs_off() -> None:
    one = core("m", epoch=5)
    one.link_up("a", False, 0.0)
    told = []
    for jump in range(8):
        actions = one.receive("a", Rows((known(Record("m", one.epoch + 1, 1)).row,)), 1.0 + jump)
        told += [action.kind for action in actions if isinstance(action, Notice)]
    # three jumps, each one above what the other machine has, and no more within the minute
    assert one.epoch == 5 + 3 * 2
    assert told == ["cloned_key"] * 5
    one.receive("a", Rows((known(Record("m", one.epoch + 1, 1)).row,)), 70.0)
    assert one.epoch == 5 + 4 * 2


# -- bounds


def test_an_owner_that_raises_its_epoch_all_the_time_is_slowed_down() -> None:
    one = core()
    one.link_up("a", False, 0.0)
    for epoch in range(1, 200):
        one.receive("a", Rows((known(Record("x", epoch, 1)).row,)), 1.0)
    assert one.records["x"].epoch <= OWNER_BURST / 4 + 1
    restarted = one.records["x"].epoch
    one.receive("a", Rows((known(Record("x", restarted + 1, 1)).row,)), 3.0)
    assert one.records["x"].epoch == restarted + 1


def test_the_longest_gone_make_room_for_newcomers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership_parts, "MAX_RECORDS", 20)
    monkeypatch.setattr(membership_parts, "SPARE_RECORDS", 4)
    one = core()
    one.link_up("a", False, 0.0)
    names = [f"p{index:02d}" for index in range(19)]
    for index, name in enumerate(names):
        at = 0.1 + index / 100
        one.receive("a", Rows((known(Record(name, 1, 1, left=True)).row,)), at)
        one.handle_timeout(at)
    drive(one, 1.5)
    assert one.records.keys() == {"m", *names[4:]}


def test_tombstones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership_parts, "MAX_TOMBSTONES", 5)
    one = core()
    one.link_up("a", False, 0.0)
    for index in range(12):
        at = 0.1 + index / 100
        one.receive("a", Rows((known(Record(f"p{index:02d}", 1, 1, left=True)).row,)), at)
        one.handle_timeout(at)
    drive(one, 1.5)
    assert one.members() == [f"p{index:02d}" for index in range(7, 12)]


def test_a_newcomer_without_room_is_counted_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = core()
    one.link_up("a", False, 0.0)
    monkeypatch.setattr(database, "MAX_RECORDS", 1)
    one.receive("a", Rows((known(Record("x", 1, 1)).row,)), 0.1)
    assert "x" not in one.records
    assert one.refused_records == 1


def test_records_expire_in_the_order_in_which_they_came_but_never_ones_own() -> None:
    held = Database("m")
    assert not held.expire(1.0)
    for at, peer in enumerate(("m", "x", "y")):
        held.merge(Record(peer, 1, 1, neighbours=frozenset("mxy") - {peer}), float(at))
    assert held.edges.adjacent("m") == {"x", "y"}
    assert not held.expire(0.5)
    assert held.expire(1.5)
    assert held.edges.adjacent("m") == {"y"}
    assert held.expire(2.5)
    assert not held.expire(9.0)
    assert MAX_RECORDS == 4096


def test_many_large_records_travel_in_several_frames() -> None:
    one = core()
    for peer in ("a", "b"):
        one.link_up(peer, False, 0.0)
    drive(one, 0.5)
    rows = []
    for index in range(4):
        record = known(Record(f"x{index}", 1, 1, neighbours=frozenset("y")))
        large = replace(record, sealed=record.sealed.ljust(MAX_SEALED_BYTES - 4000, b"."))
        REGISTRY[large.id, large.sealed] = large
        rows.append(large.row)
    actions = one.receive("a", Rows(tuple(rows)), 1.0)
    frames = [a.message.rows for a in actions if isinstance(a, Send) and isinstance(a.message, Rows)]
    assert [row for frame in frames for row in frame] == rows
    assert len(frames) == 4


# -- comparing databases


def test_a_digest_that_differs_while_news_comes_is_not_compared_with_the_connected() -> None:
    one = core()
    for peer in ("a", "b"):
        one.link_up(peer, False, 0.0)
    drive(one, 0.8)
    one.receive("a", Rows((known(Record("a", 1, 1, neighbours=frozenset("mb"))).row,)), 0.9)
    one.receive("b", Rows((known(Record("b", 1, 1, neighbours=frozenset("ma"))).row,)), 0.9)
    drive(one, 1.5)
    assert one.state_of("a") == "alive"
    assert not sent(one.receive("a", Digest(bytes(24)), 1.6), Versions)
    assert sent(one.receive("a", Digest(bytes(24)), 2.6), Versions)


def test_who_was_silent_for_long_is_compared_with_when_it_is_heard_again() -> None:
    one = core("a")
    one.link_up("b", False, 0.0)
    one.receive("b", Rows((known(Record("b", 1, 1, neighbours=frozenset("a"))).row,)), 0.1)
    drive(one, 6.5)
    assert one.link_of("b") is None
    assert not [a for a in drive(one, 7.5) if isinstance(a, Send) and isinstance(a.message, Rows)]
    assert sent(one.heard("b", 8.0, 8.0) + drive(one, 8.2), Versions)


# -- the overlay of many


def overlay_of(count: int, neighbours: int) -> tuple[Overlay, dict[str, Record]]:
    overlay = Overlay("m", True, random.Random(1))
    listed = frozenset(f"n{index}" for index in range(neighbours))
    records = {
        f"p{index}": Record(f"p{index}", 1, 1, addresses=("/a",), neighbours=listed) for index in range(count)
    }
    for record in records.values():
        overlay.learn(record)
    return overlay, records


def test_of_many_members_some_are_looked_at_and_too_few_are_looked_for_again() -> None:
    overlay, records = overlay_of(4 * CANDIDATES, 24)
    assert overlay.wanted(records, lambda peer: "alive", {"l": True}, 10.0) == ({}, 10.5)
    overlay, records = overlay_of(4 * CANDIDATES, 7)
    chosen, _ = overlay.wanted(records, lambda peer: "alive", {"l": True}, 10.0)
    assert len(chosen) == HASTY_DEGREE - 1
    overlay, records = overlay_of(CANDIDATES, 24)
    assert overlay.wanted(records, lambda peer: "alive", {"l": True}, 10.0) == ({}, None)


def test_after_the_first_few_links_are_looked_for_one_at_a_time() -> None:
    overlay, records = overlay_of(30, 7)
    links: dict[str, bool] = {}
    now, dialled, calm = 10.0, [], MIN_DEGREE - HASTY_DEGREE
    for _ in range(20):
        if len(links) >= MIN_DEGREE:
            break
        chosen, again = overlay.wanted(records, lambda peer: "alive", links, now)
        dialled.append(len(chosen))
        assert overlay.wanted(records, lambda peer: "alive", links, now)[0] == {}
        for peer in chosen:
            overlay.linked(peer)
            links[peer] = True
        now = again if again is not None else now + 0.01
    assert [number for number in dialled if number] == [HASTY_DEGREE, *[1] * calm]
    assert CALM_DIAL_S / 2 < now - 10.0 < (calm + 1) * CALM_DIAL_S
    assert overlay.wanted(records, lambda peer: "alive", links, now) == ({}, None)


def test_with_all_links_silent_twice_as_many_are_dialled() -> None:
    overlay, records = overlay_of(30, 7)
    assert len(overlay.wanted(records, lambda peer: "alive", {"l": False}, 10.0)[0]) == 10


def test_who_is_no_longer_dialable_is_no_candidate() -> None:
    overlay, records = overlay_of(3, 7)
    overlay.learn(replace(records["p0"], addresses=()))
    overlay.forget("p1")
    overlay.forget("p1")
    assert [r.id for r in overlay.others(records, lambda peer: "alive", (), 9)] == ["p2"]
    overlay.learn(Record("m", 1, 1, addresses=("/a",)))
    assert overlay.healing(records, lambda peer: "dead", ["p2"]) is None
    assert overlay.healing(records, lambda peer: "dead", []) == "p2"


def test_refusals_tell_of_at_most_32_who_are_alive() -> None:
    bench = federation(40, settle_s=30.0)
    node = max(bench.living(), key=lambda n: len(n.core.links))
    for index in range(24):
        node.core.link_up(f"q{index}", False, bench.now)
    (refusal,) = sent(node.core.link_up("late", False, bench.now), Refuse)
    assert 16 <= len(refusal.rows) <= 32
    assert all(node.core.state_of(row.id) == "alive" for row in refusal.rows)


# -- where bytes cost money


def metered(size: int) -> Bench:
    return federation(size, timing=METERED, settle_s=20.0)


def test_metered_members_say_a_fifth_as_much() -> None:
    per_link = []
    for bench in (metered(6), federation(6, settle_s=20.0)):
        before = bench.messages
        bench.run(100.0)
        per_link.append((bench.messages - before) / 100 / 15)
    assert per_link[0] <= 1.1 * 1.5 * 2 / 5 + 0.1
    assert per_link[0] <= per_link[1] / 3


def test_metered_members_find_a_process_that_ended_as_quickly() -> None:
    bench = metered(5)
    bench.kill("p03")
    took_s = bench.run_until(lambda: bench.everybody_says("p03", "dead"), 3.0, step_s=0.01)
    assert took_s <= 1.4


def test_metered_members_have_patience_with_the_silent() -> None:
    bench = metered(5)
    bench.pause("p02", 20.0)
    bench.run(40.0)
    assert not bench.changes("dead")
    bench.kill("p03", fin=False)
    took_s = bench.run_until(lambda: bench.everybody_says("p03", "dead"), 26.0, step_s=0.05)
    assert took_s >= METERED.link_silent_s + METERED.confirm_s - METERED.heartbeat_s
    bench.run(60.0)
    assert {change.peer_id for _, _, change in bench.changes("dead")} == {"p03"}


def test_a_metered_federation_heals() -> None:
    bench = metered(6)
    names = list(bench.nodes)
    for a in names[:3]:
        for b in names[3:]:
            bench.sever(a, b)
    bench.run_until(lambda: bench.nodes["p00"].core.state_of("p05") == "dead", 30.0)
    bench.run(60.0)
    for a in names[:3]:
        for b in names[3:]:
            bench.mend(a, b)
    bench.run_until(bench.all_alive, 30.0)


def test_an_observer_is_told_of_changes_only() -> None:
    bench = federation(4)
    node = bench.nodes["p00"]
    assert not [a for a in drive(node.core, bench.now + 0.5) if isinstance(a, Changed | Dial)]
    assert LAN.heartbeat_s == 1.0


def test_a_pinned_peer_that_cannot_be_dialled_is_tried_with_patience() -> None:
    overlay = Overlay("m", True, random.Random(1))
    overlay.pin("x", ("/a",))
    pauses = []
    for _ in range(30):
        overlay.failed("x", 100.0)
        _, again = overlay.wanted({}, lambda peer: None, {"l": True}, 100.0)
        assert again is not None
        pauses.append(again - 100.0)
    assert pauses[0] < 0.3
    assert pauses[-1] > 3.0


def test_silent_links_keep_nobody_out_and_are_bounded_all_the_same() -> None:
    one = core()
    for index in range(24):
        one.link_up(f"p{index:02d}", False, 0.0)
    drive(one, 5.0)
    assert len(one.links) == 24
    for index in range(24):
        one.link_up(f"q{index:02d}", False, 5.0)
    assert len(one.links) == 48
    drive(one, 10.0)
    assert sent(one.link_up("late", False, 10.0), Refuse)
    assert "late" not in one.links


def test_who_hears_somebody_again_gives_time_to_be_told_about_the_others() -> None:
    verdicts = Verdicts("m", confirm_s=3.0, confirm_closed_s=1.0, isolated_hold_s=15.0)
    records = {
        "x": Record("x", 1, 1, neighbours=frozenset("m")),
        "y": Record("y", 1, 1, neighbours=frozenset("w")),
        "w": Record("w", 1, 1, lost={"y": "closed"}),
    }
    verdicts.judge(["x", "y"], records, {"m", "w"}, 0.0)
    verdicts.set_isolated(True, 0.5)
    assert [(c.peer_id, c.new) for c in verdicts.expire(5.0)][-1] == ("y", "dead")
    verdicts.set_isolated(False, 5.0)
    assert not verdicts.expire(5.9)
    assert [(c.peer_id, c.new) for c in verdicts.expire(6.0)] == [("x", "dead")]


def test_that_a_connection_was_closed_counts_at_once_though_somebody_is_heard_again() -> None:
    verdicts = Verdicts("m", confirm_s=3.0, confirm_closed_s=1.0, isolated_hold_s=15.0)
    records = {
        "y": Record("y", 1, 1, neighbours=frozenset("w")),
        "w": Record("w", 1, 1, lost={"y": "closed"}),
    }
    verdicts.judge(["y"], records, {"m", "w"}, 0.0)
    verdicts.set_isolated(True, 0.5)
    verdicts.set_isolated(False, 0.6)
    assert [(c.peer_id, c.new, c.reason) for c in verdicts.expire(1.0)][-1] == ("y", "dead", "closed")
