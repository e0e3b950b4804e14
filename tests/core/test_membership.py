"""What a federation sees when its members come, die, fall silent, pause, leave and return."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from core.membership_bench import LAN, Bench, federation

from fedd.core.membership import Membership
from fedd.core.membership_types import Changed, Close, Dial, Notice, Persist, PresenceTiming, Send
from fedd.core.presence_messages import Bye, Digest, Hello, Pin, Ping, Pong, Refuse, Rows, Versions, Want
from fedd.core.records import Record, Row


@pytest.mark.parametrize("size", [2, 3, 6, 7, 12, 20])
def test_members_that_come_at_once_find_each_other(size: int) -> None:
    bench = Bench(size)
    names = [f"p{index:02d}" for index in range(size)]
    bench.add(*names, boot="p00")
    bench.run_until(bench.all_alive, 1.0)
    bench.run(10.0)
    degrees = [len(node.core.links) for node in bench.nodes.values()]
    assert min(degrees) >= min(5, size - 1)
    assert max(degrees) <= 24
    if size <= 6:
        assert degrees == [size - 1] * size
    assert len({node.core.digest for node in bench.nodes.values()}) == 1
    assert not bench.changes("dead", "left")


def test_members_that_come_one_after_the_other_find_each_other() -> None:
    bench = Bench(3)
    for index in range(12):
        bench.add(f"p{index:02d}", boot="p00")
        bench.run_until(bench.all_alive, 1.0)
    assert not bench.changes("dead", "suspect")


def test_forty_members_form_although_the_first_refuses_most() -> None:
    bench = Bench(1)
    bench.add(*(f"p{index:02d}" for index in range(40)), boot="p00")
    bench.run_until(bench.all_alive, 5.0)
    bench.run(20.0)
    degrees = [len(node.core.links) for node in bench.nodes.values()]
    assert min(degrees) >= 5
    assert max(degrees) <= 16
    assert not bench.changes("dead")


@pytest.mark.parametrize("size", [2, 5, 9, 20])
def test_a_process_that_ends_is_dead_in_little_more_than_a_second(size: int) -> None:
    bench = federation(size, seed=size)
    victim = f"p{size - 1:02d}"
    bench.kill(victim)
    took_s = bench.run_until(lambda: bench.everybody_says(victim, "dead"), 5.0, step_s=0.01)
    assert 1.0 <= took_s <= 1.4
    bench.run(10.0)
    assert {change.peer_id for _, _, change in bench.changes("dead", "suspect", "left")} == {victim}
    assert {change.reason for _, _, change in bench.changes("dead")} == {"closed"}


@pytest.mark.parametrize("size", [3, 6, 12])
def test_a_member_that_falls_silent_is_dead_in_about_six_seconds(size: int) -> None:
    bench = federation(size, seed=size)
    victim = f"p{size - 1:02d}"
    bench.kill(victim, fin=False)
    took_s = bench.run_until(lambda: bench.everybody_says(victim, "dead"), 8.0, step_s=0.01)
    assert 5.0 <= took_s <= 6.9
    bench.run(30.0)
    assert {change.peer_id for _, _, change in bench.changes("dead", "suspect", "left")} == {victim}
    assert {change.reason for _, _, change in bench.changes("dead")} == {"silent"}


def test_two_that_end_at_once_are_both_found() -> None:
    bench = federation(6)
    bench.kill("p04")
    bench.kill("p05")
    bench.run_until(
        lambda: bench.everybody_says("p04", "dead") and bench.everybody_says("p05", "dead"), 4.5, step_s=0.01
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_pause_of_five_seconds_is_tolerated_and_accuses_nobody(seed: int) -> None:
    bench = federation(5, seed=seed)
    for _ in range(4):
        bench.pause("p02", 5.0)
        bench.run(12.0)
    assert not bench.changes("dead")
    assert bench.all_alive()


def test_a_longer_pause_is_dead_for_the_others_and_then_refuted() -> None:
    bench = federation(5)
    bench.pause("p02", 9.0)
    bench.run_until(
        lambda: all(n.core.state_of("p02") == "dead" for n in bench.living() if n.peer != "p02"), 8.0
    )
    bench.run_until(bench.all_alive, 6.0)
    assert {observer for _, observer, _ in bench.changes("dead")} == {"p00", "p01", "p03", "p04"}
    assert {change.peer_id for _, _, change in bench.changes("dead")} == {"p02"}


def test_everybody_paused_at_once_accuses_nobody() -> None:
    bench = federation(4)
    for peer in list(bench.nodes):
        bench.pause(peer, 30.0 + bench.rng.random() * 0.2)
    bench.run(45.0)
    assert not bench.changes("dead")
    assert bench.all_alive()


def test_a_node_that_wakes_from_a_pause_gives_no_verdict_of_before_it() -> None:
    bench = federation(5)
    bench.pause("p02", 4.5)
    observer = bench.nodes["p00"]
    bench.run_until(lambda: observer.core.state_of("p02") == "suspect", 4.5, step_s=0.01)
    bench.pause("p00", 20.0)
    bench.run(30.0)
    assert not [change for _, change in observer.changes if change.new == "dead"]
    assert bench.all_alive()


def test_leave_is_seen_at_once_by_all_and_ends_the_epoch() -> None:
    bench = federation(7)
    bench.leave("p03")
    took_s = bench.run_until(lambda: bench.everybody_says("p03", "left"), 1.0, step_s=0.01)
    assert took_s <= 0.1
    bench.run(20.0)
    assert not bench.changes("dead", "suspect")
    assert bench.nodes["p03"].core.state_of("p03") == "left"
    bench.restart("p03")
    bench.nodes["p03"].perform(bench.nodes["p03"].core.hint("p00", ("/at/p00",), bench.now))
    bench.run_until(bench.all_alive, 2.0)


def test_a_restarted_member_is_dead_once_and_alive_again_however_quick_it_was() -> None:
    bench = federation(5)
    known = tuple(bench.nodes["p01"].core.records.values())
    bench.kill("p01")
    bench.run(0.1)
    bench.restart("p01", known)
    bench.run_until(bench.all_alive, 2.0)
    bench.run(5.0)
    for node in bench.nodes.values():
        if node.peer != "p01":
            seen = [change.new for _, change in node.changes if change.peer_id == "p01"]
            assert seen.count("dead") == 1
            assert seen[-1] == "alive"
    assert {change.reason for _, _, change in bench.changes("dead")} == {"restarted"}


def test_a_restarted_member_without_memory_is_found_by_the_others() -> None:
    bench = federation(4)
    bench.kill("p01")
    bench.run(3.0)
    bench.restart("p01")
    bench.run_until(bench.all_alive, 13.0)


def test_a_whole_federation_restarts_from_what_it_remembers() -> None:
    bench = federation(8)
    known = {peer: tuple(node.core.records.values()) for peer, node in bench.nodes.items()}
    for peer in bench.nodes:
        bench.kill(peer)
    bench.run(1.0)
    for peer in bench.nodes:
        bench.restart(peer, known[peer])
    bench.run_until(bench.all_alive, 3.0)
    assert not bench.changes("dead")


def test_a_node_whose_state_was_lost_outbids_its_old_self() -> None:
    bench = federation(4)
    node = bench.nodes["p03"]
    bench.kill("p03")
    bench.run(3.0)
    node.epoch = 0
    bench.restart("p03")
    node.perform(node.core.hint("p00", ("/at/p00",), bench.now))
    bench.run_until(bench.all_alive, 3.0)
    assert node.core.epoch == 2
    assert node.epoch == 2


def test_a_partition_is_noticed_and_heals_by_itself() -> None:
    bench = federation(10)
    names = list(bench.nodes)
    sides = names[:4], names[4:]
    for a in sides[0]:
        for b in sides[1]:
            bench.sever(a, b)
    bench.run_until(
        lambda: all(
            bench.nodes[a].core.state_of(b) == bench.nodes[b].core.state_of(a) == "dead"
            for a in sides[0]
            for b in sides[1]
        ),
        12.0,
    )
    side_of = {peer: index for index, side in enumerate(sides) for peer in side}
    assert all(side_of[observer] != side_of[change.peer_id] for _, observer, change in bench.changes("dead"))
    bench.run(45.0)
    for a in sides[0]:
        for b in sides[1]:
            bench.mend(a, b)
    bench.run_until(bench.all_alive, 15.0)


def test_a_node_that_is_cut_off_holds_its_verdicts_and_says_so() -> None:
    bench = federation(4)
    for other in ("p00", "p01", "p02"):
        bench.sever("p03", other)
    bench.run(8.0)
    lonely = bench.nodes["p03"]
    assert set(lonely.states().values()) == {"suspect"}
    assert [kind for _, kind in lonely.notices] == ["isolated"]
    assert bench.everybody_says("p00", "alive") is False
    assert all(bench.nodes[peer].core.state_of("p03") == "dead" for peer in ("p00", "p01", "p02"))
    bench.run(12.0)
    assert set(lonely.states().values()) == {"dead"}
    assert [kind for _, kind in lonely.notices] == ["isolated"]


def test_one_bad_link_between_two_hurts_nobody() -> None:
    bench = federation(5)
    bench.sever("p00", "p01")
    bench.run(60.0)
    assert not bench.changes("dead", "suspect")
    assert "p01" not in bench.nodes["p00"].core.links
    bench.mend("p00", "p01")
    bench.run_until(lambda: "p01" in bench.nodes["p00"].core.links, 30.0)


def test_a_member_that_cannot_be_dialled_dials_others() -> None:
    bench = federation(3)
    bench.add("z", boot="p00", dialable=False)
    bench.run_until(bench.all_alive, 1.0)
    bench.run(2.0)
    assert bench.nodes["z"].core.links == ["p00", "p01", "p02"]


def test_one_key_on_two_machines_is_said_loudly() -> None:
    bench = federation(3)
    node = bench.nodes["p01"]
    for jump in range(4):
        clone = bench.seal(replace(node.core.records["p01"], epoch=node.core.epoch + 5, sealed=b""))
        bench.nodes["p00"].perform(bench.nodes["p00"].core.receive("p02", Rows((clone.row,)), bench.now))
        bench.run(1.0)
        assert bool(node.notices) == (jump == 3)
    assert {kind for _, kind in node.notices} == {"cloned_key"}
    # and it begins again when the minute is over
    epoch = node.core.epoch
    bench.run(90.0)
    assert node.core.epoch > epoch
    assert bench.all_alive()


def test_the_quiet_federation_says_little() -> None:
    bench = federation(6)
    before = bench.messages
    bench.run(60.0)
    links = 15
    per_node_second = (bench.messages - before) / 60 / 6
    assert per_node_second <= 1.1 * 1.5 * 2 * links / 6


def test_pinned_links_are_made_kept_and_let_go() -> None:
    bench = federation(20, seed=4)
    node = bench.nodes["p07"]
    others = [peer for peer in bench.nodes if peer not in ("p07", *node.core.links)]
    assert others
    for peer in others:
        node.perform(node.core.pin(peer, (), bench.now))
        assert node.core.is_pinned(peer)
    bench.run(1.0)
    assert set(others) <= set(node.core.links)
    bench.run(20.0)
    assert set(others) <= set(node.core.links)
    for peer in others:
        node.perform(node.core.unpin(peer, bench.now))
        node.perform(node.core.unpin(peer, bench.now))
    bench.run(20.0)
    assert len(node.core.links) <= 16


def test_a_pinned_link_is_redialled_at_once_when_it_breaks() -> None:
    bench = federation(8)
    node, other = bench.nodes["p00"], bench.nodes["p01"]
    node.perform(node.core.pin("p01", (), bench.now))
    bench.run(0.5)
    link = node.links.get("p01")
    bench.close(other, "p00", "closed")
    other.perform(other.core.link_down("p00", "closed", bench.now))
    bench.run(0.5)
    assert node.links["p01"] != link
    bench.run(1.0)
    assert not bench.changes("dead")


# -- one core by itself


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
