"""Records in and out: what a peer says is checked, merged and passed on, and databases are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import field
from itertools import filterfalse

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.database import EPOCH_S, VERSION_S, Database
from fedd.core.dataclass import dataclass
from fedd.core.deadlines import NEVER
from fedd.core.membership_types import PresenceTiming, Send
from fedd.core.presence_fields import ROW_OVERHEAD_BYTES, ROWS_BYTES
from fedd.core.presence_messages import (
    Digest,
    Message,
    Rows,
    Versions,
    Want,
    split_rows,
    split_versions,
)
from fedd.core.records import Record, Row

# A comparison of databases takes some round trips; for so long a second one would fetch the same again.
COMPARING_S = 0.5
# Databases of the connected that differ while news is coming differ by what is on its way. Compared all the
# same from time to time, lest a federation that is never quiet never does.
QUIET_S, COMPARED_S = 1.0, 30.0


@dataclass(slots=True)
class Intake:
    """What became of rows: how many are `news`, which are held now, and which of these begin `anew`.

    The latter come with what was held before. `own` claim to be ours; `forged` counts those that did not
    verify.
    """

    news: int = 0
    anew: list[tuple[Record, Record | None]] = field(default_factory=list)
    own: list[Record] = field(default_factory=list)
    forged: int = 0


class Exchange:
    """The database and its traffic with the linked peers.

    A comparison of databases is a digest, answered by versions if it differs, answered by rows and wants. A
    node that has nothing but its own record to show shows its versions without being asked.
    """

    __slots__ = (
        "_compared",
        "_compared_at",
        "_comparing_with",
        "_dirty",
        "_flushed_at",
        "_largest_bytes",
        "_me",
        "_news_at",
        "_open_row",
        "_pause_s",
        "_theirs",
        "_timing",
        "_waiting",
        "compare_due",
        "database",
        "due",
        "rows_refused",
    )

    def __init__(self, me: PeerId, open_row: Callable[[Row], Record], timing: PresenceTiming) -> None:
        self._me = me
        self._open_row = open_row
        self._timing = timing
        self.database = Database(me)
        # Records to pass on, the size of the largest, and which of them each peer has sent itself.
        self._dirty: dict[PeerId, Row] = {}
        self._largest_bytes = 0
        self._theirs: dict[PeerId, set[PeerId]] = {}
        self._flushed_at = float("-inf")
        self._pause_s = timing.flood_s
        self.due = NEVER
        """When records are to be passed on."""
        # With whom databases are to be compared when, and whether they have asked for it.
        self._waiting: dict[PeerId, tuple[float, bool]] = {}
        self.compare_due = NEVER
        """When `compare` has something to do."""
        self._comparing_with: PeerId | None = None
        self._compared_at = self._news_at = float("-inf")
        # Whether a comparison has been seen through, be it once: until then nothing is known to be complete.
        self._compared = False
        self.rows_refused = 0

    # -- passing on

    def publish(self, record: Record, now: float) -> None:
        """Hold and pass on a new version of this node's own record."""
        self.database.merge(record, now)
        self._pass_on([record.row], set())

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Hold these records no more, nor pass them on."""
        for peer in peers:
            if self._dirty.pop(peer, None) is not None:
                for known in self._theirs.values():
                    known.discard(peer)
            self.database.forget([peer])
        if not self._dirty:
            self.due = NEVER

    def flood(self, links: Iterable[PeerId], now: float) -> list[Send]:
        """Pass on what is new, to all who have not sent it themselves.

        While news keeps coming the pauses between batches grow, so that more copies meet on the way and are
        not sent; verdicts are given no more often than that anyway.
        """
        storm = now < self._flushed_at + 2 * self._pause_s
        self._pause_s = min(self._pause_s * 2, self._timing.judge_s) if storm else self._timing.flood_s
        self._flushed_at = now
        self.due = NEVER
        dirty, self._dirty = self._dirty, {}
        theirs, self._theirs = self._theirs, {}
        largest, self._largest_bytes = self._largest_bytes, 0
        everything = self._in_frames(list(dirty.values()), largest)
        sends = []
        for peer in links:
            known = theirs.get(peer)
            frames = everything
            if known:
                if len(known) == len(dirty):
                    continue
                unknown = filterfalse(known.__contains__, dirty)
                frames = self._in_frames(list(map(dirty.__getitem__, unknown)), largest)
            for frame in frames:
                sends.append(Send(peer, frame))
        return sends

    def _in_frames(self, rows: list[Row], largest: int) -> list[Rows]:
        """`rows` in frames; no envelope has more than `largest` bytes."""
        if len(rows) * (largest + ROW_OVERHEAD_BYTES) <= ROWS_BYTES:
            return [Rows(tuple(rows))] if rows else []
        return [Rows(part) for part in split_rows(rows)]

    def _pass_on(self, rows: list[Row], theirs: set[PeerId]) -> None:
        """Note that `rows` are to go to all linked peers but those that will turn out to have them.

        `theirs` is what the peer that sent them is known to have.
        """
        dirty, largest = self._dirty, self._largest_bytes
        if rows and not dirty:
            self.due = self._flushed_at + self._pause_s
        for row in rows:
            peer = row.id
            if peer in dirty:
                for known in self._theirs.values():
                    known.discard(peer)
            dirty[peer] = row
            theirs.add(peer)
            if len(row.sealed) > largest:
                largest = len(row.sealed)
        self._largest_bytes = largest

    # -- taking in

    def accept(self, rows: Collection[Row], source: PeerId, most_forged: int, now: float) -> Intake | None:
        """Take what is new and verifies; the rest of `rows` is left when more than `most_forged` did not.

        None when all of it is held already.
        """
        database, dirty = self.database, self._dirty
        held_of = database.records.get
        theirs = self._theirs.setdefault(source, set())
        if self._comparing_with is not None:
            self._see_comparison_through(now)
        intake: Intake | None = None
        fresh: list[Row] = []
        # One number for all who have used up nothing else, which are most.
        once = now + VERSION_S
        for row in rows:
            peer = row.id
            held = held_of(peer)
            # By far the most that come are copies: these must cost as little as can be.
            if held is not None and row.sealed == held.sealed:
                if peer in dirty:
                    theirs.add(peer)
                continue
            if intake is None:
                intake = Intake()
            used_up = database.admits(row, held, now)
            if used_up is None:
                continue
            try:
                record = self._open_row(row)
            except FeddError:
                self.rows_refused += 1
                intake.forged += 1
                if intake.forged > most_forged:
                    break
                continue
            if held is not None and record.epoch > held.epoch:
                used_up += EPOCH_S
            else:
                used_up = once if used_up == now else used_up + VERSION_S
            if peer == self._me:
                database.charge(peer, used_up)
                intake.own.append(record)
                continue
            intake.news += 1
            if database.take(record, held, used_up):
                intake.anew.append((record, held))
            if held is not None or record.neighbours or record.left:
                # A newcomer that lists nobody can be reached by nobody: its next version is for all.
                fresh.append(row)
        if intake is not None and intake.news:
            self._news_at = now
            self._pass_on(fresh, theirs)
        return intake

    # -- comparing

    def linked(self, peer: PeerId, now: float) -> None:
        """A link with `peer` stands: to be compared with, if it is not reachable otherwise."""
        self._waiting[peer] = (now, False)
        self.compare_due = min(self.compare_due, now)

    def doubt(self) -> None:
        """Nobody is heard: what was news meanwhile did not come, and no link that stood will bring it."""
        self._compared = False
        self._comparing_with = None
        self._compared_at = float("-inf")

    def unlinked(self, peer: PeerId) -> None:
        """The link is gone."""
        self._waiting.pop(peer, None)
        self._theirs.pop(peer, None)
        if peer == self._comparing_with:
            self._comparing_with = None
            self._compared_at = float("-inf")

    def compare(self, is_joined: Callable[[PeerId], bool], now: float) -> list[Send]:
        """Begin the comparisons that are due, one at a time.

        They are unnecessary with those who are joined with this node by others too, `is_joined`, once
        there has been one. Of the two ends of a new link the lower id begins.
        """
        self._see_comparison_through(now)
        sends: list[Send] = []
        for peer, (at, asked) in list(self._waiting.items()):
            if now < at:
                continue
            del self._waiting[peer]
            if self._compared and is_joined(peer):
                continue
            if now < self._compared_at + COMPARING_S:
                self._waiting[peer] = (self._compared_at + COMPARING_S, asked)
            elif not self._compared:
                sends += [Send(peer, versions) for versions in self._begin(peer, now)]
            elif self._me < peer or asked:
                sends.append(Send(peer, Digest(self.database.digest)))
        self.compare_due = min((at for at, _ in self._waiting.values()), default=NEVER)
        return sends

    def answer(
        self,
        peer: PeerId,
        message: Digest | Versions | Want,
        is_joined: Callable[[PeerId], bool],
        now: float,
    ) -> list[Message]:
        """What to say to a peer that compares its database with this one."""
        match message:
            case Digest(digest):
                return self._versions_for(peer, is_joined, now) if digest != self.database.digest else []
            case Versions():
                missing, wanted = self.database.compare(message)
                answers: list[Message] = [Rows(part) for part in split_rows(missing)]
                return [*answers, Want(wanted)] if wanted else answers
            case _:
                records = self.database.records
                known = (records[peer].row for peer in message.ids if peer in records)
                return [Rows(part) for part in split_rows(known)]

    def _versions_for(self, peer: PeerId, is_joined: Callable[[PeerId], bool], now: float) -> list[Message]:
        if now < self._compared_at + COMPARING_S:
            at, _ = self._waiting.setdefault(peer, (self._compared_at + COMPARING_S, True))
            self.compare_due = min(self.compare_due, at)
            return []
        newest_at = min(self._news_at + QUIET_S, self._compared_at + COMPARED_S)
        if now < newest_at and is_joined(peer):
            return []
        return list(self._begin(peer, now))

    def _see_comparison_through(self, now: float) -> None:
        if self._comparing_with is not None and now >= self._compared_at + COMPARING_S:
            self._comparing_with = None
            self._compared = True

    def _begin(self, peer: PeerId, now: float) -> Iterator[Versions]:
        self._comparing_with, self._compared_at = peer, now
        return split_versions(self.database.stamps())
