"""Records in and out: what a peer says is checked, merged and passed on, and databases are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fedd.api.errors import FeddError
from fedd.api.types import PeerId
from fedd.core.database import Database
from fedd.core.membership_types import PresenceTiming, Send
from fedd.core.presence_messages import Digest, Message, Rows, Versions, Want, split_rows, split_versions
from fedd.core.records import Record, Row


@dataclass(slots=True)
class Intake:
    """What became of rows: `news` are now held, each with what was held before; `own` claim to be ours.

    `forged` counts those that did not verify.
    """

    news: list[tuple[Record, Record | None]] = field(default_factory=list)
    own: list[Record] = field(default_factory=list)
    forged: int = 0


class Exchange:
    """The database and its traffic with the linked peers."""

    def __init__(self, me: PeerId, open_row: Callable[[Row], Record], timing: PresenceTiming) -> None:
        self._me = me
        self._open_row = open_row
        self._flood_s = timing.flood_s
        self.database = Database(me)
        # Records to flood, each with the peer that it came from.
        self._dirty: dict[PeerId, PeerId | None] = {}
        self._flushed_at = float("-inf")
        self.rows_refused = 0

    @property
    def due(self) -> float | None:
        """When records are to be passed on, None when there are none."""
        return self._flushed_at + self._flood_s if self._dirty else None

    def publish(self, record: Record, now: float) -> None:
        """Hold and pass on a new version of this node's own record."""
        self.database.merge(record, now)
        self._dirty[self._me] = None

    def forget(self, peers: Iterable[PeerId]) -> None:
        """Hold these records no more, nor pass them on."""
        for peer in peers:
            self._dirty.pop(peer, None)
            self.database.forget([peer])

    def accept(self, rows: Iterable[Row], source: PeerId, most_forged: int, now: float) -> Intake:
        """Take what is new and verifies; the rest of `rows` is left when more than `most_forged` did not."""
        intake = Intake()
        for row in rows:
            if not self.database.is_news(row) or not self.database.admits(row.id, now):
                continue
            try:
                record = self._open_row(row)
            except FeddError:
                self.rows_refused += 1
                intake.forged += 1
                if intake.forged > most_forged:
                    break
                continue
            self.database.charge(record.id, now)
            if record.id == self._me:
                intake.own.append(record)
            else:
                intake.news.append((record, self.database.records.get(record.id)))
                self.database.merge(record, now)
                self._dirty[record.id] = source
        return intake

    def answer(self, message: Digest | Versions | Want) -> list[Message]:
        """What to say to a peer that compares its database with this one."""
        answers: list[Message] = []
        match message:
            case Digest(digest):
                if digest != self.database.digest:
                    answers += split_versions(self.database.stamps())
            case Versions():
                missing, wanted = self.database.compare(message)
                answers += [Rows(part) for part in split_rows(missing)]
                if wanted:
                    answers.append(Want(wanted))
            case Want(ids):
                records = self.database.records
                known = [records[i].row for i in ids if i in records]
                answers += [Rows(part) for part in split_rows(known)]
        return answers

    def flood(self, links: Iterable[PeerId], now: float) -> list[Send]:
        """Pass on what is new, to all but those who sent it."""
        self._flushed_at = now
        dirty, self._dirty = self._dirty, {}
        records = self.database.records
        sends = []
        for peer in links:
            rows = [records[i].row for i, source in dirty.items() if source != peer]
            sends += [Send(peer, Rows(part)) for part in split_rows(rows)]
        return sends
