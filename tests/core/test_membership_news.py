"""What a member tells of its links, when, and what is not worth a version that travels everywhere."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from core.membership_bench import LAN, Bench, federation
from core.test_membership_core import core, drive, known

from fedd.core.deadlines import NEVER
from fedd.core.membership import Membership
from fedd.core.membership_types import Dial, Send
from fedd.core.overlay import CAP_DIALABLE, SHED_ABOVE_DIALABLE, Overlay
from fedd.core.own_record import SPARE_EDGE_S, TOLD_BY_PEER_S
from fedd.core.presence_messages import Bye, Digest, Ping, Pong, Refuse, Rows, Versions
from fedd.core.records import Record
from fedd.core.verdicts import Verdicts


def told(one: Membership, peer: str, seq: int, now: float, *neighbours: str, **fields: Any) -> list[Any]:
    """What `one` does when `peer` says by its link that it has these neighbours."""
    record = known(Record(peer, 1, seq, neighbours=frozenset(neighbours), **fields))
    return one.receive(peer, Rows((record.row,)), now)


def linked_with_all(*peers: str) -> Membership:
    """A member whose links with `peers` are edges, of which it has told."""
    one = core()
    for peer in peers:
        one.link_up(peer, False, 0.0)
        told(one, peer, 1, 0.0, "m")
    drive(one, 0.9)
    assert one.records["m"].neighbours == set(peers)
    return one


def test_a_link_between_the_connected_is_told_late_and_with_others() -> None:
    one = linked_with_all("a")
    told(one, "a", 2, 1.0, "m", "b", "c")
    for peer in ("b", "c"):
        one.receive("a", Rows((known(Record(peer, 1, 1, neighbours=frozenset("a"))).row,)), 1.0)
    drive(one, 2.0)
    assert one.state_of("b") == "alive"
    seq = one.records["m"].seq
    for at, peer in ((2.0, "b"), (2.2, "c")):
        one.link_up(peer, False, at)
        one.receive("a", Rows((one.records["a"].row,)), at)
    for at in (2.1, 2.3, 2.45):
        one.heard("a", at, at)
        one.handle_timeout(at)
    assert one.records["m"].seq == seq
    drive(one, 2.0 + SPARE_EDGE_S + 0.01)
    assert one.records["m"].seq == seq + 1
    assert one.records["m"].neighbours == {"a", "b", "c"}


def test_a_link_with_somebody_out_of_reach_is_told_at_once() -> None:
    one = linked_with_all("a")
    one.link_up("x", False, 2.0)
    drive(one, 2.3)
    assert "x" in one.records["m"].neighbours


def test_a_suspicion_lets_nobody_wait_for_a_link_to_be_told() -> None:
    one = linked_with_all("a", "b")
    told(one, "a", 2, 1.0, "m", "x")
    one.receive("a", Rows((known(Record("x", 1, 1, neighbours=frozenset("a"))).row,)), 1.0)
    drive(one, 1.9)
    assert one.state_of("x") == "alive"
    one.link_up("x", False, 2.0)
    drive(one, 2.1)
    assert "x" not in one.records["m"].neighbours
    told(one, "a", 3, 2.2, "m")
    drive(one, 2.4)
    assert one.state_of("x") == "suspect"
    assert "x" in one.records["m"].neighbours


def test_of_a_newcomer_with_several_links_only_one_is_urgent() -> None:
    one = linked_with_all("a")
    one.link_up("x", False, 2.0)
    told(one, "x", 1, 2.0, "a", "m")
    drive(one, 2.0 + SPARE_EDGE_S - 0.1)
    assert "x" not in one.records["m"].neighbours
    drive(one, 2.0 + SPARE_EDGE_S + 0.1)
    assert "x" in one.records["m"].neighbours


def test_of_those_who_could_tell_of_a_newcomer_the_lowest_id_does() -> None:
    """Its first links come together: who is listed with others must not take it for told of by them."""
    one = linked_with_all("z")
    one.link_up("x", False, 2.0)
    told(one, "x", 1, 2.0, "m", "z")
    drive(one, 2.0 + LAN.addition_calm_s)
    assert "x" in one.records["m"].neighbours


def test_a_link_that_was_put_off_is_told_when_somebody_comes_to_depend_on_it() -> None:
    one = linked_with_all("z")
    one.link_up("x", False, 2.0)
    told(one, "x", 1, 2.0, "z")  # which tells of it: that x has a link with m it has not heard of yet
    drive(one, 2.15)
    assert "x" not in one.records["m"].neighbours
    told(one, "x", 2, 2.15, "m", "z")
    drive(one, 2.15 + LAN.judge_s + 0.05)
    assert "x" in one.records["m"].neighbours


def test_whom_a_refusal_names_is_dialled_at_once_but_not_who_gave_a_link_up() -> None:
    overlay = Overlay("m", True, random.Random(1))
    records = {name: Record(name, 1, 1, addresses=(f"/at/{name}",)) for name in "abcd"}
    for name, record in records.items():
        overlay.learn(record)
        overlay.met(name, 1.0)  # the lower id dials first
    overlay.trimmed("b", 1.0)
    for name in "abc":
        overlay.recommend(name, (f"/at/{name}", "/at/home"), 1.0)
    overlay.failed("c", 1.0)
    assert overlay.wanted(records, lambda peer: "alive", {}, 1.0)[0] == {"a": ("/at/a", "/at/home")}


def test_a_newcomer_tells_of_its_first_link_and_then_of_all() -> None:
    one = core()
    for at, peer in ((0.0, "a"), (0.1, "b"), (0.2, "c")):
        one.link_up(peer, False, at)
        drive(one, at + 0.05)
    drive(one, 0.5)
    assert one.records["m"].neighbours == {"a"}
    drive(one, 0.7)
    assert one.records["m"].neighbours == {"a", "b", "c"}


def test_a_newcomer_that_lists_nobody_is_not_passed_on_but_the_goodbye_of_one_is() -> None:
    one = linked_with_all("a", "b")
    for number, (record, passed_on) in enumerate(
        (
            (Record("x", 1, 1), False),
            (Record("x", 1, 2, neighbours=frozenset("a")), True),
            (Record("x", 1, 3), True),
            (Record("y", 1, 1, left=True), True),
        )
    ):
        row = known(record).row
        now = 1.0 + number / 10
        actions = [*one.receive("a", Rows((row,)), now), *one.handle_timeout(now + 0.05)]
        assert (Send("b", Rows((row,))) in actions) is passed_on
        assert one.records[record.id].stamp == record.stamp


@pytest.mark.parametrize("goodbye", [Bye("trim"), Refuse(())])
def test_one_end_tells_of_a_link_that_was_given_up(goodbye: Bye | Refuse) -> None:
    one = linked_with_all("a", "b")
    seq = one.records["m"].seq
    one.receive("b", goodbye, 2.0)
    told(one, "a", 2, 2.0, "m")
    one.receive("a", Rows((known(Record("b", 1, 2)).row,)), 2.1)
    for at in (2.5, 3.5, 2.0 + TOLD_BY_PEER_S + 0.1):
        one.heard("a", at, at)
        one.handle_timeout(at)
    assert one.records["m"].seq == seq
    assert one.edges.adjacent("m") == {"a"}


def test_the_other_end_tells_too_when_the_first_does_not() -> None:
    one = linked_with_all("a", "b")
    one.receive("b", Bye("trim"), 2.0)
    for at in (2.5, 3.5):
        one.heard("a", at, at)
        one.handle_timeout(at)
    assert one.records["m"].neighbours == {"a", "b"}
    one.handle_timeout(2.0 + TOLD_BY_PEER_S + 0.01)
    assert one.records["m"].neighbours == {"a"}


def test_links_that_fall_silent_one_after_the_other_are_told_together() -> None:
    one = linked_with_all("a", "b", "c", "d")
    for at, peer in ((1.05, "a"), (1.1, "b"), (1.15, "c"), (1.2, "d")):
        one.heard(peer, at, at)
    seq = one.records["m"].seq
    drive(one, 1.05 + LAN.link_silent_s + 0.01)
    assert one.records["m"].seq == seq + 1
    assert one.records["m"].lost == {"a": "silent"}
    drive(one, 1.05 + LAN.link_silent_s + LAN.silence_gap_s + 0.02)
    assert one.records["m"].seq == seq + 2
    assert one.records["m"].lost == dict.fromkeys("abcd", "silent")


def test_what_is_too_much_is_given_up_at_once_and_told_in_one_version() -> None:
    names = [f"p{index:02d}" for index in range(SHED_ABOVE_DIALABLE + 5)]
    one = linked_with_all(*names)
    for name in names:
        others = [f"{name}-{number}" for number in range(6)]
        for other in others:
            row = known(Record(other, 1, 1, neighbours=frozenset({name}))).row
            one.receive(name, Rows((row,)), 1.0)
        told(one, name, 2, 1.0, "m", *others)
    seq = one.records["m"].seq
    drive(one, 1.9)
    assert len(one.links) == SHED_ABOVE_DIALABLE
    assert one.records["m"].seq == seq + 1


def test_silent_links_are_not_too_many() -> None:
    overlay = Overlay("m", True, random.Random(1))
    names = [f"p{index:02d}" for index in range(SHED_ABOVE_DIALABLE + 2)]
    heard = {name: name < "p05" for name in names}
    assert overlay.shed(lambda peer: 9, heard, [], 5.0) == ([], None)
    assert overlay.shed(lambda peer: 9, dict.fromkeys(names, True), names[-1:], 5.0)[0] == ["p16", "p15"]


def test_a_suspect_is_dead_sooner_when_its_last_neighbour_says_that_it_closed() -> None:
    one = linked_with_all("a")
    told(one, "a", 2, 1.0, "m", "x")
    one.receive("a", Rows((known(Record("x", 1, 1, neighbours=frozenset("a"))).row,)), 1.0)
    drive(one, 1.9)
    told(one, "a", 3, 2.0, "m", lost={"x": "silent"})
    drive(one, 2.5)
    assert one.state_of("x") == "suspect"
    told(one, "a", 4, 2.5, "m", lost={"x": "closed"})
    drive(one, 3.3)
    assert one.state_of("x") == "dead"
    assert one.since("x")[1] == "closed"


def test_who_says_later_that_it_can_be_dialled_is_dialled() -> None:
    one = linked_with_all("a")
    told(one, "a", 2, 1.0, "m", "x")
    one.receive("a", Rows((known(Record("x", 1, 1, neighbours=frozenset("a"))).row,)), 1.0)
    drive(one, 2.0)
    assert one.state_of("x") == "alive"
    one.receive("a", Rows((known(replace(one.records["x"], seq=2, addresses=("/at/x",))).row,)), 2.0)
    dialled = [action for action in drive(one, 3.0) if isinstance(action, Dial)]
    assert Dial("x", ("/at/x",)) in dialled


def test_who_had_parted_from_the_dead_before_is_no_witness() -> None:
    """The dead still listed a link that its other end had given up."""
    verdicts = Verdicts("m", confirm_s=3.0, confirm_closed_s=1.0, isolated_hold_s=15.0)
    dead = Record("x", 1, 1, neighbours=frozenset("ab"))
    closed = Record("a", 1, 2, lost={"x": "closed"})
    here = {"m", "a", "b"}

    def reason(other: Record | None) -> str:
        records = {"x": dead, "a": closed} | ({"b": other} if other is not None else {})
        verdicts.forget("x")
        verdicts.judge(["x"], records, here, 0.0)
        return verdicts._suspicions["x"].reason

    assert reason(Record("b", 1, 2)) == "closed"
    assert reason(Record("b", 1, 2, neighbours=frozenset("x"))) == "silent"
    assert reason(Record("b", 1, 2, lost={"x": "silent"})) == "silent"
    assert reason(None) == "silent"
    here.discard("b")
    assert reason(Record("b", 1, 2, lost={"x": "closed"})) == "silent"


def test_whoever_hears_nobody_tries_first_those_who_were_not_dead_before() -> None:
    overlay = Overlay("m", True, random.Random(1))
    names = [f"p{index:02d}" for index in range(30)]
    records = {name: Record(name, 1, 1, addresses=(f"/at/{name}",)) for name in names}
    for record in records.values():
        overlay.learn(record)
    chosen, _ = overlay.wanted(
        records, lambda peer: "dead" if peer < "p20" else "suspect", {"a": False}, now=0.0
    )
    assert set(chosen) == set(names[20:])


def test_who_has_links_enough_is_asked_only_when_there_is_nobody_else() -> None:
    overlay = Overlay("m", True, random.Random(1))
    crowd = frozenset(f"x{index}" for index in range(CAP_DIALABLE))
    full = Record("full", 1, 1, neighbours=crowd, addresses=("/at/full",))
    free = Record("free", 1, 1, addresses=("/at/free",))
    for record in (full, free):
        overlay.learn(record)
    records = {"full": full, "free": free, "gone": replace(free, id="gone")}
    overlay.hint("gone", ("/at/gone",))

    def dialled() -> set[str]:
        return set(overlay.wanted(records, lambda peer: "left" if peer == "gone" else None, {}, 0.0)[0])

    assert dialled() == {"free"}
    assert dialled() == {"full"}


def test_a_federation_in_which_links_are_spare_stays_one_when_its_edges_go() -> None:
    bench = Bench(5)
    bench.add(*(f"p{index:02d}" for index in range(20)), boot="p00")
    bench.run_until(bench.all_alive, 5.0)
    bench.run(0.2)  # many links are untold yet
    bench.kill("p00")
    bench.run_until(lambda: bench.everybody_says("p00", "dead"), 8.0)
    assert {change.peer_id for _, _, change in bench.changes("dead")} == {"p00"}


def test_quiet_members_say_nothing_of_their_links_for_long() -> None:
    bench = federation(20, 4)
    bench.run(20.0)
    before = {peer: node.core.records[peer].stamp for peer, node in bench.nodes.items()}
    bench.run(90.0)  # longer than a loss is told
    assert before == {peer: node.core.records[peer].stamp for peer, node in bench.nodes.items()}


def test_who_heard_nobody_for_a_while_asks_for_what_it_missed() -> None:
    """The peer that it finds thinks that it never was alone, and would not ask by itself."""
    one = linked_with_all("a")
    told(one, "a", 2, 1.0, "m", "b")
    one.receive("a", Rows((known(Record("b", 1, 1, neighbours=frozenset("a"))).row,)), 1.0)
    one.receive("a", Digest(one.digest), 1.0)  # compared, and equal
    drive(one, 1.0 + LAN.link_silent_s + 0.5)
    assert one.state_of("a") == "suspect"
    actions = [*one.link_up("b", False, 5.0), *one.handle_timeout(5.01)]
    versions = [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, Versions)]
    assert [peer for message in versions for peer, _ in message.stamps] == ["a", "b", "m"]


def test_of_many_members_a_refusal_looks_at_some() -> None:
    overlay = Overlay("m", True, random.Random(1))
    records = {f"p{index}": Record(f"p{index}", 1, 1, addresses=("/a",)) for index in range(200)}
    for record in records.values():
        overlay.learn(record)
    told = overlay.others(records, lambda peer: "alive", (), 31)
    assert len({record.id for record in told}) == 31
    assert {record.id for record in overlay.others(records, lambda peer: None, ("p7",), 31)} <= {"p7"}


def test_the_dead_are_not_suspected_anew() -> None:
    verdicts = Verdicts("m", confirm_s=3.0, confirm_closed_s=1.0, isolated_hold_s=15.0)
    records = {"x": Record("x", 1, 1, neighbours=frozenset("a"))}
    verdicts.judge(["x"], records, {"m"}, 0.0)
    assert [change.new for change in verdicts.expire(3.0)] == ["suspect", "dead"]
    assert verdicts.judge(["x"], records, {"m"}, 4.0) == []
    assert verdicts.due == NEVER
    assert [change.new for change in verdicts.judge(["x"], records, {"m", "x"}, 5.0)] == ["alive"]
    assert verdicts.judge(["x"], records, {"m", "x"}, 5.1) == []


@pytest.mark.parametrize(("others", "at_any_call"), [(10, True), (60, False)])
def test_in_a_crowd_verdicts_wait_for_their_time(others: int, at_any_call: bool) -> None:
    one = linked_with_all("a")
    names = [f"p{index:02d}" for index in range(others)]
    told(one, "a", 2, 1.0, "m", *names)
    for peer in names:
        told_by_another(one, "a", peer, 1.0)
    drive(one, 2.99)
    assert all(one.state_of(peer) == "alive" for peer in names)
    # the first change is looked at as it comes, the second a tenth of a second later
    told(one, "a", 3, 3.0, "m", "x", *names)
    told_by_another(one, "a", "x", 3.0)
    assert one.state_of("x") is None
    one.handle_timeout(3.02)
    assert (one.state_of("x") == "alive") == at_any_call
    one.handle_timeout(3.0 + LAN.judge_s + 0.01)
    assert one.state_of("x") == "alive"


def test_heartbeats_and_copies_make_nothing_due() -> None:
    one = linked_with_all("a")
    drive(one, 2.5)
    due = one.next_deadline()
    assert one.receive("a", Ping(7), 2.6) == [Send("a", Pong(7))]
    assert one.receive("a", Pong(7), 2.6) == []
    assert one.receive("a", Rows((one.records["a"].row,)), 2.6) == []
    assert one.heard("a", 2.7, 2.7) == []
    assert one.next_deadline() == due
    link = one.link_of("a")
    assert link is not None
    assert link[0] == 2.7
    # what is news does, and whoever was silent is an edge again by the first byte
    told(one, "a", 2, 2.8, "m", "b")
    assert one.next_deadline() < due
    drive(one, 6.5)
    assert one.link_of("a") is None
    due = one.next_deadline()
    one.receive("a", Ping(8), 6.6)
    assert one.link_of("a") is not None
    assert one.next_deadline() < due


def told_by_another(one: Membership, by: str, peer: str, now: float) -> None:
    """`by` passes on that `peer` has a link with it."""
    one.receive(by, Rows((known(Record(peer, 1, 1, neighbours=frozenset((by,)))).row,)), now)
