"""Records that are forged, replayed, uncertified or revoked, and floods of versions: they harm nobody."""

from __future__ import annotations

import trio
from net.federations import Node, form, full_mesh, nodes
from trio.testing import MockClock

from fedd.core.identity import PrivateKey
from fedd.core.presence_messages import Rows
from fedd.core.records import Record, Row, sign_record


async def test_records_that_are_forged_replayed_uncertified_or_revoked_harm_nobody(
    autojump_clock: MockClock,
) -> None:
    async with nodes(5) as (a, b, c, d, gone):
        await form([a, b, c, d, gone])
        await full_mesh([a, b, c, d, gone])
        await trio.sleep(5)
        core = b.presence._core
        assert core is not None
        held = core.records
        chain = held[c.id].chain
        a.admission.authority.revoke(gone.id)
        await trio.sleep(1)
        last = b.presence._core.record_of(gone.id)
        assert last is not None
        old = held[c.id].row
        await trio.sleep(30)
        newer = Record(c.id, held[c.id].epoch + 1, 1, left=True, chain=chain)
        strangers = PrivateKey.from_seed(b"z" * 32)
        forged = sign_record(d.key, Record(d.id, 9, 9, chain=held[d.id].chain))
        revoked = sign_record(gone.key, Record(gone.id, last.epoch + 1, 1, chain=last.chain))
        bad = {
            "goodbye in another's name": Row(c.id, newer.stamp, forged.sealed),
            "a version that is not the signed one": Row(c.id, (9, False, 9), old.sealed),
            "replayed": old,
            "uncertified": sign_record(strangers, Record(strangers.peer_id, 1, 1)).row,
            "another's certificate": sign_record(strangers, Record(strangers.peer_id, 1, 2, chain=chain)).row,
            "revoked": revoked.row,
        }
        before = {node.name: len(node.changes) for node in (a, b, c)}
        for row in bad.values():
            d.presence._table.send(b.id, Rows((row,)))
            await trio.sleep(0.2)
        await trio.sleep(10)
        assert all_but(gone, (a, b, c, d))
        for node in (a, b, c):
            records = node.presence._core.records
            assert strangers.peer_id not in records
            assert gone.id not in records
            assert not records[c.id].left
            assert len(node.changes) == before[node.name]


def all_but(gone: Node, members: tuple[Node, ...]) -> bool:
    return all(
        node.presence.state_of(other.id) == ("left" if other is gone else "alive")
        for node in members
        for other in (*members, gone)
    )


async def test_a_flood_of_versions_slows_its_owner_only(autojump_clock: MockClock) -> None:
    async with nodes(4) as (a, b, c, d):
        await form([a, b, c, d])
        await full_mesh([a, b, c, d])
        await trio.sleep(5)
        mine = d.presence._core.records[d.id]
        taken: list[int] = []
        core = b.presence._core
        assert core is not None
        for number in range(2000):
            record = Record(d.id, mine.epoch, mine.seq + 1 + number, mine.neighbours, chain=mine.chain)
            d.presence._table.send(b.id, Rows((sign_record(d.key, record).row,)))
            if number % 100 == 0:
                await trio.sleep(0.01)
                taken.append(core.records[d.id].seq)
        await trio.sleep(1)
        assert len(set(taken)) <= 30
        assert core.records[d.id].seq - mine.seq <= 2000
        assert a.presence.state_of(c.id) == "alive" == c.presence.state_of(b.id)
        await trio.sleep(30)
        three = (a, b, c)
        assert all(x.presence.state_of(y.id) == "alive" for x in three for y in three)
