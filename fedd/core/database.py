"""Everybody's newest record, the edges they make, and a hash to compare two databases by."""

from __future__ import annotations

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
# A new epoch ends and begins a life for every observer, runs included: it counts as so many versions, which
# lets a process restart once a second and no owner make events without end.
EPOCH_VERSIONS = 4


class Database:
    """Records by id; merging keeps the newest, whatever the order in which they come."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._hash = 0
        # When each record came, and a time before which none did that still has its edges.
        self._arrived: dict[PeerId, float] = {}
        self._none_before = float("-inf")
        # Until when each owner has used up what it may send (the theoretical arrival time of a token bucket,
        # ITU-T I.371): one number an owner instead of a level and its time.
        self._used_up: dict[PeerId, float] = {}
        self._forgotten: dict[PeerId, Stamp] = {}
        self.records: dict[PeerId, Record] = {}
        self.edges = TwoSidedEdges(me)
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
            return row.stamp > held.stamp or (row.stamp == held.stamp and row.sealed > held.sealed)
        return row.id not in self._forgotten or row.stamp > self._forgotten[row.id]

    def has_room_for(self, peer: PeerId) -> bool:
        """Whether a record of `peer` can be held: of a new owner only while there is room."""
        return peer in self.records or len(self.records) < MAX_RECORDS

    def admits(self, peer: PeerId, now: float) -> bool:
        """Whether another version by this owner may be taken now.

        Asked before the signature, so nothing is charged: forged rows must not use up their victim's share.
        """
        return self._used_up.get(peer, now) - now <= (OWNER_BURST - 1) / OWNER_PER_S

    def charge(self, peer: PeerId, now: float, versions: int = 1) -> None:
        """A verified record by this owner was taken, which counts as so many versions."""
        used_up = self._used_up.get(peer, now)
        self._used_up[peer] = (used_up if used_up > now else now) + versions / OWNER_PER_S

    def merge(self, record: Record, now: float) -> bool:
        """Keep the newer of `record` and what is held; True when that is `record`."""
        peer = record.id
        held = self.records.get(peer)
        if held is None:
            if self._forgotten:
                self._forgotten.pop(peer, None)
            self._hash ^= record.fingerprint
        elif record.stamp > held.stamp or newer(record, held) is not held:
            self._hash ^= held.fingerprint ^ record.fingerprint
        else:
            return False
        self.records[peer] = record
        self._arrived[peer] = now
        self.edges.set(peer, frozenset() if record.left else record.neighbours)
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
        if before <= self._none_before:
            return False
        found = False
        for peer in [peer for peer, at in self._arrived.items() if at < before]:
            # Once is enough: only a newer version brings the edges back.
            del self._arrived[peer]
            if peer != self._me:
                self.edges.set(peer, frozenset())
                found = True
        # All are looked at, which need not be soon again.
        self._none_before = min(self._arrived.values(), default=before)
        return found

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Drop these records and remember their versions, so that a late copy resurrects nobody."""
        for peer in peers:
            record = self.records.pop(peer, None)
            if record is None:
                continue
            self._hash ^= record.fingerprint
            self.edges.remove(peer)
            self._arrived.pop(peer, None)
            self._used_up.pop(peer, None)
            self._forgotten[peer] = record.stamp
        while len(self._forgotten) > MAX_RECORDS:
            del self._forgotten[next(iter(self._forgotten))]

    def shift(self, gap_s: float) -> None:
        """This process slept for `gap_s`: no record is older for it."""
        for peer in self._arrived:
            self._arrived[peer] += gap_s
        self._none_before += gap_s
