"""What a broadcast may cost: allowances, memory, rooms, and who loses its link."""

from __future__ import annotations

import pytest
from core.broadcast_world import PEERS, World
from core.test_broadcast import A, B, C, D, deaf, pair, post, tell

from fedd.core.broadcast import DIGEST_S
from fedd.core.broadcast_intake import MAX_BAD, MAX_EXCESS
from fedd.core.broadcast_messages import (
    CHUNK_BYTES,
    Bcast,
    Chunk,
    Header,
    Ihave,
    Iwant,
    Marks,
    Post,
)
from fedd.core.broadcast_origin import (
    BURST,
    OVERHEAD_BYTES,
    PENDING_BYTES,
    RETAINED_BYTES,
    RETAINED_S,
    Held,
)
from fedd.core.broadcast_search import GIVE_UP_S
from fedd.core.broadcast_table import TOTAL_PENDING_BYTES, TOTAL_RETAINED_BYTES, OriginTable


def test_broadcasts_of_strangers_are_dropped_until_they_are_members() -> None:
    world = World(3)
    world.line(0, 1, 2)
    world.run(1)
    world[2].strangers.add(A)
    world[0].publish(b"1")
    world.run(0.5)
    assert world[1].payloads(A) == [b"1"]
    assert world[2].heard == []
    world[2].strangers.clear()
    world.run(2 * DIGEST_S)
    assert world[2].payloads(A) == [b"1"]
    # the other way round nothing is kept of them
    world[2].strangers.add(A)
    world.run(2 * DIGEST_S)
    assert world[2].core.mark_of(A) is None
    assert tell(world[2], B, Marks(False, 0, ((A, 1, 9),))) == []


@pytest.mark.parametrize(
    "bad",
    [
        post(C, 1, federation="cd" * 32),
        Post(C, 1, 2, post(C, 1).sealed, b"x"),
        Post(C, 1, 1, post(D, 1).sealed, b"x"),
        Post(C, 1, 1, post(C, 1).sealed, b"y"),
        Post(C, 1, 1, post(C, 1).sealed, b"xx"),
        Post(C, 1, 1, post(C, 1, bytes(2000)).sealed, bytes(1000)),
    ],
    ids=["foreign", "renumbered", "signed by another", "other payload", "longer", "too large to flood"],
)
def test_who_passes_on_forgeries_loses_the_link(bad: Post) -> None:
    world = deaf(4)
    world.link(0, 1)
    world.link(0, 2)
    node = world[0]
    for _ in range(MAX_BAD):
        assert tell(node, B, Bcast((bad,))) == []
    assert node.distrusted == []
    tell(node, B, Bcast((bad, bad, post(C, 1))))
    assert [each.peer for each in node.distrusted] == [B]
    assert node.payloads(C) == []
    # and the origin has lost nothing by it
    tell(node, C, Bcast((post(C, 1, b"real"),)))
    assert node.payloads(C) == [b"real"]


def test_small_ones_are_not_announced() -> None:
    world = deaf(3)
    world.link(0, 1)
    for _ in range(MAX_BAD + 1):
        tell(world[0], B, Ihave((post(C, 1, announced=True),)))
    assert [each.peer for each in world[0].distrusted] == [B]


def test_a_storm_is_cut_to_its_allowance_and_then_cut_off() -> None:
    world = deaf(4)
    for other in (1, 2, 3):
        world.link(0, other)
    node = world[0]
    for seq in range(1, 1001):
        tell(node, B, Bcast((post(B, seq),)))
    assert len(node.payloads(B)) == 2 * BURST
    assert sum(peer == C for peer, message in node.sent if isinstance(message, Bcast)) == 2 * BURST
    assert node.core.refused == 1000 - 2 * BURST
    # others are heard as ever
    tell(node, C, Bcast((post(C, 1),)))
    assert node.payloads(C) == [b"x"]
    assert node.distrusted == []
    for seq in range(1001, 1001 + MAX_EXCESS):
        tell(node, B, Bcast((post(B, seq),)))
    assert [each.peer for each in node.distrusted] == [B]


def test_forgeries_use_up_nobodys_allowance() -> None:
    world = deaf(4)
    node = world[0]
    for _ in range(100):
        world.link(0, 1)
        tell(node, B, Bcast(tuple(Post(C, 1, seq, b"forged", b"x") for seq in range(1, 31))))
        world.cut(0, 1)
    world.link(0, 2)
    for seq in range(1, 2 * int(BURST) + 1):
        tell(node, C, Bcast((post(C, seq),)))
    assert len(node.payloads(C)) == 2 * BURST


def test_memory_is_bounded_whatever_comes() -> None:
    world = World(30)
    world.loses = lambda a, b, message: True
    world.link(0, 1)
    node = world[0]
    world.now = 100.0
    for origin in PEERS[1:]:
        for seq in range(2, 500):  # the first never comes
            tell(node, B, Bcast((post(origin, seq, bytes(1024)),)))
    assert node.core._table.pending_bytes <= TOTAL_PENDING_BYTES
    assert node.core.held_bytes <= TOTAL_PENDING_BYTES
    assert node.core.refused > 0
    world.run(2 * GIVE_UP_S)
    assert node.core._table.pending_bytes == 0
    assert node.core.held_bytes <= TOTAL_RETAINED_BYTES


def test_one_origin_cannot_take_the_room_of_others() -> None:
    world = deaf(4)
    world.link(0, 1)
    node = world[0]
    for seq in range(2, 500):
        tell(node, B, Bcast((post(C, seq, bytes(1024)),)))
    table = node.core._table
    assert PENDING_BYTES - 2000 < table.by_name[C].pending_bytes <= PENDING_BYTES
    tell(node, B, Bcast((post(D, 2), post(D, 1))))
    assert len(node.payloads(D)) == 2


def test_who_publishes_most_gives_way_to_others() -> None:
    world = World(10)
    world.loses = lambda a, b, message: True
    world.link(0, 1)
    node = world[0]
    tell(node, B, Bcast((post(B, 1, b"little"),)))
    for origin in PEERS[2:10]:
        for seq in range(1, 17):
            payload = bytes(60_000)
            tell(node, B, Ihave((post(origin, seq, payload, announced=True),)))
            for at in range(0, len(payload), CHUNK_BYTES):
                tell(node, B, Chunk(origin, 1, seq, at, payload[at : at + CHUNK_BYTES]))
    assert node.core._table.retained_bytes <= TOTAL_RETAINED_BYTES
    assert node.core._table.retained_bytes > TOTAL_RETAINED_BYTES - 2 * 61_000
    assert all(origin.retained_bytes <= RETAINED_BYTES for origin in node.core._table.by_name.values())
    assert 1 in node.core._table.by_name[B].retained
    world.run(RETAINED_S + 2 * DIGEST_S)
    assert node.core.held_bytes == 0


def test_what_all_keep_is_counted_only_where_it_may_be_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64 * 1024
    table = OriginTable(A, 1, lambda peer: True, 0.0)
    counts: list[int] = []

    def total() -> int:
        return sum(origin.retained_bytes for origin in table.by_name.values())

    def count(_: OriginTable) -> int:
        counts.append(total())
        return counts[-1]

    monkeypatch.setattr(OriginTable, "retained_bytes", property(count))

    def keep(index: int, first: int, last: int, epoch: int = 1) -> int:
        """How often it was counted to keep these; never is more kept than may be."""
        counts.clear()
        origin = table.other(PEERS[index], 0.0)
        assert origin is not None
        for seq in range(first, last + 1):
            header = Header(epoch, seq, "note", False, size - OVERHEAD_BYTES, b"")
            origin.begin(header)
            origin.retain(Held(Post(origin.name, epoch, seq, b""), header, None, bytes(header.size), 0.0))
            table.retained(size)
            assert total() <= TOTAL_RETAINED_BYTES
        return len(counts)

    def kept() -> list[int]:
        return [len(table.by_name[peer].retained) for peer in PEERS[1:] if peer in table.by_name]

    assert [keep(index, 1, 15) for index in (1, 2, 3, 4)] == [0, 0, 0, 0]
    assert keep(5, 1, 4) == 0
    # of 64 in all, so the next ones cost those who have most
    assert keep(5, 5, 6) == 2
    assert kept() == [14, 14, 15, 15, 6]
    # an epoch that ended makes room, and it is known how much from when it is counted next
    assert keep(1, 1, 1, epoch=2) == 1
    assert keep(6, 1, 13) == 0
    assert kept() == [1, 14, 15, 15, 6, 13]
    assert keep(6, 14, 14) == 1
    assert kept() == [1, 14, 14, 15, 6, 14]


def test_a_large_one_that_finds_no_room_is_fetched_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = deaf(3)
    world.link(0, 1)
    node = world[0]
    tell(node, B, Ihave((post(C, 2, bytes(2000), announced=True),)))
    monkeypatch.setattr(node.core._table, "has_room", lambda origin, size: False)
    tell(node, B, Chunk(C, 1, 2, 0, bytes(2000)))
    assert node.core._table.by_name[C].pending == {}
    monkeypatch.undo()
    tell(node, B, Bcast((post(C, 1),)))
    world.run(0.3)
    assert node.sent[-1] == (B, Iwant(C, 1, ((2, 2),)))


def test_a_large_one_without_room_is_not_even_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = deaf(3)
    world.link(0, 1)
    monkeypatch.setattr(world[0].core._table, "has_room", lambda origin, size: False)
    assert tell(world[0], B, Ihave((post(C, 2, bytes(2000), announced=True),))) == []
    assert len(world[0].core._bodies) == 0


def test_no_more_origins_than_members_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedd.core.broadcast_table.MAX_ORIGINS", 2)
    world = deaf(4)
    world.link(0, 1)
    tell(world[0], B, Bcast((post(B, 1), post(C, 1))))
    tell(world[0], B, Marks(False, 0, ((C, 1, 5),)))
    assert [item.origin for item in world[0].heard] == [B]
    assert world[0].core.refused == 2


# -- links


def test_without_a_link_nothing_is_taken() -> None:
    world = deaf(2)
    assert tell(world[0], B, Bcast((post(B, 1),))) == []
    world[0].core.congested(B, world.now)
    world[0].perform(world[0].core.link_down(B, world.now))
    assert world[0].heard == []


def test_a_neighbour_that_was_too_slow_is_told_all_marks() -> None:
    world, a, b = pair()
    a.publish(b"1")
    world.run(5)
    a.core.congested(B, world.now)
    a.perform([])
    count = len(a.sent)
    world.run(1.5)
    assert a.sent[count:] == [(B, Marks(False, 0, ((A, 1, 1),)))]
    assert b.payloads(A) == [b"1"]


def test_who_has_nothing_to_tell_tells_nothing() -> None:
    world, a, _ = pair()
    count = len(a.sent)
    a.core.congested(B, world.now)
    a.perform([])
    world.run(5)
    assert a.sent[count:] == []


def test_marks_are_told_once_a_second_while_something_changes_and_seldom_otherwise() -> None:
    world, a, _ = pair()
    world.run(30)
    assert not any(isinstance(message, Marks) and not message.greeting for _, message in a.sent)
    count = len(a.sent)
    a.publish(b"1")
    a.publish(b"2")
    world.run(2)
    assert [message for _, message in a.sent[count:] if isinstance(message, Marks)] == [
        Marks(False, 0, ((A, 1, 2),))
    ]
    count = len(a.sent)
    world.run(100)
    assert 8 <= len(a.sent) - count <= 14
    world.cut(0, 1)
    count = len(a.sent)
    world.run(30)
    assert len(a.sent) == count


def test_another_stream_of_the_same_link_is_greeted_anew() -> None:
    world = World(2)
    world[1].publish(b"1")
    world.run(10)
    world[0].start()
    world.link(0, 1)
    world.run(1)
    assert world[0].core._marks._elder == B
    count = len(world[0].sent)
    world.link(0, 1)
    assert world[0].core._marks._elder is None
    assert world[0].sent[count][1].greeting
    world.run(1)
    assert world[0].core._marks._elder is None


# -- acknowledgements
