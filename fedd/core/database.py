"""Everybody's newest record, the edges they make, and a hash to compare two databases by."""

from __future__ import annotations

from collections.abc import Iterable

from fedd.api.types import PeerId
from fedd.core.deadlines import NEVER
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
# By how much each uses up what its owner may send.
VERSION_S, EPOCH_S = 1 / OWNER_PER_S, EPOCH_VERSIONS / OWNER_PER_S
# So far ahead of the time an owner may be: its burst, at its rate.
BURST_S = (OWNER_BURST - 1) / OWNER_PER_S
_NONE: frozenset[PeerId] = frozenset()


class Database:
    """Records by id; merging keeps the newest, whatever the order in which they come."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._hash = 0
        # When each owner's record came (never, once its edges are taken away), and until when it has used up
        # what it may send: the theoretical arrival time of a token bucket (ITU-T I.371), one number instead
        # of a level and its time. Both in one place: with a thousand owners every look costs.
        self._times: dict[PeerId, tuple[float, float]] = {}
        # A time before which no record came that still has its edges.
        self._none_before = float("-inf")
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

    def used_up_until(self, peer: PeerId, now: float) -> float | None:
        """Until when this owner has used up what it may send; None when it may not send another version now.

        Asked before the signature, so nothing is charged: forged rows must not use up their victim's share.
        """
        times = self._times.get(peer)
        if times is None or times[1] <= now:
            return now
        return times[1] if times[1] - now <= BURST_S else None

    def charge(self, peer: PeerId, used_up: float) -> None:
        """A verified record by this owner came, which has then used up what it may send until that time."""
        arrived, _ = self._times.get(peer, (NEVER, used_up))
        self._times[peer] = (arrived, used_up)

    def take(self, record: Record, held: Record | None, used_up: float, now: float) -> None:
        """Keep a record that is newer than `held`, which is what is held of its owner; charge as `charge`."""
        peer = record.id
        if held is None:
            if self._forgotten:
                self._forgotten.pop(peer, None)
            self._hash ^= record.fingerprint
        else:
            self._hash ^= held.fingerprint ^ record.fingerprint
        self._times[peer] = (now, used_up)
        self.records[peer] = record
        self.edges.set(peer, _NONE if record.left else record.neighbours)

    def merge(self, record: Record, now: float) -> bool:
        """Keep the newer of `record` and what is held, at nobody's charge; True when that is `record`."""
        held = self.records.get(record.id)
        if held is not None and newer(record, held) is held:
            return False
        times = self._times.get(record.id)
        self.take(record, held, now if times is None else times[1], now)
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
        for peer, used_up in [(peer, used_up) for peer, (at, used_up) in self._times.items() if at < before]:
            # Once is enough: only a newer version brings the edges back.
            self._times[peer] = (NEVER, used_up)
            if peer != self._me:
                self.edges.set(peer, _NONE)
                found = True
        # All are looked at, which need not be soon again.
        self._none_before = min((at for at, _ in self._times.values() if at != NEVER), default=before)
        return found

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Drop these records and remember their versions, so that a late copy resurrects nobody."""
        for peer in peers:
            record = self.records.pop(peer, None)
            if record is None:
                continue
            self._hash ^= record.fingerprint
            self.edges.remove(peer)
            self._times.pop(peer, None)
            self._forgotten[peer] = record.stamp
        while len(self._forgotten) > MAX_RECORDS:
            del self._forgotten[next(iter(self._forgotten))]

    def shift(self, gap_s: float) -> None:
        """This process slept for `gap_s`: no record is older for it."""
        for peer, (at, used_up) in self._times.items():
            self._times[peer] = (at + gap_s, used_up)
        self._none_before += gap_s
