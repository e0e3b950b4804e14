"""What becomes of a member that is one no longer, and of one whose certificate is renewed."""

from __future__ import annotations

from dataclasses import replace

from core.membership_bench import LAN, Bench, federation
from core.test_membership_core import known, open_row

from fedd.api.errors import Denied
from fedd.core.exchange import Exchange
from fedd.core.membership_types import Changed, Close, Send
from fedd.core.presence_messages import Rows
from fedd.core.records import Record, Row


def refuse(bench: Bench, peer: str) -> None:
    """From now on no record of `peer` is acceptable, and nobody links with it."""
    accept, link = bench.open_row, bench.link

    def open_row(row: Row) -> Record:
        if row.id == peer:
            raise Denied("revoked")
        return accept(row)

    bench.open_row = open_row
    for node in bench.nodes.values():
        node.core._exchange._open_row = open_row
    bench.link = lambda a, b: None if peer in (a.peer, b.peer) else link(a, b)


def expel(bench: Bench, peer: str, at: str) -> None:
    node = bench.nodes[at]
    node.perform(node.core.expel([peer], bench.now))


def test_the_expelled_has_left_and_its_records_are_dropped_for_good() -> None:
    bench = federation(6)
    refuse(bench, "p05")
    for index in range(5):
        expel(bench, "p05", f"p{index:02d}")
    for node in bench.living()[:5]:
        assert node.core.state_of("p05") == "left"
        assert node.core.since("p05")[1] == "revoked"
        assert "p05" not in node.core.records
        assert "p05" not in node.core.links
        record = node.core.record_of("p05")
        assert record is not None
        assert record.id == "p05"
        assert "p05" in node.core.members()
    bench.run(30.0)
    for node in bench.living()[:5]:
        assert node.core.state_of("p05") == "left"
        assert "p05" not in node.core.records
    assert len({node.core.digest for node in bench.living()[:5]}) == 1
    assert {change.peer_id for _, at, change in bench.changes("dead", "suspect", "left") if at != "p05"} == {
        "p05"
    }


def test_expelling_ends_the_link_and_is_told_once() -> None:
    bench = federation(3)
    core = bench.nodes["p00"].core
    core.pin("p02", ("/at/p02",), bench.now)
    actions = core.expel(["p02"], bench.now)
    assert Close("p02", "revoked") in actions
    assert [action.change.new for action in actions if isinstance(action, Changed)] == ["left"]
    assert not core.is_pinned("p02")
    again = core.expel(["p02"], bench.now)
    assert not [action for action in again if isinstance(action, Changed | Close)]


def test_the_unknown_and_the_merely_linked_can_be_expelled() -> None:
    bench = federation(2)
    core = bench.nodes["p00"].core
    assert not [a for a in core.expel(["nobody"], bench.now) if isinstance(a, Changed)]
    assert core.state_of("nobody") is None
    core.link_up("newcomer", False, bench.now)
    actions = core.expel(["newcomer"], bench.now)
    assert Close("newcomer", "revoked") in actions
    assert core.state_of("newcomer") is None


def test_who_is_let_in_again_is_alive_with_a_newer_record() -> None:
    bench = federation(4)
    for index in range(3):
        expel(bench, "p03", f"p{index:02d}")
    bench.kill("p03")
    bench.run(5.0)
    assert bench.everybody_says("p03", "left")
    bench.restart("p03")
    node = bench.nodes["p03"]
    node.perform(node.core.hint("p00", ("/at/p00",), bench.now))
    bench.run_until(bench.all_alive, 5.0)
    assert all("p03" in other.core.records for other in bench.living())


def test_the_verdict_on_the_expelled_is_forgotten_in_time() -> None:
    bench = federation(3)
    refuse(bench, "p02")
    bench.kill("p02")
    for at in ("p00", "p01"):
        bench.nodes[at].core._timing = replace(LAN, tombstone_s=60.0)
        expel(bench, "p02", at)
    bench.run(50.0)
    assert bench.nodes["p00"].core.state_of("p02") == "left"
    bench.run(20.0)
    core = bench.nodes["p00"].core
    assert core.state_of("p02") is None
    assert core.record_of("p02") is None


def test_a_renewed_certificate_travels_in_a_new_version_and_no_link_is_lost() -> None:
    bench = federation(5)
    links = {peer: dict(node.links) for peer, node in bench.nodes.items()}
    node = bench.nodes["p01"]
    before = node.core.records["p01"].stamp
    actions = node.core.renew(b"another chain", bench.now)
    sent = [row for a in actions if isinstance(getattr(a, "message", None), Rows) for row in a.message.rows]
    assert {row.id for row in sent} <= {"p01"}
    node.perform(actions)
    bench.run(1.0)
    for other in bench.living():
        record = other.core.records["p01"]
        assert record.chain == b"another chain"
        assert record.stamp > before
    assert {peer: dict(node.links) for peer, node in bench.nodes.items()} == links
    bench.run(10.0)
    assert node.core.records["p01"].chain == b"another chain"
    assert not bench.changes("dead", "suspect", "left")


def test_what_is_forgotten_before_it_was_passed_on_keeps_nothing_from_anybody() -> None:
    exchange = Exchange("m", open_row, LAN)
    gone, other = (known(Record(peer, 1, 1, neighbours=frozenset("a"))).row for peer in ("x", "y"))
    exchange.accept((gone,), "a", 32, 0.0)
    exchange.accept((other,), "b", 32, 0.0)
    exchange.forget(["x"])
    assert exchange.flood(["a", "b"], 0.1) == [Send("a", Rows((other,)))]
