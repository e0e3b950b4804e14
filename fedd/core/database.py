"""Everybody's newest record, the edges they make, and a hash to compare two databases by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from fedd.api.types import PeerId
from fedd.core.presence_messages import HASH_BYTES, Versions
from fedd.core.reachability import TwoSidedEdges
from fedd.core.records import Record, Row, Stamp, newer

# 4096 records of 2 KiB are 8 MiB: the most that membership may cost, however many certificates were issued.
MAX_RECORDS = 4096
# Versions of one owner: a burst for a join storm with its pinned links, then what honest pacing stays below
# on average. What is dropped comes with the next digest.
OWNER_BURST, OWNER_PER_S = 60.0, 4.0


class Database:
    """Records by id; merging keeps the newest, whatever the order in which they come."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._hash = 0
        self._arrived: dict[PeerId, float] = {}
        self._allowance: dict[PeerId, tuple[float, float]] = {}
        self._forgotten: dict[PeerId, Stamp] = {}
        self.records: dict[PeerId, Record] = {}
        self.edges = TwoSidedEdges()
        self.refused = 0
        """How many records of new owners found no room."""

    @property
    def digest(self) -> bytes:
        """The exclusive or of the hashes of all versions: independent of order, cheap to keep."""
        return self._hash.to_bytes(HASH_BYTES, "big")

    def stamps(self) -> list[tuple[PeerId, Stamp]]:
        """The version held of each."""
        return [(peer, record.stamp) for peer, record in self.records.items()]

    def is_news(self, row: Row) -> bool:
        """Whether the row claims to be newer than what is or was held: asked before the signature."""
        held = self.records.get(row.id)
        if held is not None:
            return (row.stamp, row.sealed) > (held.stamp, held.sealed)
        return row.id not in self._forgotten or row.stamp > self._forgotten[row.id]

    def admits(self, peer: PeerId, now: float) -> bool:
        """Whether another version by this owner may be taken now: a token bucket an owner.

        Asked before the signature, so nothing is charged: forged rows must not use up their victim's bucket.
        """
        if peer not in self.records and len(self.records) >= MAX_RECORDS:
            self.refused += 1
            return False
        return self._tokens(peer, now) >= 1

    def charge(self, peer: PeerId, now: float) -> None:
        """A verified version by this owner was taken."""
        self._allowance[peer] = (self._tokens(peer, now) - 1, now)

    def _tokens(self, peer: PeerId, now: float) -> float:
        tokens, at = self._allowance.get(peer, (OWNER_BURST, now))
        return min(OWNER_BURST, tokens + (now - at) * OWNER_PER_S)

    def merge(self, record: Record, now: float) -> bool:
        """Keep the newer of `record` and what is held; True when that is `record`."""
        held = self.records.get(record.id)
        if held is not None and newer(record, held) is held:
            return False
        self._hash ^= _hash_of(record) ^ (_hash_of(held) if held is not None else 0)
        self.records[record.id] = record
        self._arrived[record.id] = now
        self._forgotten.pop(record.id, None)
        self.edges.set(record.id, frozenset() if record.left else record.neighbours)
        return True

    def compare(self, theirs: Versions) -> tuple[list[Row], tuple[PeerId, ...]]:
        """What is newer here than there, and whose records are newer there."""
        stamps = dict(theirs.stamps)
        missing = [
            record.row
            for record in self.records.values()
            if theirs.covers(record.id) and (record.id not in stamps or stamps[record.id] < record.stamp)
        ]
        return missing, tuple(i for i, stamp in theirs.stamps if self.is_news(Row(i, stamp, b"")))

    def expire(self, before: float) -> bool:
        """Take away the edges of records that came before that time; True when there were any.

        The owner refreshes its record, so this ends what is left of a member that only liars still list.
        """
        old = [peer for peer, at in self._arrived.items() if at < before and peer != self._me]
        for peer in old:
            self.edges.set(peer, frozenset())
            # Once is enough: only a newer version brings the edges back.
            self._arrived[peer] = float("inf")
        return bool(old)

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Drop these records and remember their versions, so that a late copy resurrects nobody."""
        for peer in peers:
            record = self.records.pop(peer, None)
            if record is None:
                continue
            self._hash ^= _hash_of(record)
            self.edges.remove(peer)
            del self._arrived[peer]
            self._allowance.pop(peer, None)
            self._forgotten[peer] = record.stamp
        while len(self._forgotten) > MAX_RECORDS:
            del self._forgotten[next(iter(self._forgotten))]

    def shift(self, gap_s: float) -> None:
        """This process slept for `gap_s`: no record is older for it."""
        self._arrived = {peer: at + gap_s for peer, at in self._arrived.items()}


def _hash_of(record: Record) -> int:
    text = f"{record.id} {record.epoch} {record.left:d} {record.seq} ".encode() + record.sealed[-64:]
    return int.from_bytes(hashlib.sha256(text).digest()[:HASH_BYTES], "big")
