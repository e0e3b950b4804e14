from __future__ import annotations

from dataclasses import replace

import pytest

from fedd.core import database
from fedd.core.database import MAX_RECORDS, VERSION_S, Database
from fedd.core.heard_links import HeardLinks
from fedd.core.records import MAX_LOST, Record


def test_the_digest_depends_on_what_is_held_and_not_on_the_order() -> None:
    records = [Record(f"p{index}", 1, index, sealed=bytes([index])) for index in range(6)]
    one, two = Database("m"), Database("m")
    for record in records:
        one.merge(record, 0.0)
    for record in [*reversed(records), replace(records[0], seq=9)]:
        two.merge(record, 0.0)
    assert one.digest != two.digest
    one.merge(replace(records[0], seq=9), 0.0)
    assert one.digest == two.digest
    assert not one.merge(records[0], 0.0)
    two.forget(["p1"])
    assert one.digest != two.digest


def test_a_full_database_takes_no_newcomer_and_still_takes_news() -> None:
    full = Database("m")
    for index in range(MAX_RECORDS):
        full.merge(Record(f"p{index}", 1, 1), 0.0)
    newcomer, known = Record("newcomer", 1, 1).row, full.records["p0"]
    assert full.admits(newcomer, None, 0.0) is None
    assert full.refused == 1
    assert full.admits(replace(known, seq=2).row, known, 0.0) == 0.0
    full.forget(["p1"])
    assert full.admits(newcomer, None, 0.0) == 0.0
    assert full.refused == 1


def test_only_what_was_verified_is_charged_to_its_owner() -> None:
    one = Database("m")
    row = Record("victim", 1, 1).row
    for index in range(1000):
        assert one.admits(Record(f"p{index}", 1, 1).row, None, 0.0) == 0.0
        assert one.admits(row, None, 0.0) == 0.0
    assert not one._used_up
    for _ in range(60):
        used_up = one.admits(row, None, 0.0)
        assert used_up is not None
        one.charge("victim", used_up + VERSION_S)
    assert one.admits(row, None, 0.0) is None
    assert one.admits(row, None, VERSION_S) == 60 * VERSION_S
    assert one.admits(row, None, 100.0) == 100.0


def test_the_memory_of_the_forgotten_is_bounded() -> None:
    one = Database("m")
    for index in range(MAX_RECORDS + 10):
        one.merge(Record(f"p{index}", 1, 1), 0.0)
        one.forget([f"p{index}"])
    assert len(one._forgotten) == MAX_RECORDS
    assert one.admits(Record("p0", 1, 1).row, None, 0.0) == 0.0
    assert one.admits(Record(f"p{MAX_RECORDS}", 1, 1).row, None, 0.0) is None
    assert one.admits(Record(f"p{MAX_RECORDS}", 1, 2).row, None, 0.0) == 0.0
    assert one.digest == bytes(database.HASH_BYTES)


def test_only_the_latest_losses_are_told() -> None:
    links = HeardLinks(3.0, 20.0)
    for index in range(MAX_LOST + 5):
        links.add(f"p{index}", False, 0.0)
        links.remove(f"p{index}", "closed", 0.0)
    assert len(links.lost) == MAX_LOST
    assert "p0" not in links.lost
    assert f"p{MAX_LOST + 4}" in links.lost


@pytest.mark.parametrize("forgotten", [False, True])
def test_who_expired_is_reachable_again_with_its_next_version(forgotten: bool) -> None:
    one = Database("m")
    theirs = Record("x", 1, 1, neighbours=frozenset("m"))
    one.merge(Record("m", 1, 1, neighbours=frozenset("x")), 0.0)
    one.merge(theirs, 0.0)
    assert one.update()[1:] == (["x"], [])
    assert one.expire(1.0)
    assert one.update() == (set(), [], ["x"])
    if forgotten:
        one.forget(["x"])
    one.merge(replace(theirs, seq=2), 2.0)
    assert one.update() == ({"x"}, ["x"], [])
    assert one.edges.adjacent("m") == {"x"}


def test_what_came_between_two_updates_concerns_nobody_if_it_was_taken_back() -> None:
    one = Database("m")
    first = Record("x", 1, 1, neighbours=frozenset("m"), lost={"y": "closed"})
    one.merge(Record("m", 1, 1, neighbours=frozenset("x")), 0.0)
    one.merge(first, 0.0)
    assert one.update() == ({"m", "x", "y"}, ["x"], [])
    one.merge(replace(first, seq=2, neighbours=frozenset(), lost={}, sealed=b"2"), 0.0)
    one.merge(replace(first, seq=3, sealed=b"3"), 0.0)
    assert one.update() == (set(), [], [])
    one.merge(replace(first, seq=4, lost={"y": "silent", "z": "closed"}, sealed=b"4"), 0.0)
    assert one.update() == ({"y", "z"}, [], [])
    one.merge(replace(first, epoch=2, lost={"y": "silent", "z": "closed"}, sealed=b"5"), 0.0)
    assert one.update() == ({"x"}, [], [])
    one.forget(["x"])
    assert one.update() == (set(), [], ["x"])
    assert one.update() == (set(), [], [])


def test_the_version_of_the_edges_is_another_whenever_they_are() -> None:
    one = Database("m")
    theirs = Record("x", 1, 1, neighbours=frozenset("m"), sealed=b"1")
    seen = [one.edges_version]

    def is_another() -> bool:
        seen.append(one.edges_version)
        return seen[-1] not in seen[:-1]

    one.merge(Record("m", 1, 1, neighbours=frozenset("x")), 0.0)
    one.merge(theirs, 0.0)
    assert is_another()
    one.update()
    one.merge(theirs, 1.0)
    assert not is_another()
    one.merge(replace(theirs, seq=2, addresses=("/ip4/192.0.2.1/tcp/1",), sealed=b"2"), 1.0)
    assert not is_another()
    assert one.expire(2.0)
    assert one.edges.adjacent("m") == set()
    assert is_another()
    one.merge(replace(theirs, seq=3, sealed=b"3"), 2.0)
    assert one.edges.adjacent("m") == {"x"}
    assert is_another()
    one.forget(["x"])
    assert one.edges.adjacent("m") == set()
    assert is_another()
