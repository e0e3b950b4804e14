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
# By how much each uses up what its owner may send.
VERSION_S, EPOCH_S = 1 / OWNER_PER_S, EPOCH_VERSIONS / OWNER_PER_S
# So far ahead of the time an owner may be: its burst, at its rate.
BURST_S = (OWNER_BURST - 1) / OWNER_PER_S


class Database:
    """Records by id; merging keeps the newest, whatever the order in which they come."""

    __slots__ = (
        "_before",
        "_forgotten",
        "_hash",
        "_me",
        "_none_before",
        "_used_up",
        "edges",
        "edges_version",
        "records",
        "refused",
    )

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._hash = 0
        # Until when each owner has used up what it may send: the theoretical arrival time of a token bucket
        # (ITU-T I.371), one number instead of a level and its time. It is also, and at most a burst too late,
        # when its record came: with a thousand owners every look costs.
        self._used_up: dict[PeerId, float] = {}
        # What counted at the last `update` of all whose record is another since; None is nothing.
        self._before: dict[PeerId, Record | None] = {}
        # A time before which no record came that still has its edges.
        self._none_before = float("-inf")
        self._forgotten: dict[PeerId, Stamp] = {}
        self.records: dict[PeerId, Record] = {}
        self.edges = TwoSidedEdges(me, self.records)
        self.edges_version = 0
        """Equal as long as `edges` are the same."""
        self.refused = 0
        """How many records of new owners found no room."""

    @property
    def digest(self) -> bytes:
        """The exclusive or of the hashes of all versions: independent of order, cheap to keep."""
        return self._hash.to_bytes(HASH_BYTES, "big")

    def stamps(self) -> list[tuple[PeerId, Stamp]]:
        """The version held of each."""
        return [(peer, record.stamp) for peer, record in self.records.items()]

    def admits(self, row: Row, held: Record | None, now: float) -> float | None:
        """Whether the row is worth verifying: until when its owner has used up what it may send, else None.

        None is for what is no news, for an owner who may not send another version now, and for another owner
        when there is no room. Asked before the signature, so nothing is charged: forged rows must not use up
        their victim's share.
        """
        if held is None:
            if self._knows(row.id, row.stamp):
                return None
        elif row.stamp <= held.stamp and (row.stamp < held.stamp or row.sealed <= held.sealed):
            return None
        used_up = self._used_up.get(row.id, now)
        if used_up - now > BURST_S:
            return None
        if held is None and len(self.records) >= MAX_RECORDS:
            self.refused += 1
            return None
        return used_up if used_up > now else now

    def charge(self, peer: PeerId, used_up: float) -> None:
        """A verified record by this owner came, which has then used up what it may send until that time."""
        self._used_up[peer] = used_up

    def take(self, record: Record, held: Record | None, used_up: float) -> bool:
        """Keep a record that is newer than `held`, which is what is held of its owner; charge as `charge`.

        Whether its owner is new, or lives anew, or can be dialled elsewhere.
        """
        peer = record.id
        muted = self.edges.muted
        if held is None:
            if self._forgotten:
                self._forgotten.pop(peer, None)
            self._hash ^= record.fingerprint
        else:
            self._hash ^= held.fingerprint ^ record.fingerprint
        if held is None or held.edges != record.edges or peer in muted:
            self.edges_version += 1
        if peer not in self._before:
            self._before[peer] = held if peer not in muted else None
        if muted:
            muted.discard(peer)
        self._used_up[peer] = used_up
        self.records[peer] = record
        # Nearly all news is of the links of somebody who is known.
        return held is None or record.epoch != held.epoch or record.addresses != held.addresses

    def update(self) -> tuple[set[PeerId], list[PeerId], list[PeerId]]:
        """Bring `edges` up to date with the records.

        Whom the records that have come since the last time concern, whoever is reachable; who has come to be
        reachable, and who is no longer.
        """
        before, self._before = self._before, {}
        return self.edges.update(before)

    def merge(self, record: Record, now: float) -> bool:
        """Keep the newer of `record` and what is held, at nobody's charge; True when that is `record`."""
        held = self.records.get(record.id)
        if held is not None and newer(record, held) is held:
            return False
        self.take(record, held, max(now, self._used_up.get(record.id, now)))
        return True

    def compare(self, theirs: Versions) -> tuple[list[Row], tuple[PeerId, ...]]:
        """What is newer here than there, and whose records are newer there."""
        stamps = dict(theirs.stamps)
        missing = [
            record.row
            for peer, record in self.records.items()
            if ((stamp := stamps.get(peer)) is None or stamp < record.stamp) and theirs.covers(peer)
        ]
        return missing, tuple(peer for peer, stamp in theirs.stamps if not self._knows(peer, stamp))

    def expire(self, before: float) -> bool:
        """Take away the edges of records that came before that time; True when there were any.

        The owner refreshes its record, so this ends what is left of a member that only liars still list.
        """
        if before <= self._none_before:
            return False
        muted = self.edges.muted
        counting = {p: at for p, at in self._used_up.items() if p not in muted and p != self._me}
        # Once is enough: only a newer version brings the edges back.
        expired = [peer for peer, at in counting.items() if at < before]
        for peer in expired:
            self._before.setdefault(peer, self.records[peer])
        muted.update(expired)
        self.edges_version += bool(expired)
        # All are looked at, which need not be soon again.
        self._none_before = min((at for at in counting.values() if at >= before), default=before)
        return bool(expired)

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Drop these records and remember their versions, so that a late copy resurrects nobody."""
        for peer in peers:
            record = self.records.pop(peer, None)
            if record is None:
                continue
            self._hash ^= record.fingerprint
            self.edges_version += 1
            if peer not in self._before:
                self._before[peer] = record if peer not in self.edges.muted else None
            self.edges.muted.discard(peer)
            self._used_up.pop(peer, None)
            self._forgotten[peer] = record.stamp
        while len(self._forgotten) > MAX_RECORDS:
            del self._forgotten[next(iter(self._forgotten))]

    def shift(self, gap_s: float) -> None:
        """This process slept for `gap_s`: no record is older for it."""
        for peer, at in self._used_up.items():
            self._used_up[peer] = at + gap_s
        self._none_before += gap_s

    def _knows(self, peer: PeerId, stamp: Stamp) -> bool:
        """Whether this version of `peer`, or a newer one, is or was held."""
        held = self.records.get(peer)
        known = held.stamp if held is not None else self._forgotten.get(peer)
        return known is not None and stamp <= known
